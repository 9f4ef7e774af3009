"""What happened: frozen facts with the emulated time `at`, in seconds since the first round began.

The event log is the run. Observers turn events into files, metrics and a console; none of them touches the maths.
Per-client events carry client, group, round and attempt.

A Measurement is told to observers and is not part of the log.
"""

import dataclasses
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

from fedemu.types import Bytes, ClientId, Seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    at: Seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted(Event):
    name: str
    seed: int
    version: str
    """Version of fedemu."""
    clients: int
    parameters: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFinished(Event):
    reason: str
    """accuracy, rounds, time, interrupted or failed."""
    time: Seconds
    """When the last round closed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundStarted(Event):
    round: int
    cohort: tuple[ClientId, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundClosed(Event):
    round: int
    aggregated: int
    late: int
    lost: int
    duration: Seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundFailed(Event):
    round: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated(Event):
    round: int
    accuracy: float
    """Of the global model on the test set, 0..1."""
    loss: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetReached(Event):
    accuracy: float
    """The target."""
    round: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientEvent(Event):
    client: ClientId
    group: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientJoined(ClientEvent):
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientLeft(ClientEvent):
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskEvent(ClientEvent):
    round: int
    attempt: int
    """1 for the first try."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSent(TaskEvent):
    bytes: Bytes
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskReceived(TaskEvent):
    bytes: Bytes
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingStarted(TaskEvent):
    examples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingFinished(TaskEvent):
    steps: int
    loss: float
    duration: Seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateSent(TaskEvent):
    bytes: Bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateReceived(TaskEvent):
    bytes: Bytes
    staleness: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateLost(TaskEvent):
    """The server will not use an update of this client in this round."""

    reason: str
    """late, unused (it came in time, but the run ended before a round could use it), or one that starts with
    `undelivered` or `client left`."""
    wasted: Bytes
    """Bytes of this assignment that crossed the links for nothing, both directions and all attempts together, as far as
    the server knew then. Copies that crossed later or unseen are not in it; `observers/trips.py` counts them."""
    unsent_down: Bytes
    """Bytes that TaskSent announced and that never left: the transfer was cut off."""
    unsent_up: Bytes
    """Bytes that UpdateSent announced and that never left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateRejected(TaskEvent):
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferCut(TaskEvent):
    """Another copy of a task or an update that was concluded already was cut off on its way."""

    direction: str
    """up or down."""
    unsent: Bytes
    """Bytes that TaskSent or UpdateSent announced and that never left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRetried(TaskEvent):
    direction: str
    """up or down."""
    reason: str
    wait: Seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement(Event):
    """What the real world did, beside the run: told to observers on the real clock.

    It is never written to the log and is no part of the digest.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class DelayMeasured(Measurement):
    """A message has arrived at the other end of an emulated link.

    Where that is another process: it was handed to the connection, and the real network is still before it.
    """

    group: str
    direction: str
    """up or down."""
    requested: Seconds
    """Delay that the link asked for, from the send to the arrival."""
    achieved: Seconds
    """What it was."""


Observer: TypeAlias = Callable[[Event], None]


def as_record(event: Event) -> dict[str, Any]:
    """Return the event as the mapping that stands on its line of `events.jsonl`: `at`, `event`, then its own fields.

    JSON has no nan or infinity; a float that is not finite becomes None.
    """
    kind: Any = type(event)
    record = {"at": event.at, "event": kind.__name__}
    for name in _fields(kind):
        value = getattr(event, name)
        record[name] = None if isinstance(value, float) and not math.isfinite(value) else value
    return record


def as_line(event: Event) -> str:
    """Return the event as one line of JSON, without the newline; the same event gives the same bytes."""
    return _encode(as_record(event))


@cache
def _fields(kind: Any) -> tuple[str, ...]:
    """Return the names of a kind of event's own fields."""
    return tuple(field.name for field in dataclasses.fields(kind) if field.name != "at")


_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode
