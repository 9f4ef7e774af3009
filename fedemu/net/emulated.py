"""A conversation that takes as long as its link says.

Every direction is emulated where it is sent: the sender owns the transfer, may cancel it, and waits for its
acknowledgement. A message leaves through its departure stages, then crosses its pipes (requests only: acknowledgements
and control messages are small and never hold up a model), then its arrival stages delay or drop it. Delivery is in
order, as on one TCP connection.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

from fedemu.clock import Clock
from fedemu.links._base import Burst, Packet, Role, Stage, Way
from fedemu.loop import grid
from fedemu.net._pb import federation_pb2 as pb
from fedemu.net.delivery import Delivery
from fedemu.net.messages import Message
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
    """One end of a connection behind one direction of a link. An async context manager: outside it, the end is closed.

    Args:
        delivery: Takes messages to the other end, each at its time.
        path: What stands between this end and the other.
        network: Has the path's pipes.
        clock: Waits.
        draw: Gives each stage its random stream.
        inbound: Pipes that incoming requests cross when they are here: a server in a process of its own knows how
            its clients share its link, and they do not.
    """

    def __init__(
        self,
        delivery: Delivery,
        path: Path,
        network: Network,
        clock: Clock,
        draw: Draw,
        *,
        inbound: Sequence[str] = (),
    ) -> None:
        self._delivery, self._path, self._network, self._clock, self._draw = delivery, path, network, clock, draw
        self._inbound = inbound
        self._last: Seconds = 0.0

    async def __aenter__(self) -> Self:
        await self._delivery.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._delivery.__aexit__(*error)

    async def send(self, request: Message, meter: Meter, start: Seconds | None = None) -> None:
        """Send a task or an update; return when it has left. It arrives later, or is dropped.

        Cancelling the caller ends the transfer. The meter then says how much had left.

        Args:
            request: What to send.
            meter: Counts its bytes.
            start: When it starts, which a real clock may be a little past; None is now.
        """
        size, sent = request.size, self._clock.now() if start is None else start
        packet = self._packet(request, sent)
        transfer = None
        try:
            for name, stage in self._path.way.departure:
                packet = self._pass(stage, name, packet, request) or packet  # nothing is dropped before it leaves
            await self._clock.sleep_until(packet.at)
            if self._path.pipes:
                bursts = self._path.way.tcp(size, self._path.rate, self._path.rtt)
                transfer = Transfer(self._network, bursts, self._path.pipes)
                # it is as late as planned, not as late as a real clock woke us up
                packet = packet._replace(at=await transfer.run(self._clock, grid(packet.at)))
        except asyncio.CancelledError:
            left = round(size * transfer.share) if transfer else 0
            meter.sent += left
            meter.unsent += size - left
            raise
        meter.sent += size
        self._depart(packet, request, sent)

    def post(self, message: Message) -> None:
        """Send an acknowledgement or a control message, which leaves at once. It arrives later, or is dropped."""
        now = self._clock.now()
        self._depart(self._packet(message, now), message, now)

    def announce(self, message: Message) -> None:
        """Send what belongs to the handshake, which takes no emulated time."""
        self._delivery.carry(message, None, self._clock.now())

    async def drain(self) -> None:
        """Return when all that has left has arrived."""
        await self._delivery.drain()

    def _packet(self, message: Message, at: Seconds) -> Packet:
        return Packet(message.size, at, _role(message), _attempt(message))

    def _depart(self, packet: Packet, message: Message, sent: Seconds) -> None:
        for name, stage in self._path.way.arrival:
            later = self._pass(stage, name, packet, message)
            if later is None:
                return
            packet = later
        self._last = max(self._last, packet.at)
        self._delivery.carry(message, sent, self._last)

    def _pass(self, stage: Stage, name: str, packet: Packet, message: Message) -> Packet | None:
        later = stage(packet, lambda: self._draw(name, message))
        assert later is None or later.at >= packet.at, f"{name} sent a message back in time"
        return later

    async def receive(self) -> tuple[Message, Seconds]:
        """Wait for the next message; return it and the moment of its arrival, which a real clock is a little past.

        Raises:
            NetworkError: The connection is gone.
            PeerError: What came is not a message, or the server ended the connection and said why.
        """
        message, moment = await self._delivery.receive()
        if self._inbound and _role(message) == "request":
            transfer = Transfer(self._network, [Burst(message.size, 0.0)], self._inbound)
            moment = await transfer.run(self._clock, moment)
        return message, moment


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
