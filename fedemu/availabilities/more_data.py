"""Clients that are online by chance: the more, the more data they have (FLGo's MDF).

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


def more_data(
    *,
    beta: Annotated[float, Field(ge=0, le=10)] = 0.0001,
    period: Annotated[Duration, Field(gt=0)] = 60.0,
) -> Availability:
    """Draw anew in every period; the chance is n^beta over the largest of that, for a client of n examples.

    A client without examples is never online unless beta is 0.

    Args:
        beta: How far clients differ; 0 has all online.
        period: How long a draw holds; a round in FLGo.
    """

    def availability(members: Sequence[Member], draw: Callable[[ClientId], Rng]) -> Sequence[Iterator[Interval]]:
        chances = over_largest([float(member.num_examples) ** beta for member in members])
        return [slots((chance,), period, draw(m.client)) for chance, m in zip(chances, members, strict=True)]

    return availability
