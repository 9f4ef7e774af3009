"""What the box does to packets, by hand: the lab is only as good as its WAN."""

import pytest

from tests.kernel.wan import Direction


def test_a_packet_waits_for_those_before_it_and_takes_its_delay() -> None:
    """1500 bytes at 12 Mbit/s are 1 ms; the third comes when the pipe is free."""
    way = Direction(delay=0.05, rate=12e6)
    assert [way.leave(1500, 0.0), way.leave(1500, 0.0), way.leave(1500, 1.0)] == pytest.approx([0.051, 0.052, 1.051])


def test_a_packet_beyond_the_queue_is_dropped() -> None:
    """3000 bytes of queue hold the packet that is being sent and one more; 1 ms later there is room for one again."""
    way = Direction(delay=0.0, rate=12e6, queue=3000)
    assert [way.leave(1500, 0.0) is None for _ in range(3)] == [False, False, True]
    assert [way.leave(1500, 0.001) is None for _ in range(2)] == [False, True]


def test_packets_are_lost_by_chance() -> None:
    """3 % of 100,000 are 3,000, with a standard deviation of 54; no later one waits for them."""
    way = Direction(delay=0.0, loss=0.03)
    assert [way.leave(1500, 0.0) for _ in range(100_000)].count(None) == pytest.approx(3000, abs=3 * 54)
    assert way.free == 0.0
