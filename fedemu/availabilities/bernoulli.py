"""Clients that are online by chance, all with the same (FLGo's HOMO)."""

from collections.abc import Callable, Iterator, Sequence
from typing import Annotated

from pydantic import Field

from fedemu.availabilities._base import Availability, Member
from fedemu.availabilities._process import slots
from fedemu.types import ClientId, Interval, Rng
from fedemu.units import Duration, Ratio


def bernoulli(*, probability: Ratio = 0.8, period: Annotated[Duration, Field(gt=0)] = 60.0) -> Availability:
    """Draw anew in every period who is online; FLGo's 1 - beta is `probability`.

    Args:
        probability: Chance of being online; below 0.001 % is never, above 99.999 % always.
        period: How long a draw holds; a round in FLGo.
    """

    def availability(members: Sequence[Member], draw: Callable[[ClientId], Rng]) -> Sequence[Iterator[Interval]]:
        return [slots((probability,), period, draw(member.client)) for member in members]

    return availability
