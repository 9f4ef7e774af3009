"""Lost calls: whole messages that vanish, each attempt by chance of its own."""

from collections.abc import Callable

from fedemu.links._base import Packet, Stage
from fedemu.types import Rng
from fedemu.units import Ratio


def drop(*, request: Ratio = 0.0, response: Ratio = 0.0) -> Stage:
    """Lose whole messages; the sender notices by its timeout.

    One uniform draw a packet that can be lost, so that what is lost at 1 % is lost at 2 % too.

    Args:
        request: Chance that a task or an update is lost.
        response: Chance that its acknowledgement is lost: the receiver did act, and the sender tries again.
    """
    chance = {"request": request, "response": response, "control": 0.0}

    def stage(packet: Packet, draw: Callable[[], Rng]) -> Packet | None:
        threshold = chance[packet.role]
        return None if threshold and draw().random() < threshold else packet

    return stage
