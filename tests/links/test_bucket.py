"""A token bucket passes a burst at once, and then what its rate allows: tc-tbf's arithmetic."""

import pytest

from fedemu.links._bucket import Bucket

RATE = 8e6
"""Bits per second: 1 MB/s."""


def test_tokens_come_at_the_rate_of_their_time() -> None:
    """8 kbit/s, and 80 bit/s from 10 s to 20 s: in 2 s from 9 s on come 1000 and 10 bytes."""
    bucket = Bucket(8000.0, 5000, changes=[(10.0, 80.0), (20.0, 8000.0)])
    bucket.take(5000, 9.0)
    assert bucket.take(5000, 11.0) == 5000 - 1010
    assert bucket.take(5000, 21.0) == 5000 - (90 + 1000)


def test_a_rested_bucket_passes_its_burst_at_once() -> None:
    """100 kB of 250 kB need not wait, and there is nothing left for what comes right behind."""
    bucket = Bucket(RATE, 100_000)
    assert bucket.take(250_000, 0.0) == 150_000
    bucket.rest(0.15)
    assert bucket.take(10_000, 0.15) == 10_000


def test_what_is_no_larger_than_the_burst_never_waits() -> None:
    """Two halves of the burst pass at one moment, a third waits."""
    bucket = Bucket(RATE, 100_000)
    assert [bucket.take(50_000, 2.0) for _ in range(3)] == [0, 0, 50_000]


def test_tokens_come_back_at_the_rate_and_never_exceed_the_burst() -> None:
    """Emptied at 0.15 s; 60 ms are 60 kB, a day is still 100 kB."""
    bucket = Bucket(RATE, 100_000)
    bucket.take(250_000, 0.0)
    bucket.rest(0.15)
    assert bucket.take(200_000, 0.21) == 140_000
    bucket.rest(0.35)
    assert bucket.take(200_000, 86_400.0) == 100_000


def test_no_tokens_come_while_bytes_wait_for_the_rate() -> None:
    """The rate is theirs: 1.1 MB leave for 1 s, and tokens begin to come after it, not at its start."""
    bucket = Bucket(RATE, 100_000)
    assert bucket.take(1_100_000, 0.0) == 1_000_000
    bucket.rest(1.0)
    assert bucket.take(50_000, 1.01) == 40_000


@pytest.mark.parametrize("burst", [1500, 15_000])
def test_a_transfer_is_shorter_by_its_tokens_over_the_rate(burst: int) -> None:
    """T = max(0, S - tokens) 8 / R (link-model.md): for 5 MB at 10 Mbit/s, 4 s less 8 x burst / 10 Mbit/s."""
    bucket = Bucket(10e6, burst)
    assert 8 * bucket.take(5_000_000, 0.0) / 10e6 == 4.0 - 8 * burst / 10e6


def test_messages_in_a_row_keep_to_the_burst_and_the_rate() -> None:
    """In any window that starts with a rested link, no more than burst + rate x time has passed (the curve of tbf)."""
    bucket, now, passed = Bucket(RATE, 20_000), 0.0, 0
    for number in range(1, 200):
        size, pause = 997 * number % 30_011, 0.001 * (number % 7)
        waiting = bucket.take(size, now)
        now += 8 * waiting / RATE
        bucket.rest(now)
        passed += size
        assert passed <= 20_000 + RATE * now / 8 + 1e-6
        now += pause
