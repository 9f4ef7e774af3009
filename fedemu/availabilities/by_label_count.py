"""Clients that are online by chance: the more, the more labels they have (FLGo's YFF).

FLGo (flgo/simulator/default_simulator.py) calls it fewer labels first; its formula, which is kept here, is the other
way round.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Annotated

from pydantic import Field

from fedemu.availabilities._base import Availability, Member
from fedemu.availabilities._process import slots
from fedemu.types import ClientId, Interval, Rng
from fedemu.units import Duration, Ratio


def by_label_count(*, beta: Ratio = 0.2, period: Annotated[Duration, Field(gt=0)] = 60.0) -> Availability:
    """Draw anew in every period; the chance is beta (labels that the client has) / classes + 1 - beta.

    Args:
        beta: How much depends on labels; 0 has all online.
        period: How long a draw holds; a round in FLGo.
    """

    def availability(members: Sequence[Member], draw: Callable[[ClientId], Rng]) -> Sequence[Iterator[Interval]]:
        return [slots((_chance(member, beta),), period, draw(member.client)) for member in members]

    return availability


def _chance(member: Member, beta: float) -> float:
    return beta * sum(count > 0 for count in member.labels) / max(1, len(member.labels)) + 1 - beta
