"""The keys that stand beside a device's own: slow trainings, memory, energy."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import Field

from fedemu.devices._base import Energy, Equipment, Memory, Straggler
from fedemu.keys import Clash, Keys
from fedemu.units import Power, Ratio, Size


class StragglerKeys(Keys):
    """Trainings that are slow by chance."""

    probability: Ratio
    """Chance that a training is slow."""
    factor: Annotated[float, Field(ge=1)] | None = None
    """How many times as long it takes then."""
    speed: Annotated[list[Annotated[Ratio, Field(gt=0)]], Field(min_length=2, max_length=2)] | None = None
    """Or: the share of its speed that is left then, uniform between two values, e.g. [5%, 100%]."""

    def clashes(self) -> Iterator[Clash]:
        """Yield what leaves open how slow."""
        keys = frozenset({"factor", "speed"})
        if (self.factor is None) == (self.speed is None):
            yield Clash(keys, (), "how slow is not clear; write factor or speed, one of the two")
        elif self.speed is not None and self.speed[0] > self.speed[1]:
            yield Clash(keys, ("speed",), f"{self.speed[0]:g} is above {self.speed[1]:g}; write the lower one first")


class EnergyKeys(Keys):
    """What a device draws while it does what."""

    compute: Power = 0.0
    """While it trains."""
    up: Power = 0.0
    """While it sends."""
    down: Power = 0.0
    """While it receives."""


class DeviceKeys(Keys):
    """What the house reads beside a device's own keys."""

    straggler: StragglerKeys | None = None
    """Trainings that are slow by chance."""
    memory: Annotated[Size, Field(gt=0)] | None = None
    """What the device has for training; a model that does not fit is not trained."""
    energy: EnergyKeys | None = None
    """Power that it draws, which is counted."""


def equipment(house: Mapping[str, Any]) -> Equipment:
    """Return what stands around a device, from the keys that the house reads."""
    straggler, memory, energy = (house[key] for key in ("straggler", "memory", "energy"))
    return Equipment(
        None if straggler is None else _straggler(straggler),
        None if memory is None else Memory(memory),
        None if energy is None else Energy(**energy.model_dump()),
    )


def _straggler(keys: StragglerKeys) -> Straggler:
    low, high = keys.speed or (1.0, 1.0)
    return Straggler(keys.probability, keys.factor or 1.0, (low, high))
