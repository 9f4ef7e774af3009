"""Clients that are online by chance: the more, the higher their smallest label (FLGo's YMF, YMaxFirst).

Gu et al., Fast Federated Learning in the Presence of Arbitrary Device Unavailability, NeurIPS 2021, as FLGo has it
(flgo/simulator/default_simulator.py).
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Annotated

from pydantic import Field

from fedemu.availabilities._base import Availability, Member
from fedemu.availabilities._process import slots
from fedemu.types import ClientId, Interval, Rng
from fedemu.units import Duration, Ratio


def by_label(*, beta: Ratio = 0.1, period: Annotated[Duration, Field(gt=0)] = 60.0) -> Availability:
    """Draw anew in every period; the chance is beta min(labels) / max(1, classes - 1) + 1 - beta.

    A client without examples counts as one whose smallest label is 0.

    Args:
        beta: How much depends on labels; 0 has all online.
        period: How long a draw holds; a round in FLGo.
    """

    def availability(members: Sequence[Member], draw: Callable[[ClientId], Rng]) -> Sequence[Iterator[Interval]]:
        return [slots((_chance(member, beta),), period, draw(member.client)) for member in members]

    return availability


def _chance(member: Member, beta: float) -> float:
    smallest = next((label for label, count in enumerate(member.labels) if count), 0)
    return beta * smallest / max(1, len(member.labels) - 1) + 1 - beta
