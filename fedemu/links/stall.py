"""Stalls: by chance, a client's answer is late by a fixed time."""

from collections.abc import Callable

from fedemu.links._base import Packet, Stage
from fedemu.types import Rng
from fedemu.units import Duration, Ratio


def stall(*, probability: Ratio, duration: Duration) -> Stage:
    """Hold up what a client answers by chance, at its first attempt only.

    One uniform draw a packet that can stall, so that who is stalled at 20 % is stalled at 80 % too.

    Args:
        probability: Chance that a message stalls.
        duration: How late it is then.
    """

    def stage(packet: Packet, draw: Callable[[], Rng]) -> Packet:
        if packet.role == "request" and packet.attempt == 1 and draw().random() < probability:
            return packet._replace(at=packet.at + duration)
        return packet

    return stage
