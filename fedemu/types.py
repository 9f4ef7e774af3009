"""The nouns that every room shares: vectors, client views, updates, training settings.

Units are the same everywhere and never part of a name: seconds, bytes, bits per second, ratios in 0..1.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
import torch

Vector: TypeAlias = torch.Tensor
"""A model, gradient or delta: shape (d,), float32."""

Indices: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
"""Positions in a data set: shape (n,), int64."""

Labels: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
"""Class labels: shape (n,), int64, values in 0..classes-1."""

Rng: TypeAlias = np.random.Generator
ClientId: TypeAlias = str
"""`group/slot`, e.g. `phones/3`."""

Seconds: TypeAlias = float
Bytes: TypeAlias = int


class Interval(NamedTuple):
    """From `start` until just before `end`."""

    start: Seconds
    end: Seconds


class Encoded(NamedTuple):
    """A vector as a codec made it smaller."""

    data: bytes | memoryview
    size: int
    """Numbers of the vector."""


Payload: TypeAlias = Vector | Encoded
"""A vector on the wire."""

Extras: TypeAlias = Mapping[str, Vector]
"""Named vectors that an algorithm sends beside the model or the update."""

State: TypeAlias = Mapping[str, Vector]
"""Named vectors that an algorithm remembers from round to round, on the server or on one client."""


@dataclass(frozen=True, slots=True)
class Training:
    """How a client trains locally."""

    epochs: int = 1
    """Passes over the client's examples."""
    batch_size: int | None = 32
    """Examples a step; None takes all local examples in one step."""
    lr: float = 0.01
    momentum: float = 0.0
    """Heavy-ball momentum in 0..1; the buffer starts at zero in every round."""


@dataclass(frozen=True, slots=True)
class ClientView:
    """What the server knows of a client."""

    client: ClientId
    group: str
    num_examples: int
    asked: int = 0
    """Tasks that it was given so far."""
    last_asked: int = 0
    """Number of the selection, from 1 on, in which it was asked last; 0 is never."""
    answered: int = 0
    """Valid updates that have come from it, late ones too."""
    loss: float | None = None
    """Mean training loss of its last update; None before the first, and without examples."""
    squared_loss: float | None = None
    """Mean of the squared losses of single examples in the training of its last update; None as `loss`."""
    duration: Seconds | None = None
    """From its last task to what came of it: to its update, or until it was given up, which took at least so long."""
    conditions: frozenset[str] = frozenset()
    """What is true of its device now: charging, unmetered, idle."""


class Trained(NamedTuple):
    """What a client has after local training."""

    delta: Vector
    """Local model minus the model that the server sent, shape (d,)."""
    num_examples: int
    num_steps: int
    train_loss: float
    """Mean of the batch losses over all local steps; nan for a client without examples."""
    extras: Extras = MappingProxyType({})
    squared_loss: float = 0.0
    """Mean over all local steps of the mean squared loss of a batch's examples; 0 without examples."""


@dataclass(frozen=True, slots=True)
class Update:
    """A client's answer as the server sees it."""

    client: ClientId
    delta: Vector
    num_examples: int
    num_steps: int
    train_loss: float
    version: int
    """Version of the global model that the client started from."""
    staleness: int = 0
    """Global versions made since then, >= 0."""
    extras: Extras = field(default_factory=dict)
    squared_loss: float = 0.0
    """As in `Trained`."""
    base: Vector | None = None
    """The model that the client started from, shape (d,), for an `Aggregation` that asks for it."""


class BatchLoss(NamedTuple):
    """The losses of a batch's examples."""

    mean: float
    mean_square: float
    """Mean of their squares."""


class Objective(Protocol):
    """A client's local loss: what an algorithm may ask of model and data."""

    @property
    def num_examples(self) -> int: ...

    def gradient(self, weights: Vector, batch: Indices) -> tuple[Vector, BatchLoss]:
        """Return the gradient of the mean loss over `batch`, and the losses.

        The gradient has shape (d,) and is overwritten by the next call.
        """
        ...


Selector: TypeAlias = Callable[[Sequence[ClientView], int, Rng], Sequence[ClientId]]
"""Choose that many distinct clients of those given (fewer if fewer are there)."""


class Annotations(NamedTuple):
    """What a partitioner may know of the training examples."""

    labels: Labels
    owners: Indices | None = None
    """Who each example is from, 0..users-1, shape (n,), in a data set that says so."""


Partitioner: TypeAlias = Callable[[Annotations, int, Rng], list[Indices]]
"""Divide examples among that many clients."""
