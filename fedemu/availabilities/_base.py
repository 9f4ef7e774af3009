"""What an availability is: when each client of a population is online."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

from fedemu.types import ClientId, Interval, Rng, Seconds


class Member(NamedTuple):
    """A client, as far as its being online may depend on it."""

    client: ClientId
    labels: Sequence[int]
    """How many examples of each class it has, shape (classes,)."""

    @property
    def num_examples(self) -> int:
        return sum(self.labels)


Availability: TypeAlias = Callable[[Sequence[Member], Callable[[ClientId], Rng]], Sequence[Iterator[Interval]]]
"""Return when each member of a population is online: disjoint intervals in order of time, for ever or to the last.

The first interval is the first that ends after 0; it starts at 0 or before for a client that is online from the start.
The second argument makes a client's random stream, always the same.
"""


class Spans:
    """A client's intervals, asked about in order of time."""

    def __init__(self, intervals: Iterator[Interval]) -> None:
        self._intervals = intervals
        self._now = next(intervals, None)

    def cover(self, moment: Seconds) -> bool:
        """Return whether a moment, not before the last one that was asked about, lies in an interval."""
        while self._now is not None and self._now.end <= moment:
            self._now = next(self._intervals, None)
        return self._now is not None and self._now.start <= moment
