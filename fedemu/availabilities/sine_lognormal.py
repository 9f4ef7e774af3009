"""Clients that are online by chance, each with a lognormal one that swings like a sine wave (FLGo's SLN).

Ribero, Vikalo and De Veciana, Federated Learning Under Intermittent Client Availability and Time-Varying Communication
Constraints, 2022 (arXiv 2205.06730), as FLGo has it (flgo/simulator/default_simulator.py).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated

from pydantic import Field

from fedemu.availabilities._base import Availability, Member
from fedemu.availabilities._process import slots
from fedemu.availabilities._shares import lognormal_shares
from fedemu.types import ClientId, Interval, Rng
from fedemu.units import Duration


def sine_lognormal(
    *,
    beta: Annotated[float, Field(ge=0, lt=1)] = 0.1,
    cycle: Annotated[int, Field(ge=2)] = 24,
    period: Annotated[Duration, Field(gt=0)] = 60.0,
) -> Availability:
    """Draw anew in every period; the chance in slot k is q (0.4 sin(2 pi k / (cycle - 1)) + 0.5), k = 0..cycle-1.

    q is the lognormal kind's: exp(sigma z) over the largest, sigma = -ln(1 - beta). As in FLGo, the first and the last
    slot of a cycle both stand at sin 0.

    Args:
        beta: How far clients differ; 0 has them alike.
        cycle: Slots of a swing.
        period: How long a draw holds; a round in FLGo.
    """
    swing = [0.4 * math.sin(2 * math.pi * slot / (cycle - 1)) + 0.5 for slot in range(cycle)]

    def availability(members: Sequence[Member], draw: Callable[[ClientId], Rng]) -> Sequence[Iterator[Interval]]:
        rngs = [draw(member.client) for member in members]
        shares = lognormal_shares(beta, rngs)
        return [slots([share * f for f in swing], period, rng) for share, rng in zip(shares, rngs, strict=True)]

    return availability
