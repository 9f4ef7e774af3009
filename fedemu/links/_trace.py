"""Traces: the capacity of a real path over time, as moments when one packet may cross.

The format is Mahimahi's (Netravali et al., Mahimahi: Accurate Record-and-Replay for HTTP, USENIX ATC 2015): every
opportunity carries up to 1500 bytes at a whole millisecond, and the trace starts again after its last millisecond.
What a message finds takes one bisection, however long it is; no packet is walked through.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from fedemu.types import Bytes, Seconds

PACKET = 1500
"""Bytes of one opportunity."""
LONGEST = 86_400_000
"""Milliseconds of the longest trace, a day: what is longer has stamps of another unit."""

Counts: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """Delivery opportunities, for ever.

    An opportunity at a millisecond serves what was there before that millisecond: what arrives at 5 ms sharp has missed
    those of 5 ms, as in Mahimahi. Times are taken to the nanosecond, as the clock has them. `offset` is how far into
    the trace time 0 is, in seconds.
    """

    counts: Counts
    """Opportunities up to and including each millisecond from 0 on, shape (milliseconds + 1,); not to be written to."""

    def __post_init__(self) -> None:
        if len(self.counts) < 2:
            raise ValueError("the trace is over at millisecond 0; expected a later last opportunity")
        if self.counts[-1] == 0:
            raise ValueError("the trace has no opportunity to send; expected one at least")
        self.counts.setflags(write=False)

    @staticmethod
    def of_stamps(stamps: Sequence[int]) -> "Trace":
        """Return the trace of opportunities at those milliseconds, in order; the last is also its length.

        Raises:
            ValueError: there are none, all are at 0, or the last is more than a day later.
        """
        if not len(stamps):
            raise ValueError("the trace is empty; expected one opportunity at least")
        _no_longer_than_a_day(stamps[-1])
        return Trace(np.cumsum(np.bincount(np.asarray(stamps, np.int64)), dtype=np.int64))

    @staticmethod
    def of_steps(steps: Sequence[tuple[Seconds, float]]) -> "Trace":
        """Return the trace of rates that hold one after the other: (seconds, bits per second).

        An opportunity comes at the first whole millisecond when the bytes so far make another 1500. The length is
        rounded to whole milliseconds; less than a packet that is left at the end is lost.

        Raises:
            ValueError: they last less than a millisecond or more than a day, or carry less than a packet.
        """
        durations, rates = np.array(steps, np.float64).reshape(-1, 2).T
        ends = np.concatenate(([0.0], np.cumsum(durations) * 1e3))
        _no_longer_than_a_day(ends[-1])
        packets = np.concatenate(([0.0], np.cumsum(durations * rates) / (8 * PACKET)))
        milliseconds = np.arange(round(ends[-1]) + 1, dtype=np.float64)
        # 12 Mbit/s is one packet a millisecond; the sum of floats may end just below it
        return Trace(np.floor(np.interp(milliseconds, ends, packets) + 1e-9).astype(np.int64))

    @property
    def duration(self) -> Seconds:
        """After which it starts again."""
        return (len(self.counts) - 1) / 1e3

    @property
    def rate(self) -> float:
        """Mean bits per second."""
        return int(self.counts[-1]) * 8 * PACKET / self.duration

    def finish(self, start: Seconds, size: Bytes, offset: Seconds = 0.0) -> Seconds:
        """Return when the last of `size` bytes that are there at `start` has crossed; nothing else is on the path."""
        if size <= 0:
            return start
        last = self._passed(start, offset) + -(-size // PACKET) - 1
        periods, place = divmod(last, int(self.counts[-1]))
        millisecond = int(np.searchsorted(self.counts, place, side="right"))
        return ((periods * (len(self.counts) - 1) + millisecond) * 10**6 - _nanoseconds(offset)) / 1e9

    def served(self, start: Seconds, now: Seconds, offset: Seconds = 0.0) -> Bytes:
        """Return how many bytes cross after `start` and until `now`, that moment's own opportunities included."""
        return PACKET * (self._passed(now, offset) - self._passed(start, offset))

    def rates(self, bin: Seconds, offset: Seconds = 0.0) -> Iterator[tuple[Seconds, float]]:
        """Yield (time, bits per second) from time 0 on, one step every `bin` seconds, for ever.

        A step's rate is that of the opportunities after its start and until its end, 0 where there are none.
        """
        index, passed = 0, self._passed(0.0, offset)
        while True:
            start, index = index * bin, index + 1
            until = self._passed(index * bin, offset)
            yield start, (until - passed) * 8 * PACKET / bin
            passed = until

    def _passed(self, at: Seconds, offset: Seconds) -> int:
        """Return how many opportunities there are until then, from the start of the trace that time 0 is in."""
        millisecond = (_nanoseconds(at) + _nanoseconds(offset)) // 10**6
        periods, place = divmod(millisecond, len(self.counts) - 1)
        return periods * int(self.counts[-1]) + int(self.counts[place])


def _no_longer_than_a_day(milliseconds: float) -> None:
    if milliseconds > LONGEST:
        raise ValueError(f"the trace lasts {milliseconds / 1e3:.6g} s; expected a day at most")


def _nanoseconds(seconds: Seconds) -> int:
    return round(seconds * 1e9)
