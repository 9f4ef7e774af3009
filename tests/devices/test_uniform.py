"""Uniform devices follow their law."""

import numpy as np
import pytest
from scipy import stats

from fedemu.devices._base import Work
from fedemu.devices.uniform import uniform


def test_times_are_uniform_between_their_bounds() -> None:
    """100 examples, 2 epochs, 5 to 15 ms: 1 to 3 s; KS at n = 20,000 and alpha = 1e-4 tells 1 to 3.1 s apart."""
    rng, device = np.random.default_rng(11), uniform(low=0.005, high=0.015)
    sample = np.array([device.training_time(Work(100, 2, lambda: 1e6), rng) for _ in range(20_000)])
    assert stats.kstest(sample, stats.uniform(1, 2).cdf).pvalue > 1e-4
    assert stats.kstest(sample, stats.uniform(1, 2.1).cdf).pvalue < 1e-4


def test_equal_bounds_are_a_constant_device() -> None:
    """And still draw, so that nothing else moves."""
    rng = np.random.default_rng(1)
    assert uniform(low=0.005, high=0.005).training_time(Work(100, 2, lambda: 1e6), rng) == 1.0
    assert rng.random() != np.random.default_rng(1).random()


def test_bounds_the_wrong_way_round_are_a_fault() -> None:
    """Rather than negative times."""
    with pytest.raises(ValueError, match=r"low 0.02s is above high 0.01s"):
        uniform(low=0.02, high=0.01)


def test_the_house_is_told_how_to_key_the_stream() -> None:
    """As for the lognormal."""
    assert uniform(low=0.0, high=1.0).draw == "round"
    assert uniform(low=0.0, high=1.0, draw="client").draw == "client"
