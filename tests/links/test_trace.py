"""Traces answer as a walk over every single opportunity does."""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedemu.links._trace import Trace

STAMPS = st.lists(st.integers(0, 40), min_size=1, max_size=30).map(sorted).filter(lambda stamps: stamps[-1] > 0)


def opportunities(stamps: Sequence[int]) -> Iterator[int]:
    """Yield Mahimahi's opportunities in milliseconds: the file again and again, each time its last stamp later."""
    for again in itertools.count():
        yield from (stamp + again * stamps[-1] for stamp in stamps)


def walk(stamps: Sequence[int], start: float, size: int) -> int:
    """Take one opportunity after another, as Mahimahi's queue does; return the millisecond of the last one."""
    for at in opportunities(stamps):
        if at > start:
            size -= 1500
            if size <= 0:
                return at
    raise AssertionError


@given(stamps=STAMPS, start=st.integers(0, 200_000), size=st.integers(1, 200_000))
def test_a_message_ends_where_a_walk_over_opportunities_ends(stamps: list[int], start: int, size: int) -> None:
    """Start in microseconds; what arrives at a millisecond sharp has missed its opportunities."""
    assert Trace.of_stamps(stamps).finish(start / 1e6, size) == walk(stamps, start / 1e3, size) / 1e3


@given(stamps=STAMPS, start=st.integers(0, 200), size=st.integers(1, 100_000), offset=st.integers(0, 200))
def test_an_offset_begins_further_into_the_trace(stamps: list[int], start: int, size: int, offset: int) -> None:
    """The same as a later start, told in the earlier start's time."""
    trace = Trace.of_stamps(stamps)
    later = trace.finish((start + offset) / 1e3, size)
    assert trace.finish(start / 1e3, size, offset / 1e3) == pytest.approx(later - offset / 1e3, abs=1e-12)


@given(stamps=STAMPS, start=st.integers(0, 300), length=st.integers(0, 300), offset=st.integers(0, 100))
def test_what_was_served_is_the_opportunities_in_between(
    stamps: list[int], start: int, length: int, offset: int
) -> None:
    """After the start, until now; nothing is served twice or left out when a transfer is looked at in parts."""
    trace, now = Trace.of_stamps(stamps), start + length
    passed = itertools.takewhile(lambda at: at <= now + offset, opportunities(stamps))
    assert trace.served(start / 1e3, now / 1e3, offset / 1e3) == 1500 * sum(at > start + offset for at in passed)


@given(stamps=STAMPS, start=st.integers(0, 300), size=st.integers(1, 100_000))
def test_served_reaches_the_size_at_the_finish_and_not_before(stamps: list[int], start: int, size: int) -> None:
    """The two views of one transfer agree."""
    trace = Trace.of_stamps(stamps)
    end = trace.finish(start / 1e3, size)
    assert trace.served(start / 1e3, end) >= size > trace.served(start / 1e3, end - 0.001)


def test_a_packet_at_the_very_millisecond_waits_for_the_next() -> None:
    """Opportunities at 5 and 10 ms: there at 4.999999 ms takes 5, at 5 ms takes 10, at 10 ms 15 (the trace again)."""
    trace = Trace.of_stamps([5, 10])
    assert [trace.finish(start, 1500) for start in (0.004999999, 0.005, 0.010)] == [0.005, 0.010, 0.015]
    assert [trace.finish(0.0, size) for size in (0, 1, 1500, 1501, 3001)] == [0.0, 0.005, 0.005, 0.010, 0.015]


def test_a_walk_that_takes_the_very_millisecond_is_told_apart() -> None:
    """The same check with >= in place of >: it differs at once, so that the property above can fail."""
    wrong = next(at for at in opportunities([5, 10]) if at >= 5)
    assert Trace.of_stamps([5, 10]).finish(0.005, 1500) != wrong / 1e3


def test_mahimahi_s_own_example_is_12_mbit_s() -> None:
    """A file with just 1: a packet a millisecond; 1 MB = 667 packets = 667 ms."""
    trace = Trace.of_stamps([1])
    assert (trace.rate, trace.duration, trace.finish(0.0, 1_000_000)) == (12e6, 0.001, 0.667)


def test_time_does_not_lose_its_milliseconds_to_rounding() -> None:
    """Every whole millisecond of 100 s is seen as itself: the next opportunity of a packet a millisecond is 1 ms on."""
    trace = Trace.of_stamps([1])
    assert [trace.finish(ms / 1e3, 1) for ms in range(100_000)] == [(ms + 1) / 1e3 for ms in range(100_000)]


@given(
    steps=st.lists(st.tuples(st.integers(1, 50), st.integers(0, 200)), min_size=1, max_size=10).filter(
        lambda steps: sum(ms * packets for ms, packets in steps) >= 10
    )
)
def test_steps_become_opportunities_where_bytes_make_another_packet(steps: list[tuple[int, int]]) -> None:
    """In whole numbers: tenths of packets a millisecond; the count is that of whole packets so far."""
    trace = Trace.of_steps([(ms / 1e3, tenths * 1.2e6) for ms, tenths in steps])
    tenths = np.cumsum(np.repeat([rate for _, rate in steps], [ms for ms, _ in steps]))
    assert trace.counts.tolist() == [0, *(tenths // 10)]


def test_rates_are_those_of_bins_and_sum_to_the_trace() -> None:
    """Opportunities at 1, 1, 3, 4 ms in bins of 2 ms: 2, 2 a period: 12 Mbit/s and 12 Mbit/s; then again."""
    rates = list(itertools.islice(Trace.of_stamps([1, 1, 3, 4]).rates(0.002), 4))
    assert rates == [(0.0, 12e6), (0.002, 12e6), (0.004, 12e6), (0.006, 12e6)]
    uneven = list(itertools.islice(Trace.of_stamps([1, 1, 4]).rates(0.001), 4))
    assert [rate for _, rate in uneven] == [24e6, 0.0, 0.0, 12e6]
    assert next(Trace.of_stamps([1, 1, 4]).rates(0.001, offset=0.003)) == (0.0, 12e6)


def test_5g_is_many_packets_a_millisecond() -> None:
    """960 Mbit/s is 80 a millisecond: 81 packets take 2 ms."""
    trace = Trace.of_steps([(1.0, 960e6)])
    assert [trace.finish(0.0, packets * 1500) for packets in (80, 81)] == [0.001, 0.002]


def test_counts_cannot_be_written_to() -> None:
    """A trace is shared between links."""
    with pytest.raises(ValueError, match="read-only"):
        Trace.of_stamps([1]).counts[0] = 5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Trace.of_stamps([]), "the trace is empty"),
        (lambda: Trace.of_stamps([0, 0]), "over at millisecond 0"),
        (lambda: Trace.of_stamps([1_600_000_000_000]), "a day at most"),
        (lambda: Trace.of_steps([(1.0, 0.0)]), "no opportunity to send"),
        (lambda: Trace.of_steps([(1.0, 11_999.0)]), "no opportunity to send"),
        (lambda: Trace.of_steps([(0.0001, 1e9)]), "over at millisecond 0"),
        (lambda: Trace.of_steps([(1e9, 1e9)]), "a day at most"),
    ],
)
def test_a_trace_that_sends_nothing_is_a_fault(make, message: str) -> None:
    """11,999 bits are one short of a packet; a Unix time in milliseconds is no trace of 50 years."""
    with pytest.raises(ValueError, match=message):
        make()
