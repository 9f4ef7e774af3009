"""Background traffic in steps: rates that hold one after the other, again and again."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from fedemu.links._base import Demand, Traffic
from fedemu.types import Rng
from fedemu.units import Duration, Rate


def step(*, rates: Annotated[list[Rate], Field(min_length=2)], every: Annotated[Duration, Field(gt=0)]) -> Traffic:
    """Ask for each of the rates in turn, then begin again.

    Args:
        rates: Demands in order, e.g. [0bit/s, 8Mbit/s]; 0bit/s is silence.
        every: How long each holds.

    Raises:
        ValueError: all rates are the same.
    """
    if len(set(rates)) == 1:
        raise ValueError("all rates are the same; write kind: constant, or no traffic at all")

    def traffic(_: Rng) -> Iterator[Demand]:
        flow, last = 0, 0.0
        index = 0
        while True:
            cap = rates[index % len(rates)]
            if cap != last:
                yield Demand(index * every, flow, cap)
                # silence has ended the flow: what comes next is a new one
                flow += cap == 0
            last, index = cap, index + 1

    return traffic
