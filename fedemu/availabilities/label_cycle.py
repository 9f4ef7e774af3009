"""Clients that are online more at the time of day of their labels (FLGo's YC).

As FLGo has it (flgo/simulator/default_simulator.py).
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Annotated

from pydantic import Field

from fedemu.availabilities._base import Availability, Member
from fedemu.availabilities._process import slots
from fedemu.types import ClientId, Interval, Rng
from fedemu.units import Count, Duration, Ratio


def label_cycle(
    *,
    beta: Ratio = 0.5,
    cycle: Count = 24,
    period: Annotated[Duration, Field(gt=0)] = 60.0,
) -> Availability:
    """Draw anew in every period; the chance is 1 in the slots of the client's labels, 1 - beta in all others.

    Slot k = 0..cycle-1 is the client's where smallest / last <= (1 + k) / cycle <= largest / last, of its labels and
    the last label that there is. A client without examples has no such slot.

    Args:
        beta: How much depends on the time; 0 has all online.
        cycle: Slots until the same labels' turn comes again.
        period: How long a draw holds; a round in FLGo.
    """

    def availability(members: Sequence[Member], draw: Callable[[ClientId], Rng]) -> Sequence[Iterator[Interval]]:
        return [slots(_chances(member, beta, cycle), period, draw(member.client)) for member in members]

    return availability


def _chances(member: Member, beta: float, cycle: int) -> list[float]:
    labels = [label for label, count in enumerate(member.labels) if count]
    if not labels:
        return [1 - beta] * cycle
    last = max(1, len(member.labels) - 1)
    # whole numbers, as 3/24 <= 1/8 must not hang on a rounding
    turn = [labels[0] * cycle <= (1 + slot) * last <= labels[-1] * cycle for slot in range(cycle)]
    return [1.0 if is_turn else 1 - beta for is_turn in turn]
