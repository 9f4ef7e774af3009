"""Delay has the law, mean and deviation that it is asked for (Kolmogorov-Smirnov, n = 20,000, alpha = 1e-4)."""

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from fedemu.links._base import Packet, Stage
from fedemu.links.delay import Distribution, delay

MEAN, DEVIATION, N = 0.2, 0.05, 20_000
SIGMA = math.sqrt(math.log(1 + (DEVIATION / MEAN) ** 2))
LAWS: dict[Distribution, Any] = {
    "normal": stats.norm(MEAN, DEVIATION),
    "uniform": stats.uniform(MEAN - math.sqrt(3) * DEVIATION, 2 * math.sqrt(3) * DEVIATION),
    "lognormal": stats.lognorm(SIGMA, scale=MEAN / math.sqrt(1 + (DEVIATION / MEAN) ** 2)),
}


def draws(stage: Stage, n: int = N) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    rng = np.random.default_rng(1)
    packets = (stage(Packet(1, 10.0), lambda: rng) for _ in range(n))
    return np.array([packet.at - 10 for packet in packets if packet is not None])


@pytest.mark.parametrize("distribution", LAWS)
def test_delays_follow_their_law(distribution: Distribution) -> None:
    """200 +- 50 ms, against scipy's law of that mean and deviation."""
    law = LAWS[distribution]
    assert (law.mean(), law.std()) == pytest.approx((MEAN, DEVIATION))
    sample = draws(delay(delay=MEAN, jitter=DEVIATION, distribution=distribution))
    assert stats.kstest(sample, law.cdf).pvalue > 1e-4
    assert sample.mean() == pytest.approx(MEAN, abs=4 * DEVIATION / math.sqrt(N))


def test_the_test_can_tell_one_law_from_another() -> None:
    """The same sample against the other two laws: KS rejects them, so it would see a wrong one."""
    sample = draws(delay(delay=MEAN, jitter=DEVIATION))
    assert stats.kstest(sample, LAWS["normal"].cdf).pvalue < 1e-4
    assert stats.kstest(sample, LAWS["uniform"].cdf).pvalue < 1e-4


def test_jitter_is_lognormal_unless_told_otherwise() -> None:
    """200 +- 150 ms needs a law without mass below zero."""
    sigma = math.sqrt(math.log(1 + 0.75**2))
    law = stats.lognorm(sigma, scale=MEAN / 1.25)
    assert stats.kstest(draws(delay(delay=MEAN, jitter=0.15)), law.cdf).pvalue > 1e-4


def test_without_jitter_the_delay_is_exact_and_nothing_is_drawn() -> None:
    """40 ms after 1 s is 1.04 s; the stream stands where it stood."""
    rng = np.random.default_rng(1)
    before = rng.bit_generator.state
    assert delay(delay=0.04)(Packet(5, 1.0, "response", 2), lambda: rng) == Packet(5, 1.04, "response", 2)
    assert rng.bit_generator.state == before


def test_laws_are_coupled() -> None:
    """One standard normal each: who is slow under one law is slow under the others, so the ranks agree."""
    orders = [np.argsort(draws(delay(delay=0.2, jitter=0.05, distribution=d), n=200)) for d in LAWS]
    assert np.array_equal(orders[0], orders[1])
    assert np.array_equal(orders[0], orders[2])


@pytest.mark.parametrize(
    ("distribution", "jitter"), [("normal", 0.15), ("normal", 0.051), ("uniform", 0.1156), ("uniform", 0.15)]
)
def test_mass_below_zero_is_a_fault_that_suggests_lognormal(distribution: Distribution, jitter: float) -> None:
    """200 ms over 4 = 50 ms for the normal, over sqrt(3) = 115.47 ms for the uniform."""
    with pytest.raises(ValueError, match=r"reaches below zero; .* distribution: lognormal"):
        delay(delay=0.2, jitter=jitter, distribution=distribution)


def test_the_largest_jitters_allowed_are_allowed() -> None:
    """The bounds themselves: 50 ms and 115.47 ms; no draw comes before its packet left."""
    largest: dict[Distribution, float] = {"normal": 0.05, "uniform": 0.11547}
    for distribution, jitter in largest.items():
        assert draws(delay(delay=0.2, jitter=jitter, distribution=distribution)).min() >= 0


def test_jitter_without_delay_is_a_fault() -> None:
    """Mean 0 with deviation 10 ms has no law above zero."""
    with pytest.raises(ValueError, match=r"jitter 0.01s without delay"):
        delay(delay=0.0, jitter=0.01)
