"""What is learned, from what, and how: the data set and its shards, the model and the algorithm of a scenario.

Every process that trains or evaluates makes its own from the scenario: the server's, each worker's, each client's.
"""

import ctypes
import dataclasses
import gc
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from fedemu.codecs._base import Coding, is_finite
from fedemu.compute._base import Job, Learned
from fedemu.datasets._base import Dataset, subset
from fedemu.errors import Fault, ScenarioError, failure_of
from fedemu.models._base import Layout, Task, initial, layout_of, release
from fedemu.models._objective import LocalObjective, evaluate, training_arithmetic
from fedemu.rng import stream
from fedemu.scenario import Scenario, parse
from fedemu.scenario.kind import Kind
from fedemu.strategies._base import Strategy
from fedemu.types import Annotations, ClientId, Encoded, Indices, Vector

PART = 2000
"""Test examples that one evaluation job takes; fixed, so that sums do not depend on the number of workers."""

LARGE = 2**24
"""Parameters from which memory is worth more than the time to ask the system for it again."""

LEFT_OUT = "codec: left out"
"""What a client remembers of its updates that their codec has left out, among what its algorithm remembers."""

BLOCK = 2**22
"""Bytes from which a large model's blocks go back to the system as soon as they are free."""


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

    @classmethod
    def of(cls, scenario: Scenario) -> "Learning":
        """Load the data, divide them, and build the model.

        Raises:
            DataError: A data file is missing or not what it should be.
            ScenarioError: The data set and the scenario do not fit.
        """
        dataset = _load(scenario.dataset.kind, json.dumps(dict(scenario.dataset.params)), data_folder())
        if scenario.examples is not None:
            with _fault_of("dataset.examples"):
                dataset = subset(dataset, scenario.examples, stream(scenario.seed, "subset"))
        clients = [f"{name}/{slot}" for name, group in scenario.clients.items() for slot in range(group.count)]
        with _fault_of("partition"):
            divide = scenario.partition.build()
            annotations = Annotations(dataset.train.y.numpy(), dataset.owners)
            shards = divide(annotations, len(clients), stream(scenario.seed, "partition"))
        with _fault_of("model"):
            module = scenario.model.build(Task(dataset.shape, dataset.classes))
            size = layout_of(module).size
        release(module)  # it is bound to whatever weights it is asked about
        _return_memory(size)
        return cls(scenario, dataset, dict(zip(clients, shards, strict=True)), module)

    def strategy(self, group: str, round: int = 1, epochs: int | None = None) -> Strategy:
        """Return the algorithm as the clients of a group train by it in a round; the server's part is the same in all.

        Args:
            group: The clients'.
            round: From 1 on.
            epochs: That there is time for; default all of them.

        Raises:
            ValueError: The algorithm cannot be trained so.
        """
        training = self.scenario.training_in(group).in_round(round)
        if epochs is not None:
            training = dataclasses.replace(training, epochs=epochs)
        strategy: Strategy = self.scenario.strategy.build(training)
        return strategy

    def coding(self, group: str, direction: Literal["up", "down"]) -> Coding | None:
        """Return how the vectors of a group's clients are encoded in a direction; None leaves them as they are."""
        kind = getattr(self.scenario.codec_in(group), direction)
        if kind is None:
            return None
        codec, feedback = kind.build(), kind.house.get("feedback", False)
        return Coding(codec, codec.sparse if feedback is None else feedback, kind.house["zstd"])

    @property
    def task(self) -> Task:
        return Task(self.dataset.shape, self.dataset.classes)

    @cached_property
    def layout(self) -> Layout:
        return layout_of(self.module)

    def initial(self) -> Vector:
        """Return the model before the first round, the same for all runs of a seed."""
        weights = initial(lambda: self.scenario.model.build(self.task), stream(self.scenario.seed, "initial"))
        _return_memory(len(weights))
        return weights

    @cached_property
    def arithmetic(self) -> float:
        """Floating-point operations to train on one example once."""
        arithmetic = training_arithmetic(self.scenario.model.build(self.task), self.task)
        _return_memory(self.layout.size)
        return arithmetic

    def label_counts(self, client: ClientId) -> Sequence[int]:
        """Return how many examples of each class a client has, shape (classes,)."""
        labels = self.dataset.train.y[torch.from_numpy(self.shards[client])]
        counts: list[int] = torch.bincount(labels, minlength=self.dataset.classes).tolist()
        return counts

    @property
    def parts(self) -> int:
        """Jobs that one evaluation takes."""
        return -(-len(self.dataset.test.y) // PART)

    def train(self, job: Job) -> Learned:
        rng = stream(self.scenario.seed, "client", job.client, job.round, job.turn, "train")
        group = job.client.partition("/")[0]
        train, coding = self.strategy(group, job.round, job.epochs).train, self.coding(group, "up")
        state = dict(job.state)
        error = state.pop(LEFT_OUT, None)
        layers = stream(self.scenario.seed, "client", job.client, job.round, job.turn, "layers")
        with failure_of(f"training of {job.client} in round {job.round}"), torch.random.fork_rng(devices=[]):
            # layers that draw, as dropout does, take PyTorch's global generator
            torch.default_generator.manual_seed(int(layers.integers(2**63)))
            trained, after = train(self._objective(job.client), job.weights, job.extras, state, rng)
            if coding is None or not is_finite(trained.delta):  # the server refuses what is not a number
                learned = Learned(trained, after)
            else:
                rng = stream(self.scenario.seed, "codec", job.client, "up", job.round, job.turn)
                with failure_of(f"encoding of {job.client}'s update in round {job.round}"):
                    data, error = coding.encode(trained.delta, error, rng)
                after = after if error is None else {**after, LEFT_OUT: error}
                encoded = Encoded(data, len(trained.delta))
                learned = Learned(trained._replace(delta=torch.empty(0)), after, encoded)
        self._release()
        return learned

    def evaluate(self, weights: Vector, part: int) -> tuple[int, float]:
        chosen = slice(part * PART, (part + 1) * PART)
        x, y = (tensor[chosen] for tensor in self.dataset.test)
        with failure_of("evaluation"):
            score = evaluate(self.module, weights, x, y, inputs=self.dataset.inputs)
        self._release()
        return score

    def _release(self) -> None:
        """Let the module go of this job's weights and gradients, which it would hold until the next one."""
        if self.layout.size >= LARGE:  # else it takes longer than it is worth
            release(self.module)

    def _objective(self, client: ClientId) -> LocalObjective:
        chosen = torch.from_numpy(self.shards[client])
        x, y = (tensor[chosen] for tensor in self.dataset.train)
        return LocalObjective(self.module, x, y, inputs=self.dataset.inputs)


@lru_cache(1)  # the cells of a grid share it
def _load(kind: str, params: str, folder: Path) -> Dataset:
    dataset: Dataset = Kind("datasets", kind, json.loads(params)).build(folder)
    return dataset


def _return_memory(size: int) -> None:
    """Give the memory of a module of that many parameters, which is gone, back to the system, if it is large.

    PyTorch's hooks tie it into cycles; and the allocator learns to keep free blocks of up to 32 MiB, which is most
    layers, so that it is told to keep none from now on.
    """
    if size < LARGE:
        return
    gc.collect()
    with suppress(OSError, AttributeError):  # only glibc has them, and only glibc needs them
        library = ctypes.CDLL(None)
        library.mallopt(ctypes.c_int(-3), ctypes.c_int(BLOCK))  # M_MMAP_THRESHOLD of malloc.h
        library.malloc_trim(0)


@contextmanager
def _fault_of(key: str) -> Iterator[None]:
    """Make it a fault of that key that something does not fit the data, which nobody knew before they were loaded."""
    try:
        yield
    except ValueError as error:
        raise ScenarioError([Fault("scenario", 1, key, str(error))]) from error
