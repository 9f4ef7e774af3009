"""Background traffic like a sine wave: one flow whose demand swings around its mean."""

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated

from pydantic import Field

from fedemu.links._base import Demand, Traffic
from fedemu.types import Rng
from fedemu.units import Duration, Rate, Ratio

STEPS = 64
"""Steps of a period."""


def sine(
    *,
    rate: Annotated[Rate, Field(gt=0)],
    amplitude: Ratio = 0.5,
    period: Annotated[Duration, Field(gt=0)],
) -> Traffic:
    """Ask for rate (1 + amplitude sin(2 pi t / period)), in 64 steps a period.

    Each step has the wave's mean over it, so that the load of a period is exactly the mean's; a step is at most 4.9 %
    of the wave's swing off the wave.

    Args:
        rate: Mean demand.
        amplitude: How far it swings, as a share of the mean.
        period: Time from one crest to the next.
    """
    angles = [2 * math.pi * step / STEPS for step in range(STEPS + 1)]
    means = [(math.cos(start) - math.cos(end)) / (end - start) for start, end in pairwise(angles)]
    caps = [rate * (1 + amplitude * mean) for mean in means]

    def traffic(_: Rng) -> Iterator[Demand]:
        step = 0
        while True:
            yield Demand(step * period / STEPS, 0, caps[step % STEPS])
            step += 1

    return traffic
