"""The transport within one process: frames pass through bounded queues."""

import asyncio
import contextvars
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fedemu.errors import NetworkError, PeerError
from fedemu.net.channel import Serve

_CLOSED = "the other end closed the connection"

ROOM = 8
"""Frames that wait in one direction before the sender must."""


class _Pipe:
    """One direction: what was sent, and room for more."""

    def __init__(self) -> None:
        self.sent: asyncio.Queue[bytes | Exception] = asyncio.Queue()
        self.room = asyncio.Semaphore(ROOM)


class MemoryChannel:
    """One end of an in-memory connection."""

    def __init__(self, inbound: "_Pipe", outbound: "_Pipe") -> None:
        self._inbound, self._outbound = inbound, outbound
        self._ended: Exception | None = None
        self._closed = False
        self.peer: MemoryChannel | None = None

    async def send(self, frame: bytes) -> None:
        if self._closed or self.peer is None or self.peer._closed:
            raise NetworkError("the connection is closed")
        await self._outbound.room.acquire()
        self._outbound.sent.put_nowait(frame)

    async def receive(self) -> bytes:
        if self._ended is None:
            item = await self._inbound.sent.get()
            if isinstance(item, bytes):
                self._inbound.room.release()
                return item
            self._ended = item
        raise self._ended

    async def aclose(self) -> None:
        self.end(NetworkError(_CLOSED))

    def end(self, reason: Exception) -> None:
        """Close this end; the other end's `receive` raises the reason when it has read what was sent before."""
        if not self._closed:
            self._closed = True
            self._outbound.sent.put_nowait(reason)


class _ServerChannel(MemoryChannel):
    async def aclose(self) -> None:
        pass  # the connection ends when its handler returns


class MemoryTransport:
    """Connects tasks of one event loop."""

    def __init__(self) -> None:
        self._handler: Serve | None = None
        self._group: asyncio.TaskGroup | None = None
        self._context = contextvars.copy_context()

    @asynccontextmanager
    async def serve(self, handler: Serve) -> AsyncIterator[str]:
        async with asyncio.TaskGroup() as group:
            self._handler, self._group, self._context = handler, group, contextvars.copy_context()
            try:
                yield "memory"
            finally:
                self._handler = None

    async def connect(self, address: str) -> MemoryChannel:
        if self._handler is None or self._group is None:
            raise NetworkError(f"nobody serves at {address!r}")
        up, down = _Pipe(), _Pipe()
        client, server = MemoryChannel(down, up), _ServerChannel(up, down)
        client.peer, server.peer = server, client
        # not in the context of who connects, who may be aside
        self._group.create_task(self._serve(self._handler, server), context=self._context.copy())
        return client

    @staticmethod
    async def _serve(handler: Serve, channel: MemoryChannel) -> None:
        try:
            await handler(channel)
        except PeerError as error:
            channel.end(error)
        finally:
            channel.end(NetworkError(_CLOSED))
