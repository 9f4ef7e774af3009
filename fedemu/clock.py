"""Time: with `loop`, the only module that reads it and the only one that sleeps.

A `Clock` counts seconds from the start of the first round. `RealClock` waits; `VirtualClock` is emulated time on a
`VirtualLoop`. Server and clients run on either, and do not know on which. Real work in progress is a `Flight` with a
known time of delivery.
"""

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar, cast

from fedemu.errors import ClockError
from fedemu.loop import PATIENCE, Key, VirtualLoop
from fedemu.types import Seconds

T = TypeVar("T")


class Flight(Protocol):
    """Real work in progress, whose effect belongs to a moment of emulated time.

    Await it to get there. It returns that moment: when it was due, or when it landed if that was later. A real clock
    is always a little past it; who goes on from the moment and not from now adds up no delays.
    """

    def land(self) -> None:
        """Say that the real work is done. Call from the loop's thread."""

    def __await__(self) -> Generator[Any, Any, Seconds]: ...


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

    def flight(self, when: Seconds, key: Key, *, patience: Seconds = PATIENCE) -> Flight:
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

    @property
    def zero(self) -> float:
        """When it was 0, in seconds since 1970."""
        return time.time() - self.now()

    def go_on(self, zero: float, least: Seconds) -> None:
        """Count from a moment in the past, in seconds since 1970; at least so long ago, if that clock was set back."""
        self._origin = asyncio.get_running_loop().time() - max(time.time() - zero, least)

    def now(self) -> Seconds:
        return 0.0 if self._origin is None else asyncio.get_running_loop().time() - self._origin

    async def sleep_until(self, when: Seconds) -> None:
        await asyncio.sleep(when - self.now())

    def call_at(self, when: Seconds, callback: Callable[[], object]) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_at(self._loop_time(when), callback)

    def timeout_at(self, when: Seconds) -> asyncio.Timeout:
        return asyncio.timeout_at(self._loop_time(when) if math.isfinite(when) else None)

    def flight(self, when: Seconds, key: Key, *, patience: Seconds = PATIENCE) -> Flight:
        return _RealFlight(self, when)

    def _loop_time(self, when: Seconds) -> float:
        return when + (asyncio.get_running_loop().time() if self._origin is None else self._origin)


class _RealFlight:
    def __init__(self, clock: RealClock, when: Seconds) -> None:
        self._clock, self._when = clock, when
        self._landed: asyncio.Future[Seconds] = asyncio.get_running_loop().create_future()

    def land(self) -> None:
        if not self._landed.done():
            self._landed.set_result(self._clock.now())

    def __await__(self) -> Generator[Any, Any, Seconds]:
        moment = max((yield from asyncio.shield(self._landed).__await__()), self._when)
        yield from self._clock.sleep_until(moment).__await__()
        return moment


class VirtualClock:
    """Emulated time on a running `VirtualLoop`. Time 0 is when the loop was made."""

    def __init__(self) -> None:
        self._loop = cast("VirtualLoop", asyncio.get_running_loop())

    def start(self) -> None:
        assert self._loop.now == 0, "the first round starts before anything has taken time"

    def now(self) -> Seconds:
        return self._loop.now

    async def sleep_until(self, when: Seconds) -> None:
        await asyncio.sleep(when - self._loop.now)

    def call_at(self, when: Seconds, callback: Callable[[], object]) -> asyncio.TimerHandle:
        return self._loop.call_at(when, callback)

    def timeout_at(self, when: Seconds) -> asyncio.Timeout:
        return asyncio.timeout_at(when if math.isfinite(when) else None)

    def flight(self, when: Seconds, key: Key, *, patience: Seconds = PATIENCE) -> Flight:
        return self._loop.flight(when, key, patience)


def run(main: Coroutine[Any, Any, T], *, virtual: bool) -> T:
    """Run a coroutine to its end on a new event loop, as asyncio.run does.

    Raises:
        Deadlock: On a virtual loop, where tasks wait for what nothing can produce.
        Stalled: On a virtual loop, where real work that is due does not finish.
    """
    tasks: list[asyncio.Task[T]] = []

    async def remembered() -> T:
        tasks.append(cast("asyncio.Task[T]", asyncio.current_task()))
        return await main

    with asyncio.Runner(loop_factory=VirtualLoop if virtual else None) as runner:
        try:
            return runner.run(remembered())
        except ClockError:
            # it came from between two turns of the loop: sockets and workers still have to be closed in good order
            tasks[0].cancel()
            with contextlib.suppress(Exception, asyncio.CancelledError):
                runner.get_loop().run_until_complete(tasks[0])
            raise


async def finish(work: "Future[T]", clock: Clock, when: Seconds, key: Key) -> tuple[T, Seconds]:
    """Return the result of real work, and the moment that it belongs to, as a flight does.

    Cancelling gives the work up. The clock waits for it as long as it takes: training is not a stall.
    """
    loop = asyncio.get_running_loop()
    flight = clock.flight(when, key, patience=float("inf"))

    def land(_: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(flight.land)

    work.add_done_callback(land)
    try:
        moment = await flight
    except asyncio.CancelledError:
        work.cancel()
        raise
    return work.result(), moment
