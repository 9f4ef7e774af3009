"""A conversation that takes as long as its link says.

Every direction is emulated where it is sent: the sender owns the transfer, may cancel it, and waits for its
acknowledgement. A message leaves through its departure stages, then crosses its pipes (requests only: acknowledgements
and control messages are small and never hold up a model), then its arrival stages delay or drop it. Delivery is in
order, as on one TCP connection.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fedemu.clock import Clock
from fedemu.errors import NetworkError, PeerError
from fedemu.links._base import Burst, Packet, Role, Stage, Way
from fedemu.net._pb import federation_pb2 as pb
from fedemu.net.channel import Conversation
from fedemu.net.messages import Message, wire_size
from fedemu.net.network import Network, Transfer
from fedemu.types import Bytes, Rng, Seconds

Draw = Callable[[str, Message], Rng]
"""The random stream of a stage, by the stage's name, for a message."""


@dataclass(slots=True)
class Meter:
    """Counts what a sender has put on the link, over all attempts, and what never left."""

    sent: Bytes = 0
    unsent: Bytes = 0


@dataclass(frozen=True, slots=True)
class Path:
    """One direction of one client's connection."""

    name: str
    """E.g. `phones/3 up`."""
    way: Way
    pipes: Sequence[str]
    """Pipes of the network that its requests cross at once; none if nothing limits the rate."""
    rtt: Seconds
    """Mean delay there and back."""
    rate: float
    """Of the narrowest pipe, bits per second; meaningless without pipes."""


class EmulatedChannel:
    """A conversation behind one direction of a link. Use as an async context manager: it owns a delivery task.

    Args:
        inner: The conversation; delivers at once.
        path: What stands between this end and the other.
        network: Has the path's pipes.
        clock: Waits.
        draw: Gives each stage its random stream.
        inbound: Pipes that incoming requests cross when they are here: a server in a process of its own knows how
            its clients share its link, and they do not.
    """

    def __init__(
        self,
        inner: Conversation,
        path: Path,
        network: Network,
        clock: Clock,
        draw: Draw,
        *,
        inbound: Sequence[str] = (),
    ) -> None:
        self._inner, self._path, self._network, self._clock, self._draw = inner, path, network, clock, draw
        self._inbound = inbound
        self._arrivals: asyncio.Queue[tuple[Seconds, Message]] = asyncio.Queue()
        self._last: Seconds = 0.0
        self._delivery: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "EmulatedChannel":
        self._delivery = asyncio.create_task(self._deliver(), name=f"deliver {self._path.name}")
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._delivery is not None
        self._delivery.cancel()
        await asyncio.gather(self._delivery, return_exceptions=True)

    async def send(self, request: Message, meter: Meter) -> None:
        """Send a task or an update; return when it has left. It arrives later, or is dropped.

        Cancelling the caller ends the transfer. The meter then says how much had left.
        """
        size = wire_size(request)
        packet = self._packet(request, size)
        transfer = None
        try:
            for name, stage in self._path.way.departure:
                packet = self._pass(stage, name, packet, request) or packet  # nothing is dropped before it leaves
            await self._clock.sleep_until(packet.at)
            if self._path.pipes:
                bursts = self._path.way.tcp(size, self._path.rate, self._path.rtt)
                transfer = Transfer(self._network, bursts, self._path.pipes)
                await transfer.run(self._clock)
        except asyncio.CancelledError:
            sent = round(size * transfer.share) if transfer else 0
            meter.sent += sent
            meter.unsent += size - sent
            raise
        meter.sent += size
        self._depart(packet._replace(at=self._clock.now()), request)

    def post(self, message: Message) -> None:
        """Send an acknowledgement or a control message, which leaves at once. It arrives later, or is dropped."""
        self._depart(self._packet(message, wire_size(message)), message)

    async def announce(self, message: Message) -> None:
        """Send what belongs to the handshake, which takes no emulated time."""
        await self._inner.send(message)

    async def drain(self) -> None:
        """Return when all that has left has arrived."""
        await self._arrivals.join()

    def _packet(self, message: Message, size: Bytes) -> Packet:
        return Packet(size, self._clock.now(), _role(message), _attempt(message))

    def _depart(self, packet: Packet, message: Message) -> None:
        for name, stage in self._path.way.arrival:
            later = self._pass(stage, name, packet, message)
            if later is None:
                return
            packet = later
        self._last = max(self._last, packet.at)
        self._arrivals.put_nowait((self._last, message))

    def _pass(self, stage: Stage, name: str, packet: Packet, message: Message) -> Packet | None:
        later = stage(packet, self._draw(name, message))
        assert later is None or later.at >= packet.at, f"{name} sent a message back in time"
        return later

    async def _deliver(self) -> None:
        while True:
            when, message = await self._arrivals.get()
            await self._clock.sleep_until(when)
            with contextlib.suppress(NetworkError, PeerError):  # whoever receives on this connection is told
                await self._inner.send(message)
            self._arrivals.task_done()

    async def receive(self) -> Message:
        """Wait for the next message.

        Raises:
            NetworkError: The connection is gone.
            PeerError: What came is not a message, or the server ended the connection and said why.
        """
        message = await self._inner.receive()
        if self._inbound and _role(message) == "request":
            await Transfer(self._network, [Burst(wire_size(message), 0.0)], self._inbound).run(self._clock)
        return message

    async def aclose(self) -> None:
        await self._inner.aclose()


def _role(message: Message) -> Role:
    match message.header:
        case pb.Task() | pb.Update():
            return "request"
        case pb.Receipt() | pb.Answer():
            return "response"
        case _:
            return "control"


def _attempt(message: Message) -> int:
    header = message.header
    return 0 if isinstance(header, pb.Hello | pb.Welcome | pb.Ready | pb.Goodbye) else header.assignment.attempt
