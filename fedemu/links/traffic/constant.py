"""Constant background traffic: one flow that never ends."""

from typing import Annotated

from pydantic import Field

from fedemu.links._base import Demand, Traffic
from fedemu.units import Rate


def constant(*, rate: Annotated[Rate, Field(gt=0)]) -> Traffic:
    """Ask for the same rate for ever, in one flow that competes with the run's own.

    Args:
        rate: What the flow takes at most.
    """
    return lambda _: iter((Demand(0.0, 0, rate),))
