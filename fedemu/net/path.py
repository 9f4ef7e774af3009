"""What a message crosses in one direction of a client's connection, and what came of it."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from fedemu.events import TransferEnded
from fedemu.links._base import Tcp, Way
from fedemu.links._bucket import Bucket
from fedemu.links._spells import Spells
from fedemu.net._pb import federation_pb2 as pb
from fedemu.net.messages import Message
from fedemu.net.network import Route
from fedemu.types import Bytes, ClientView, Seconds

Outcome: TypeAlias = Literal["delivered", "dropped", "reset", "refused", "down", "cut", "handed"]
"""It arrives; it left and is lost; the link told the sender; the link was down for too long; the sender gave it up; a
kernel that shapes the link has it, and only that knows when it arrives."""


class Carried(NamedTuple):
    """What came of one attempt at a task or an update."""

    outcome: Outcome
    began: Seconds
    """When its first byte was put on the link."""
    left: Seconds
    """When its last byte had left, or the attempt ended."""
    sent: Bytes
    """Of the message."""
    wire: Bytes
    """Bytes on the wire, with headers and what was sent again, if all of it had left."""
    queued: Seconds
    """How much longer it took than with nothing beside it, and with the link up."""
    retransmitted: int
    """Segments that were lost and sent again."""
    delay: Seconds | None
    """From the last byte's leaving to the arrival; None if it never arrives."""


def transfer_ended(
    at: Seconds, view: ClientView, direction: Literal["up", "down"], message: Message, carried: Carried
) -> TransferEnded:
    """Return the event that tells what came of an attempt at a task or an update."""
    header = message.header
    assert isinstance(header, pb.Task | pb.Update)
    return TransferEnded(
        at=at,
        client=view.client,
        group=view.group,
        round=header.assignment.round,
        attempt=header.assignment.attempt,
        direction=direction,
        outcome=carried.outcome,
        bytes=carried.sent,
        wire=carried.wire,
        began=carried.began,
        queued=carried.queued,
        retransmitted=carried.retransmitted,
        delay=carried.delay,
    )


NOWHERE = Route()


@dataclass(frozen=True, slots=True)
class Path:
    """One direction of one client's connection."""

    name: str
    """E.g. `phones/3 up`."""
    periods: Sequence[tuple[Seconds, Way]]
    """What holds from which time on; the first from 0."""
    tcp: Callable[[], Tcp]
    """Makes the sender of a new connection."""
    route: Route = NOWHERE
    """What its requests cross."""
    bucket: Bucket | None = None
    """What a rested link passes at once."""
    spells: Spells | None = None
    """When the link is down."""

    def way(self, at: Seconds) -> Way:
        """Return what holds at that time."""
        return self.periods[max(0, bisect_right(self.periods, at, key=lambda period: period[0]) - 1)][1]
