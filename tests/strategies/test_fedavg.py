"""FedAvg against Algorithm 1, written out in NumPy."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from fedemu.rng import stream
from fedemu.strategies._base import Strategy
from fedemu.strategies.fedavg import fedavg
from fedemu.types import Objective, Training, Vector
from tests.strategies.federation import Federation, LeastSquares


def one_round(strategy: Strategy, model: Vector, clients: Sequence[Objective]) -> Vector:
    """Train all clients from `model` and aggregate their answers in order; nothing is sent beside or remembered."""
    federation = Federation(lambda training: strategy, model, clients, FULL)
    after = federation.play(1)
    assert federation.state == {}
    assert federation.memories == [{}] * len(clients)
    return after


X = stream(0, "x").standard_normal((9, 3))
Y = stream(0, "y").standard_normal(9)
CLIENTS = [LeastSquares(X[:2], Y[:2]), LeastSquares(X[2:5], Y[2:5]), LeastSquares(X[5:], Y[5:])]
FULL = Training(epochs=4, batch_size=None, lr=0.1)


def numpy_model(share: slice, start: np.ndarray) -> np.ndarray:
    """Return a client's model after the four full-batch steps of FULL."""
    w, x, y = start, X[share], Y[share]
    for _ in range(4):
        w = w - 0.1 * x.T @ (x @ w - y) / len(y)
    return w


@pytest.mark.parametrize(("weighting", "weights"), [("examples", [2, 3, 4]), ("uniform", [1, 1, 1])])
def test_a_round_is_algorithm_1(weighting: str, weights: list[int]) -> None:
    """Three clients of 2, 3 and 4 examples, three parameters; the mean of their models, by examples or 1/K."""
    strategy = fedavg(FULL, weighting="examples" if weighting == "examples" else "uniform")
    start = np.array([1.0, 0.0, -1.0])
    models = [numpy_model(share, start) for share in (slice(0, 2), slice(2, 5), slice(5, 9))]
    expected = np.average(models, axis=0, weights=weights)
    np.testing.assert_allclose(one_round(strategy, torch.tensor(start).float(), CLIENTS).numpy(), expected, atol=1e-6)


def test_two_clients_by_hand() -> None:
    """Each has x = e_1, so that only w_1 moves: to 1 (target 10, lr 0.1) and to 2 (20); with 1 and 3 examples, 1.75."""
    e = np.array([[1.0, 0, 0]])
    clients = [LeastSquares(e, np.array([10.0])), LeastSquares(np.repeat(e, 3, 0), np.array([20.0] * 3))]
    once = Training(epochs=1, batch_size=None, lr=0.1)
    assert one_round(fedavg(once), torch.zeros(3), clients).tolist() == pytest.approx([1.75, 0, 0], abs=1e-6)
    assert one_round(fedavg(once, weighting="uniform"), torch.zeros(3), clients).tolist() == pytest.approx([1.5, 0, 0])


def test_one_full_step_everywhere_is_a_gradient_step_on_the_union() -> None:
    """FedSGD: E = 1, B = infinity, C = 1, to 1e-6."""
    start = np.array([1.0, 0.0, -1.0])
    expected = start - 0.1 * X.T @ (X @ start - Y) / 9
    model = one_round(fedavg(Training(epochs=1, batch_size=None, lr=0.1)), torch.tensor(start).float(), CLIENTS)
    np.testing.assert_allclose(model.numpy(), expected, atol=1e-6)


def test_the_order_of_the_answers_does_not_matter() -> None:
    """The float64 sum rounds to the same float32 vector."""
    strategy, start = fedavg(FULL), torch.ones(3)
    assert torch.equal(one_round(strategy, start, CLIENTS), one_round(strategy, start, CLIENTS[::-1]))


def test_identical_clients_and_one_client_give_the_clients_model() -> None:
    """The mean of equal models is that model."""
    strategy, start = fedavg(FULL), torch.ones(3)
    alone = start + strategy.train(CLIENTS[0], start, {}, {}, stream(0, 0))[0].delta
    assert torch.equal(one_round(strategy, start, CLIENTS[:1]), alone)
    assert torch.equal(one_round(strategy, start, CLIENTS[:1] * 4), alone)


def test_clients_without_examples_leave_the_model_alone() -> None:
    """Nothing to average by: the model stays, as a new vector; beside others they count nothing."""
    empty, start = LeastSquares(np.empty((0, 3)), np.empty(0)), torch.ones(3)
    after = one_round(fedavg(FULL), start, [empty, empty])
    assert torch.equal(after, start)
    assert after is not start
    assert torch.equal(one_round(fedavg(FULL), start, [empty, *CLIENTS]), one_round(fedavg(FULL), start, CLIENTS))


def test_the_servers_model_is_not_written_to() -> None:
    """Neither by training nor by aggregating."""
    start = torch.ones(3)
    one_round(fedavg(FULL), start, CLIENTS)
    assert start.tolist() == [1, 1, 1]
