"""A client that comes and goes: it takes part while it is online, and leaves in the middle of whatever it does."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterator

from fedemu.client import Participant
from fedemu.clock import Clock
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
