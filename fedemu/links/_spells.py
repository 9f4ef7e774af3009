"""When a link is down: intervals that come one after the other, looked up as time passes."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from fedemu.types import Interval, Seconds

KEPT = 8
"""Spells that are over and still looked up: a message that is late on a real clock belongs to one."""


class Spell(NamedTuple):
    """One time for which a link is down."""

    start: Seconds
    end: Seconds
    refuses: bool
    """Who sends is told at once; else it hears nothing."""


class Spells:
    """Looks up spells of several kinds. Questions may come a little out of order, but never far back.

    Args:
        kinds: Of each kind its intervals, in order of time, and whether they refuse.
    """

    def __init__(self, kinds: Sequence[tuple[Iterable[Interval], bool]]) -> None:
        self._kinds = [_Kind(iter(intervals), refuses) for intervals, refuses in kinds]

    def next(self, now: Seconds) -> Spell | None:
        """Return the spell that `now` is in, or else the next one; None if none comes."""
        found = [spell for kind in self._kinds if (spell := kind.next(now)) is not None]
        return min(found, default=None)

    def up(self, now: Seconds) -> Seconds:
        """Return when the link is next up: now, if it is."""
        while (spell := self.next(now)) is not None and spell.start <= now:
            now = spell.end
        return now


class _Kind:
    def __init__(self, intervals: Iterator[Interval], refuses: bool) -> None:
        self._intervals, self._refuses = intervals, refuses
        self._seen: list[Spell] = []
        """Those that may still be asked for."""

    def next(self, now: Seconds) -> Spell | None:
        while not self._seen or self._seen[-1].end <= now:
            interval = next(self._intervals, None)
            if interval is None:
                break
            self._seen.append(Spell(*interval, self._refuses))
        found = next((spell for spell in self._seen if spell.end > now), None)
        if found is not None and len(self._seen) > KEPT:
            del self._seen[: max(0, self._seen.index(found) - KEPT)]
        return found
