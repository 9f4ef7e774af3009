"""Clients that are online by chance: the more, the less data they have (FLGo's LDF).

As FLGo computes it (flgo/simulator/default_simulator.py), whose docstring has another formula.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Annotated

from pydantic import Field

from fedemu.availabilities._base import Availability, Member
from fedemu.availabilities._process import slots
from fedemu.availabilities._shares import over_largest
from fedemu.types import ClientId, Interval, Rng
from fedemu.units import Duration


def less_data(
    *,
    beta: Annotated[float, Field(ge=0, le=10)] = 0.5,
    period: Annotated[Duration, Field(gt=0)] = 60.0,
) -> Availability:
    """Draw anew in every period; the chance is n^-beta over the largest of that, for a client of n examples.

    A client without examples counts as one with one.

    Args:
        beta: How far clients differ; 0 has all online.
        period: How long a draw holds; a round in FLGo.
    """

    def availability(members: Sequence[Member], draw: Callable[[ClientId], Rng]) -> Sequence[Iterator[Interval]]:
        chances = over_largest([float(max(1, member.num_examples)) ** -beta for member in members])
        return [slots((chance,), period, draw(m.client)) for chance, m in zip(chances, members, strict=True)]

    return availability
