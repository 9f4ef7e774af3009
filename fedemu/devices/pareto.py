"""Devices that differ: Pareto speed, a few of which are very slow."""

from typing import Annotated, Literal

from pydantic import Field

from fedemu.devices._base import Device, Work
from fedemu.types import Rng, Seconds
from fedemu.units import Duration


def pareto(
    *, per_example: Duration, shape: Annotated[float, Field(gt=0)], draw: Literal["round", "client"] = "round"
) -> Device:
    """Take a time per example of Pareto law (type I): per_example (2 (1 - u))^(-1 / shape).

    One uniform u is drawn a training, so that runs that differ in `per_example` or `shape` alone are coupled.

    Args:
        per_example: Median time to train on one example once.
        shape: Tail index: the chance of t times as long falls as t^-shape; at 1 or below the mean is infinite.
        draw: Anew each round (load), or once a client (hardware).
    """

    def training_time(work: Work, rng: Rng) -> Seconds:
        slowness: float = (2 * (1 - rng.random())) ** (-1 / shape)
        return per_example * slowness * work.examples * work.epochs

    return Device(training_time, draw)
