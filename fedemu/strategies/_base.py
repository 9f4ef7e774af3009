"""What a federated algorithm is: what a client does with the model, and what the server does with the answers."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from fedemu.types import ClientView, Extras, Objective, Rng, State, Trained, Update, Vector


class Layout(Protocol):
    """What an algorithm may know of the vector's inside."""

    @property
    def size(self) -> int:
        """Length d of the vector."""
        ...


class Aggregation(NamedTuple):
    """How the server makes one model of many updates, taken one at a time.

    Mean-like ones fold an update in as it comes, in O(d) memory; robust ones collect. Only complete and validated
    updates are added, and the order in which they come does not change the result.
    """

    start: Callable[[], Any]
    """Make an empty accumulator."""
    add: Callable[[Any, Update], Any]
    """Take an update into the accumulator, which may be changed in place, and return it."""
    finish: Callable[[Any, Vector, State, Rng], tuple[Vector, State]]
    """Make the next global model, a new vector, of the current one."""
    needs_base: bool = False
    """Updates need the model that the client started from: the server keeps every version that somebody works on."""
    fault: Callable[[Update], str | None] = lambda _: None
    """Say what is wrong with what stands beside an update's delta; None if nothing is. Such an update is not added."""


class Strategy(NamedTuple):
    """A federated algorithm: pure functions, two on each side of the wire."""

    train: Callable[[Objective, Vector, Extras, State, Rng], tuple[Trained, State]]
    """On a client: train from the server's model, and what to remember for the next time."""
    aggregate: Aggregation
    """On the server: the next model."""
    init: Callable[[Vector, Layout, int], State]
    """On the server: the state before the first round, by initial model, its layout and the number of clients."""
    broadcast: Callable[[State, ClientView, Rng], Extras]
    """On the server: what a client gets beside the model."""
