"""What a server writes down so that it can be started again: nothing that it has acknowledged is lost.

When a round has closed it writes a checkpoint: the model, the strategy's state, what it knows of the clients, and when
time 0 was. Until the next one it writes down each update that it takes, before the client is told so. Whoever starts
again has all that was promised. The round that was open goes on: those whose updates are there are done, and the others
get their tasks again, by the same names, so that all draw what they would have drawn. Time has gone on, too. The log
stays as it was, and says what the stop has cost.
"""

import asyncio
import dataclasses
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, Self

from fedemu import __version__, durable
from fedemu.checkpoint import FILE
from fedemu.clock import RealClock
from fedemu.durable import Saved, named
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
    TargetReached,
    TaskEvent,
    TaskSent,
    TransferEnded,
    UpdateLost,
    UpdateReceived,
    UpdateRejected,
    from_record,
)
from fedemu.observers.jsonl import JsonLines
from fedemu.rounds import Rounds, Standing
from fedemu.server import Server
from fedemu.sessions import STOPPED, Arrival, Notes, Taken
from fedemu.types import Bytes, ClientId, ClientView, Seconds, Selector, State, Update, Vector

NUMBERS = ("client", "num_examples", "num_steps", "train_loss", "version", "staleness", "squared_loss")
"""What is told of an update beside its vectors."""


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


class Journal:
    """Writes down what must not be lost, in a thread: a disk takes its time, and links go on. Use as a context manager.

    Args:
        folder: The run directory.
        log: Of the run.
        past: What the run goes on from; None begins.
    """

    def __init__(self, folder: Path, log: JsonLines, past: Past | None) -> None:
        self.past = past
        self._folder, self._log = folder, log
        self._version = 0 if past is None else past.notes.version
        """Of the model in the checkpoint."""
        self._count = 0 if past is None else len(past.taken)
        """Updates since then."""
        self._writer = ThreadPoolExecutor(1)
        self._writing: list[Future[None]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.shutdown(cancel_futures=True)

    def keep(self, arrival: Arrival, update: Update, view: ClientView) -> "Future[None]":
        """Begin to write down an update that was taken; return what is done when it is on the disk.

        Args:
            arrival: How it came.
            update: With its staleness, and what it is a difference to where its strategy asks for that.
            view: What is known of its client.
        """
        self._log.flush()
        facts = {
            "size": arrival.size,
            "turn": arrival.assignment.turn,
            "taken": arrival.assignment.taken,
            "view": _facts(view),
            "update": {name: getattr(update, name) for name in NUMBERS},
        }
        vectors = {"delta": update.delta.contiguous(), **named("extras", update.extras)}
        if update.base is not None and update.staleness:
            vectors["base"] = update.base.contiguous()
        written = self._write(_update(self._folder, self._version, self._count), Saved(facts, vectors))
        self._count += 1
        return written

    async def close(self, rounds: Rounds, server: Server, select: Selector, clock: RealClock) -> None:
        """Write a checkpoint, after all that is being written; no round is open.

        Raises:
            RunError: It cannot be written.
        """
        self._log.flush()
        notes = server.notes
        facts = {
            "version": __version__,
            "position": self._log.size,
            "zero": clock.zero,
            "standing": rounds.standing._asdict(),
            "selector": remembered(select),
            "notes": notes._asdict() | {"views": {client: _facts(view) for client, view in notes.views.items()}},
        }
        vectors = {"weights": rounds.weights.contiguous(), **named("strategy", rounds.state)}
        self._write(self._folder / FILE, Saved(facts, vectors))
        for future in self._writing:
            await asyncio.wrap_future(future)
        for number in range(self._count):  # they are in the model now
            _update(self._folder, self._version, number).unlink()
        self._version, self._count, self._writing = notes.version, 0, []

    def _write(self, path: Path, saved: Saved) -> "Future[None]":
        def write() -> None:
            self._log.sync()
            durable.store(path, saved)

        self._writing.append(self._writer.submit(write))
        return self._writing[-1]

    def remove(self) -> None:
        """Remove the files: the run has come to its end."""
        self._writer.shutdown()
        place = (self._folder / FILE).parent
        for path in place.glob("*.safetensors"):
            path.unlink()
        place.rmdir()


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
        log = Log(folder / "events.jsonl", saved.facts["position"], keeps_late=keeps_late)
    except (OSError, ValueError) as error:
        raise RunError(f"{error}; name a new directory") from error
    taken = list[tuple[Taken, Update]]()
    for number, (facts, vectors) in enumerate((each.facts, each) for each in found):
        task, base = Taken(*facts["taken"]), vectors.vectors.get("base", saved.vectors["weights"])
        delta, extras = vectors.vectors["delta"], vectors.below("extras")
        taken.append((task, Update(**facts["update"], delta=delta, extras=extras, base=base)))
        notes.views[task.client] = ClientView(**facts["view"])
        notes.turns[task.client] = notes.accepted[task.client] = task.round, facts["turn"]
        if number >= len(log.received):
            log.untold.append((task, facts["size"], facts["update"]["staleness"]))
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
        self._reached: tuple[float, ...] = ()
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
        return then._replace(round=self._round - self._is_open, evaluated=self._evaluated, reached=self._reached)

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
                self._left.add(event.client)
            case RoundStarted():
                self._round, self._is_open = event.round, True
                self._left.clear()
            case RoundClosed():
                self._is_open = False
                self.received.clear()
            case RoundFailed():
                self._is_open = False
            case Evaluated():
                self._evaluated = event.round
            case TargetReached():
                self._reached = (*self._reached, event.accuracy)
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


def _about(task: TaskEvent | Taken) -> dict[str, Any]:
    return {name: getattr(task, name) for name in ("client", "group", "round", "attempt")}


def _event(line: bytes, path: Path, number: int) -> Event:
    try:
        return from_record(json.loads(line))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}, line {number} is not an event of this version of fedemu: {error}") from error


def _update(folder: Path, version: int, number: int) -> Path:
    return (folder / FILE).with_name(f"update-{version}-{number}.safetensors")


def _updates(folder: Path, version: int) -> Iterator[Saved]:
    """Yield the updates that were taken since a model, in the order in which they came."""
    number = 0
    while (saved := durable.load(_update(folder, version, number))) is not None:
        yield saved
        number += 1


def _facts(view: ClientView) -> dict[str, Any]:
    facts = dataclasses.asdict(view)
    del facts["conditions"]  # of another moment
    return facts


def _notes(facts: dict[str, Any]) -> Notes:
    views = {client: ClientView(**view) for client, view in facts["views"].items()}
    turns, accepted = (
        {client: (task[0], task[1]) for client, task in facts[name].items()} for name in ("turns", "accepted")
    )
    return Notes(facts["version"], views, turns, accepted, facts["leases"])


def remembered(select: Selector) -> dict[str, Any]:
    """Return what a selector remembers: its attributes.

    Raises:
        RunError: JSON does not have the like.
    """
    state: dict[str, Any] = dict(getattr(select, "__dict__", {}))
    try:
        json.dumps(state)
    except (TypeError, ValueError) as error:
        raise RunError(f"rounds.select remembers what no checkpoint can hold: {error}; expected JSON") from error
    return state
