"""The mean model takes the time that Cardwell's formulas say, in bursts that add up."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedemu.links._base import Sending
from fedemu.links.tcp._congestion import Control, response
from fedemu.links.tcp.mean import mean
from fedemu.links.tcp.slow_start import slow_start

NOTHING = lambda: np.random.default_rng(1)  # noqa: E731


def on_an_idle_path(bursts, rate: float) -> float:
    start = end = 0.0
    for burst in bursts:
        end = start + 8 * burst.size / rate
        start = max(end, start + burst.turnaround)
    return end


@given(size=st.integers(0, 5_000_000), rate=st.floats(1e4, 1e10), rtt=st.floats(0, 2), iw=st.integers(1, 40))
def test_without_loss_it_is_slow_start(size: int, rate: float, rtt: float, iw: int) -> None:
    """Burst by burst."""
    sending = Sending(size, 0.0, rate, rtt)
    assert mean(iw=iw).bursts(sending, NOTHING) == slow_start(iw=iw).bursts(sending, NOTHING)


@pytest.mark.parametrize("control", ["cubic", "reno"])
def test_a_long_message_takes_the_mean_rate(control: Control) -> None:
    """100 MB at 3 %, RTT 50 ms: W = sqrt(1.5/p) = 7.07 segments (CUBIC's own 1.55 is less), with a timeout of 250 ms
    for 3/W of the lost ones, half of it: 7.07 ms + 1.63 ms a segment, within 0.1 % as slow start is short beside it.
    """
    sending = Sending(100_000_000, 0.0, 1e9, 0.05, loss=0.03)
    window = math.sqrt(1.5 / 0.03)
    segment = 0.05 / window + 0.03 * 3 / window * 0.25 * (1 + 32 * 0.03**2) / 2
    took = on_an_idle_path(mean(cc=control).bursts(sending, NOTHING), 1e9)
    assert took == pytest.approx(100_000_000 / 1448 * segment, rel=1e-3)


def test_a_slow_path_is_the_limit_and_each_segment_crosses_1_over_1_minus_p_times() -> None:
    """10 MB at 1 % over 100 kbit/s and 10 ms: 8 * 1514 / 0.99 bits for each of 6,907 segments."""
    bursts = mean().bursts(Sending(10_000_000, 0.0, 1e5, 0.01, loss=0.01), NOTHING)
    assert on_an_idle_path(bursts, 1e5) == pytest.approx(8 * 1514 / 0.99 * 10_000_000 / 1448 / 1e5, rel=3e-3)


def test_a_short_message_pays_for_the_chance_of_a_loss() -> None:
    """10 kB, 8 segments at 1 %: with 1 - 0.99^8 = 7.7 % a loss, of a window of 10, which by 3/10 needs a timeout."""
    sending = Sending(10_000, 0.0, 1e7, 0.05, loss=0.01)
    extra = (1 - 0.99**8) * (0.3 * 0.25 / 2 + (1 - 0.3 / 2) * 0.05)
    calm = on_an_idle_path(slow_start().bursts(sending, NOTHING), 1e7)
    assert on_an_idle_path(mean().bursts(sending, NOTHING), 1e7) == pytest.approx(calm + extra, rel=0.01)


def test_the_mean_window_of_cubic_is_its_own_on_long_paths_and_renos_on_short_ones() -> None:
    """RFC 9438, equation 5 and table 1: RTT 100 ms at 1e-4 is 1.054 * 1000^0.75 = 187; at 1 % and 50 ms Reno's 12.2."""
    assert response("cubic", 1e-4, 0.1) == pytest.approx(187, abs=0.5)
    assert response("cubic", 0.01, 0.05) == response("reno", 0.01, 0.05) == pytest.approx(12.25, abs=0.01)


def test_it_takes_loss() -> None:
    """And so may stand beside it."""
    assert mean().takes_loss
