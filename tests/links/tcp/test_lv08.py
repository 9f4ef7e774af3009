"""LV08 takes SimGrid's published time."""

import numpy as np
import pytest

from fedemu.links._base import Sending
from fedemu.links.tcp.lv08 import lv08


def test_100_kB_over_1_Mbit_and_10_ms_take_0_996079_s() -> None:
    """13.01 * 10 ms + 8 * 100 kB * 1.05 / (0.97 * 1 Mbit/s), one latency of them the link's own."""
    wait, message = lv08().bursts(Sending(100_000, 0.0, 1e6, 0.02), lambda: np.random.default_rng(1))
    assert wait.size == message.turnaround == 0
    took = 0.01 + wait.turnaround + 8 * message.size / 1e6
    assert took == pytest.approx(0.1301 + 8 * 100_000 * 1.05 / (0.97 * 1e6), rel=1e-12)
    assert round(took, 6) == 0.996079


def test_it_knows_nothing_of_loss() -> None:
    """So that it cannot stand beside `loss`."""
    assert not lv08().takes_loss
