"""What the server knows of each client: its seat, its connection, and the tasks that it was given."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from fedemu.clock import Clock
from fedemu.codecs._base import Coding
from fedemu.links._base import Retry
from fedemu.net._pb import federation_pb2 as pb
from fedemu.net.channel import Conversation
from fedemu.net.emulated import EmulatedChannel, Meter
from fedemu.types import Bytes, ClientId, ClientView, Extras, Seconds, Update, Vector

STOPPED = "the server stopped"
"""Why clients have left."""
OVER = "the run is over"
"""Why clients have left who will not come back."""


@dataclass(frozen=True, slots=True)
class Seat:
    """A client's place in the run."""

    view: ClientView
    retry: Retry
    behind: Callable[[Conversation], EmulatedChannel]
    """Puts the server's end of a connection behind the client's link."""
    up: Coding | None = None
    """How its updates are encoded; None leaves them as they are."""
    down: Coding | None = None
    """How models to it are encoded."""
    by_difference: bool = False
    """It gets the difference to the last model that it has acknowledged."""
    conditions: Callable[[Seconds], frozenset[str]] = lambda _: frozenset()
    """What is true of its device at a time; times do not go back."""
    kernel: "Seat | None" = None
    """The same place where the client's kernel shapes its link; None in a run that has no clients elsewhere."""


class Taken(NamedTuple):
    """A task whose update was taken."""

    client: ClientId
    group: str
    round: int
    attempt: int
    size: Bytes
    """Bytes that it cost so far, both directions and all attempts together."""


@dataclass(slots=True, eq=False)
class Assignment:
    """A task given to a client, and what came of it."""

    view: ClientView
    round: int
    turn: int
    version: int
    channel: EmulatedChannel
    """To the client, as long as it stays."""
    since: Seconds = 0.0
    """When it was given."""
    model: Vector | None = None
    """What the client starts from, where anybody will ask."""
    extras: Extras = field(default_factory=dict)
    """What the algorithm sent beside the model, where anybody will ask."""
    state: Literal["open", "arrived", "concluded"] = "open"
    """The client works on it; its update is in the inbox; it was taken, refused or lost."""
    late: bool = False
    """The round was closed without it; what comes will not be used."""
    cancelled: bool = False
    """The client was told to stop, and is free for another task."""
    attempt: int = 1
    """Of the last message about it."""
    down: Meter = field(default_factory=Meter)
    up: Bytes = 0
    """Bytes of update that have crossed the uplink, as far as the server knows."""
    answer: pb.Answer | None = None
    receipt: "asyncio.Future[object]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    sending: asyncio.Task[None] | None = None

    @property
    def name(self) -> pb.Assignment:
        return pb.Assignment(round=self.round, turn=self.turn, attempt=self.attempt)

    @property
    def taken(self) -> Taken:
        return Taken(self.view.client, self.view.group, self.round, self.attempt, self.down.sent + self.up)

    def sent(self, _: object) -> None:
        """Let go of the task that sent it, which holds its frames, and with them the model, if it was cancelled."""
        self.sending = None

    def about(self, clock: Clock) -> dict[str, Any]:
        """Return the fields that all events about it have."""
        return {
            "at": clock.now(),
            "client": self.view.client,
            "group": self.view.group,
            "round": self.round,
            "attempt": self.attempt,
        }


@dataclass(frozen=True, slots=True)
class Arrival:
    """A valid update that has come in; `Server.answer` concludes it."""

    assignment: Assignment
    update: Update
    size: Bytes


@dataclass(frozen=True, slots=True)
class Loss:
    """No valid update will come of the assignment."""

    assignment: Assignment


@dataclass(frozen=True, slots=True)
class Told:
    """The client has been told that its update was taken; it may have another task."""

    assignment: Assignment


class Notes(NamedTuple):
    """What a server knows of its clients, connected or not."""

    version: int
    """Of the global model."""
    views: dict[ClientId, ClientView]
    turns: dict[ClientId, tuple[int, int]]
    """Round and turn of each client's last task."""
    accepted: dict[ClientId, tuple[int, int]]
    """Of each client's last task of which the update was accepted."""
    leases: dict[ClientId, str]
    """Host that held each slot last."""


@dataclass(slots=True, eq=False)
class Session:
    """One client's connection."""

    seat: Seat
    channel: EmulatedChannel
    tasks: asyncio.TaskGroup
    serving: asyncio.Task[None]
    """Serves the connection to its end."""
    work: dict[tuple[int, int], Assignment] = field(default_factory=dict)
    """By round and turn: what is not concluded, and the last few that are."""
    reference: tuple[pb.Assignment, Vector] | None = None
    """The last task that the client has acknowledged, and its model, where differences are sent."""
    goodbye: str | None = None
    """Why the run is over, if the client was told that it is."""
    ready: bool = False
    """It has loaded its data and waits for tasks."""
    gone: bool = False
    """The connection has ended, and what was in progress is being settled."""

    @property
    def is_idle(self) -> bool:
        """Tell whether it has nothing to do: an update that waits for its answer is something."""
        return self.ready and not self.gone and all(a.state == "concluded" or a.cancelled for a in self.work.values())

    def acknowledge(self, task: pb.Assignment, model: Vector) -> None:
        """Take the news that the client has the model of a task; of two, the later task counts."""
        if self.reference is None or _order(task) > _order(self.reference[0]):
            self.reference = task, model


def _order(task: pb.Assignment) -> tuple[int, int]:
    return task.round, task.turn
