"""Clients that are online by chance, each with a lognormal one (FLGo's LN).

Ribero, Vikalo and De Veciana, Federated Learning Under Intermittent Client Availability and Time-Varying Communication
Constraints, 2022 (arXiv 2205.06730), as FLGo has it (flgo/simulator/default_simulator.py).
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Annotated

from pydantic import Field

from fedemu.availabilities._base import Availability, Member
from fedemu.availabilities._process import slots
from fedemu.availabilities._shares import lognormal_shares
from fedemu.types import ClientId, Interval, Rng
from fedemu.units import Duration


def lognormal(
    *,
    beta: Annotated[float, Field(ge=0, lt=1)] = 0.1,
    period: Annotated[Duration, Field(gt=0)] = 60.0,
) -> Availability:
    """Draw anew in every period; a client's chance is exp(sigma z) over the largest, sigma = -ln(1 - beta).

    One standard normal z is drawn a client, so that runs that differ in `beta` alone are coupled.

    Args:
        beta: How far clients differ; 0 has all online.
        period: How long a draw holds; a round in FLGo.
    """

    def availability(members: Sequence[Member], draw: Callable[[ClientId], Rng]) -> Sequence[Iterator[Interval]]:
        rngs = [draw(member.client) for member in members]
        shares = lognormal_shares(beta, rngs)
        return [slots((share,), period, rng) for share, rng in zip(shares, rngs, strict=True)]

    return availability
