"""Windows shrink with idle time as Linux's do."""

import pytest

from fedemu.links.tcp._segments import restarted


def linux(window: int, iw: int, idle: float, rto: float) -> int:
    """Transcribe tcp_slow_start_after_idle_check and tcp_cwnd_restart of net/ipv4."""
    if idle <= rto:
        return window
    least, delta = min(iw, window), idle - rto
    while delta > 0 and window > least:
        window >>= 1
        delta -= rto
    return max(window, least)


@pytest.mark.parametrize("window", [3, 10, 11, 80, 1000])
@pytest.mark.parametrize("idle", [0.0, 0.29, 0.31, 0.59, 0.61, 0.95, 1.5, 100.0])
def test_a_window_halves_for_every_timeout_beyond_the_first(window: int, idle: float) -> None:
    """RTT 100 ms, so that the timeout is 300 ms; never below the initial window, or what it was."""
    assert restarted(window, 10, idle, 0.1) == linux(window, 10, idle, 0.1 + 0.2)
