"""What a client remembers, on disk: whoever is killed at any moment comes back with what the server thinks it has.

A file for each client, `GROUP-SLOT.safetensors`, is written after each training in which there was something to
remember, before its update is sent: with what is remembered for sure, and with what will be if that update is accepted.
Which of the two holds is what the next task says.
"""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fedemu import __version__, durable
from fedemu.client import Memory
from fedemu.durable import Saved, named
from fedemu.errors import RunError
from fedemu.learning import Learning
from fedemu.types import ClientId


class Shelf:
    """The memories of the clients that a process has been.

    Args:
        folder: Where they are kept; it is made. None keeps them as long as the process lives.
        announce: Told, for people, of a memory that cannot be used.

    Raises:
        RunError: Nothing can be written there.
    """

    def __init__(self, folder: Path | None, announce: Callable[[str], None]) -> None:
        self._folder, self._announce = folder, announce
        self._here: dict[tuple[ClientId, str, int], Memory] = {}
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                tempfile.TemporaryFile(dir=folder).close()
            except OSError as error:
                raise RunError(f"{folder} cannot be written: {error.strerror}") from error

    def memory(self, client: ClientId, learning: Learning) -> Memory:
        """Return what a client remembers of a run; another run's memory is as none."""
        scenario = learning.scenario
        if self._folder is None:
            return self._here.setdefault((client, scenario.name, scenario.seed), Memory(doubt=self._announce))
        path = self._folder / f"{client.replace('/', '-')}.safetensors"
        about = {
            "version": __version__,
            "scenario": scenario.name,
            "seed": scenario.seed,
            "client": client,
            "parameters": learning.layout.size,
        }
        memory = Memory(keep=lambda memory: _store(path, about, memory), doubt=self._announce)
        try:  # each time: another process may have been this client meanwhile
            _load(path, about, memory)
        except ValueError as error:
            self._announce(f"{error}; starting with nothing remembered")
        return memory


def _load(path: Path, about: Mapping[str, Any], memory: Memory) -> None:
    saved = durable.load(path)
    if saved is None:
        return
    facts = saved.facts if isinstance(saved.facts, dict) else {}
    for name, here in about.items():
        if facts.get(name) != here:
            raise ValueError(f"{path} is not of this run: {name} {facts.get(name)!r} there, {here!r} here")
    task, learned = _task(path, facts.get("task")), _task(path, facts.get("learned"))
    memory.state, memory.task = saved.below("state"), task
    memory.learned = None if learned is None else (learned, saved.below("learned"))


def _task(path: Path, value: Any) -> tuple[int, int] | None:
    match value:
        case None:
            return None
        case [int(round), int(turn)]:
            return round, turn
    raise ValueError(f"{path} cannot be read: {value!r} is no round and turn")


def _store(path: Path, about: Mapping[str, Any], memory: Memory) -> None:
    task, learned = memory.learned or (None, {})
    if memory.state or learned:
        facts = {**about, "task": memory.task, "learned": task}
        durable.store(path, Saved(facts, named("state", memory.state) | named("learned", learned)))
