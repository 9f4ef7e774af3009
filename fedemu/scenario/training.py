"""The keys of `training`: how clients train, and how that changes from round to round."""

import itertools
import math
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from fedemu.keys import Clash, Keys, shown
from fedemu.types import Training
from fedemu.units import Count, Duration


def _batch_size(value: Any) -> Any:
    if value != "full" and (isinstance(value, bool) or not isinstance(value, int)):
        raise ValueError(f"{shown(value)} is neither a whole number nor full")
    return None if value == "full" else value


class LocalKeys(Keys):
    """How one local training goes."""

    epochs: Count = Training().epochs
    """Passes over a client's examples in each round."""
    batch_size: Annotated[
        Count | None, BeforeValidator(_batch_size, json_schema_input_type=Literal["full"] | Count)
    ] = Training().batch_size
    """Examples a step; full takes all of a client's examples in one step."""
    lr: Annotated[float, Field(gt=0)] = Training().lr
    """Learning rate of the local steps."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = Training().momentum
    """Momentum of the local steps, which starts anew in every round."""


class ChangeKeys(LocalKeys):
    """What is different from a round on."""

    round: Annotated[int, Field(ge=2)]
    """The first round of which it holds."""


class TrainingKeys(LocalKeys):
    """How clients train; in a group, the keys that are different there."""

    lr_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """What the learning rate is multiplied with after each round."""
    epochs_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """What the epochs are multiplied with after each round, rounded, but at least 1."""
    schedule: list[ChangeKeys] = Field(default=[])
    """Keys that are different from a round on, before the decays; of several entries that hold, the last one counts."""
    budget: Annotated[Duration, Field(gt=0)] | None = None
    """Time for a local training: a client does the whole epochs that fit, at least one; default no limit."""

    def clashes(self) -> Iterator[Clash]:
        """Yield entries of the schedule that change nothing, or stand in another order than they hold."""
        for number, change in enumerate(self.schedule):
            if change.model_fields_set == {"round"}:
                text = f"nothing changes; write one of {', '.join(LocalKeys.model_fields)} beside it"
                yield Clash(frozenset({"schedule"}), ("schedule", number, "round"), text)
        rounds = [change.round for change in self.schedule]
        for number, (last, round) in enumerate(itertools.pairwise(rounds), start=1):
            if round <= last:
                text = f"round {round} stands behind round {last}; write them in ascending order"
                yield Clash(frozenset({"schedule"}), ("schedule", number, "round"), text)

    def in_round(self, round: int) -> Training:
        """Return how clients train in a round, from 1 on."""
        now: dict[str, Any] = {key: getattr(self, key) for key in LocalKeys.model_fields}
        for change in self.schedule:
            if change.round <= round:
                now |= change.model_dump(exclude_unset=True, exclude={"round"})
        now["lr"] *= self.lr_decay ** (round - 1)
        now["epochs"] = max(1, math.floor(now["epochs"] * self.epochs_decay ** (round - 1) + 0.5))
        return Training(**now)
