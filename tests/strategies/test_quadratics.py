"""Heterogeneous quadratics: where averaging goes wrong, and who finds the optimum all the same."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch

from fedemu.rng import stream
from fedemu.strategies._base import Strategy
from fedemu.strategies.fedavg import fedavg
from fedemu.strategies.feddyn import feddyn
from fedemu.strategies.fednova import fednova
from fedemu.strategies.scaffold import scaffold
from fedemu.types import Training
from tests.strategies.federation import Federation
from tests.strategies.quadratics import Quadratic, fixed_point, optimum

SIZE = 3


def different(count: int, examples: list[int] | None = None) -> list[Quadratic]:
    """Return clients whose curvatures, eigenvalues 0.2 to 2 in directions of their own, and optima differ."""
    clients = []
    for i in range(count):
        rng = stream(0, "quadratic", i)
        axes, _ = np.linalg.qr(rng.standard_normal((SIZE, SIZE)))
        curvature = axes @ np.diag(rng.uniform(0.2, 2.0, SIZE)) @ axes.T
        clients.append(Quadratic(curvature, 3 * rng.standard_normal(SIZE), examples[i] if examples else 1))
    return clients


def federation(
    build: Callable[[Training], Strategy], clients: list[Quadratic], steps: list[int], lr: float
) -> Federation:
    """Return clients that take so many full steps each, from zero, in double precision."""
    trainings = [Training(epochs=tau, batch_size=None, lr=lr) for tau in steps]
    return Federation(build, torch.zeros(SIZE, dtype=torch.float64), clients, trainings)


EQUAL, UNEQUAL = [10, 10, 10, 10], [1, 5, 10, 20]
UNIFORM = [1 / 4] * 4
LR = 0.1


@pytest.mark.parametrize(("steps", "distance"), [(EQUAL, 0.23), (UNEQUAL, 1.5)], ids=["equal", "unequal"])
def test_fedavg_stands_still_away_from_the_optimum(steps: list[int], distance: float) -> None:
    """Its fixed point solves sum(M_i) w = sum(M_i b_i): 0.231 and 1.536 from the optimum, and reached to 1e-6."""
    clients = different(4)
    stands = fixed_point(clients, UNIFORM, steps, LR)
    assert np.linalg.norm(stands - optimum(clients, UNIFORM)) > distance
    model = federation(fedavg, clients, steps, LR).play(100)
    np.testing.assert_allclose(model.numpy(), stands, atol=1e-6)


@pytest.mark.parametrize("steps", [EQUAL, UNEQUAL], ids=["equal", "unequal"])
@pytest.mark.parametrize("asked", [4, 2], ids=["everybody", "half"])
@pytest.mark.parametrize("build", [scaffold, partial(feddyn, alpha=1.0)], ids=["scaffold", "feddyn"])
def test_drift_is_corrected_to_the_optimum(build: Callable[[Training], Strategy], asked: int, steps: list[int]) -> None:
    """Where all clients stand still, their corrected gradients are zero, so that the mean gradient is: to 1e-3."""
    clients = different(4)
    model = federation(build, clients, steps, LR).play(
        200, lambda number: sorted(stream(0, "cohort", number).choice(4, asked, replace=False))
    )
    np.testing.assert_allclose(model.numpy(), optimum(clients, UNIFORM), atol=1e-3)


EXAMPLES = [4, 3, 2, 1]
WEIGHTS = [0.4, 0.3, 0.2, 0.1]


@pytest.mark.parametrize("lr", [1e-2, 1e-3, 1e-4])
def test_fednova_takes_out_what_unequal_steps_put_in(lr: float) -> None:
    """FedAvg minimises sum(p_i tau_i F_i) as lr becomes small, FedNova sum(p_i F_i), up to lr times a constant.

    Each ends at its fixed point: FedAvg 1.7 from the optimum, FedNova 3.6 lr, which is below 1e-3 for an lr of 1e-4. A
    server learning rate of 0.01 / lr makes rounds as long for each lr, and moves no fixed point.
    """
    clients, steps = different(4, EXAMPLES), UNEQUAL
    best = optimum(clients, WEIGHTS)
    shares = {fedavg: WEIGHTS, fednova: [p / tau for p, tau in zip(WEIGHTS, steps, strict=True)]}
    distance = {}
    for kind, weights in shares.items():
        model = federation(partial(kind, server_lr=0.01 / lr), clients, steps, lr).play(300).numpy()
        np.testing.assert_allclose(model, fixed_point(clients, weights, steps, lr), atol=1e-6)
        distance[kind] = np.linalg.norm(model - best)
    assert distance[fedavg] > 1.7
    assert distance[fednova] < 4 * lr
