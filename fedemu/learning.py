"""What is learned, from what, and how: the data set and its shards, the model and the algorithm of a scenario.

Every process that trains or evaluates makes its own from the scenario: the server's, each worker's, each client's.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from torch import nn

from fedemu.compute._base import Job
from fedemu.datasets._base import Dataset, subset
from fedemu.models._base import Layout, Task, initial, layout_of, release
from fedemu.models._objective import LocalObjective, evaluate, training_arithmetic
from fedemu.rng import stream
from fedemu.scenario import Scenario, parse
from fedemu.scenario.kind import Kind
from fedemu.strategies._base import Strategy
from fedemu.types import ClientId, Indices, State, Trained, Vector

PART = 2000
"""Test examples that one evaluation job takes; fixed, so that sums do not depend on the number of workers."""


def data_folder() -> Path:
    """Return the directory of the data sets: FEDEMU_DATA, or `fedemu` in the user's cache directory."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("FEDEMU_DATA") or Path(cache) / "fedemu")


@dataclass(frozen=True, slots=True)
class Recipe:
    """Makes the learning problem of a scenario, in whatever process; a `compute.Recipe`."""

    resolved: str
    """The resolved scenario, JSON."""

    def __call__(self) -> "Learning":
        return Learning.of(parse(json.loads(self.resolved)))


@dataclass(frozen=True)
class Learning:
    """A scenario's learning problem; a `compute.Workshop`."""

    scenario: Scenario
    dataset: Dataset
    shards: Mapping[ClientId, Indices]
    module: nn.Module
    strategies: Mapping[str, Strategy]
    """By group, as groups may train differently; the server's part is the same in all."""

    @classmethod
    def of(cls, scenario: Scenario) -> "Learning":
        """Load the data, divide them, and build the model.

        Raises:
            DataError: A data file is missing or not what it should be.
            ScenarioError: The data set and the scenario do not fit.
        """
        dataset = _load(scenario.dataset.kind, tuple(scenario.dataset.params.items()), data_folder())
        if scenario.examples is not None:
            dataset = subset(dataset, scenario.examples, stream(scenario.seed, "subset"))
        clients = [f"{name}/{slot}" for name, group in scenario.clients.items() for slot in range(group.count)]
        divide = scenario.partition.build()
        shards = divide(dataset.train.y.numpy(), len(clients), stream(scenario.seed, "partition"))
        module = scenario.model.build(Task(dataset.shape, dataset.classes))
        layout_of(module)
        release(module)  # it is bound to whatever weights it is asked about
        strategies = {group: scenario.strategy.build(scenario.training_in(group)) for group in scenario.clients}
        return cls(scenario, dataset, dict(zip(clients, shards, strict=True)), module, strategies)

    @property
    def task(self) -> Task:
        return Task(self.dataset.shape, self.dataset.classes)

    @property
    def layout(self) -> Layout:
        return layout_of(self.module)

    def initial(self) -> Vector:
        """Return the model before the first round, the same for all runs of a seed."""
        return initial(lambda: self.scenario.model.build(self.task), stream(self.scenario.seed, "initial"))

    @cached_property
    def arithmetic(self) -> float:
        """Floating-point operations to train on one example once."""
        return training_arithmetic(self.scenario.model.build(self.task), self.task)

    @property
    def parts(self) -> int:
        """Jobs that one evaluation takes."""
        return -(-len(self.dataset.test.y) // PART)

    def train(self, job: Job) -> tuple[Trained, State]:
        rng = stream(self.scenario.seed, "client", job.client, job.round, job.turn, "train")
        train = self.strategies[job.client.partition("/")[0]].train
        return train(self._objective(job.client), job.weights, job.extras, job.state, rng)

    def evaluate(self, weights: Vector, part: int) -> tuple[int, float]:
        chosen = slice(part * PART, (part + 1) * PART)
        x, y = (tensor[chosen] for tensor in self.dataset.test)
        return evaluate(self.module, weights, x, y, inputs=self.dataset.inputs)

    def _objective(self, client: ClientId) -> LocalObjective:
        chosen = self.shards[client]
        x, y = (tensor[chosen] for tensor in self.dataset.train)
        return LocalObjective(self.module, x, y, inputs=self.dataset.inputs)


@lru_cache(1)  # the cells of a grid share it
def _load(kind: str, params: tuple[tuple[str, Any], ...], folder: Path) -> Dataset:
    dataset: Dataset = Kind("datasets", kind, dict(params)).build(folder)
    return dataset
