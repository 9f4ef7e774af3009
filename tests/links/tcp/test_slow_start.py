"""Slow start takes, burst by burst, the time that its formula says."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedemu.links._base import Burst, Sending, Tcp
from fedemu.links.tcp.slow_start import slow_start


def on_an_idle_path(bursts: Sequence[Burst], rate: float) -> float:
    """Serve bursts as a link does: each after the one before is served, and not before its turnaround."""
    start = end = 0.0
    for burst in bursts:
        end = start + 8 * burst.size / rate
        start = max(end, start + burst.turnaround)
    return end


def cut(tcp: Tcp, size: int, rate: float, rtt: float, idle: float = math.inf) -> Sequence[Burst]:
    """Send a message of that size."""
    return tcp.bursts(Sending(size, 0.0, rate, rtt, idle), lambda: np.random.default_rng(1))


def formula(size: int, rate: float, rtt: float, iw: int) -> float:
    """Transcribe link-model.md: 8 S_wire / R + sum over k of max(0, RTT + s - w_k s) while sum w < n."""
    n = math.ceil(size / 1448) + 1
    s = 8 * (1448 + 66) / rate
    total, k, sent = 8 * (size + 66 * n) / rate, 0, iw
    while sent < n:
        total += max(0.0, rtt + s - iw * 2**k * s)
        k += 1
        sent += iw * 2**k
    return total


@given(
    size=st.integers(0, 5_000_000),
    rate=st.floats(1e4, 1e10),
    rtt=st.floats(0, 2),
    iw=st.integers(1, 40),
)
def test_an_idle_path_takes_exactly_the_time_of_the_formula(size: int, rate: float, rtt: float, iw: int) -> None:
    """A loop over bursts against the closed sum, for any path."""
    took = on_an_idle_path(cut(slow_start(iw=iw), size, rate, rtt), rate)
    assert took == pytest.approx(formula(size, rate, rtt, iw), rel=1e-12)


@given(size=st.integers(0, 5_000_000), rate=st.floats(1e4, 1e10), rtt=st.floats(0, 2), iw=st.integers(1, 40))
def test_the_bursts_are_the_message_and_its_headers(size: int, rate: float, rtt: float, iw: int) -> None:
    """S + 66 n bytes on the wire, none of them negative; the last burst waits for nothing."""
    bursts = cut(slow_start(iw=iw), size, rate, rtt)
    assert sum(burst.size for burst in bursts) == size + 66 * (math.ceil(size / 1448) + 1)
    assert all(burst.size > 0 for burst in bursts)
    assert bursts[-1].turnaround == 0
    assert all(burst.turnaround > 8 * burst.size / rate for burst in bursts[:-1])


def test_100_kB_cold_over_50_Mbit_and_100_ms_takes_0_41_s() -> None:
    """The link model's example: 71 segments; windows 10, 20, 40 leave 1, so three stalls, 3 RTT + 3 s - 70 s."""
    s = 8 * 1514 / 50e6
    bursts = cut(slow_start(), 100_000, 50e6, 0.1)
    assert [burst.size for burst in bursts] == [
        10 * 1514 - 1448,
        20 * 1514,
        40 * 1514,
        100_000 + 71 * 66 - 70 * 1514 + 1448,
    ]
    took = on_an_idle_path(bursts, 50e6) + 0.1 / 2
    assert took == pytest.approx(8 * (100_000 + 71 * 66) / 50e6 + 3 * (0.1 + s) - 70 * s + 0.05)
    assert took + 0.05 == pytest.approx(0.41, rel=0.025)  # with the way back, as it was measured on a kernel


def test_what_fits_into_the_first_window_is_one_burst() -> None:
    """9 payload segments and gRPC's headers are 10; one byte more needs a second window."""
    assert cut(slow_start(), 9 * 1448, 1e7, 0.1) == (Burst(9 * 1448 + 660, 0.0),)
    assert len(cut(slow_start(), 9 * 1448 + 1, 1e7, 0.1)) == 2


def test_a_window_that_fills_the_pipe_ends_slow_start() -> None:
    """1 Mbit/s: s = 12.1 ms, so 10 segments outlast RTT + s = 112 ms: all in one burst."""
    assert len(cut(slow_start(), 1_000_000, 1e6, 0.1)) == 1
    assert len(cut(slow_start(), 1_000_000, 1e6, 0.12)) == 2


def reference(size: int, rate: float, rtt: float, window: int) -> list[tuple[int, float]]:
    """Segment by segment: pile them into windows, for as long as a window is acknowledged before it has left."""
    segments = [66] + [66 + min(1448, size - at) for at in range(0, size, 1448)]
    bursts, s = list[tuple[int, float]](), 8 * 1514 / rate
    while window < len(segments) and rtt + s - window * s > 0:
        now, segments = segments[:window], segments[window:]
        bursts.append((sum(now), rtt + s - (0.0 if bursts else 8 * 1448 / rate)))
        window *= 2
    return [*bursts, (sum(segments), 0.0)]


@given(size=st.integers(0, 3_000_000), rate=st.floats(1e4, 1e10), rtt=st.floats(0, 2), iw=st.integers(1, 40))
def test_the_bursts_are_bit_equal_to_a_reference(size: int, rate: float, rtt: float, iw: int) -> None:
    """Sizes and turnarounds, of each window."""
    assert [tuple(burst)[:2] for burst in cut(slow_start(iw=iw), size, rate, rtt)] == reference(size, rate, rtt, iw)


def test_a_warm_connection_goes_on_with_its_window() -> None:
    """71 segments leave 81; the next 100 kB leave at once: 0.41 s cold and 0.12 s warm, at 50 Mbit/s and 100 ms."""
    tcp = slow_start()
    cold, warm = (cut(tcp, 100_000, 50e6, 0.1, idle) for idle in (math.inf, 0.0))
    assert len(cold) == 4
    assert warm == (Burst(100_000 + 71 * 66, 0.0),)
    assert on_an_idle_path(warm, 50e6) + 0.1 == pytest.approx(0.117, abs=0.001)


@pytest.mark.parametrize(("idle", "window"), [(0.3, 82), (0.301, 41), (0.601, 20), (0.901, 10), (1e9, 10)])
def test_idle_time_takes_the_window_away(idle: float, window: int) -> None:
    """72 segments leave 10 + 72 = 82, halved for each 300 ms beyond the first, down to 10."""
    tcp = slow_start()
    cut(tcp, 71 * 1448, 50e6, 0.1)
    assert cut(tcp, 1_000_000, 50e6, 0.1, idle)[0].size == window * 1514 - 1448


def test_a_window_grows_only_as_far_as_it_is_used() -> None:
    """4 segments use less than half of 10; 8 let it grow to 16, twice as much as was used, and no further."""
    sizes = [3 * 1448, 7 * 1448, 7 * 1448]
    for messages, window in ((1, 10), (2, 16), (3, 16)):
        tcp = slow_start()
        for size in sizes[:messages]:
            cut(tcp, size, 50e6, 0.1, 0.0)
        assert cut(tcp, 1_000_000, 50e6, 0.1, 0.0)[0].size == window * 1514 - 1448


def test_without_memory_every_message_is_the_first() -> None:
    """The same bursts, however recently the last one left; and so on a new connection, with memory."""
    forgetful, tcp = slow_start(memory=False), slow_start()
    first = cut(forgetful, 100_000, 50e6, 0.1)
    assert cut(forgetful, 100_000, 50e6, 0.1, 0.0) == first
    assert cut(tcp, 100_000, 50e6, 0.1) == cut(tcp, 100_000, 50e6, 0.1) == first


def test_it_knows_nothing_of_loss() -> None:
    """So that it cannot stand beside `loss`."""
    assert not slow_start().takes_loss
