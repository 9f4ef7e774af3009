"""The pipes of a run, flowing as time passes: fluid rates from `links`, waiting on the clock."""

import asyncio
import heapq
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple, TypeAlias

from fedemu.clock import Clock
from fedemu.links._base import Burst, Demand
from fedemu.links._fluid import Fluid
from fedemu.loop import grid
from fedemu.types import Bytes, Seconds


class Pipe(NamedTuple):
    """What flows can cross together."""

    rate: float
    """Bits per second, until it changes."""
    changes: Iterable[tuple[Seconds, float]] = ()
    """Later rates, in order of time."""
    traffic: Iterable[Demand] = ()
    """What flows in it beside the run's own transfers, in order of time."""


class Route(NamedTuple):
    """What a transfer crosses at once."""

    pipes: Sequence[str] = ()
    recorded: Callable[[Seconds, float], Seconds] | None = None
    """When the last of so many bytes, sent from some time on, has crossed a link whose rate was recorded; it has no
    other transfers in it. To the pipes this is a flow of that mean rate, which ends no earlier than the record says."""
    weight: float = 1.0
    """Its share of a full pipe is in proportion to this."""


_Change: TypeAlias = tuple[Seconds, Callable[[Seconds], None]]
"""When a pipe changes by itself, and what happens then."""


class Network:
    """Serves bursts through the pipes they cross, which concurrent bursts share max-min fairly.

    Args:
        clock: Waits.
        pipes: By name.
    """

    def __init__(self, clock: Clock, pipes: Mapping[str, Pipe]) -> None:
        self._clock = clock
        self._fluid = Fluid({name: pipe.rate for name, pipe in pipes.items()})
        self._waiting: dict[Transfer, asyncio.Future[Seconds]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._latest: Seconds = 0.0
        self._coming: list[tuple[Seconds, int, Iterator[_Change]]] = []
        """A heap: when each pipe changes next."""
        self._next: dict[int, Callable[[Seconds], None]] = {}
        """And what happens then."""
        for place, (name, pipe) in enumerate(pipes.items()):
            self._await_next(2 * place, self._rates(name, pipe.changes))
            self._await_next(2 * place + 1, self._demands(name, pipe.traffic))

    async def serve(self, transfer: "Transfer", size: float, cap: float, start: Seconds) -> Seconds:
        """Return when that much of a transfer has been served, and at what time exactly; use Transfer.run."""
        done: asyncio.Future[Seconds] = asyncio.get_running_loop().create_future()
        self._live_until(start)
        self._waiting[transfer] = done
        route = transfer.route
        self._fluid.start(transfer, size, route.pipes, self._latest, cap=cap, weight=route.weight)
        self._arm()
        return await done

    def stop(self, transfer: "Transfer", size: float) -> float:
        """End what is being served of a transfer and free its share; return the bytes of it that were served."""
        if self._waiting.pop(transfer, None) is None:  # it ended at this very moment
            return size
        self._live_until(self._clock.now())
        served = self._fluid.stop(transfer, self._latest)
        self._arm()
        return served

    # --- what changes by itself

    def _await_next(self, place: int, changes: "Iterator[_Change]") -> None:
        at, self._next[place] = next(changes, (math.inf, lambda _: None))
        if at < math.inf:
            heapq.heappush(self._coming, (at, place, changes))

    def _rates(self, pipe: str, changes: Iterable[tuple[Seconds, float]]) -> "Iterator[_Change]":
        for at, rate in changes:
            yield at, partial(self._fluid.set_rate, pipe, rate)

    def _demands(self, pipe: str, traffic: Iterable[Demand]) -> "Iterator[_Change]":
        for demand in traffic:
            yield demand.at, self._demand(pipe, demand)

    def _demand(self, pipe: str, demand: Demand) -> Callable[[Seconds], None]:
        flow = (pipe, demand.flow)

        def change(at: Seconds) -> None:
            if self._fluid.has(flow):
                if demand.cap:
                    self._fluid.set_cap(flow, demand.cap, at)
                else:
                    self._fluid.stop(flow, at)
            elif demand.cap:
                self._fluid.start(flow, demand.size, [pipe], at, cap=demand.cap)

        return change

    def _live_until(self, now: Seconds) -> None:
        """Let all changes happen that are due, each at its own moment."""
        while self._coming and self._coming[0][0] <= now:
            at, place, changes = heapq.heappop(self._coming)
            self._latest = max(self._latest, at)
            self._next.pop(place)(self._latest)
            self._await_next(place, changes)
        self._latest = max(self._latest, now)

    # --- what ends

    def _due(self) -> Seconds | None:
        """Return when to look again; with nobody waiting, what changes by itself can wait too."""
        if not self._waiting:
            return None
        ends = [self._fluid.next_end(), self._coming[0][0] if self._coming else None]
        return min((end for end in ends if end is not None), default=None)

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        due = self._due()
        self._timer = None if due is None else self._clock.call_at(due, self._look)

    def _look(self) -> None:
        # a real clock may be past several ends and changes: each has its own time
        while (due := self._due()) is not None and grid(due) <= self._clock.now():
            # a flow's end is exact, the clock's grid is 1 ns: the pipes may be that much ahead
            self._live_until(max(due, grid(due)))
            for transfer, ended in self._fluid.ended(self._latest).items():
                done = self._waiting.pop(transfer, None) if isinstance(transfer, Transfer) else None
                if done is not None and not done.done():  # else cancelled at this very moment
                    done.set_result(grid(ended))
        self._arm()


class Transfer:
    """One message on its way through the pipes of a network.

    Args:
        network: Has the pipes.
        bursts: What to serve, in order; each starts when the one before it has been served and turned around.
        route: What it crosses; with nothing on it, a burst is served in no time.
        at_once: Bytes beside the bursts that have passed when it starts.
    """

    def __init__(self, network: Network, bursts: Sequence[Burst], route: Route, at_once: Bytes = 0) -> None:
        self.route = route
        self._network = network
        self._left = deque((float(burst.size), burst.turnaround) for burst in bursts)
        self._size = at_once + sum(burst.size for burst in bursts)
        self._served = float(at_once)
        self._ready: Seconds = -math.inf
        """When the burst before has turned around."""

    async def run(self, clock: Clock, start: Seconds) -> Seconds:
        """Return when the last burst has been served, and at what time: a real clock may be past it.

        Cancelling ends the transfer and frees its share; run again, it goes on where it was.

        Args:
            clock: Waits.
            start: When the first burst starts; not in the future.
        """
        end = start
        while self._left:
            start = max(start, self._ready)
            if start > clock.now():
                await clock.sleep_until(start)
            size, turnaround = self._left[0]
            end = await self._serve(clock, size, start)
            self._left.popleft()
            self._ready = grid(start + turnaround)
            start = end
        return end

    async def _serve(self, clock: Clock, size: float, start: Seconds) -> Seconds:
        if not size:
            return start
        end, cap = start, math.inf
        if self.route.recorded is not None:
            end = grid(self.route.recorded(start, size))
            cap = 8 * size / (end - start)
        try:
            if self.route.pipes:
                end = max(end, await self._network.serve(self, size, cap, start))
            if end > clock.now():
                await clock.sleep_until(end)
        except asyncio.CancelledError:
            self._cut(clock, size, start, cap)
            raise
        self._served += size
        return end

    def _cut(self, clock: Clock, size: float, start: Seconds, cap: float) -> None:
        served = self._network.stop(self, size) if self.route.pipes else size
        if cap < math.inf:
            served = min(served, (clock.now() - start) * cap / 8)
        self._served += served
        _, turnaround = self._left.popleft()
        self._left.appendleft((max(0.0, size - served), turnaround))

    @property
    def share(self) -> float:
        """How much of it has been served, 0..1."""
        return self._served / self._size if self._size else 1.0


def alone(bursts: Sequence[Burst], route: Route, rate: float, start: Seconds) -> Seconds:
    """Return how long these bursts take from `start` on with nothing beside them on their way.

    Args:
        bursts: What to serve.
        route: What they cross.
        rate: Of the narrowest pipe, bits per second.
        start: When the first one starts.
    """
    begin = end = start
    for burst in bursts:
        recorded = begin if route.recorded is None or not burst.size else route.recorded(begin, burst.size)
        end = max(recorded, begin + 8 * burst.size / rate)
        begin = max(end, begin + burst.turnaround)
    return end - start
