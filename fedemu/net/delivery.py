"""How a message gets to the other end of a connection at its time.

Where both ends are in this process, a message is handed to the transport at once and is a flight until its time: what
the transport takes is hidden in the emulated delay, and the virtual clock knows what it waits for. Where the other end
is another process, the message waits here until its time, and the real network comes on top.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, Self, TypeAlias

from fedemu.clock import Clock, Flight
from fedemu.errors import NetworkError, PeerError
from fedemu.loop import Key, aside, standstill
from fedemu.net.channel import Conversation
from fedemu.net.messages import Message
from fedemu.types import Bytes, Encoded, Seconds, Vector

LARGE: Bytes = 2**20
"""Bytes above which messages are brought over one at a time."""

Measure: TypeAlias = Callable[[Seconds, Seconds], None]
"""Told the delay that a message should have had, and the one that it had."""


class Delivery(Protocol):
    """One end of a connection, as a context manager: outside it, the end is closed."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *_: object) -> None: ...

    def carry(self, message: Message, sent: Seconds | None, when: Seconds) -> None:
        """Have a message at the other end at `when`, not earlier than those before it.

        Its delay counts from `sent`; None has it not measured.
        """

    async def drain(self) -> None:
        """Return when all that was carried is there."""

    async def receive(self) -> tuple[Message, Seconds]:
        """Wait for the next message; return it and the moment of its arrival, which a real clock is a little past.

        Raises:
            NetworkError: The connection is gone.
            PeerError: What came is not a message, or the server ended the connection and said why.
        """
        ...


class Apart:
    """Delivers to another process.

    Args:
        conversation: The connection.
        clock: Waits.
        measure: Told when each message was handed to the connection.
    """

    def __init__(self, conversation: Conversation, clock: Clock, measure: Measure | None = None) -> None:
        self._conversation, self._clock, self._measure = conversation, clock, measure
        self._waiting: asyncio.Queue[tuple[Message, Seconds | None, Seconds]] = asyncio.Queue()
        self._delivery: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._delivery = asyncio.create_task(self._deliver())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._delivery is not None
        self._delivery.cancel()
        await asyncio.gather(self._delivery, return_exceptions=True)
        await self._conversation.aclose()

    def carry(self, message: Message, sent: Seconds | None, when: Seconds) -> None:
        self._waiting.put_nowait((message, sent, when))

    async def drain(self) -> None:
        assert self._delivery is not None
        await asyncio.wait([asyncio.create_task(self._waiting.join()), self._delivery], return_when="FIRST_COMPLETED")
        if self._delivery.done():
            self._delivery.result()  # raises what went wrong

    async def receive(self) -> tuple[Message, Seconds]:
        return await self._conversation.receive(), self._clock.now()

    async def _deliver(self) -> None:
        while True:
            message, sent, when = await self._waiting.get()
            await self._clock.sleep_until(when)
            if self._measure is not None and sent is not None:
                self._measure(when - sent, self._clock.now() - sent)
            with contextlib.suppress(NetworkError, PeerError):  # whoever receives on this connection is told
                await self._conversation.send(message)
            del message  # a large model should not lie here until the next one comes
            self._waiting.task_done()


@dataclass(slots=True)
class _Parcel:
    """A message on its way, or the end of the direction in which it travels."""

    flight: Flight
    sent: Seconds | None
    when: Seconds
    message: Message | None = None
    error: Exception | None = None


class _Lane:
    """One direction of a connection whose ends are both here: what has been sent and has not been received."""

    def __init__(self, clock: Clock, key: Key, measure: Measure | None, keep: Callable[[Vector], Vector]) -> None:
        self._clock, self._key, self._measure, self._keep = clock, key, measure, keep
        self._due: asyncio.Queue[_Parcel] = asyncio.Queue()
        self._travelling: deque[_Parcel] = deque()
        self._count = 0
        self._ended: Exception | None = None
        self.latest: Seconds = 0.0
        """When the last message is due."""
        self.is_open = False
        """Somebody reads what comes through the transport, until nothing more does."""

    def send(self, sent: Seconds | None, when: Seconds, error: Exception | None = None) -> bool:
        """Announce what the transport is given next; return False if nobody would get it.

        An error says that nothing follows, and why.
        """
        if not self.is_open:
            return False
        self._count += 1
        self.latest = max(self.latest, when)
        parcel = _Parcel(self._clock.flight(self.latest, (*self._key, self._count)), sent, when, error=error)
        self._travelling.append(parcel)
        self._due.put_nowait(parcel)
        return True

    def land(self, message: Message) -> None:
        """Take what has come through the transport: the first of those on their way."""
        if self.is_open:
            parcel = self._travelling.popleft()
            vectors = {
                name: vector if isinstance(vector, Encoded) else self._keep(vector)
                for name, vector in message.vectors.items()
            }
            parcel.message = Message(message.header, vectors)
            parcel.flight.land()

    def end(self, error: Exception) -> None:
        """Take the news that nothing more will come through the transport, or that nobody will receive it."""
        if not self.is_open:
            return
        if not self._travelling:
            self.send(None, self.latest)
        for parcel in self._travelling:
            parcel.error = error if isinstance(error, PeerError) else parcel.error or error  # a refusal says more
            parcel.flight.land()
        self._travelling.clear()
        self.is_open = False

    async def receive(self) -> tuple[Message, Seconds]:
        if self._ended is not None:
            raise self._ended
        parcel = await self._due.get()
        moment = await parcel.flight
        if parcel.error is not None:
            self._ended = parcel.error
            raise parcel.error
        assert parcel.message is not None
        if self._measure is not None and parcel.sent is not None:
            self._measure(parcel.when - parcel.sent, self._clock.now() - parcel.sent)
        return parcel.message, moment


class _Together:
    """One end of a connection whose other end is here too."""

    def __init__(
        self,
        name: str,
        conversation: Conversation,
        clock: Clock,
        out: _Lane,
        into: _Lane,
        assembly: asyncio.Lock,
        done: "Callable[[_Together], None]",
    ) -> None:
        self._name, self._conversation, self._clock, self._out, self._into = name, conversation, clock, out, into
        self._assembly, self._done = assembly, done
        self._outbox: asyncio.Queue[Message | None] = asyncio.Queue()
        self.tasks: Sequence[asyncio.Task[None]] = ()
        """The reader, and the writer, which also closes the connection."""
        self.is_closed = False

    async def __aenter__(self) -> Self:
        self._into.is_open = True
        self.tasks = aside(self._read(), f"read {self._name}"), aside(self._write(), f"write {self._name}")
        for task in self.tasks:
            task.add_done_callback(self._ended)
        return self

    async def __aexit__(self, *_: object) -> None:
        # the reader goes on: cancelling it would break the connection under what is still being sent
        self._into.end(NetworkError("this end is closed"))
        if self._out.is_open:
            await standstill(self._outbox.join(), f"send what is left of {self._name}")
            self._out.send(None, self._clock.now(), NetworkError("the other end closed the connection"))
        self._outbox.put_nowait(None)
        self.is_closed = True

    def _ended(self, _: object) -> None:
        if all(task.done() and not task.cancelled() and task.exception() is None for task in self.tasks):
            self._done(self)

    def carry(self, message: Message, sent: Seconds | None, when: Seconds) -> None:
        if self._out.send(sent, when):
            self._outbox.put_nowait(message)

    async def drain(self) -> None:
        await self._clock.sleep_until(self._out.latest)

    async def receive(self) -> tuple[Message, Seconds]:
        return await self._into.receive()

    async def _read(self) -> None:
        """Read all that comes, as it comes: if the transport were full, it would hold up what the clock waits for."""
        try:
            while True:
                self._into.land(await self._conversation.receive())
        except asyncio.CancelledError:  # by gRPC, where this end has closed the connection
            self._into.end(NetworkError("this end is closed"))
            raise
        except Exception as error:
            self._into.end(error)  # `receive` raises it, whatever it is

    async def _write(self) -> None:
        while (message := await self._outbox.get()) is not None:
            try:
                # large ones one at a time: else all of them are half here at once, and none can be put away
                async with self._assembly if message.size > LARGE else contextlib.nullcontext():
                    await self._conversation.send(message)
            except Exception as error:
                self._out.end(error)  # who receives raises it, whatever it is
            del message  # a large model should not lie here until the next one comes
            self._outbox.task_done()
        await self._conversation.aclose()


class Exchange:
    """Brings together the two ends of each connection of one process, the server's first. Use as a context manager.

    Args:
        clock: Knows the time, and what is on its way.
        keep: Finds a place for a vector that is here before its time.
    """

    def __init__(self, clock: Clock, keep: Callable[[Vector], Vector] = lambda vector: vector) -> None:
        self._clock, self._keep = clock, keep
        self._assembly = asyncio.Lock()
        self._lanes: dict[str, tuple[_Lane, _Lane]] = {}
        """Down and up, of clients whose own end is still to come."""
        self._ends: dict[_Together, None] = {}
        """Those that are still at work."""

    def servers_end(
        self, client: str, conversation: Conversation, *, down: Measure | None = None, up: Measure | None = None
    ) -> Delivery:
        """Return the server's end of a new connection of a client; measures take the delays in either direction."""
        lanes = (
            _Lane(self._clock, (client, "down"), down, self._keep),
            _Lane(self._clock, (client, "up"), up, self._keep),
        )
        self._lanes[client] = lanes
        return self._end(client, conversation, *lanes)

    def clients_end(self, client: str, conversation: Conversation) -> Delivery:
        """Return the client's end of its newest connection."""
        down, up = self._lanes.pop(client)
        return self._end(client, conversation, up, down)

    def _end(self, client: str, conversation: Conversation, out: _Lane, into: _Lane) -> _Together:
        end = _Together(client, conversation, self._clock, out, into, self._assembly, self._forget)
        self._ends[end] = None
        return end

    def _forget(self, end: _Together) -> None:
        self._ends.pop(end, None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await standstill(self._close(), "close the connections")

    async def _close(self) -> None:
        # in good order first: the writer of an end that is closed sends what is left, and ends
        await asyncio.gather(*[task for end in self._ends if end.is_closed for task in end.tasks[1:]])
        rest = [task for end in self._ends for task in end.tasks]
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
