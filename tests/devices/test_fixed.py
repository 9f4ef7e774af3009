"""The same time for every epoch."""

import numpy as np
import pytest

from fedemu.devices._base import Work
from fedemu.devices.fixed import fixed


@pytest.mark.parametrize("examples", [0, 1, 4000])
def test_the_time_is_epochs_times_per_epoch(examples: int) -> None:
    """20 epochs of 1.5 s, however many examples there are."""
    assert fixed(per_epoch=1.5).training_time(Work(examples, 20, lambda: 1e9), np.random.default_rng(1)) == 30.0
