"""Clients that are there all the time, or that come late or leave early."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated

from pydantic import Field

from fedemu.availabilities._base import Availability, Member
from fedemu.types import ClientId, Interval, Rng
from fedemu.units import Duration


def always(*, after: Duration = 0.0, until: Annotated[Duration, Field(gt=0)] | None = None) -> Availability:
    """Be online from one moment to another, by default for ever (FLGo's IDL).

    Args:
        after: When the client comes for the first time.
        until: When it leaves for good; without it, never.

    Raises:
        ValueError: it would leave before it comes.
    """
    if until is not None and until <= after:
        raise ValueError(f"until {until:g}s is not later than after {after:g}s; expected it later")
    stay = Interval(after, math.inf if until is None else until)

    def availability(members: Sequence[Member], _: Callable[[ClientId], Rng]) -> Sequence[Iterator[Interval]]:
        return [iter((stay,)) for _ in members]

    return availability
