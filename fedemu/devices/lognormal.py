"""Devices that differ: lognormal speed, drawn once a client or anew each round."""

import math
from typing import Annotated, Literal

from pydantic import Field

from fedemu.devices._base import Device, Work
from fedemu.types import Rng, Seconds
from fedemu.units import Duration


def lognormal(
    *, per_example: Duration, sigma: Annotated[float, Field(ge=0)], draw: Literal["round", "client"] = "round"
) -> Device:
    """Take a time per example of lognormal law.

    One standard normal is drawn a training, so that runs that differ in `per_example` or `sigma` alone are coupled.

    Args:
        per_example: Median time to train on one example once.
        sigma: Standard deviation of the time's natural logarithm; 0 is constant, 1 has a third over 1.6 medians.
        draw: Anew each round (load), or once a client (hardware).
    """

    def training_time(work: Work, rng: Rng) -> Seconds:
        return per_example * math.exp(sigma * float(rng.standard_normal())) * work.examples * work.epochs

    return Device(training_time, draw)
