"""Jobs, the workshop that does them, and where workshops stand."""

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol, TypeAlias

from fedemu.compute._buffer import Buffer
from fedemu.types import ClientId, Encoded, Extras, State, Trained, Vector


class Job(NamedTuple):
    """One local training."""

    client: ClientId
    round: int
    turn: int
    weights: Vector
    extras: Extras
    state: State
    epochs: int
    """Passes over the client's examples that its device has time for."""


class Learned(NamedTuple):
    """What came of a job."""

    trained: Trained
    state: State
    """What the client is to remember, if the update is accepted."""
    encoded: Encoded | None = None
    """The delta as it travels, where a codec makes it smaller; `trained.delta` is then empty."""

    def kept_in(self, buffer: Buffer) -> "Learned":
        """Return it with what travels in a buffer; what a codec has made of the delta stays where it is."""
        delta = buffer.keep(self.trained.delta)
        extras = {name: buffer.keep(vector) for name, vector in self.trained.extras.items()}
        return self._replace(trained=self.trained._replace(delta=delta, extras=extras))


class Workshop(Protocol):
    """Knows the data, the model and the algorithm. One to a worker; does one thing at a time."""

    def train(self, job: Job) -> Learned: ...

    def evaluate(self, weights: Vector, part: int) -> tuple[int, float]:
        """Return, of that part of the test set, how many examples are right, and the sum of their losses."""
        ...


Recipe: TypeAlias = Callable[[], Workshop]
"""Makes a workshop. Hashable, and picklable where workers are processes; equal recipes make equal workshops."""


class Compute(Protocol):
    """Workers, one torch thread each. A worker keeps the workshop of the last recipe that it was given."""

    workers: int
    buffer: Buffer
    """Holds updates until their emulated time."""

    def train(self, recipe: Recipe, job: Job) -> "Future[Learned]": ...

    def evaluate(self, recipe: Recipe, weights: Vector, part: int) -> "Future[tuple[int, float]]": ...

    def warm(self, recipe: Recipe) -> "Future[None]":
        """Make the workshop, so that a later job need not."""
        ...


Open: TypeAlias = Callable[[], AbstractContextManager[Compute]]
"""Start workers; leaving the context stops them, whatever they do."""
