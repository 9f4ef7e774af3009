"""The pipes of a run, flowing as time passes: fluid rates from `links`, waiting on the clock."""

import asyncio
from collections.abc import Mapping, Sequence

from fedemu.clock import Clock
from fedemu.links._base import Burst
from fedemu.links._fluid import Fluid
from fedemu.loop import grid
from fedemu.types import Seconds


class Network:
    """Serves bursts through the pipes they cross, which concurrent bursts share max-min fairly.

    Args:
        clock: Waits.
        pipes: Rate of each pipe in bits per second.
    """

    def __init__(self, clock: Clock, pipes: Mapping[str, float]) -> None:
        self._clock = clock
        self._fluid = Fluid(pipes)
        self._waiting: dict[Transfer, asyncio.Future[Seconds]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._latest: Seconds = 0.0

    async def serve(self, transfer: "Transfer", burst: Burst, start: Seconds) -> Seconds:
        """Return when the transfer's burst has been served, and at what time exactly; use Transfer.run."""
        done: asyncio.Future[Seconds] = asyncio.get_running_loop().create_future()
        self._waiting[transfer] = done
        self._latest = max(self._latest, start)
        self._fluid.start(transfer, burst.size, transfer.pipes, self._latest)
        self._arm()
        return await done

    def stop(self, transfer: "Transfer", burst: Burst) -> float:
        """End the transfer and free its share; return the bytes of its current burst that were served."""
        if self._waiting.pop(transfer, None) is None:  # it ended at this very moment
            return burst.size
        self._latest = max(self._latest, self._clock.now())
        served = self._fluid.stop(transfer, self._latest)
        self._arm()
        return served

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        end = self._fluid.next_end()
        self._timer = None if end is None else self._clock.call_at(end, self._end)

    def _end(self) -> None:
        # a real clock may be past several ends: each has its own time
        while (end := self._fluid.next_end()) is not None and grid(end) <= self._clock.now():
            # a flow's end is exact, the clock's grid is 1 ns: the pipes may be that much ahead
            self._latest = max(self._latest, end, grid(end))
            for transfer, ended in self._fluid.ended(self._latest).items():
                assert isinstance(transfer, Transfer)
                done = self._waiting.pop(transfer)
                if not done.done():  # cancelled at this very moment
                    done.set_result(grid(ended))
        self._arm()


class Transfer:
    """One message on its way through the pipes of a network.

    Args:
        network: Has the pipes.
        bursts: What to serve, in order; each starts when the one before it has been served and turned around.
        pipes: The pipes that it crosses at once; at least one.
    """

    def __init__(self, network: Network, bursts: Sequence[Burst], pipes: Sequence[str]) -> None:
        self.pipes = pipes
        self._network, self._bursts = network, bursts
        self._served = 0.0

    async def run(self, clock: Clock, start: Seconds) -> Seconds:
        """Return when the last burst has been served, and at what time: a real clock may be past it.

        Cancelling ends the transfer and frees its share.

        Args:
            clock: Waits.
            start: When the first burst starts; not in the future.
        """
        end = start
        for index, burst in enumerate(self._bursts):
            try:
                end = await self._network.serve(self, burst, start)
            except asyncio.CancelledError:
                self._served += self._network.stop(self, burst)
                raise
            self._served += burst.size
            if index + 1 < len(self._bursts):
                start = max(end, grid(start + burst.turnaround))
                await clock.sleep_until(start)
        return end

    @property
    def share(self) -> float:
        """How much of it has been served, 0..1."""
        return self._served / sum(burst.size for burst in self._bursts)
