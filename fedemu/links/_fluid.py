"""Fluid pipes: what flows in progress share, max-min fair, as a function of time that others tell.

A flow crosses several pipes at once and gets the same rate in all. Rates are max-min fair by progressive filling
(Bertsekas and Gallager, Data Networks, 2nd ed. 1992, section 6.5.2): raise all rates together, each in proportion to
its weight; a flow stops at its cap, and a pipe that is full stops its flows. Rates are computed anew at each start,
stop, end and change, and are constant in between: ends are known exactly.

Flows that must get the same rate (same weight, same cap, same pipes shared with others) stand together in a class,
which knows one number for all of them: how much each has been served so far. A flow ends when that reaches the flow's
own mark, so that a start or an end costs O(log n) in n flows, and only what is connected to it by shared pipes is
computed anew. A pipe with one flow in it is that flow's cap.
"""

import heapq
import itertools
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from fedemu.types import Seconds

Flow: TypeAlias = Hashable


@dataclass(slots=True, eq=False)
class _Pipe:
    name: str
    place: int
    """In the order in which pipes were added."""
    rate: float
    """Bits per second, >= 0, finite."""
    flows: "dict[_Progress, None]" = field(default_factory=dict)
    classes: "dict[_Class, None]" = field(default_factory=dict)
    """Of its flows, while it has two or more."""


@dataclass(slots=True, eq=False)
class _Class:
    """Flows that get the same rate, as a straight line through time that is redrawn only when the rate changes."""

    place: int
    """In the order in which classes were made."""
    weight: float
    cap: float
    pipes: tuple[_Pipe, ...]
    """Those that it shares with other classes, or whose rate its own flows divide."""
    since: Seconds
    served: float = 0.0
    """Bytes that a flow that is here from the beginning had got at `since`."""
    rate: float = 0.0
    """Of each flow."""
    members: int = 0
    marks: "list[tuple[float, int, _Progress]]" = field(default_factory=list)
    """A heap of what must have been served when a flow ends; those that have left are still in it."""
    end: Seconds = math.inf
    """When its next flow ends."""

    def served_at(self, now: Seconds) -> float:
        return self.served + (now - self.since) * self.rate / 8

    def first(self) -> "_Progress | None":
        while self.marks and self.marks[0][2].group is not self:
            heapq.heappop(self.marks)
        return self.marks[0][2] if self.marks else None

    def find_end(self) -> Seconds:
        first = self.first()
        if first is None or self.rate == 0:
            return math.inf
        return self.since + 8 * max(0.0, first.mark - self.served) / self.rate


@dataclass(slots=True, eq=False)
class _Progress:
    flow: Flow
    place: int
    """In the order of start."""
    size: float
    pipes: tuple[_Pipe, ...]
    cap: float
    weight: float
    sent: float = 0.0
    """Bytes before it came to its class."""
    group: _Class | None = None
    joined: float = 0.0
    """What the class had served when it came."""
    mark: float = math.inf
    """What the class has served when it ends."""
    end: Seconds = math.inf
    """When it ended."""

    def sent_at(self, now: Seconds) -> float:
        assert self.group is not None
        return min(self.size, self.sent + max(0.0, self.group.served_at(now) - self.joined))


class Fluid:
    """Pipes of given rates and the flows in them. Times are those of the caller's clock and never go back."""

    def __init__(self, rates: Mapping[str, float] | None = None) -> None:
        self._pipes: dict[str, _Pipe] = {}
        self._flows: dict[Flow, _Progress] = {}
        self._classes: dict[tuple[float, float, tuple[_Pipe, ...]], _Class] = {}
        self._ends: list[tuple[Seconds, int, _Class]] = []
        """A heap; an entry counts while it says the same as its class."""
        self._ended: dict[Flow, _Progress] = {}  # but not yet told to the caller
        self._places = itertools.count()
        self._now = -math.inf
        for pipe, rate in (rates or {}).items():
            self.add_pipe(pipe, rate)

    def add_pipe(self, pipe: str, rate: float) -> None:
        """Add an empty pipe of that rate in bits per second.

        Raises:
            ValueError: the pipe exists, or its rate is not finite and above zero.
        """
        if pipe in self._pipes:
            raise ValueError(f"pipe {pipe!r} exists")
        if not 0 < rate < math.inf:
            raise ValueError(f"pipe {pipe!r} has rate {rate:g}; expected a finite one above zero")
        self._pipes[pipe] = _Pipe(pipe, len(self._pipes), rate)

    def set_rate(self, pipe: str, rate: float, now: Seconds) -> None:
        """Change the rate of a pipe from now on; at 0 its flows stand still.

        Raises:
            ValueError: the rate is not finite, or below zero.
            KeyError: no such pipe.
        """
        if not 0 <= rate < math.inf:
            raise ValueError(f"pipe {pipe!r} would have rate {rate:g}; expected a finite one, zero or above")
        changed = self._pipes[pipe]
        self._advance(now)
        changed.rate = rate
        self._settle([changed])

    def start(
        self,
        flow: Flow,
        size: float,
        pipes: Sequence[str],
        now: Seconds,
        *,
        cap: float = math.inf,
        weight: float = 1.0,
    ) -> None:
        """Let a new flow of `size` bytes cross these pipes, all at once.

        Args:
            flow: Its name.
            size: Bytes; inf never ends by itself.
            pipes: What it crosses.
            now: When it starts.
            cap: Bits per second that it takes at most.
            weight: Its share of a full pipe is in proportion to this; above zero.

        Raises:
            ValueError: the flow is in progress, or neither a pipe nor a cap would slow it.
            KeyError: no such pipe.
        """
        if flow in self._flows or flow in self._ended:
            raise ValueError(f"flow {flow!r} is in progress")
        if not pipes and cap == math.inf:
            raise ValueError(
                f"flow {flow!r} crosses no pipe, so that nothing would slow it; deliver it at once instead"
            )
        crossed = tuple(self._pipes[pipe] for pipe in dict.fromkeys(pipes))
        self._advance(now)
        progress = self._flows[flow] = _Progress(flow, next(self._places), size, crossed, cap, weight)
        for pipe in crossed:
            pipe.flows[progress] = None
        self._settle(crossed, [progress])

    def has(self, flow: Flow) -> bool:
        """Tell whether a flow is in progress."""
        return flow in self._flows

    def set_cap(self, flow: Flow, cap: float, now: Seconds) -> None:
        """Change the cap of a flow in progress.

        Raises:
            KeyError: no such flow, or it has ended.
        """
        self._advance(now)
        progress = self._flows[flow]
        progress.cap = cap
        self._settle(progress.pipes, [progress])

    def stop(self, flow: Flow, now: Seconds) -> float:
        """End a flow before its time, and return the bytes that were sent by now.

        Raises:
            KeyError: no such flow, or `ended` has told its end.
        """
        self._advance(now)
        if flow in self._ended:
            return self._ended.pop(flow).size
        progress = self._flows[flow]
        sent = progress.sent_at(now)
        self._settle(self._remove(progress))
        return sent

    def next_end(self) -> Seconds | None:
        """Return when the next flow ends if none starts, stops or changes before; None if none ever does."""
        while self._ends and self._ends[0][2].end != self._ends[0][0]:
            heapq.heappop(self._ends)
        ends = [*(progress.end for progress in self._ended.values()), *(entry[0] for entry in self._ends[:1])]
        return min(ends, default=None)

    def ended(self, now: Seconds) -> dict[Flow, Seconds]:
        """Return the flows that have ended by now, each once, in order of start, and when each did."""
        self._advance(now)
        ended, self._ended = self._ended, {}
        return {p.flow: p.end for p in sorted(ended.values(), key=lambda progress: progress.place)}

    def _advance(self, now: Seconds) -> None:
        """Live through all ends up to now, each at its own moment, however late the caller comes."""
        assert now >= self._now, f"time goes back from {self._now} to {now}"
        while self._ends and self._ends[0][0] <= now:
            end = self._ends[0][0]
            self._now = max(self._now, end)
            touched: list[_Pipe] = []
            while self._ends and self._ends[0][0] <= end:
                at, _, group = heapq.heappop(self._ends)
                if group.end != at:
                    continue
                while group.find_end() <= end:
                    progress = group.first()
                    assert progress is not None
                    progress.end = end
                    self._ended[progress.flow] = progress
                    touched += self._remove(progress)
                self._look_ahead(group)
            self._settle(touched)
        self._now = now

    def _remove(self, progress: _Progress) -> tuple[_Pipe, ...]:
        self._leave(progress)
        del self._flows[progress.flow]
        for pipe in progress.pipes:
            del pipe.flows[progress]
        return progress.pipes

    def _settle(self, pipes: Iterable[_Pipe], flows: Iterable[_Progress] = ()) -> None:
        """Put into their classes those flows, and whoever got company in these pipes or lost it; share anew."""
        pipes = list(dict.fromkeys(pipes))
        moved = dict.fromkeys(flows)
        for pipe in pipes:
            if len(pipe.flows) <= 2:  # one is alone now, two may have been
                moved.update(pipe.flows)
        touched = dict.fromkeys(pipes)
        for progress in moved:
            touched.update(dict.fromkeys(self._classify(progress)))
        self._share(pipe for pipe in touched if len(pipe.flows) > 1)

    def _classify(self, progress: _Progress) -> tuple[_Pipe, ...]:
        """Put a flow where it belongs; return the pipes that its class shares."""
        shared = tuple(pipe for pipe in progress.pipes if len(pipe.flows) > 1)
        cap = min([progress.cap, *(pipe.rate for pipe in progress.pipes if len(pipe.flows) == 1)])
        key = (progress.weight, cap, shared)
        group = self._classes.get(key)
        if group is not None and group is progress.group:
            return shared
        if progress.group is not None:
            progress.sent = progress.sent_at(self._now)
            self._leave(progress)
        if group is None:
            group = self._classes[key] = _Class(next(self._places), progress.weight, cap, shared, self._now)
            for pipe in shared:
                pipe.classes[group] = None
        group.members += 1
        progress.group, progress.joined = group, group.served_at(self._now)
        progress.mark = progress.joined + (progress.size - progress.sent)
        heapq.heappush(group.marks, (progress.mark, progress.place, progress))
        if shared:
            self._look_ahead(group)
        else:
            self._redraw(group, cap)
        return shared

    def _leave(self, progress: _Progress) -> None:
        group = progress.group
        assert group is not None
        progress.group = None
        group.members -= 1
        if group.members:
            self._look_ahead(group)
            return
        group.end = math.nan  # no entry in the heap says the same
        del self._classes[group.weight, group.cap, group.pipes]
        for pipe in group.pipes:
            del pipe.classes[group]

    def _redraw(self, group: _Class, rate: float) -> None:
        if rate != group.rate:
            group.served, group.since, group.rate = group.served_at(self._now), self._now, rate
        self._look_ahead(group)

    def _look_ahead(self, group: _Class) -> None:
        end = group.find_end()
        if end != group.end and group.members:
            group.end = end
            if end < math.inf:
                heapq.heappush(self._ends, (end, group.place, group))
            if len(self._ends) > 4 * len(self._classes) + 64:  # most say what is not true any more
                self._ends = [(g.end, g.place, g) for g in self._classes.values() if g.end < math.inf]
                heapq.heapify(self._ends)

    def _share(self, pipes: Iterable[_Pipe]) -> None:
        """Give every flow its max-min fair rate that these pipes, and what is connected to them, have a say in.

        The level at which a pipe is full only grows while flows that are slower elsewhere leave it, so a heap whose
        entries are looked at again when they come up always yields the next pipe to be full.
        """
        found = dict.fromkeys(pipes)
        classes: dict[_Class, None] = {}
        for pipe in (reached := list(found)):
            for group in pipe.classes:
                if group not in classes:
                    classes[group] = None
                    fresh = [other for other in group.pipes if other not in found]
                    found.update(dict.fromkeys(fresh))
                    reached += fresh
        left = {pipe: pipe.rate for pipe in found}
        weight = {pipe: sum(g.weight * g.members for g in pipe.classes) for pipe in found}
        waiting = {pipe: len(pipe.classes) for pipe in found}
        heap: list[tuple[float, int, _Pipe | _Class]] = [
            *((left[pipe] / weight[pipe], pipe.place, pipe) for pipe in found),
            *((group.cap / group.weight, len(self._pipes) + group.place, group) for group in classes),
        ]
        heapq.heapify(heap)
        while heap and classes:
            level, place, item = heapq.heappop(heap)
            if isinstance(item, _Class):
                full = [item]
            elif not waiting[item]:
                continue
            elif (current := left[item] / weight[item]) > level:
                heapq.heappush(heap, (current, place, item))
                continue
            else:
                full = list(item.classes)
            for group in full:
                if group in classes:
                    del classes[group]
                    rate = min(group.cap, level * group.weight)
                    for pipe in group.pipes:
                        left[pipe] = max(0.0, left[pipe] - rate * group.members)
                        weight[pipe] -= group.weight * group.members
                        waiting[pipe] -= 1
                    self._redraw(group, rate)
