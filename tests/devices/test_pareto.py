"""Pareto devices follow their law."""

import math

import numpy as np
import pytest
from scipy import stats

from fedemu.devices._base import Work
from fedemu.devices.pareto import pareto


def draws(per_example: float, shape: float, n: int = 20_000) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    rng, device = np.random.default_rng(11), pareto(per_example=per_example, shape=shape)
    return np.array([device.training_time(Work(100, 2, lambda: 1e6), rng) for _ in range(n)])


def test_times_are_pareto_with_the_median_asked_for() -> None:
    """100 examples, 2 epochs, 5 ms: median 1 s = scale 2^(1/3); KS at n = 20,000 and alpha = 1e-4 sees 10 % off."""
    sample = draws(0.005, 3.0)
    assert stats.kstest(sample, stats.pareto(3.0, scale=2 ** (-1 / 3)).cdf).pvalue > 1e-4
    assert stats.kstest(sample, stats.pareto(3.3, scale=2 ** (-1 / 3.3)).cdf).pvalue < 1e-4
    assert float((sample < 1).mean()) == pytest.approx(0.5, abs=4 * math.sqrt(0.25 / 20_000))


def test_a_scale_in_place_of_the_median_fails_the_same_check() -> None:
    """What a Pareto draw times `per_example` would be: 26 % too slow with shape 3."""
    wrong = draws(0.005, 3.0) * 2 ** (1 / 3)
    assert stats.kstest(wrong, stats.pareto(3.0, scale=2 ** (-1 / 3)).cdf).pvalue < 1e-4


def test_runs_that_differ_in_shape_are_coupled() -> None:
    """log t = log median - log(2 (1 - u)) / shape with the same u."""
    light, heavy = np.log(draws(0.005, 4.0, 100)), np.log(draws(0.005, 2.0, 100))
    assert heavy == pytest.approx(2 * light)


def test_the_house_is_told_how_to_key_the_stream() -> None:
    """As for the lognormal."""
    assert pareto(per_example=1.0, shape=2.0).draw == "round"
    assert pareto(per_example=1.0, shape=2.0, draw="client").draw == "client"
