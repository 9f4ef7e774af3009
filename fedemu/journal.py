"""What a server writes down so that it can be started again: nothing that it has acknowledged is lost.

When a round has closed it writes a checkpoint: the model, the strategy's state, what it knows of the clients, and when
time 0 was. Until the next one it writes down each update that it takes, before the client is told so. `recovery` reads
it.
"""

import asyncio
import dataclasses
import json
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

from fedemu import __version__, durable
from fedemu.clock import RealClock
from fedemu.durable import Saved, named
from fedemu.errors import RunError
from fedemu.observers.jsonl import JsonLines
from fedemu.rounds import Rounds
from fedemu.server import Server
from fedemu.sessions import Arrival
from fedemu.types import ClientView, Selector, Update

FILE = "checkpoint/server.safetensors"
"""Below the run directory; beside it, a file for each update since then."""

NUMBERS = ("client", "num_examples", "num_steps", "train_loss", "version", "staleness", "squared_loss")
"""What is told of an update beside its vectors."""


class Journal:
    """Writes down what must not be lost, in a thread: a disk takes its time, and links go on. Use as a context manager.

    Args:
        folder: The run directory.
        log: Of the run.
        version: Of the model in the checkpoint that is there.
        count: Updates that were taken since then.
    """

    def __init__(self, folder: Path, log: JsonLines, *, version: int = 0, count: int = 0) -> None:
        self._folder, self._log = folder, log
        self._version, self._count = version, count
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
        vectors = {"delta": update.delta, **named("extras", update.extras)}
        if update.base is not None:
            vectors["base"] = update.base
        written = self._write(update_file(self._folder, self._version, self._count), Saved(facts, vectors))
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
        vectors = {"weights": rounds.weights, **named("strategy", rounds.state)}
        self._write(self._folder / FILE, Saved(facts, vectors))
        for future in self._writing:
            await asyncio.wrap_future(future)
        for number in range(self._count):  # they are in the model now
            update_file(self._folder, self._version, number).unlink()
        self._version, self._count, self._writing = notes.version, 0, []

    def _write(self, path: Path, saved: Saved) -> "Future[None]":
        def write() -> None:
            try:
                self._log.sync()
            except OSError as error:
                raise RunError(f"the log of {self._folder} cannot be written: {error.strerror}") from error
            durable.store(path, saved)

        self._writing.append(self._writer.submit(write))
        return self._writing[-1]

    def remove(self) -> None:
        """Remove the files: the run has come to its end."""
        self._writer.shutdown()
        shutil.rmtree((self._folder / FILE).parent)


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


def update_file(folder: Path, version: int, number: int) -> Path:
    """Return where an update is that was taken since a model; numbers begin with 0 after each."""
    return (folder / FILE).with_name(f"update-{version}-{number}.safetensors")


def _facts(view: ClientView) -> dict[str, Any]:
    facts = dataclasses.asdict(view)
    del facts["conditions"]  # of another moment
    return facts
