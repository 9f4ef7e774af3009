"""Poisson background traffic: flows of random size that arrive at random and leave when they are through."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from fedemu.links._base import Demand, Traffic
from fedemu.types import Rng
from fedemu.units import Rate, Size


def poisson(*, rate: Annotated[Rate, Field(gt=0)], size: Annotated[Size, Field(gt=0)]) -> Traffic:
    """Let flows arrive as a Poisson process, of exponential size, each taking all that it gets.

    The offered load is `rate`: rate / (8 size) flows a second. A load at or above the pipe's own rate fills it with
    ever more flows. Two exponentials are drawn a flow, so that runs that differ in `rate` or `size` alone are coupled.

    Args:
        rate: Mean offered load.
        size: Mean size of a flow.
    """

    def traffic(rng: Rng) -> Iterator[Demand]:
        at, flow = 0.0, 0
        while True:
            at += 8 * size / rate * rng.standard_exponential()
            yield Demand(at, flow, float("inf"), size * rng.standard_exponential())
            flow += 1

    return traffic
