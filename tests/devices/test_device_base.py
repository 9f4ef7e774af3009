"""What devices cost beside time."""

import math

import numpy as np
import pytest

from fedemu.devices._base import Energy, Straggler, memory_to_train
from fedemu.types import Training


def test_a_straggler_is_slow_with_its_probability() -> None:
    """30 % of 20,000 trainings take 5 times as long, within 4 deviations of a binomial; the others are left alone."""
    rng, straggler = np.random.default_rng(1), Straggler(0.3, 5.0)
    slow = [straggler.slowdown(rng) for _ in range(20_000)]
    assert set(slow) == {1.0, 5.0}
    assert slow.count(5.0) / 20_000 == pytest.approx(0.3, abs=4 * math.sqrt(0.3 * 0.7 / 20_000))


def test_who_is_slow_at_20_percent_is_slow_at_80_percent() -> None:
    """One uniform a training, whatever the probability; 0 and 1 are never and always."""
    slow = {p: [Straggler(p, 2.0).slowdown(np.random.default_rng(s)) for s in range(200)] for p in (0, 0.2, 0.8, 1)}
    assert all(a <= b for a, b in zip(slow[0.2], slow[0.8], strict=True))
    assert set(slow[0]) == {1.0}
    assert set(slow[1]) == {2.0}


def test_training_needs_three_vectors_and_four_with_momentum() -> None:
    """1,000 parameters of 4 bytes: received, local, gradient = 12 kB; the momentum buffer makes 16 kB."""
    assert memory_to_train(1000, Training()) == 12_000
    assert memory_to_train(1000, Training(momentum=0.9)) == 16_000


def test_energy_is_power_times_time_of_each_phase() -> None:
    """5 W x 10 s + 1.2 W x 5 s + 0.8 W x 2 s = 57.6 J; what is not given costs nothing."""
    energy = Energy(compute=5.0, up=1.2, down=0.8)
    assert energy.joules(compute=10.0, up=5.0, down=2.0) == pytest.approx(57.6, rel=1e-15)
    assert energy.joules(up=5.0) == 6.0
    assert Energy().joules(compute=10.0, up=5.0, down=2.0) == 0.0
