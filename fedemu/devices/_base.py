"""What a device is: work to do, and the emulated time that it takes."""

from collections.abc import Callable
from typing import Literal, NamedTuple

from fedemu.types import Rng, Seconds


class Work(NamedTuple):
    """One local training, as far as its time depends on it."""

    examples: int
    epochs: int
    arithmetic: Callable[[], float]
    """Floating-point operations to train on one example once, forward and backward; counted when it is asked for."""


class Device(NamedTuple):
    """A client's hardware."""

    training_time: Callable[[Work, Rng], Seconds]
    draw: Literal["round", "client"] = "round"
    """Which random stream it gets: a new one each round, or the same one in all rounds of a client."""
