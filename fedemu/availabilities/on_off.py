"""Clients that come and go: exponential times on and off."""

from collections.abc import Callable, Iterator, Sequence
from typing import Annotated

from pydantic import Field

from fedemu.availabilities._base import Availability, Member
from fedemu.availabilities._process import sojourns
from fedemu.types import ClientId, Interval, Rng
from fedemu.units import Duration


def on_off(*, online: Annotated[Duration, Field(gt=0)], offline: Annotated[Duration, Field(gt=0)]) -> Availability:
    """Stay online and offline for exponential times; online / (online + offline) are online at any time.

    Args:
        online: Mean time online.
        offline: Mean time offline.
    """

    def availability(members: Sequence[Member], draw: Callable[[ClientId], Rng]) -> Sequence[Iterator[Interval]]:
        return [sojourns(online, offline, 1.0, draw(member.client)) for member in members]

    return availability
