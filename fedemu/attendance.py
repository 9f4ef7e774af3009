"""Clients that come and go: they take part while they are online, and leave in the middle of whatever they do."""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

from fedemu.client import Participant
from fedemu.clock import Clock
from fedemu.errors import RunError
from fedemu.loop import lull
from fedemu.net.emulated import EmulatedChannel
from fedemu.types import Interval


class Attendance:
    """One client's presence in a run, in the process of the server.

    Args:
        participant: The client; what its algorithm remembers stays with it while it is away.
        online: When it is online, in order of time; the first that ends after 0 comes first.
        enter: Opens a connection and joins.
        clock: Waits.
    """

    def __init__(
        self,
        participant: Participant,
        online: Iterator[Interval],
        enter: Callable[[], Awaitable[EmulatedChannel]],
        clock: Clock,
    ) -> None:
        self._participant, self._online, self._enter, self._clock = participant, online, enter, clock
        self._interval = next(online, None)
        self._channel: EmulatedChannel | None = None
        self.is_away = False
        """It waits to be online again, if it ever is."""
        self.is_over = False
        """The run is over: who is away stays away."""
        self._started = asyncio.Event()
        self._limit: asyncio.Timeout | None = None

    async def begin(self) -> bool:
        """Join, if it is online at time 0; return whether it is."""
        if self._interval is None or self._interval.start > 0:
            return False
        self._channel = await self._enter()
        return True

    def start(self) -> None:
        """Say that time has begun: no moment of it could be waited for before."""
        self._started.set()
        if self._limit is not None and self._interval is not None and self._interval.end < math.inf:
            self._limit.reschedule(self._clock.timeout_at(self._interval.end).when())

    async def run(self) -> None:
        """Take part until the run is over, or the client is never online again.

        Raises:
            NetworkError: A connection broke.
            PeerError: The server ended a connection and said why.
        """
        while self._interval is not None and not self.is_over:
            if self._channel is None:
                self.is_away = True
                await self._started.wait()
                await self._clock.sleep_until(self._interval.start)
                self.is_away = False
                self._channel = await self._enter()
            channel, self._channel = self._channel, None
            limit = self._limit = self._clock.timeout_at(self._interval.end if self._started.is_set() else math.inf)
            try:
                async with limit:
                    await self._participant.run(channel)
                return
            except TimeoutError:
                if not limit.expired():
                    raise
            self._limit = None
            self._interval = next(self._online, None)


class Crowd:
    """All clients of a run, in the process of the server.

    Args:
        clock: Waits.
        tasks: The clients' own.
        needed: Clients without whom no round closes, where only rounds can end the run; 0 where time does.
    """

    def __init__(self, clock: Clock, tasks: asyncio.TaskGroup, *, needed: int) -> None:
        self._clock, self._tasks, self._needed = clock, tasks, needed
        self._members: list[tuple[Attendance, asyncio.Task[None]]] = []
        self._staying = 0
        self._door = asyncio.Lock()
        self._started = asyncio.Event()
        self.present = 0
        """How many are online at time 0."""

    async def add(
        self, participant: Participant, online: Iterator[Interval], enter: Callable[[], Awaitable[EmulatedChannel]]
    ) -> None:
        """Let a client join now, if it is online at time 0, or else when it is."""
        attendance = Attendance(participant, online, enter, self._clock)
        self.present += await attendance.begin()
        self._staying += 1
        task = self._tasks.create_task(self._attend(attendance), name=participant.view.client)
        self._members.append((attendance, task))

    @asynccontextmanager
    async def door(self) -> AsyncIterator[None]:
        """Come in alone, when nothing else happens: what sockets take must not show in who comes first."""
        async with self._door:
            await lull()
            yield

    def start(self) -> None:
        """Say that time has begun, and all clients have been added."""
        self._started.set()
        for attendance, _ in self._members:
            attendance.start()

    def end(self) -> None:
        """Say that the run is over: who is away stays away."""
        for attendance, task in self._members:
            attendance.is_over = True
            if attendance.is_away:
                task.cancel()

    def leave(self) -> None:
        """Take away who has not heard that the run is over: its link may be down for hours."""
        for _, task in self._members:
            task.cancel()

    async def _attend(self, attendance: Attendance) -> None:
        await attendance.run()
        await self._started.wait()  # else the first could seem to be the last
        self._staying -= 1
        if self._staying < self._needed and not attendance.is_over:
            raise RunError(
                f"{self._staying} clients are or will ever be online, and a round needs {self._needed}; "
                "set stop.time, or look at availability"
            )
