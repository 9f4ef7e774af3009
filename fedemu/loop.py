"""The event loop of emulated time: an asyncio loop that jumps to the next thing due when nothing is ready to run.

Real work in progress (a message in a socket, a training job in another process) is a flight with a known emulated time
of delivery, and the jump obeys one rule:

    The loop may jump to the next event time T only when it is idle (no ready callback, no readable descriptor)
    and no flight that has not landed is due at or before T.

So real work overlaps with the passing of emulated time, and only a flight that is due freezes it. What has landed is
released through one gate in the order of (emulated time, key), never in the order in which the real world finished it.

Real work that is itself asyncio, such as gRPC, runs `aside`: in tasks for which time is real, so that their timers do
not move emulated time. They and the tasks of emulated time share nothing but flights.
"""

import asyncio
import contextvars
import heapq
import itertools
import math
import selectors
import time
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Executor
from pathlib import Path
from types import CoroutineType
from typing import Any, TypeAlias, TypeVar, TypeVarTuple, cast

from fedemu.errors import ClockError, Deadlock, Stalled
from fedemu.types import Seconds

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

Key: TypeAlias = tuple[str | int, ...]
"""Orders flights that are due at the same time: names and numbers, those in the same place comparable."""

STEPS = 1_000_000
"""Turns that a loop may take without emulated time going on."""

GLANCE = 16
"""Turns with callbacks to run from one look at descriptors to the next."""

PATIENCE = 20.0
"""Real seconds without any sign of life after which a flight that is due counts as stalled."""

HASTE = 1.0
"""The same after a loop has stalled once: what follows is cleaning up."""

Poll: TypeAlias = Callable[[float], list[tuple[selectors.SelectorKey, int]]]
"""Waits so many real seconds for descriptors."""

_ASYNCIO = str(Path(asyncio.__file__).parent)

_is_aside: contextvars.ContextVar[bool] = contextvars.ContextVar("is_aside", default=False)


def aside(coroutine: Coroutine[Any, Any, T], name: str) -> "asyncio.Task[T]":
    """Start a task in real time, as work with sockets needs; on any other loop, just start it.

    What it does must reach the tasks of emulated time by flights alone.
    """
    context = contextvars.copy_context()
    context.run(_is_aside.set, True)
    return asyncio.get_running_loop().create_task(coroutine, name=name, context=context)


async def standstill(coroutine: Coroutine[Any, Any, T], what: str, patience: Seconds = PATIENCE) -> T:
    """Await what takes real time and no emulated time; on any other loop, just await it.

    Raises:
        Stalled: It does not end, and `patience` real seconds have passed without a sign of life.
    """
    loop = asyncio.get_running_loop()
    if not isinstance(loop, VirtualLoop) or _is_aside.get():
        return await coroutine
    flight = loop.flight(loop.now, (what,), patience)
    task = aside(coroutine, what)
    task.add_done_callback(lambda _: flight.land())
    try:
        await flight
    except asyncio.CancelledError:
        task.cancel()
        raise
    return task.result()


async def lull() -> None:
    """Wait until nothing else happens at this moment of emulated time; on any other loop, do nothing.

    What takes real time in several steps, and is seen at each, then has the same order whatever the steps take.
    """
    loop = asyncio.get_running_loop()
    if isinstance(loop, VirtualLoop):
        await loop.lull()


def grid(when: Seconds) -> Seconds:
    """Return the time on a grid of 1 ns, so that 0.1 + 0.2 and 0.3 are the same moment (exact to about 97 days)."""
    return round(when * 1e9) / 1e9 if when < math.inf else when


class _Timer(asyncio.TimerHandle):
    """A timer that fires, among timers of the same time, in the order in which it was set."""

    __slots__ = ("_order",)
    _order: int

    def __lt__(self, other: object) -> bool:
        assert isinstance(other, _Timer)
        return (self.when(), self._order) < (other.when(), other._order)


class _Task(asyncio.Task[Any]):
    """A task whose hash is its number, not its address.

    asyncio keeps tasks in sets (TaskGroup, wait, all_tasks), whose order would otherwise differ from run to run. Tasks
    aside come and go as the real world wills, and are numbered apart.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, Any], number: int, is_aside: bool, **options: Any) -> None:
        self._number, self.is_aside = number, is_aside
        super().__init__(coroutine, **options)

    def __hash__(self) -> int:
        return self._number

    def __eq__(self, other: object) -> bool:
        return self is other


class _Future(asyncio.Future[Any]):
    """A future whose hash is a number, given when it is first asked for; see _Task."""

    _number: int | None = None

    def __hash__(self) -> int:
        if self._number is None:
            self._number = cast(VirtualLoop, self.get_loop()).number(_is_aside.get())
        return self._number

    def __eq__(self, other: object) -> bool:
        return self is other


class VirtualFlight:
    """A flight of a virtual loop. Waits in `barrier` until landed, then in `gate` until its time."""

    __slots__ = ("_future", "_loop", "_order", "dropped", "key", "landed", "patience", "when")

    def __init__(self, loop: "VirtualLoop", when: Seconds, key: Key, patience: Seconds, order: int) -> None:
        self._loop, self.when, self.key, self.patience, self._order = loop, when, key, patience, order
        self.landed = self.dropped = False
        self._future: asyncio.Future[None] = loop.create_future()

    def land(self) -> None:
        if not self.landed and not self.dropped:
            self.landed = True
            self._loop.landed(self)

    def release(self) -> None:
        if not self._future.done():
            self._future.set_result(None)

    def __await__(self) -> Generator[Any, Any, Seconds]:
        try:
            yield from self._future.__await__()
        except asyncio.CancelledError:
            self.dropped = True
            raise
        return self.when

    def __lt__(self, other: "VirtualFlight") -> bool:
        return (self.when, self.key, self._order) < (other.when, other.key, other._order)


class _Selector(selectors.DefaultSelector):
    """Asks the loop what to do when asyncio would wait for descriptors."""

    loop: "VirtualLoop | None" = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if self.loop is None:
            return super().select(timeout)
        turn = self.loop.step()
        if timeout == 0:  # callbacks are ready, or a timer is due
            return super().select(0) if turn % GLANCE == 0 else []
        return self.loop.idle(super().select)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An asyncio event loop whose time is emulated. The module's first lines state its rule."""

    _scheduled: list[asyncio.TimerHandle]
    _clock_resolution: float
    _guarded = False

    def __init__(self) -> None:
        selector = _Selector()
        super().__init__(selector)
        self.now: Seconds = 0.0
        """Emulated time."""
        self._steps = 0
        self._patience = math.inf
        self._orders = itertools.count()
        self._numbers = {False: itertools.count(), True: itertools.count(2**40)}  # apart in sets, too
        self._gate: list[VirtualFlight] = []
        self._barrier: list[VirtualFlight] = []
        self._lulls: deque[asyncio.Future[None]] = deque()
        self._real_timers: list[_Timer] = []
        self._clock_resolution = math.ulp(0.0)
        self.set_task_factory(cast(Any, _make_task))
        selector.loop = self
        self._guarded = True

    def time(self) -> Seconds:
        """Return emulated time; to a task aside, real time."""
        return time.monotonic() if _is_aside.get() else self.now

    def number(self, is_aside: bool) -> int:
        """Return a hash that does not depend on addresses, for what lands in sets."""
        return next(self._numbers[is_aside])

    def create_future(self) -> "asyncio.Future[Any]":
        return _Future(loop=self)

    def call_at(
        self,
        when: Seconds,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        is_aside = _is_aside.get()
        timer = _Timer(when if is_aside else grid(when), callback, args, self, context)
        timer._order = next(self._orders)
        if is_aside:
            heapq.heappush(self._real_timers, timer)
        else:
            heapq.heappush(self._scheduled, timer)
            timer._scheduled = True  # type: ignore[attr-defined]  # as BaseEventLoop.call_at: cancel() counts by it
        return timer

    def call_later(
        self,
        delay: Seconds,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def run_in_executor(self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts) -> "asyncio.Future[T]":
        """Run a function in a thread. It takes no emulated time."""
        work = super().run_in_executor(executor, func, *args)
        return work if _is_aside.get() else self.create_task(standstill(_result(work), "work in a thread", math.inf))

    async def shutdown_default_executor(self, *args: Any) -> None:
        await standstill(super().shutdown_default_executor(*args), "end threads", math.inf)

    def _add_reader(self, fd: Any, callback: Callable[..., object], *args: Any) -> Any:
        self._guard(fd)
        return super()._add_reader(fd, callback, *args)  # type: ignore[misc]

    def _add_writer(self, fd: Any, callback: Callable[..., object], *args: Any) -> Any:
        self._guard(fd)
        return super()._add_writer(fd, callback, *args)  # type: ignore[misc]

    def _guard(self, fd: Any) -> None:
        if self._guarded and not _is_aside.get():
            raise ClockError(f"descriptor {fd} would be waited for in emulated time; sockets are for tasks aside")

    def flight(self, when: Seconds, key: Key, patience: Seconds = PATIENCE) -> VirtualFlight:
        """Announce real work whose effect is due then."""
        flight = VirtualFlight(self, max(grid(when), self.now), key, patience, next(self._orders))
        heapq.heappush(self._barrier, flight)
        return flight

    async def lull(self) -> None:
        """Wait until nothing else happens at this moment; who came first goes on first, alone."""
        self._lulls.append(self.create_future())
        await self._lulls[-1]

    def landed(self, flight: VirtualFlight) -> None:
        heapq.heappush(self._gate, flight)

    def step(self) -> int:
        """Count the loop's turns since time went on, and stop what waits for time without letting it pass."""
        self._steps += 1
        if self._steps > STEPS:
            raise Deadlock(f"{STEPS} turns at {self.now:.9g} s of emulated time: something waits in a busy loop")
        return self._steps

    def idle(self, poll: Poll) -> list[tuple[selectors.SelectorKey, int]]:
        """Let time pass: no callback is ready. Return readable descriptors, or nothing once something is due."""
        ready = poll(0)
        if ready or self._fire_real_timers():
            self._steps = 0  # no busy loop comes here
            return ready
        while self._barrier and (self._barrier[0].landed or self._barrier[0].dropped):
            heapq.heappop(self._barrier)
        due = min(
            self._scheduled[0].when() if self._scheduled else math.inf,
            self._gate[0].when if self._gate else math.inf,
        )
        if self._barrier and self._barrier[0].when <= due:
            first = self._barrier[0]
            count = sum(not (flight.landed or flight.dropped) for flight in self._barrier)
            about = f"{first.key} is due and has not landed; of {count} flights on their way"
            return self._wait(poll, first.patience, about)
        while self._lulls and self._lulls[0].done():
            self._lulls.popleft()  # cancelled
        if self._lulls and due > self.now:
            self._lulls.popleft().set_result(None)
            return []
        if due == math.inf:
            return self._end(poll)
        if due > self.now:
            self.now, self._steps = due, 0
            self._clock_resolution = math.ulp(due)  # asyncio runs timers due before now + resolution: only those of now
        while self._gate and self._gate[0].when <= self.now:
            heapq.heappop(self._gate).release()
            self._steps = 0
        return []

    def _end(self, poll: Poll) -> list[tuple[selectors.SelectorKey, int]]:
        """Let tasks aside come to an end: emulated time has come to its own, and tasks that wait for it are stuck."""
        waiting = self._waiting()
        if waiting:
            raise Deadlock(
                f"deadlock at {self.now:.9g} s of emulated time: nothing is scheduled and nothing is in progress, "
                f"but these tasks wait: {'; '.join(waiting)}"
            )
        return self._wait(poll, PATIENCE, "tasks aside do not end")

    def _wait(self, poll: Poll, patience: Seconds, about: str) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait for the real world."""
        self._steps = 0
        patience = min(patience, self._patience)
        stalls = time.monotonic() + patience
        while (now := time.monotonic()) < stalls:
            wait = min(stalls - now, 3600.0)
            if self._real_timers:
                wait = min(wait, max(0.0, self._real_timers[0].when() - now))
            ready = poll(wait)
            if ready or self._fire_real_timers():
                return ready
        self._barrier.clear()  # who cleans up now need not wait for it again, nor long for anything else
        self._patience = HASTE
        raise Stalled(f"emulated time has stood at {self.now:.9g} s for {patience:g} s of real time: {about}")

    def _fire_real_timers(self) -> bool:
        fired, now = False, time.monotonic()
        while self._real_timers and self._real_timers[0].when() <= now:
            timer = heapq.heappop(self._real_timers)
            if not timer.cancelled():
                self._add_callback(timer)  # type: ignore[attr-defined]  # what asyncio does with one that is due
                fired = True
        return fired

    def _waiting(self) -> list[str]:
        """Name the tasks of emulated time, and where they are."""
        tasks = (task for task in asyncio.all_tasks(self) if not (isinstance(task, _Task) and task.is_aside))
        return sorted(f"{task.get_name()} at {_where(task)}" for task in tasks)


def _where(task: "asyncio.Task[Any]") -> str:
    """Return file and line of the innermost coroutine that is not asyncio's own."""
    where = "nowhere"
    coroutine: Any = task.get_coro()
    while isinstance(coroutine, CoroutineType) and coroutine.cr_frame is not None:
        file = coroutine.cr_frame.f_code.co_filename
        if not file.startswith(_ASYNCIO):
            where = f"{file}:{coroutine.cr_frame.f_lineno}"
        coroutine = coroutine.cr_await
    return where


def _make_task(
    loop: asyncio.AbstractEventLoop,
    coroutine: Coroutine[Any, Any, Any],
    *,
    context: contextvars.Context | None = None,
    **options: Any,
) -> _Task:
    assert isinstance(loop, VirtualLoop)
    is_aside = _is_aside.get() if context is None else context.get(_is_aside, False)
    return _Task(coroutine, loop.number(is_aside), is_aside, loop=loop, context=context, **options)


async def _result(work: "asyncio.Future[T]") -> T:
    return await work
