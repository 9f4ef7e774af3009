"""Every strategy, both halves, against NumPy in float64, written from the papers."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from fedemu.rng import stream
from fedemu.types import Training
from tests.strategies.federation import Federation, LeastSquares, builder, kinds

Array = np.ndarray
Reference = Callable[[int, list[Array], dict[str, Any]], Array]
"""From the round, all models so far and what is remembered, which it may change, to the next model."""

N = [2, 3, 4]
"""Examples of the clients."""
EPOCHS = [1, 3, 2]
STEPS = [1, 6, 4]
"""E ceil(n / B) with B = 2."""
LR = 0.1
P = np.array(N) / 9
X = stream(0, "x").standard_normal((9, 5))
Y = stream(0, "y").standard_normal(9)
SHARES = [slice(0, 2), slice(2, 5), slice(5, 9)]
START = np.array([1.0, 0.0, -1.0, 0.5, 2.0])
LAGS = [0, 1, 3]
CLIENTS = range(3)


def local(
    i: int, now: int, start: Array, correct: Callable[[Array, Array], Array] = lambda g, w: g, momentum: float = 0.0
) -> Array:
    """Return client i's model after mini-batch SGD from `start`, in the order that its stream gives."""
    x, y, rng = X[SHARES[i]], Y[SHARES[i]], stream(0, i, now)
    w, v = start, np.zeros(5)
    for _ in range(EPOCHS[i]):
        order = rng.permutation(len(y))
        for batch in (order[first : first + 2] for first in range(0, len(y), 2)):
            g = x[batch].T @ (x[batch] @ w - y[batch]) / len(batch)
            v = momentum * v + correct(g, w)
            w = w - LR * v
    return w


def base(now: int, models: list[Array], i: int) -> Array:
    """Return the model that client i has in round `now`."""
    return models[max(0, now - LAGS[i])]


def mean_of_models(now: int, models: list[Array], s: dict[str, Any], *, p: Array, server_lr: float) -> Array:
    """FedAvg, Algorithm 1; with Reddi's SGD on the server."""
    w = models[-1]
    return (1 - server_lr) * w + server_lr * sum(p[i] * local(i, now, w) for i in CLIENTS)


def mean_with_momentum(now: int, models: list[Array], s: dict[str, Any]) -> Array:
    """FedAvg whose clients train with momentum 0.9."""
    return sum(P[i] * local(i, now, models[-1], momentum=0.9) for i in CLIENTS)


def gradient_step(now: int, models: list[Array], s: dict[str, Any]) -> Array:
    """FedSGD: a step with the gradient on the union of all examples."""
    return models[-1] - LR * X.T @ (X @ models[-1] - Y) / 9


def proximal(now: int, models: list[Array], s: dict[str, Any]) -> Array:
    """FedProx, Algorithm 2, mu = 0.5."""
    w = models[-1]
    return sum(P[i] * local(i, now, w, lambda g, y: g + 0.5 * (y - w)) for i in CLIENTS)


def controlled(now: int, models: list[Array], s: dict[str, Any]) -> Array:
    """SCAFFOLD, Algorithm 1, option II, eta_g = 0.7."""
    x, c = models[-1], s.setdefault("c", np.zeros(5))
    own = s.setdefault("memories", {"c": [np.zeros(5)] * 3})["c"]
    y = [local(i, now, x, lambda g, w, c_i=own[i]: g - c_i + c) for i in CLIENTS]
    plus = [own[i] - c + (x - y[i]) / (STEPS[i] * LR) for i in CLIENTS]
    s["c"] = c + sum(plus[i] - own[i] for i in CLIENTS) / 3
    s["memories"] = {"c": plus}
    return x + 0.7 * np.mean([y_i - x for y_i in y], axis=0)


def normalised(now: int, models: list[Array], s: dict[str, Any], *, momentum: float, mu: float) -> Array:
    """FedNova, section 4: a_i written out as a vector of the coefficients of the tau_i gradients; server_lr = 0.8."""
    w = models[-1]
    delta = [local(i, now, w, lambda g, y: g + mu * (y - w), momentum) - w for i in CLIENTS]
    if mu:
        a = [(1 - LR * mu) ** np.arange(tau - 1, -1, -1) for tau in STEPS]
    else:
        a = [(1 - momentum ** np.arange(tau, 0, -1)) / (1 - momentum) for tau in STEPS]
    norm = [np.abs(a_i).sum() for a_i in a]
    reach = P @ STEPS if mu else P @ norm
    return w + 0.8 * reach * sum(P[i] * delta[i] / norm[i] for i in CLIENTS)


def pseudo_gradient(now: int, models: list[Array]) -> Array:
    """Return the mean delta, weighted by examples."""
    return sum(P[i] * (local(i, now, models[-1]) - models[-1]) for i in CLIENTS)


def heavy_ball(now: int, models: list[Array], s: dict[str, Any]) -> Array:
    """FedAvgM with beta = 0.9, lr = 0.5."""
    s["velocity"] = 0.9 * s.get("velocity", 0) + pseudo_gradient(now, models)
    return models[-1] + 0.5 * s["velocity"]


def adaptive(now: int, models: list[Array], s: dict[str, Any], *, name: str, beta1: float) -> Array:
    """FedOpt, Algorithm 2, lr = 0.05, beta2 = 0.95, tau = 0.01, from v = 0."""
    delta, v = pseudo_gradient(now, models), s.get("v", np.zeros(5))
    s["m"] = beta1 * s.get("m", 0) + (1 - beta1) * delta
    s["v"] = {
        "adagrad": v + delta**2,
        "adam": 0.95 * v + 0.05 * delta**2,
        "yogi": v - 0.05 * delta**2 * np.sign(v - delta**2),
    }[name]
    return models[-1] + 0.05 * s["m"] / (np.sqrt(s["v"]) + 0.01)


FACTORS = {
    "constant": lambda lag: 1.0,
    "polynomial": lambda lag: (lag + 1) ** -0.7,
    "hinge": lambda lag: 1.0 if lag <= 1 else 1 / (3 * (lag - 1) + 1),
}


def mixed(now: int, models: list[Array], s: dict[str, Any], *, staleness: str) -> Array:
    """FedAsync, Algorithm 1, alpha = 0.6, rho = 0.3; the mean of the three mixtures' moves."""
    x, moves = models[-1], []
    for i in CLIENTS:
        old = base(now, models, i)
        new = local(i, now, old, lambda g, w, old=old: g + 0.3 * (w - old))
        alpha = 0.6 * FACTORS[staleness](min(now, LAGS[i]))
        moves.append((1 - alpha) * x + alpha * new - x)
    return x + np.mean(moves, axis=0)


def buffered(now: int, models: list[Array], s: dict[str, Any], *, momentum: float) -> Array:
    """FedBuff, Algorithm 1, eta_g = 0.7, a = 0.5."""
    olds = [base(now, models, i) for i in CLIENTS]
    scaled = [(local(i, now, olds[i]) - olds[i]) / np.sqrt(1 + min(now, LAGS[i])) for i in CLIENTS]
    s["v"] = momentum * s.get("v", 0) + sum(scaled) / 3
    return models[-1] + 0.7 * s["v"]


def dynamic(now: int, models: list[Array], s: dict[str, Any]) -> Array:
    """FedDyn, Algorithm 1, alpha = 0.2."""
    x, past = models[-1], s.setdefault("memories", {"gradient": [np.zeros(5)] * 3})["gradient"]
    w = [local(i, now, x, lambda g, y, g_i=past[i]: g - g_i + 0.2 * (y - x)) for i in CLIENTS]
    s["memories"] = {"gradient": [past[i] - 0.2 * (w[i] - x) for i in CLIENTS]}
    s["h"] = s.get("h", 0) - 0.2 / 3 * sum(w_i - x for w_i in w)
    return np.mean(w, axis=0) - s["h"] / 0.2


class Case(NamedTuple):
    """A strategy and what it should be."""

    kind: str
    params: Mapping[str, Any]
    reference: Reference
    momentum: float = 0.0
    lags: list[int] | None = None


OPT = {"server_lr": 0.05, "tau": 0.01}
CASES = [
    Case("fedavg", {}, partial(mean_of_models, p=P, server_lr=1.0)),
    Case(
        "fedavg", {"weighting": "uniform", "server_lr": 0.3}, partial(mean_of_models, p=np.ones(3) / 3, server_lr=0.3)
    ),
    Case("fedavg", {}, mean_with_momentum, momentum=0.9),
    Case("fedprox", {"mu": 0.5}, proximal),
    Case("scaffold", {"server_lr": 0.7}, controlled),
    Case("fednova", {"server_lr": 0.8}, partial(normalised, momentum=0.0, mu=0.0)),
    Case("fednova", {"server_lr": 0.8}, partial(normalised, momentum=0.9, mu=0.0), momentum=0.9),
    Case("fednova", {"server_lr": 0.8, "mu": 0.5}, partial(normalised, momentum=0.0, mu=0.5)),
    Case("fedavgm", {"server_lr": 0.5}, heavy_ball),
    Case("fedadagrad", OPT, partial(adaptive, name="adagrad", beta1=0.0)),
    Case("fedadagrad", OPT | {"beta1": 0.8}, partial(adaptive, name="adagrad", beta1=0.8)),
    Case("fedadam", OPT | {"beta2": 0.95}, partial(adaptive, name="adam", beta1=0.9)),
    Case("fedyogi", OPT | {"beta2": 0.95}, partial(adaptive, name="yogi", beta1=0.9)),
    Case(
        "fedasync", {"alpha": 0.6, "rho": 0.3, "staleness": "constant"}, partial(mixed, staleness="constant"), lags=LAGS
    ),
    Case("fedasync", {"alpha": 0.6, "rho": 0.3, "a": 0.7}, partial(mixed, staleness="polynomial"), lags=LAGS),
    Case(
        "fedasync",
        {"alpha": 0.6, "rho": 0.3, "staleness": "hinge", "a": 3.0, "b": 1.0},
        partial(mixed, staleness="hinge"),
        lags=LAGS,
    ),
    Case("fedbuff", {"server_lr": 0.7}, partial(buffered, momentum=0.0), lags=LAGS),
    Case("fedbuff", {"server_lr": 0.7, "momentum": 0.9}, partial(buffered, momentum=0.9), lags=LAGS),
    Case("feddyn", {"alpha": 0.2}, dynamic),
]


def federation(case: Case, trainings: list[Training]) -> Federation:
    """Return the three clients under the case's strategy."""
    clients = [LeastSquares(X[share], Y[share]) for share in SHARES]
    return Federation(
        partial(builder(case.kind), **case.params), torch.tensor(START).float(), clients, trainings, case.lags
    )


@pytest.mark.parametrize(
    "case", CASES, ids=lambda case: "-".join(map(str, [case.kind, *case.params.values(), f"momentum{case.momentum}"]))
)
def test_four_rounds_are_the_papers(case: Case) -> None:
    """Clients of 2, 3 and 4 examples and 1, 6 and 4 steps; models, states and memories to 1e-6, after every round."""
    ours = federation(case, [Training(epochs=e, batch_size=2, lr=LR, momentum=case.momentum) for e in EPOCHS])
    models, s = [START], {}
    for now in range(4):
        models.append(case.reference(now, models, s))
        model = ours.play(1)
        np.testing.assert_allclose(model.numpy(), models[-1], atol=1e-6, rtol=0)
        for name in ours.state.keys() & s.keys():
            np.testing.assert_allclose(ours.state[name].numpy(), s[name], atol=1e-6, rtol=0)
        for name, expected in s.get("memories", {}).items():
            np.testing.assert_allclose([m[name].numpy() for m in ours.memories], expected, atol=1e-6, rtol=0)
    assert np.abs(models[-1] - START).max() > 0.05


def test_fedsgd_is_gradient_descent_on_the_union_of_all_examples() -> None:
    """Three clients of 2, 3 and 4 examples, four rounds; the batch size that others read is not."""
    ours = federation(Case("fedsgd", {}, gradient_step), [Training(epochs=1, batch_size=2, lr=LR)] * 3)
    models = [START]
    for now in range(4):
        models.append(gradient_step(now, models, {}))
        np.testing.assert_allclose(ours.play(1).numpy(), models[-1], atol=1e-6, rtol=0)


def test_every_kind_has_an_oracle() -> None:
    """So that a new file without one is noticed."""
    assert set(kinds()) == {case.kind for case in CASES} | {"fedsgd"}
