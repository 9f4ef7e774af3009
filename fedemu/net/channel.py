"""What a transport provides, and the conversation in messages on top of it."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeAlias

from fedemu.net.messages import Assembler, Message, encode


class Channel(Protocol):
    """Two-way, ordered, reliable delivery of frames between one client and the server."""

    async def send(self, frame: bytes) -> None:
        """Hand over a frame; wait while the other end is too slow to take it.

        Raises:
            NetworkError: The connection is gone.
        """

    async def receive(self) -> bytes:
        """Wait for the next frame.

        Raises:
            NetworkError: The connection is gone, or was closed by the other end.
            PeerError: The server ended the connection and said why.
        """

    async def aclose(self) -> None:
        """Close this end; never raises."""


Serve: TypeAlias = Callable[[Channel], Awaitable[None]]
"""Serves one connection to its end. A PeerError that it raises is told to the client as the stream's status."""


class Transport(Protocol):
    """A way to bring channels about."""

    def serve(self, handler: Serve) -> AbstractAsyncContextManager[str]:
        """Accept connections inside the context; its value is the address to connect to."""
        ...

    async def connect(self, address: str) -> Channel:
        """Open a connection.

        Raises:
            NetworkError: Nobody answers there.
            PeerError: The two ends do not trust each other.
        """
        ...


class Conversation:
    """Messages over a channel. Sending may overlap; whole messages follow one another.

    Args:
        channel: Carries the frames.
        limit: Numbers that the vectors of one incoming message may have in all.
    """

    def __init__(self, channel: Channel, limit: int) -> None:
        self._channel = channel
        self._assembler = Assembler(limit)
        self._sending = asyncio.Lock()

    @property
    def limit(self) -> int:
        """Numbers that the vectors of one incoming message may have in all."""
        return self._assembler.limit

    @limit.setter
    def limit(self, limit: int) -> None:
        self._assembler.limit = limit

    async def send(self, message: Message) -> None:
        async with self._sending:
            for frame in encode(message):
                await self._channel.send(frame)

    async def receive(self) -> Message:
        """Wait for the next message.

        Raises:
            NetworkError: The connection is gone.
            PeerError: What came is not a message, or the server ended the connection and said why.
        """
        message = None
        while message is None:
            message = self._assembler.feed(await self._channel.receive())
        return message

    async def aclose(self) -> None:
        await self._channel.aclose()
