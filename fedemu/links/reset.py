"""Connection resets: by chance, a message breaks off somewhere on its way."""

from collections.abc import Callable

from fedemu.links._base import Packet, Stage
from fedemu.types import Rng
from fedemu.units import Ratio


def reset(*, probability: Ratio) -> Stage:
    """Reset the connection under a task or an update, after a uniform share of its bytes, each attempt by chance.

    Two uniform draws a request, so that what is reset at 1 % is reset at 2 % too, and after the same share.

    Args:
        probability: Chance that an attempt is reset.
    """

    def stage(packet: Packet, draw: Callable[[], Rng]) -> Packet:
        if packet.role != "request":
            return packet
        chance, share = map(float, draw().random(2))
        if chance >= probability:
            return packet
        return packet._replace(cut=share if packet.cut is None else min(share, packet.cut))

    return stage
