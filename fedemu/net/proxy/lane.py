"""One direction of a proxied connection: what one side writes, chunk by chunk, to the other side at its time.

A chunk is a packet of the link: it goes through the departure stages, the pipe and the arrival stages, and is written
when it is due. All times are absolute: who wakes up late counts from when it should have, so that lateness never adds
up. Only one chunk is in the pipe, and the next is not read before it is through; the rest waits in the kernel's
buffers, so that the sender feels the rate.

A proxy sees bytes, not messages. A burst is what comes without a pause; the chunk with which a burst outgrows
`MESSAGE` stands for the message (role `request`), all others are `control`: what strikes messages (stall, reset)
is drawn once for each such burst, and never for what is small.
"""

import asyncio
import math
import socket
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, Protocol

from fedemu.clock import Clock
from fedemu.links._base import Burst, Packet, Role, Way
from fedemu.loop import grid
from fedemu.net.network import Network, Transfer
from fedemu.net.path import Path
from fedemu.rng import stream
from fedemu.types import Bytes, Rng, Seconds

MESSAGE: Bytes = 64_000
"""A burst above this size stands for a message."""
PAUSE: Seconds = 0.1
"""A burst ends when nothing came for this long beyond two round trips of the link: flow control makes no pause."""
MURMUR: Bytes = 256
"""Chunks below this size (pings, window updates) neither make nor prolong a burst."""

SEGMENT: Bytes = 1500
LARGEST: Bytes = 65_536
GRAIN: Seconds = 0.002
"""What a chunk takes in the pipe; a segment at least, but none longer than SLOWEST."""
SLOWEST: Seconds = 0.1

WINDOW: Bytes = 4 * 2**20
"""In flight behind the pipe at most, beyond what the pipe fills in two mean delays; as Linux' tcp_wmem."""


class Reset(Exception):
    """The link resets the connection."""


class Crossing(NamedTuple):
    """What stands between the two ends of one direction of one connection, as the link is now."""

    path: Path
    network: Network
    """Has the path's pipes."""


def refuses(path: Path, at: Seconds) -> bool:
    """Tell whether the link is down at that time and says so."""
    spell = None if path.spells is None else path.spells.next(at)
    return spell is not None and spell.start <= at and spell.refuses


def chunk(rate: float) -> Bytes:
    """Return how many bytes to read at once for a pipe of that rate in bits per second."""
    if rate == math.inf:
        return LARGEST
    least = max(1, min(SEGMENT, int(rate / 8 * SLOWEST)))
    return min(LARGEST, max(least, int(rate / 8 * GRAIN)))


class Measure(Protocol):
    """Told of each chunk that was handed to the receiver, with the delay that it should have had and the one it had."""

    def __call__(self, size: Bytes, requested: Seconds, achieved: Seconds) -> None: ...


class _Due(NamedTuple):
    data: bytes
    """Empty for the end of the stream."""
    at: Seconds
    """When it came."""
    when: Seconds
    """When it goes on."""
    is_cut: bool


class Lane:
    """One direction of one connection.

    Args:
        source: Is read from.
        sink: Is written to.
        crossing: Gives what stands between them as it is now; asked for each chunk.
        name: What keys the random streams, after the seed.
        seed: Of the proxy.
        clock: Waits.
        measure: Told of each chunk that was handed on.
    """

    def __init__(
        self,
        source: socket.socket,
        sink: socket.socket,
        crossing: Callable[[], Crossing],
        name: tuple[str | int, ...],
        seed: int,
        clock: Clock,
        measure: Measure,
    ) -> None:
        self._source, self._sink, self._crossing, self._clock, self._measure = source, sink, crossing, clock, measure
        self._name, self._seed = name, seed
        self._chunks = 0
        self._bursts = 0
        self._burst: Bytes = 0
        self._free = clock.now()
        """When the last chunk had left."""
        self._spoke = self._free
        """When the last chunk of a burst had left."""
        self._last: Seconds = 0.0
        """When it was due."""
        self._due: deque[_Due] = deque()
        self._news, self._room = asyncio.Event(), asyncio.Event()
        self._closing = False
        self.queued: Bytes = 0
        """Read, and not yet handed on."""
        self.carried: Bytes = 0
        """Handed on."""

    async def run(self) -> None:
        """Carry bytes until the source's end has been passed on.

        Raises:
            OSError: One of the sides is gone.
            Reset: The link resets the connection.
        """
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._read())
            tasks.create_task(self._write())

    def close(self) -> None:
        """Read no more: what is on its way arrives, then the end of the stream."""
        self._closing = True
        try:
            self._source.shutdown(socket.SHUT_RD)
        except OSError:  # not connected any more: the reader learns it by itself
            return

    async def _read(self) -> None:
        while not self._closing:
            path = self._crossing().path
            data, at = await self._take(chunk(path.way(self._free).rate), path)
            if not data:
                break
            self.queued += len(data)
            while data:
                crossing = self._crossing()  # the link may be another one by now
                most = chunk(crossing.path.way(self._clock.now()).rate)
                piece, data = data[:most], data[most:]
                if await self._pass(piece, at, crossing):
                    return
        now = self._clock.now()
        self._put(b"", self._arrive(Packet(0, max(now, self._free)), self._crossing().path), now)

    async def _take(self, most: Bytes, path: Path) -> tuple[bytes, Seconds]:
        """Return the next bytes, and when they came: what waited while the pipe was busy, when it became free."""
        await self._clock.sleep_until(self._clock.now())  # others have their turn where there is always more to read
        try:
            data = self._source.recv(most)
        except BlockingIOError:
            return await asyncio.get_running_loop().sock_recv(self._source, most), self._clock.now()
        now = self._clock.now()
        is_limited = path.route.pipes or path.route.recorded
        return data, min(now, self._free) if is_limited else now

    async def _pass(self, data: bytes, at: Seconds, crossing: Crossing) -> bool:
        """Take a chunk through the link; return whether the connection is reset with it."""
        path, start = crossing.path, max(at, self._free)
        packet = Packet(len(data), start, self._role(len(data), start, path.way(start).rtt))
        for name, stage in path.way(start).departure:
            packet = _kept(name, packet, stage(packet, self._stream(name, packet)))
        await self._clock.sleep_until(packet.at)
        self._free = await self._cross(packet, crossing)
        if len(data) >= MURMUR:
            self._spoke = self._free
        packet = self._arrive(packet._replace(at=self._free), path)
        self._put(data if packet.cut is None else data[: round(len(data) * packet.cut)], packet, at)
        while self.queued > _window(path.way(self._free)) and packet.cut is None:
            self._room.clear()
            await self._room.wait()
            self._free = self._clock.now()
        return packet.cut is not None

    async def _cross(self, packet: Packet, crossing: Crossing) -> Seconds:
        """Bring a chunk through the pipe, when the link is up; return when its last byte has passed."""
        path, start = crossing.path, packet.at
        if path.spells is not None:
            if refuses(path, start):
                raise Reset
            start = path.spells.up(start)
            await self._clock.sleep_until(start)
        start, size = grid(start), packet.size
        if path.bucket is not None:
            start = max(start, path.bucket.since)
            size = path.bucket.take(size, start)
        if path.route.recorded is not None:
            end = path.route.recorded(start, size)
            await self._clock.sleep_until(end)
        elif path.route.pipes and size:
            end = await Transfer(crossing.network, [Burst(size, 0.0)], path.route).run(self._clock, start)
        else:
            end = start
        if path.bucket is not None and size:
            path.bucket.rest(end)
        return end

    def _role(self, size: Bytes, at: Seconds, rtt: Seconds) -> Role:
        self._chunks += 1
        if size < MURMUR:
            return "control"
        if at - self._spoke > PAUSE + 2 * rtt:
            self._burst = 0
        before, self._burst = self._burst, self._burst + size
        if before <= MESSAGE < self._burst:
            self._bursts += 1
            return "request"
        return "control"

    def _stream(self, stage: str, packet: Packet) -> Callable[[], Rng]:
        number = ("burst", self._bursts) if packet.role == "request" else ("chunk", self._chunks)
        return lambda: stream(self._seed, *self._name, stage, *number)

    def _arrive(self, packet: Packet, path: Path) -> Packet:
        for name, stage in path.way(packet.at).arrival:
            packet = _kept(name, packet, stage(packet, self._stream(name, packet)))
        self._last = max(self._last, packet.at)
        return packet._replace(at=self._last)

    def _put(self, data: bytes, packet: Packet, at: Seconds) -> None:
        self._due.append(_Due(data, at, packet.at, packet.cut is not None))
        self._news.set()

    async def _write(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            while not self._due:
                self._news.clear()
                await self._news.wait()
            due = self._due.popleft()
            await self._clock.sleep_until(due.when)
            if due.data:
                achieved = self._clock.now() - due.at
                await loop.sock_sendall(self._sink, due.data)
                self.queued -= len(due.data)
                self.carried += len(due.data)
                self._room.set()
                self._measure(len(due.data), due.when - due.at, achieved)
            if due.is_cut:
                raise Reset
            if not due.data:
                self._sink.shutdown(socket.SHUT_WR)
                return


def _window(way: Way) -> float:
    """Return how many bytes may be in flight behind the pipe."""
    return WINDOW + (2 * way.rate / 8 * way.delay if way.rate < math.inf else 0.0)


def _kept(name: str, packet: Packet, later: Packet | None) -> Packet:
    assert later is not None, f"{name} dropped bytes of a stream"
    assert later.at >= packet.at, f"{name} sent a chunk back in time"
    return later
