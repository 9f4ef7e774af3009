"""What a server has left that is gone, and how the run goes on.

The round that was open goes on: those whose updates are there are done, and the others get their tasks again, by the
same names, so that all draw what they would have drawn. Time has gone on, too. The log stays as it was, and says what
the stop has cost.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fedemu import __version__, durable
from fedemu.durable import Saved
from fedemu.errors import RunError
from fedemu.events import (
    ClientJoined,
    ClientLeft,
    Evaluated,
    Event,
    RoundClosed,
    RoundFailed,
    RoundStarted,
    RunFinished,
    RunResumed,
    TaskEvent,
    TaskSent,
    TransferEnded,
    UpdateLost,
    UpdateReceived,
    UpdateRejected,
    from_record,
)
from fedemu.journal import FILE, update_file
from fedemu.observers.jsonl import EVENTS
from fedemu.rounds import Standing
from fedemu.sessions import OVER, STOPPED, Notes, Taken
from fedemu.types import Bytes, ClientId, ClientView, Seconds, Selector, State, Update, Vector

ENDS = ("accuracy", "rounds", "time")
"""What a run is stopped by that has come to its end."""


class Past(NamedTuple):
    """What a server has left that is gone."""

    weights: Vector
    state: State
    standing: Standing
    taken: Sequence[tuple[Taken, Update]]
    """For the round that was open."""
    notes: Notes
    selector: dict[str, Any]
    zero: float
    """When time was 0, in seconds since 1970."""
    log: "Log"

    def remind(self, select: Selector) -> None:
        """Have a selector remember what it knew."""
        if self.selector:
            vars(select).update(self.selector)


def has_begun(folder: Path) -> bool:
    """Tell whether a run directory has a run whose rounds have begun: before that there is nothing to lose."""
    if (folder / FILE).exists():
        return True
    try:
        with (folder / EVENTS).open("rb") as file:
            return any(b'"event":"RoundStarted"' in line for line in file)
    except OSError:
        return False


def result(folder: Path) -> dict[str, Any] | None:
    """Return the outcome that a run directory has; None if it has none that can be read."""
    try:
        found: Any = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and {"version", "stopped_by"} <= found.keys() else None


def ended(folder: Path) -> dict[str, Any] | None:
    """Return the outcome that a run directory has of a run that has come to its end; None if there is none."""
    found = result(folder)
    return found if found is not None and found["stopped_by"] in ENDS else None


def recover(folder: Path, *, keeps_late: bool) -> Past | None:
    """Return what a run directory says of a server that is gone; None if its rounds had not begun.

    Args:
        folder: The run directory.
        keeps_late: Those who are not done when a round closes are not given up.

    Raises:
        RunError: A file cannot be read, or is another version's.
    """
    try:
        saved = durable.load(folder / FILE)
        if saved is None:
            return None
        if saved.facts["version"] != __version__:
            raise ValueError(f"{folder / FILE} is of fedemu {saved.facts['version']}, this is {__version__}")
        notes = _notes(saved.facts["notes"])
        found = list(_updates(folder, notes.version))
        log = Log(folder / EVENTS, saved.facts["position"], keeps_late=keeps_late)
    except (OSError, ValueError) as error:
        raise RunError(f"{error}; name a new directory") from error
    taken = list[tuple[Taken, Update]]()
    for number, each in enumerate(found):
        facts, vectors = each
        task = Taken(*facts["taken"])
        update = Update(
            **facts["update"], delta=vectors["delta"], extras=each.below("extras"), base=vectors.get("base")
        )
        taken.append((task, update))
        notes.views[task.client] = ClientView(**facts["view"])
        notes.turns[task.client] = notes.accepted[task.client] = task.round, facts["turn"]
        if number >= len(log.received):
            log.untold.append((task, facts["size"], update.staleness))
    log.unkept += log.received[len(found) :]
    standing = log.standing(Standing(**saved.facts["standing"]))
    selector, zero = saved.facts["selector"], saved.facts["zero"]
    return Past(saved.vectors["weights"], saved.below("strategy"), standing, taken, notes, selector, zero, log)


class Log:
    """The log of a server that is gone, as far as it is right.

    Not right are half a line at the end, the end of a run that was interrupted, and a round that closed with a model
    that is in no checkpoint: it closes again.

    Args:
        path: The file.
        position: How long it was at the checkpoint, in bytes.
        keeps_late: Those who are not done when a round closes are not given up.

    Attributes:
        kept: Bytes that are right.
        last: When its last event was.
        received: Updates that came for the next model, and the bytes that their clients were sent for them.
        unkept: Those of them that nobody has.
        untold: Updates that were taken and are not in the log yet: task, bytes and staleness of each.

    Raises:
        ValueError: It has a line that is no event, or is shorter than it was.
    """

    def __init__(self, path: Path, position: Bytes, *, keeps_late: bool) -> None:
        self.kept: Bytes = 0
        self.last: Seconds = 0.0
        self.received: list[tuple[UpdateReceived, Bytes]] = []
        self.unkept: list[tuple[UpdateReceived, Bytes]] = []
        self.untold: list[tuple[Taken, Bytes, int]] = []
        self._path, self._keeps_late = path, keeps_late
        self._joined: dict[ClientId, str] = {}
        """Those of whom it does not say that they have left, and their groups."""
        self._left: set[ClientId] = set()
        """Those who have left since the server was last seen at work: it may have been the one that left."""
        self._open: dict[tuple[ClientId, int], tuple[TaskEvent, Bytes]] = {}
        """The last that was heard of a task, and the bytes that went to its client, by client and round."""
        self._round, self._is_open = 0, False
        self._evaluated = -1
        self._best = -1.0
        self._closed: Seconds = 0.0
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    break
                event = _event(line, path, number)
                if isinstance(event, RunFinished) or (isinstance(event, RoundClosed) and self.kept >= position):
                    break
                self.kept += len(line)
                self._follow(event)
        if self.kept < position:
            raise ValueError(f"{path} has {self.kept} bytes that are right; at the checkpoint it had {position}")

    def events(self) -> Iterator[Event]:
        """Yield what is in it."""
        left = self.kept
        with self._path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                left -= len(line)
                if left < 0:
                    return
                yield _event(line, self._path, number)

    @property
    def there(self) -> frozenset[ClientId]:
        """Clients that were there when it stopped."""
        return frozenset(self._joined) | self._left

    def standing(self, then: Standing) -> Standing:
        """Return how far the rounds are, by how far they were at the checkpoint."""
        number = self._round - self._is_open
        return then._replace(round=number, time=self._closed, evaluated=self._evaluated, best=self._best)

    def ends(self, at: Seconds, closed: int) -> Iterator[Event]:
        """Yield what the stop has ended, and that the run goes on.

        Args:
            at: The time.
            closed: The last round that made a model.
        """
        for task, size, staleness in self.untold:
            self._open.pop((task.client, task.round), None)
            yield UpdateReceived(at=at, **_about(task), bytes=size, staleness=staleness)
        for received, size in self.unkept:
            yield UpdateLost(at=at, **_about(received), reason=STOPPED, wasted=size + received.bytes)
        for event, size in self._open.values():
            yield UpdateLost(at=at, **_about(event), reason="late" if self._is_late(event) else STOPPED, wasted=size)
        for client, group in self._joined.items():
            yield ClientLeft(at=at, client=client, group=group, reason=STOPPED)
        if self._is_open:
            yield RoundFailed(at=at, round=self._round, reason=STOPPED)
        yield RunResumed(at=at, round=closed, down=at - self.last)

    def _is_late(self, event: TaskEvent) -> bool:
        """Tell whether the task was given up, as its round has closed."""
        return not self._keeps_late and event.round < self._round + (not self._is_open)

    def _follow(self, event: Event) -> None:
        self.last = event.at
        match event:
            case TaskEvent():
                self._follow_task(event)
            case ClientJoined():
                self._joined[event.client] = event.group
            case ClientLeft():
                self._joined.pop(event.client, None)
                if event.reason != OVER:
                    self._left.add(event.client)
            case RoundStarted():
                self._round, self._is_open = event.round, True
                self._left.clear()
            case RoundClosed():
                self._is_open = False
                self._closed = event.at
                self.received.clear()
            case RoundFailed():  # one that a stop has ended goes on, by the same number
                self._round, self._is_open = event.round - (event.reason == STOPPED), False
            case Evaluated():
                self._evaluated, self._best = event.round, max(self._best, event.accuracy)
            case _:
                pass

    def _forget(self, key: tuple[ClientId, int]) -> None:
        """Take back the last update of a client and round that came, if one did."""
        for number in reversed(range(len(self.received))):
            received, _ = self.received[number]
            if (received.client, received.round) == key:
                del self.received[number]
                return

    def _follow_task(self, event: TaskEvent) -> None:
        key = event.client, event.round
        size = self._open[key][1] if key in self._open else 0
        match event:
            case TaskSent():
                self._open[key] = event, size
            case TransferEnded(direction="down") if key in self._open:
                self._open[key] = event, size + event.bytes
            case UpdateReceived():
                self._open.pop(key, None)
                self._left.clear()
                if not self._is_late(event):
                    self.received.append((event, size))
            case UpdateRejected():
                self._open.pop(key, None)
            case UpdateLost():
                if self._open.pop(key, None) is None:  # it had come
                    self._forget(key)
            case _:
                pass


def _updates(folder: Path, version: int) -> Iterator[Saved]:
    """Yield the updates that were taken since a model, in the order in which they came."""
    number = 0
    while (saved := durable.load(update_file(folder, version, number))) is not None:
        yield saved
        number += 1


def _notes(facts: dict[str, Any]) -> Notes:
    views = {client: ClientView(**view) for client, view in facts["views"].items()}
    turns, accepted = (
        {client: (task[0], task[1]) for client, task in facts[name].items()} for name in ("turns", "accepted")
    )
    return Notes(facts["version"], views, turns, accepted, facts["leases"])


def _event(line: bytes, path: Path, number: int) -> Event:
    try:
        return from_record(json.loads(line))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}, line {number} is not an event of this version of fedemu: {error}") from error


def _about(task: TaskEvent | Taken) -> dict[str, Any]:
    return {name: getattr(task, name) for name in ("client", "group", "round", "attempt")}
