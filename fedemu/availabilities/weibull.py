"""Clients that come and go: Weibull times on and off, with many short visits and few long ones."""

from collections.abc import Callable, Iterator, Sequence
from typing import Annotated

from pydantic import Field

from fedemu.availabilities._base import Availability, Member
from fedemu.availabilities._process import sojourns
from fedemu.types import ClientId, Interval, Rng
from fedemu.units import Duration


def weibull(
    *,
    online: Annotated[Duration, Field(gt=0)],
    offline: Annotated[Duration, Field(gt=0)],
    shape: Annotated[float, Field(ge=0.1, le=10)],
) -> Availability:
    """Stay online and offline for Weibull times; online / (online + offline) are online at any time.

    Args:
        online: Mean time online.
        offline: Mean time offline.
        shape: Of both laws; 1 is exponential, below it many are short and few are long.
    """

    def availability(members: Sequence[Member], draw: Callable[[ClientId], Rng]) -> Sequence[Iterator[Interval]]:
        return [sojourns(online, offline, shape, draw(member.client)) for member in members]

    return availability
