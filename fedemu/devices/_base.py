"""What a device is: work to do, the emulated time that it takes, and what else it costs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from fedemu.types import Bytes, Rng, Seconds, Training
from fedemu.units import Power, Ratio, Size


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


@dataclass(frozen=True, slots=True)
class Straggler:
    """A device that is slow by chance; stands around any kind."""

    probability: Ratio
    """Chance that a training is slow."""
    factor: Annotated[float, Field(ge=1)] = 1.0
    """How many times as long it takes then."""
    speed: tuple[float, float] = (1.0, 1.0)
    """Share of its speed that is left then, 0..1: uniform between these two."""

    def slowdown(self, rng: Rng) -> float:
        """Return how many times as long one training takes, 1 for one that is not slow.

        The first draw says whether, so that who is slow at 20 % is slow at 80 % too.
        """
        is_slow = rng.random() < self.probability
        return self.factor / rng.uniform(*self.speed) if is_slow else 1.0


@dataclass(frozen=True, slots=True)
class Memory:
    """What a device has for training."""

    size: Annotated[Size, Field(gt=0)]


def memory_to_train(parameters: int, training: Training) -> Bytes:
    """Return what training needs at least: vectors of the model's size in float32, 4 bytes a parameter.

    They are the model as it was received, the local model, its gradient, and with momentum the buffer. The update takes
    the place of the gradient. What grows with the batch and not with the model (examples, activations) is not counted.
    """
    return 4 * parameters * (4 if training.momentum else 3)


@dataclass(frozen=True, slots=True)
class Energy:
    """What a device draws while it does what."""

    compute: Power = 0.0
    """While it trains."""
    up: Power = 0.0
    """While it sends."""
    down: Power = 0.0
    """While it receives."""

    def joules(self, *, compute: Seconds = 0.0, up: Seconds = 0.0, down: Seconds = 0.0) -> float:
        """Return the energy of so long at each."""
        return self.compute * compute + self.up * up + self.down * down


class Equipment(NamedTuple):
    """What stands around a device of any kind; None is as if it were not there."""

    straggler: Straggler | None = None
    memory: Memory | None = None
    energy: Energy | None = None
