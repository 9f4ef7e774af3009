"""Reset cuts requests as often as it should, anywhere, and coupled."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from fedemu.links._base import Packet
from fedemu.links.reset import reset

N = 20_000


def cuts(probability: float, packet: Packet, seed: int = 1) -> NDArray[np.float64]:
    """The share after which each of N packets breaks off; nan for those that do not."""
    rng, stage = np.random.default_rng(seed), reset(probability=probability)
    packets = (stage(packet, lambda: rng) for _ in range(N))
    return np.array([np.nan if after is None or after.cut is None else after.cut for after in packets])


@pytest.mark.parametrize("probability", [0.0, 0.005, 0.3, 1.0])
@pytest.mark.parametrize("attempt", [1, 3])
def test_requests_are_reset_as_often_as_asked_at_every_attempt(probability: float, attempt: int) -> None:
    """Exact binomial test at alpha 1e-4; 0 never and 1 always."""
    reset_ones = int(np.isfinite(cuts(probability, Packet(1, 0.0, "request", attempt))).sum())
    assert stats.binomtest(reset_ones, N, probability).pvalue > 1e-4


def test_a_reset_may_happen_anywhere() -> None:
    """A uniform share of the bytes (Kolmogorov-Smirnov at alpha 1e-4)."""
    assert stats.kstest(cuts(1.0, Packet(1, 0.0, "request")), "uniform").pvalue > 1e-4


def test_what_is_reset_at_1_percent_is_reset_at_5_percent_after_the_same_share() -> None:
    """Two draws a request, whether it is reset or not: 200 and 1000 expected, the first among the second."""
    few, many = (cuts(p, Packet(1, 0.0, "request"), seed=3) for p in (0.01, 0.05))
    hit = np.isfinite(few)
    assert 100 < hit.sum() < np.isfinite(many).sum()
    assert np.array_equal(few[hit], many[hit])


@pytest.mark.parametrize("role", ["response", "control"])
def test_answers_and_control_messages_are_not_reset(role: str) -> None:
    """They are too short to break off in the middle."""
    packet = Packet(1, 2.0, role)  # type: ignore[arg-type]
    assert reset(probability=1.0)(packet, lambda: np.random.default_rng(1)) == packet
