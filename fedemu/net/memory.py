"""The transport within one process: frames pass through bounded queues."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fedemu.errors import NetworkError, PeerError
from fedemu.net.channel import Serve

ROOM = 8
"""Frames that wait in one direction before the sender must."""


class MemoryChannel:
    """One end of an in-memory connection."""

    def __init__(self, inbound: asyncio.Queue[bytes | Exception], outbound: asyncio.Queue[bytes | Exception]) -> None:
        self._inbound, self._outbound = inbound, outbound
        self._ended: Exception | None = None
        self._closed = False
        self.peer: MemoryChannel | None = None

    async def send(self, frame: bytes) -> None:
        if self._closed or self.peer is None or self.peer._closed:
            raise NetworkError("the connection is closed")
        await self._outbound.put(frame)

    async def receive(self) -> bytes:
        if self._ended is None:
            item = await self._inbound.get()
            if isinstance(item, bytes):
                return item
            self._ended = item
        raise self._ended

    async def aclose(self) -> None:
        self.end(NetworkError("the other end closed the connection"))

    def end(self, reason: Exception) -> None:
        """Close this end; the other end's `receive` raises the reason when it has read what was sent before."""
        if self._closed:
            return
        self._closed = True
        while self._outbound.full():  # a close overtakes what a slow reader left lying
            self._outbound.get_nowait()
        self._outbound.put_nowait(reason)


class MemoryTransport:
    """Connects tasks of one event loop."""

    def __init__(self) -> None:
        self._handler: Serve | None = None
        self._group: asyncio.TaskGroup | None = None

    @asynccontextmanager
    async def serve(self, handler: Serve) -> AsyncIterator[str]:
        async with asyncio.TaskGroup() as group:
            self._handler, self._group = handler, group
            try:
                yield "memory"
            finally:
                self._handler = None

    async def connect(self, address: str) -> MemoryChannel:
        if self._handler is None or self._group is None:
            raise NetworkError(f"nobody serves at {address!r}")
        up: asyncio.Queue[bytes | Exception] = asyncio.Queue(ROOM)
        down: asyncio.Queue[bytes | Exception] = asyncio.Queue(ROOM)
        client, server = MemoryChannel(down, up), MemoryChannel(up, down)
        client.peer, server.peer = server, client
        self._group.create_task(self._serve(self._handler, server))
        return client

    @staticmethod
    async def _serve(handler: Serve, channel: MemoryChannel) -> None:
        try:
            await handler(channel)
        except PeerError as error:
            channel.end(error)
        finally:
            await channel.aclose()
