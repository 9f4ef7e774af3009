"""Time: the only module that reads it, the only one that sleeps.

A `Clock` counts seconds from the start of the first round. `RealClock` waits. `VirtualClock` is a discrete-event clock
on a `VirtualLoop`: when nothing is ready to run it jumps to the next thing due. Real work in progress (a training job
in another process) is a `Flight` with a known emulated time of delivery, and the jump obeys one rule:

    The clock may jump to the next event time T only when the loop is idle (no ready callback, no readable descriptor)
    and no flight that has not landed is due at or before T.

So real work overlaps with the passing of emulated time, and only a flight that is due freezes it. What has landed is
released in the order of (emulated time, key), never in the order in which the real world finished it.
"""

import asyncio
import contextvars
import heapq
import math
import selectors
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar, TypeVarTuple, cast

from fedemu.errors import Deadlock, Stalled
from fedemu.types import Seconds

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

Key = tuple[str | int, ...]
"""Orders flights that are due at the same time; names and numbers only, of the same shape for all."""


STEPS = 1_000_000
"""Turns that a virtual loop may take without time going on."""


class Flight(Protocol):
    """Real work in progress, whose effect belongs to a moment of emulated time. Await it to get there."""

    def land(self) -> None:
        """Say that the real work is done. Call from the loop's thread."""

    def __await__(self) -> Any: ...


class Clock(Protocol):
    """Seconds since the start of the first round, and waiting for them."""

    def start(self) -> None:
        """Make this moment time 0."""

    def now(self) -> Seconds: ...

    async def sleep_until(self, when: Seconds) -> None:
        """Wait until then; return at once if it is past."""

    def call_at(self, when: Seconds, callback: Callable[[], object]) -> asyncio.TimerHandle: ...

    def timeout_at(self, when: Seconds) -> asyncio.Timeout:
        """Return a context manager that raises TimeoutError inside it at that time; never, if it is infinite."""

    def flight(self, when: Seconds, key: Key, *, patience: Seconds = 20.0) -> Flight:
        """Announce real work whose effect is due at `when`, or once it has landed if that is later on a real clock.

        Args:
            when: Emulated time of the effect.
            key: What the work is; orders what is due at the same time, and names it in an error.
            patience: Real seconds after which a virtual clock that waits for it raises Stalled; inf to wait for ever.
        """


class RealClock:
    """The clock on the wall. Now is 0 until `start`."""

    def __init__(self) -> None:
        self._origin: float | None = None

    def start(self) -> None:
        self._origin = asyncio.get_running_loop().time()

    def now(self) -> Seconds:
        return 0.0 if self._origin is None else asyncio.get_running_loop().time() - self._origin

    async def sleep_until(self, when: Seconds) -> None:
        await asyncio.sleep(when - self.now())

    def call_at(self, when: Seconds, callback: Callable[[], object]) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_at(self._loop_time(when), callback)

    def timeout_at(self, when: Seconds) -> asyncio.Timeout:
        return asyncio.timeout_at(self._loop_time(when) if math.isfinite(when) else None)

    def flight(self, when: Seconds, key: Key, *, patience: Seconds = 20.0) -> Flight:
        return _RealFlight(self, when)

    def _loop_time(self, when: Seconds) -> float:
        return when + (asyncio.get_running_loop().time() if self._origin is None else self._origin)


class _RealFlight:
    def __init__(self, clock: RealClock, when: Seconds) -> None:
        self._clock, self._when = clock, when
        self._landed = asyncio.Event()

    def land(self) -> None:
        self._landed.set()

    def __await__(self) -> Any:
        yield from self._landed.wait().__await__()
        yield from self._clock.sleep_until(self._when).__await__()


class VirtualClock:
    """Emulated time on a running `VirtualLoop`. Time 0 is when the loop was made."""

    def __init__(self) -> None:
        self._loop = cast("VirtualLoop", asyncio.get_running_loop())

    def start(self) -> None:
        assert self._loop.time() == 0, "the first round starts before anything has taken time"

    def now(self) -> Seconds:
        return self._loop.time()

    async def sleep_until(self, when: Seconds) -> None:
        await asyncio.sleep(when - self._loop.time())

    def call_at(self, when: Seconds, callback: Callable[[], object]) -> asyncio.TimerHandle:
        return self._loop.call_at(when, callback)

    def timeout_at(self, when: Seconds) -> asyncio.Timeout:
        return asyncio.timeout_at(when if math.isfinite(when) else None)

    def flight(self, when: Seconds, key: Key, *, patience: Seconds = 20.0) -> Flight:
        return self._loop.flight(when, key, patience)


def run(main: Coroutine[Any, Any, T], *, virtual: bool) -> T:
    """Run a coroutine to its end on a new event loop, as asyncio.run does.

    Raises:
        Deadlock: On a virtual loop, where tasks wait for what nothing can produce.
        Stalled: On a virtual loop, where real work that is due does not finish.
    """
    with asyncio.Runner(loop_factory=VirtualLoop if virtual else None) as runner:
        return runner.run(main)


async def finish(work: "Future[T]", clock: Clock, when: Seconds, key: Key) -> T:
    """Return the result of real work at `when`, or once it is there if that is later on a real clock.

    Cancelling gives the work up. The clock waits for it as long as it takes: training is not a stall.
    """
    loop = asyncio.get_running_loop()
    flight = clock.flight(when, key, patience=float("inf"))
    work.add_done_callback(lambda _: loop.is_closed() or loop.call_soon_threadsafe(flight.land))
    try:
        await flight
    except asyncio.CancelledError:
        work.cancel()
        raise
    return work.result()


def grid(when: Seconds) -> Seconds:
    """Return the time on a grid of 1 ns, so that 0.1 + 0.2 and 0.3 are the same moment (exact to about 97 days)."""
    return round(when * 1e9) / 1e9


class _Timer(asyncio.TimerHandle):
    """A timer that fires, among timers of the same time, in the order in which it was set."""

    __slots__ = ("_order",)
    _order: int

    def __lt__(self, other: object) -> bool:
        assert isinstance(other, _Timer)
        return (self.when(), self._order) < (other.when(), other._order)


_lineage: contextvars.ContextVar[list[int]] = contextvars.ContextVar("lineage")


class _Task(asyncio.Task[Any]):
    """A task whose hash is its lineage (its parent's, and which child of it this is), not its address.

    asyncio keeps tasks in sets (TaskGroup, wait, all_tasks), whose order would otherwise differ from run to run.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, Any], lineage: int, **options: Any) -> None:
        self._lineage = lineage
        super().__init__(coroutine, **options)

    def __hash__(self) -> int:
        return self._lineage

    def __eq__(self, other: object) -> bool:
        return self is other


def _make_task(
    loop: asyncio.AbstractEventLoop,
    coroutine: Coroutine[Any, Any, Any],
    *,
    context: contextvars.Context | None = None,
    **options: Any,
) -> _Task:
    parent = _lineage.get(None)
    if parent is None:
        parent = [0, 0]
        _lineage.set(parent)
    parent[1] += 1
    lineage = hash((parent[0], parent[1]))  # of integers: the same in every process
    context = context if context is not None else contextvars.copy_context()
    context.run(_lineage.set, [lineage, 0])
    return _Task(coroutine, lineage, loop=loop, context=context, **options)


class _VirtualFlight:
    """A flight of a virtual loop. Waits in `barrier` until landed, then in `gate` until its time."""

    __slots__ = ("_future", "_loop", "dropped", "key", "landed", "patience", "when")

    def __init__(self, loop: "VirtualLoop", when: Seconds, key: Key, patience: Seconds) -> None:
        self._loop, self.when, self.key, self.patience = loop, when, key, patience
        self.landed = self.dropped = False
        self._future: asyncio.Future[None] = loop.create_future()

    def land(self) -> None:
        if not self.landed and not self.dropped:
            self.landed = True
            self._loop.landed(self)

    def release(self) -> None:
        if not self._future.done():
            self._future.set_result(None)

    def __await__(self) -> Any:
        try:
            yield from self._future.__await__()
        except asyncio.CancelledError:
            self.dropped = True
            raise

    def __lt__(self, other: "_VirtualFlight") -> bool:
        return (self.when, self.key) < (other.when, other.key)


class _Selector(selectors.DefaultSelector):
    """Asks the loop what to do when asyncio would wait for descriptors."""

    loop: "VirtualLoop | None" = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if self.loop is None:
            return super().select(timeout)
        self.loop.step()
        if timeout == 0:  # callbacks are ready, or a timer is due
            return super().select(0)
        return self.loop.idle(super().select)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An asyncio event loop whose time is emulated. The module's first lines state its rule."""

    _scheduled: list[asyncio.TimerHandle]
    _stopping: bool
    _clock_resolution: float

    def __init__(self) -> None:
        selector = _Selector()
        super().__init__(selector)
        self._now = 0.0
        self._timers = self._steps = 0
        self._gate: list[_VirtualFlight] = []
        self._barrier: list[_VirtualFlight] = []
        self._clock_resolution = math.ulp(0.0)
        self.set_task_factory(cast(Any, _make_task))
        selector.loop = self

    def time(self) -> Seconds:
        return self._now

    def call_at(
        self,
        when: Seconds,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        timer = _Timer(grid(when), callback, args, self, context)
        self._timers += 1
        timer._order = self._timers
        heapq.heappush(self._scheduled, timer)
        timer._scheduled = True  # type: ignore[attr-defined]  # what BaseEventLoop.call_at does; cancel() counts by it
        return timer

    def call_later(
        self,
        delay: Seconds,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def flight(self, when: Seconds, key: Key, patience: Seconds) -> _VirtualFlight:
        flight = _VirtualFlight(self, max(grid(when), self._now), key, patience)
        heapq.heappush(self._barrier, flight)
        return flight

    def landed(self, flight: _VirtualFlight) -> None:
        heapq.heappush(self._gate, flight)

    def step(self) -> None:
        """Count the loop's turns since time went on, and stop what waits for time without letting it pass."""
        self._steps += 1
        if self._steps > STEPS:
            raise Deadlock(f"{STEPS} turns at {self._now:.9g} s of emulated time: something waits in a busy loop")

    def idle(
        self, poll: Callable[[float], list[tuple[selectors.SelectorKey, int]]]
    ) -> list[tuple[selectors.SelectorKey, int]]:
        """Let time pass: no callback is ready. Return readable descriptors, or nothing once something is due."""
        ready = poll(0)
        if ready:
            return ready
        while self._barrier and (self._barrier[0].landed or self._barrier[0].dropped):
            heapq.heappop(self._barrier)
        due = min(
            self._scheduled[0].when() if self._scheduled else math.inf,
            self._gate[0].when if self._gate else math.inf,
        )
        if self._barrier and self._barrier[0].when <= due:
            return self._wait_for(self._barrier[0], poll)
        if due == math.inf:
            if self._stopping:
                return []
            raise Deadlock(self._waiting())
        if due > self._now:
            self._now, self._steps = due, 0
            self._clock_resolution = math.ulp(due)  # asyncio runs timers due before now + resolution: only those of now
        while self._gate and self._gate[0].when <= self._now:
            heapq.heappop(self._gate).release()
        return []

    def _wait_for(
        self, flight: _VirtualFlight, poll: Callable[[float], list[tuple[selectors.SelectorKey, int]]]
    ) -> list[tuple[selectors.SelectorKey, int]]:
        started = time.monotonic()
        while True:
            left = flight.patience - (time.monotonic() - started)
            if left <= 0:
                raise Stalled(
                    f"emulated time stands at {self._now:.9g} s: {flight.key} is due and has not landed "
                    f"within {flight.patience:g} s of real time; {len(self._barrier)} flights are on their way"
                )
            ready = poll(min(left, 3600))
            if ready:
                return ready

    def _waiting(self) -> str:
        lines = []
        for task in asyncio.all_tasks(self):
            stack = task.get_stack(limit=1)
            where = f"{stack[0].f_code.co_filename}:{stack[0].f_lineno}" if stack else "nowhere"
            lines.append(f"{task.get_name()} at {where}")
        return (
            f"deadlock at {self._now:.9g} s of emulated time: nothing is scheduled and nothing is in progress, "
            f"but these tasks wait: {'; '.join(sorted(lines))}"
        )
