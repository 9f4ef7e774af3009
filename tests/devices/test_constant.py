"""Constant devices count examples and epochs."""

import numpy as np

from fedemu.devices._base import Work
from fedemu.devices.constant import constant


def test_time_is_examples_times_epochs_times_time_per_example() -> None:
    """300 examples, 5 epochs, 2 ms = 3 s, whatever the model; nothing is drawn."""
    rng = np.random.default_rng(1)
    before = rng.bit_generator.state
    assert constant(per_example=0.002).training_time(Work(300, 5, lambda: 1e9), rng) == 3.0
    assert rng.bit_generator.state == before


def test_no_examples_take_no_time() -> None:
    """A client whose shard is empty answers at once."""
    assert constant(per_example=0.002).training_time(Work(0, 5, lambda: 1e9), np.random.default_rng(1)) == 0
