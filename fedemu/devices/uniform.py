"""Devices that differ: uniform speed between two bounds."""

from typing import Literal

from fedemu.devices._base import Device, Work
from fedemu.types import Rng, Seconds
from fedemu.units import Duration


def uniform(*, low: Duration, high: Duration, draw: Literal["round", "client"] = "round") -> Device:
    """Take a time per example that is uniform between two bounds.

    One uniform is drawn a training, so that runs that differ in `low` or `high` alone are coupled.

    Args:
        low: Shortest time to train on one example once.
        high: Longest.
        draw: Anew each round (load), or once a client (hardware).

    Raises:
        ValueError: the bounds are the wrong way round.
    """
    if high < low:
        raise ValueError(f"low {low:g}s is above high {high:g}s; expected it below")

    def training_time(work: Work, rng: Rng) -> Seconds:
        return (low + (high - low) * rng.random()) * work.examples * work.epochs

    return Device(training_time, draw)
