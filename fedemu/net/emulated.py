"""A conversation that takes as long as its link says.

Every direction is emulated where it is sent: the sender owns the transfer, may cancel it, and waits for its
acknowledgement. A message leaves through its departure stages, then crosses its pipes (requests only: acknowledgements
and control messages are small and never hold up a model), then its arrival stages delay or drop it. Delivery is in
order, as on one TCP connection.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

from fedemu.clock import Clock
from fedemu.errors import AttemptError
from fedemu.links._base import Burst, Packet, Role, Sending, Stage, Way
from fedemu.loop import grid
from fedemu.net._pb import federation_pb2 as pb
from fedemu.net.delivery import Delivery
from fedemu.net.messages import Message
from fedemu.net.network import Network, Route, Transfer, alone
from fedemu.net.path import Carried, Outcome, Path
from fedemu.types import Bytes, Rng, Seconds

Draw = Callable[[str, Message], Rng]
"""The random stream of a stage, by the stage's name, for a message."""


@dataclass(slots=True)
class Meter:
    """Counts what a sender has put on the link, over all attempts."""

    sent: Bytes = 0


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
        tell: Told what came of each attempt to send.
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
        tell: Callable[[Message, Carried], None] = lambda *_: None,
    ) -> None:
        self._delivery, self._path, self._network, self._clock, self._draw = delivery, path, network, clock, draw
        self._inbound, self._tell = inbound, tell
        self._last: Seconds = 0.0
        self._tcp = path.tcp()
        self._rested: Seconds = -math.inf
        """Since when nothing has left on this connection."""

    async def __aenter__(self) -> Self:
        await self._delivery.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._delivery.__aexit__(*error)

    async def send(self, request: Message, meter: Meter, start: Seconds | None = None, patience: Seconds = 0.0) -> None:
        """Send a task or an update; return when it has left. It arrives later, or is dropped.

        Cancelling the caller ends the transfer. The meter then says how much had left.

        Args:
            request: What to send.
            meter: Counts its bytes.
            start: When it starts, which a real clock may be a little past; None is now.
            patience: Seconds for which it waits for a link that is down and does not say so.

        Raises:
            AttemptError: The link was reset or refused the message, or was down for longer than the patience.
        """
        sent = self._clock.now() if start is None else start
        packet = self._packet(request, sent)
        for name, stage in self._path.way(sent).departure:
            packet = self._pass(stage, name, packet, request) or packet  # nothing is dropped before it leaves
        journey = _Journey(request.size, grid(packet.at), grid(packet.at))
        outcome: Outcome = "cut"
        try:
            await self._clock.sleep_until(packet.at)
            await self._cross(journey, packet, request, patience)
            outcome = "delivered"
        except AttemptError as error:
            outcome = error.outcome
            raise
        finally:
            meter.sent += journey.sent
            if outcome != "delivered":
                journey.left = self._clock.now()
                journey.began = min(journey.began, journey.left)  # it may have stalled before it could begin
                self._tell(request, journey.told(outcome))
        # it is as late as planned, not as late as a real clock woke us up
        arrived = self._depart(packet._replace(at=journey.left), request, sent)
        self._tell(request, journey.told("dropped" if arrived is None else "delivered", arrived))

    def post(self, message: Message) -> None:
        """Send an acknowledgement or a control message.

        It leaves at once, or as soon as the link is up; it arrives later, or is dropped.
        """
        now = self._clock.now()
        up = now if self._path.spells is None else self._path.spells.up(now)
        self._depart(self._packet(message, up), message, now)

    def announce(self, message: Message) -> None:
        """Send what belongs to the handshake, which takes no emulated time."""
        self._delivery.carry(message, None, self._clock.now())

    async def drain(self) -> None:
        """Return when all that has left has arrived."""
        await self._delivery.drain()

    async def _cross(self, journey: "_Journey", packet: Packet, message: Message, patience: Seconds) -> None:
        """Bring a message through the pipes, with as many pauses as the link is down."""
        path = self._path
        start = journey.began = await self._wait_until_up(journey.began, patience)
        way = path.way(start)
        bursts = self._bursts(way, packet, message, start)
        journey.wire, journey.lost = sum(burst.size for burst in bursts), sum(burst.lost for burst in bursts)
        if packet.cut is not None:
            journey.share, bursts = packet.cut, _until(bursts, packet.cut)
        at_once = 0
        if path.bucket is not None:
            size = sum(burst.size for burst in bursts)
            at_once = size - path.bucket.take(size, start)
            bursts = _after(bursts, at_once)
        journey.alone = alone(bursts, path.route, way.rate, start)
        transfer = journey.transfer = Transfer(self._network, bursts, path.route, at_once)
        end = None
        try:
            end = journey.left = await self._run(transfer, start, patience)
        finally:
            self._rested = self._clock.now() if end is None else end
            if path.bucket is not None:
                path.bucket.rest(self._rested)
        if packet.cut is not None:
            self._tcp, self._rested = path.tcp(), -math.inf
            await self._clock.sleep_until(journey.left + way.delay)
            raise AttemptError("reset", "connection reset")

    async def _run(self, transfer: Transfer, start: Seconds, patience: Seconds) -> Seconds:
        """Return when the transfer's last byte has left; it stands still while the link is down."""
        path = self._path
        while path.spells is not None and (spell := path.spells.next(start)) is not None:
            limit = self._clock.timeout_at(spell.start)
            try:
                async with limit:
                    return await transfer.run(self._clock, start)
            except TimeoutError:
                if not limit.expired():
                    raise
                if transfer.share == 1:  # the last byte left at this very moment
                    return spell.start
                start = await self._wait_until_up(spell.start, patience)
        return await transfer.run(self._clock, start)

    async def _wait_until_up(self, now: Seconds, patience: Seconds) -> Seconds:
        """Return when the link is up, which it is at once or in time.

        Raises:
            AttemptError: It is not.
        """
        spells = self._path.spells
        limit = now + patience
        while spells is not None and (spell := spells.next(now)) is not None and spell.start <= now:
            if spell.refuses:
                await self._clock.sleep_until(now + self._path.way(now).rtt)
                raise AttemptError("refused", "connection refused")
            if spell.end > limit:
                await self._clock.sleep_until(limit)
                raise AttemptError("down", f"no connection for {patience:g} s")
            await self._clock.sleep_until(spell.end)
            now = spell.end
        return now

    def _bursts(self, way: Way, packet: Packet, message: Message, start: Seconds) -> Sequence[Burst]:
        lost, loss = None, way.loss
        if loss is not None:
            rng = self._draw("loss", message)

            def lost(count: int, at: Seconds) -> int:
                return loss(count, at, rng)

        mean = 0.0 if loss is None else loss.mean
        sending = Sending(packet.size, start, way.rate, way.rtt, start - self._rested, lost, mean)
        return self._tcp.bursts(sending, lambda: self._draw("tcp", message))

    def _packet(self, message: Message, at: Seconds) -> Packet:
        return Packet(message.size, at, _role(message), _attempt(message))

    def _depart(self, packet: Packet, message: Message, sent: Seconds) -> Seconds | None:
        """Hand over what has left; return when it arrives, or None if it does not."""
        for name, stage in self._path.way(packet.at).arrival:
            later = self._pass(stage, name, packet, message)
            if later is None:
                return None
            packet = later
        self._last = max(self._last, packet.at)
        self._delivery.carry(message, sent, self._last)
        return self._last

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
            transfer = Transfer(self._network, [Burst(message.size, 0.0)], Route(self._inbound))
            moment = await transfer.run(self._clock, moment)
        return message, moment


@dataclass(slots=True)
class _Journey:
    """One attempt on its way."""

    size: Bytes
    due: Seconds
    """When it would begin with the link up."""
    began: Seconds
    left: Seconds = math.nan
    wire: Bytes = 0
    lost: int = 0
    alone: Seconds = 0.0
    """How long it takes with nothing beside it."""
    transfer: Transfer | None = None
    share: float = 1.0
    """Of the message that the transfer carries."""

    @property
    def sent(self) -> Bytes:
        return 0 if self.transfer is None else round(self.size * self.share * self.transfer.share)

    def told(self, outcome: Outcome, arrived: Seconds | None = None) -> Carried:
        has_left = outcome in ("delivered", "dropped")
        queued = grid(self.left - self.due - self.alone) if has_left else 0.0
        queued = queued if queued > 2e-9 else 0.0  # less is rounding
        delay = None if arrived is None else grid(arrived - self.left)
        lost = self.lost if has_left else 0
        return Carried(outcome, self.began, self.left, self.sent, self.wire, queued, lost, delay)


def _after(bursts: Sequence[Burst], size: Bytes) -> Sequence[Burst]:
    """Return the bursts without the first `size` bytes of them."""
    result = []
    for burst in bursts:
        gone = min(size, burst.size)
        size -= gone
        result.append(burst._replace(size=burst.size - gone))
    return result


def _until(bursts: Sequence[Burst], share: float) -> Sequence[Burst]:
    """Return the first part of the bursts, that share of their bytes."""
    result, left = [], round(share * sum(burst.size for burst in bursts))
    for burst in bursts:
        if not left:
            break
        result.append(burst._replace(size=min(left, burst.size)))
        left -= result[-1].size
    return result


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
    if isinstance(header, pb.Hello | pb.Enrolled | pb.Welcome | pb.Ready | pb.Goodbye):
        return 0
    return header.assignment.attempt
