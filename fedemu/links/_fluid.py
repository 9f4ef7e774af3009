"""Fluid pipes: what flows in progress share, max-min fair, as a function of time that others tell.

A flow crosses several pipes at once and gets the same rate in all. Rates are max-min fair by progressive filling
(Bertsekas and Gallager, Data Networks, 2nd ed. 1992, section 6.5.2): raise all rates together; a pipe that is full
stops its flows. Rates are computed anew at each start, stop and end, and constant in between: ends are known exactly.
"""

import heapq
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from fedemu.types import Bytes, Seconds

Flow: TypeAlias = Hashable


@dataclass(slots=True)
class _Progress:
    """A flow's straight line through time, redrawn only when its rate changes: else its end is the same float."""

    size: float
    pipes: tuple[str, ...]
    since: Seconds
    left: float
    """Bytes left at `since`."""
    rate: float = 0.0
    end: Seconds = math.inf

    def left_at(self, now: Seconds) -> float:
        return min(self.left, max(0.0, self.left - (now - self.since) * self.rate / 8))

    def redraw(self, rate: float, now: Seconds) -> None:
        if rate != self.rate:
            self.left, self.since, self.rate = self.left_at(now), now, rate
            self.end = now + 8 * self.left / rate


@dataclass(slots=True)
class _Pipe:
    rate: float
    """Bits per second, > 0, finite."""
    flows: dict[Flow, None] = field(default_factory=dict)


class Fluid:
    """Pipes of given rates and the flows in them. Times are those of the caller's clock and never go back."""

    def __init__(self, rates: Mapping[str, float] | None = None) -> None:
        self._pipes: dict[str, _Pipe] = {}
        self._flows: dict[Flow, _Progress] = {}  # in order of start
        self._ended: dict[Flow, _Progress] = {}  # but not yet told to the caller
        self._order: dict[Flow, int] = {}
        self._starts = 0
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
        self._pipes[pipe] = _Pipe(rate)

    def start(self, flow: Flow, size: Bytes, pipes: Sequence[str], now: Seconds) -> None:
        """Let a new flow of `size` bytes cross these pipes, all at once.

        Raises:
            ValueError: the flow is in progress, or crosses no pipe.
            KeyError: no such pipe.
        """
        if flow in self._order:
            raise ValueError(f"flow {flow!r} is in progress")
        if not pipes:
            raise ValueError(
                f"flow {flow!r} crosses no pipe, so that nothing would slow it; deliver it at once instead"
            )
        crossed = [self._pipes[pipe] for pipe in dict.fromkeys(pipes)]
        self._advance(now)
        self._flows[flow] = _Progress(size, tuple(dict.fromkeys(pipes)), now, size)
        self._order[flow] = self._starts
        self._starts += 1
        for pipe in crossed:
            pipe.flows[flow] = None
        self._share()

    def stop(self, flow: Flow, now: Seconds) -> float:
        """End a flow before its time, and return the bytes that were sent by now.

        Raises:
            KeyError: no such flow, or `ended` has told its end.
        """
        self._advance(now)
        del self._order[flow]
        if flow in self._ended:
            return self._ended.pop(flow).size
        progress = self._remove(flow)
        self._share()
        return progress.size - progress.left_at(now)

    def next_end(self) -> Seconds | None:
        """Return when the next flow ends if none starts or stops before; None with no flow in progress."""
        ends = (progress.end for flows in (self._ended, self._flows) for progress in flows.values())
        return min(ends, default=None)

    def ended(self, now: Seconds) -> dict[Flow, Seconds]:
        """Return the flows that have ended by now, each once, in order of start, and when each did."""
        self._advance(now)
        flows = sorted(self._ended, key=self._order.__getitem__)
        for flow in flows:
            del self._order[flow]
        return {flow: self._ended.pop(flow).end for flow in flows}

    def _advance(self, now: Seconds) -> None:
        """Live through all ends up to now, each at its own moment, however late the caller comes."""
        assert now >= self._now, f"time goes back from {self._now} to {now}"
        while (end := min((p.end for p in self._flows.values()), default=math.inf)) <= now:
            self._now = max(self._now, end)
            for flow in [flow for flow, progress in self._flows.items() if progress.end <= end]:
                self._ended[flow] = self._remove(flow)
            self._share()
        self._now = now

    def _remove(self, flow: Flow) -> _Progress:
        progress = self._flows.pop(flow)
        for pipe in progress.pipes:
            del self._pipes[pipe].flows[flow]
        return progress

    def _share(self) -> None:
        """Give every flow its max-min fair rate.

        A pipe's fair share only grows while flows that are slower elsewhere leave it, so a heap whose entries are
        looked at again when they come up always yields the next pipe to be full.
        """
        crossed = dict.fromkeys(pipe for progress in self._flows.values() for pipe in progress.pipes)
        left = {name: self._pipes[name].rate for name in crossed}
        waiting = {name: len(self._pipes[name].flows) for name in crossed}
        heap = [(left[name] / waiting[name], place, name) for place, name in enumerate(crossed)]
        heapq.heapify(heap)
        rates: dict[Flow, float] = {}
        while heap:
            share, place, name = heapq.heappop(heap)
            if not waiting[name]:
                continue
            current = left[name] / waiting[name]
            if current > share:
                heapq.heappush(heap, (current, place, name))
                continue
            for flow in self._pipes[name].flows:
                if flow not in rates:
                    rates[flow] = share
                    _take(share, self._flows[flow].pipes, left, waiting)
        for flow, rate in rates.items():
            self._flows[flow].redraw(rate, self._now)


def _take(share: float, pipes: Iterable[str], left: dict[str, float], waiting: dict[str, int]) -> None:
    for pipe in pipes:
        left[pipe] -= share
        waiting[pipe] -= 1
