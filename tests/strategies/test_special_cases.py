"""Where one algorithm is another one, or something that can be done by hand."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch

from fedemu.rng import stream
from fedemu.strategies._base import Strategy
from fedemu.strategies.fedasync import fedasync
from fedemu.strategies.fedavg import fedavg
from fedemu.strategies.fedavgm import fedavgm
from fedemu.strategies.fedbuff import fedbuff
from fedemu.strategies.feddyn import feddyn
from fedemu.strategies.fednova import fednova
from fedemu.strategies.fedprox import fedprox
from fedemu.strategies.fedsgd import fedsgd
from fedemu.strategies.scaffold import scaffold
from fedemu.types import BatchLoss, Indices, Training, Vector
from tests.strategies.federation import Federation, LeastSquares

X = stream(0, "x").standard_normal((9, 6))
Y = stream(0, "y").standard_normal(9)
UNEQUAL = [LeastSquares(X[share], Y[share]) for share in (slice(0, 2), slice(2, 5), slice(5, 9))]
BATCHES = Training(epochs=2, batch_size=2, lr=0.1)
MOMENTUM = Training(epochs=2, batch_size=2, lr=0.1, momentum=0.9)
FULL = Training(epochs=4, batch_size=None, lr=0.1)
ONCE = Training(epochs=1, batch_size=None, lr=0.1)
START = torch.tensor([1.0, 0.0, -1.0, 0.5, 2.0, -3.0])


@pytest.mark.parametrize(
    ("special", "general", "clients", "training"),
    [
        pytest.param(partial(fedprox, mu=0.0), fedavg, UNEQUAL, MOMENTUM, id="fedprox-without-mu"),
        pytest.param(partial(fedavgm, momentum=0.0), fedavg, UNEQUAL, MOMENTUM, id="fedopt-by-sgd-of-1"),
        pytest.param(
            partial(fedavgm, momentum=0.0, server_lr=0.3),
            partial(fedavg, server_lr=0.3),
            UNEQUAL,
            BATCHES,
            id="slow-sgd",
        ),
        pytest.param(fedbuff, partial(fedavg, weighting="uniform"), UNEQUAL, BATCHES, id="fedbuff-of-fresh-updates"),
        pytest.param(fedsgd, fedavg, UNEQUAL, ONCE, id="fedsgd"),
        pytest.param(scaffold, fedavg, UNEQUAL[2:], BATCHES, id="scaffold-of-one-client"),
        pytest.param(
            partial(fedasync, alpha=1.0, staleness="constant"),
            fedavg,
            UNEQUAL[2:],
            BATCHES,
            id="fedasync-of-one-client",
        ),
    ],
)
def test_a_special_case_is_bit_for_bit(
    special: Callable[[Training], Strategy], general: Callable[[Training], Strategy], clients: list, training: Training
) -> None:
    """Four rounds, state and memory included: the same numbers are added in the same order."""
    ours, theirs = Federation(special, START, clients, training), Federation(general, START, clients, training)
    for _ in range(4):
        assert torch.equal(ours.play(1), theirs.play(1))
    assert not torch.equal(ours.model, START)


@pytest.mark.parametrize("training", [FULL, Training(epochs=4, batch_size=None, lr=0.1, momentum=0.9)])
def test_fednova_of_equal_steps_is_fedavg(training: Training) -> None:
    """tau_eff / |a_i|_1 is 1 for everybody, whatever momentum makes of |a_i|_1; up to the rounding of the quotient."""
    ours, theirs = (Federation(kind, START, UNEQUAL, training).play(4) for kind in (fednova, fedavg))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


class Slope:
    """A loss with the same gradient everywhere."""

    num_examples = 4

    def __init__(self, slope: list[float]) -> None:
        self.slope = torch.tensor(slope)

    def gradient(self, weights: Vector, batch: Indices) -> tuple[Vector, BatchLoss]:
        return self.slope.clone(), BatchLoss(0.0, 0.0)


def test_scaffolds_control_variates_are_the_gradients_where_these_are_constant() -> None:
    """Powers of two all over, so exact: c_i+ is grad F_i from the first round on, and c is their mean.

    K counts batches: 2 epochs of 4 examples by 2 are 4 steps. A wrong K, a c_i of other than 0 or a missing c shows.
    """
    slopes = [[1.0, -2.0, 0.5], [3.0, 4.0, 0.25]]
    training = Training(epochs=2, batch_size=2, lr=0.5)
    federation = Federation(scaffold, torch.ones(3), [Slope(slope) for slope in slopes], training)
    for step in range(1, 4):
        federation.play(1)
        assert [memory["c"].tolist() for memory in federation.memories] == slopes
        assert federation.state["c"].tolist() == [2, 1, 0.375]
        # 4 steps of 0.5 against the mean slope, each round, by either client
        assert federation.model.tolist() == [1 - 2 * step * slope for slope in (2, 1, 0.375)]


def test_scaffold_counts_clients_that_were_not_asked() -> None:
    """One of two: c moves by (1 / N) dc = half of the slope, while the model takes the whole delta of the cohort."""
    clients = [Slope([4.0]), Slope([100.0])]
    federation = Federation(scaffold, torch.zeros(1), clients, Training(epochs=1, batch_size=4, lr=0.5))
    assert federation.play(1, lambda number: [0]).tolist() == [-2]
    assert federation.state["c"].tolist() == [2]
    assert federation.memories[1] == {}


def test_feddyn_counts_clients_that_were_not_asked() -> None:
    """One of two, alpha 1: w_1 = -2, so h = -(1 / 2) (-2) = 1 and x = -2 - 1; g_1 = 2."""
    clients = [Slope([4.0]), Slope([100.0])]
    training = Training(epochs=1, batch_size=4, lr=0.5)
    federation = Federation(partial(feddyn, alpha=1.0), torch.zeros(1), clients, training)
    assert federation.play(1, lambda number: [0]).tolist() == [-3]
    assert federation.state["h"].tolist() == [1]
    assert [memory.get("gradient", torch.zeros(0)).tolist() for memory in federation.memories] == [[2], []]


def test_feddyn_of_one_client_has_its_gradient_on_the_server_and_reaches_its_optimum() -> None:
    """With m = 1, h and g_1 add up the same; at rest w_1 = x, which h = 0 = grad L_1 alone allows."""
    client = LeastSquares(X[:9, :3], Y)
    federation = Federation(partial(feddyn, alpha=1.0), torch.ones(3), [client], FULL)
    for _ in range(200):
        federation.play(1)
        torch.testing.assert_close(federation.state["h"], federation.memories[0]["gradient"], rtol=0, atol=1e-6)
    best = np.linalg.lstsq(X[:9, :3], Y, rcond=None)[0]
    np.testing.assert_allclose(federation.model.numpy(), best, atol=1e-5)


def test_fedasync_takes_the_fresh_part_of_a_model_by_hand() -> None:
    """Slopes 4 and 8, lr 1/2, one step, from 0: models -2 and -4; alpha 1/2 makes -1 and -2, mean -1.5.

    The next round's second client still has the first model, staleness 1: its -4 is mixed by 1/2 x 2^-1 = 1/4. The
    first one's model is -1.5 - 2 = -3.5: moves of (-3.5 + 1.5) / 2 = -1 and (-4 + 1.5) / 4 = -0.625, mean -0.8125.
    """
    build = partial(fedasync, alpha=0.5, a=1.0)
    clients = [Slope([4.0]), Slope([8.0])]
    federation = Federation(build, torch.zeros(1), clients, Training(epochs=1, batch_size=4, lr=0.5), lags=[0, 1])
    assert federation.play(1).tolist() == [-1.5]
    assert federation.play(1).tolist() == [-1.5 - 0.8125]


def test_fedasyncs_share_depends_on_the_update_alone() -> None:
    """Memoryless: after a very stale update a fresh one still counts by alpha, not by what is left of it."""
    slope, training = Slope([2.0]), Training(epochs=1, batch_size=4, lr=0.5)
    federation = Federation(partial(fedasync, alpha=0.5, staleness="constant"), torch.zeros(1), [slope], training)
    assert [federation.play(1).item() for _ in range(3)] == [-0.5, -1.0, -1.5]
    stale = Federation(partial(fedasync, alpha=0.5, a=1.0), torch.zeros(1), [slope], training, lags=[3])
    stale.play(4)
    stale.lags = [0]
    before = stale.model.item()
    assert stale.play(1).item() == pytest.approx(before - 0.5)


@pytest.mark.parametrize(
    ("build", "training", "message"),
    [
        (fedsgd, Training(epochs=2), "2 epochs; fedsgd takes one step, so expected 1"),
        (fedsgd, Training(momentum=0.9), "local momentum 0.9; fedsgd takes one step, so expected 0"),
        (scaffold, Training(momentum=0.9), "local momentum 0.9; scaffold's control variates are for 0"),
        (partial(fednova, mu=0.1), Training(momentum=0.9), "mu 0.1 and local momentum 0.9; fednova is defined for one"),
        (partial(fednova, mu=2.0), Training(lr=0.5), "lr 0.5 times mu 2.0 is 1; expected less than 1"),
    ],
)
def test_what_an_algorithm_is_not_defined_for_is_refused(
    build: Callable[[Training], Strategy], training: Training, message: str
) -> None:
    """With what was found and what was expected."""
    with pytest.raises(ValueError, match=message):
        build(training)
