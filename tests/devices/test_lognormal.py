"""Lognormal devices follow their law."""

import math

import numpy as np
import pytest
from scipy import stats

from fedemu.devices._base import Work
from fedemu.devices.lognormal import lognormal


def draws(per_example: float, sigma: float, n: int = 20_000) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    rng, device = np.random.default_rng(11), lognormal(per_example=per_example, sigma=sigma)
    return np.array([device.training_time(Work(100, 2, lambda: 1e6), rng) for _ in range(n)])


def test_times_are_lognormal_with_the_median_asked_for() -> None:
    """100 examples, 2 epochs, 5 ms: median 1 s; Kolmogorov-Smirnov at n = 20,000 and alpha = 1e-4."""
    sample = draws(0.005, 0.8)
    assert stats.kstest(sample, stats.lognorm(0.8, scale=1.0).cdf).pvalue > 1e-4
    assert stats.kstest(sample, stats.lognorm(0.88, scale=1.0).cdf).pvalue < 1e-4  # 10 % off is seen


def test_runs_that_differ_in_sigma_are_coupled() -> None:
    """log t = log median + sigma z with the same z: doubling sigma doubles the log."""
    narrow, wide = np.log(draws(0.005, 0.5, 100)), np.log(draws(0.005, 1.0, 100))
    assert wide == pytest.approx(2 * narrow)


def test_sigma_0_is_a_constant_device() -> None:
    """exp(0) = 1: the median itself."""
    assert set(draws(0.005, 0.0, 10)) == {1.0}


def test_the_docstring_s_third_is_a_third() -> None:
    """P(exp(z) > 1.6) = 1 - Phi(0.47) = 0.319."""
    assert stats.norm.sf(math.log(1.6)) == pytest.approx(1 / 3, abs=0.02)


def test_the_house_is_told_how_to_key_the_stream() -> None:
    """The device itself draws from what it is given."""
    assert lognormal(per_example=1.0, sigma=1.0).draw == "round"
    assert lognormal(per_example=1.0, sigma=1.0, draw="client").draw == "client"
