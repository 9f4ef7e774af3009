"""What happened: frozen facts with the emulated time `at`, in seconds since the first round began.

The event log is the run. Observers turn events into files, metrics and a console; none of them touches the maths.
Per-client events carry client, group, round and attempt.

A Measurement is told to observers and is not part of the log.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
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
class RunResumed(Event):
    """The server was gone, and goes on; what clients were at is lost, what they were told was accepted is not."""

    round: int
    """The last one that made a model."""
    down: Seconds
    """Since the last event before."""


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
    """late, unused (it came in time, but the run ended before a round could use it), `the server stopped`, or one that
    starts with `undelivered` or `client left`."""
    wasted: Bytes
    """Bytes of this assignment that crossed the links for nothing, both directions and all attempts together, as far as
    the server knew then. Copies that crossed later or unseen are not in it; `observers/trips.py` counts them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateRejected(TaskEvent):
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferEnded(TaskEvent):
    """An attempt at a task or an update has left its sender, or has ended before it had."""

    direction: str
    """up or down."""
    outcome: str
    """delivered; dropped: it left, and does not arrive; reset; refused; down: the link was, for too long; cut: the
    sender gave it up; handed: to a kernel that shapes the link, and only that knows when it arrives."""
    bytes: Bytes
    """Of the message, that the link carried."""
    wire: Bytes
    """Bytes on the wire if all of it had left: with headers, and with what was lost and sent again; of one that was
    handed over, only those of the message."""
    began: Seconds
    """When its first byte was put on the link: a stall, or waiting for a link that is down, comes before it."""
    queued: Seconds
    """How much longer it took than with nothing beside it, and with the link up; 0 for one that has not left. Of one
    that was handed over, in shared pipes alone."""
    retransmitted: int
    """Segments that were lost and sent again; 0 for one that has not left, or was handed over."""
    delay: Seconds | None
    """From the last byte's leaving to the arrival; None for one that does not arrive, or was handed over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryExceeded(TaskEvent):
    """The client's device cannot hold what training needs; it gives the task back."""

    needed: Bytes
    memory: Bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergySpent(TaskEvent):
    phase: str
    """compute, up or down."""
    joules: float


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


def from_record(record: Mapping[str, Any]) -> Event:
    """Return the event that `as_record` was given; a number that JSON does not have comes back as nan.

    Raises:
        KeyError: It is no event.
        TypeError: It has other fields than this kind of event.
    """
    facts = dict(record)
    kind = _kinds()[facts.pop("event")]
    for field in dataclasses.fields(kind):
        if field.type is float and facts.get(field.name, 0) is None:
            facts[field.name] = math.nan
        elif isinstance(facts.get(field.name), list):
            facts[field.name] = tuple(facts[field.name])
    event: Event = kind(**facts)
    return event


@cache
def _kinds() -> Mapping[str, Any]:
    """Return what the log may have, by name."""
    kinds = {name: kind for name, kind in globals().items() if isinstance(kind, type) and issubclass(kind, Event)}
    return {name: kind for name, kind in kinds.items() if not issubclass(kind, Measurement)}


@cache
def _fields(kind: Any) -> tuple[str, ...]:
    """Return the names of a kind of event's own fields."""
    return tuple(field.name for field in dataclasses.fields(kind) if field.name != "at")


_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode
