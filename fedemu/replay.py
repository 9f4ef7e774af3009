"""A recorded run, run again: the first event that does not come back byte for byte, if any.

`recordings` reads a run directory, or every cell of a grid's. `replay` runs one again, compares each event, as it
happens, with its line of `events.jsonl`, and stops at the first that differs. Nothing is written.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from fedemu import experiment
from fedemu.compute._base import Compute
from fedemu.errors import Fault, FedemuError, ScenarioError
from fedemu.events import ClientLeft, Event, Measurement, Observer, RunFinished, UpdateLost, as_line
from fedemu.observers.jsonl import EVENTS
from fedemu.scenario import Cell, load

SCENARIO = "scenario.yaml"

BREAKS = ("interrupted", "failed")
"""Reasons of a run that did not come to its end."""

DEPARTURES = ("ClientLeft", "UpdateLost")
"""What may still happen when a run is interrupted or fails, at whatever moment that is."""


@dataclass(frozen=True, slots=True)
class Recording:
    """A run directory that can be replayed."""

    folder: Path
    cell: Cell
    reason: str
    """Why the run ended."""
    events: int
    """Lines of the log."""
    certain: int
    """Lines that must come back: all, or those before the departures at the end of a run that broke off."""

    @property
    def broke_off(self) -> bool:
        """Tell whether the run did not come to its end."""
        return self.reason in BREAKS

    def lines(self) -> Iterator[str]:
        """Yield the lines of the log, without their newlines."""
        with (self.folder / EVENTS).open(encoding="utf-8", newline="\n") as file:
            for line in file:
                yield line.removesuffix("\n")


class Difference(NamedTuple):
    """The first line that is not what it was."""

    line: int
    """From 1 on."""
    recorded: str | None
    """None: the log has no such line."""
    replayed: str | None
    """None: the replay was over."""

    @property
    def fields(self) -> list[str]:
        """The fields whose values differ, if both are events of the same kind."""
        if self.recorded is None or self.replayed is None:
            return []
        one, other = json.loads(self.recorded), json.loads(self.replayed)
        if one["event"] != other["event"]:
            return []
        return [key for key in one | other if one.get(key) != other.get(key)]


class Verdict(NamedTuple):
    """What came of a replay."""

    text: str
    """For people; several lines where there is a difference."""
    identical: bool


class _Stop(FedemuError):
    """Ends the replay: what follows a difference follows from it."""


class Comparison:
    """An observer that compares a run with recorded lines, and stops the run at the first difference.

    Departures and the end itself do not stop it: they are what a failure looks like, whose error says more.

    Args:
        recorded: The lines of a log.
        certain: Lines that must come back; where a later one does not, the recorded run broke off there.

    Attributes:
        matched: Lines that came back.
        difference: The first line that did not.
        broke_off: The replay came to where the recorded run broke off, and would go on.
        stopped: It stopped the run.
    """

    def __init__(self, recorded: Iterable[str], certain: int) -> None:
        self.matched = 0
        self.difference: Difference | None = None
        self.broke_off = False
        self.stopped = False
        self._recorded, self._certain = iter(recorded), certain

    def __call__(self, event: Event) -> None:
        if isinstance(event, Measurement):
            return
        if self.difference is None and not self.broke_off:
            self._compare(next(self._recorded, None), as_line(event))
        ended = self.difference is not None or self.broke_off
        if ended and not self.stopped and not isinstance(event, RunFinished | ClientLeft | UpdateLost):
            self.stopped = True
            raise _Stop

    def close(self) -> None:
        """Compare the end of the log with the end of the run."""
        if self.difference is None and not self.broke_off and (rest := next(self._recorded, None)) is not None:
            self._compare(rest, None)

    def _compare(self, recorded: str | None, replayed: str | None) -> None:
        if recorded == replayed:
            self.matched += 1
        elif self.matched >= self._certain and recorded is not None:
            self.broke_off = True
        else:
            self.difference = Difference(self.matched + 1, recorded, replayed)


def recordings(folder: Path, *, transport: str | None = None) -> list[Recording]:
    """Return the run of a run directory, or the runs of all cells where a grid was run.

    Args:
        folder: The run directory.
        transport: memory or grpc, to replay over instead of the recorded one.

    Raises:
        ScenarioError: with every fault: no run directory, a damaged one, or a run on the real clock.
    """
    found, faults = list[Recording](), list[Fault]()
    for cell in _cells(folder):
        try:
            found.append(_read(cell, transport))
        except ScenarioError as error:
            faults += error.faults
    if faults:
        raise ScenarioError(faults)
    return found


def replay(recording: Recording, compute: Compute, *, observers: Sequence[Observer] = ()) -> Verdict:
    """Run a recording again and compare.

    Args:
        recording: What to compare with.
        compute: Where training really runs.
        observers: Take the events, too.

    Raises:
        FedemuError: The replay failed, and the recorded run had not failed there.
        KeyboardInterrupt: It was interrupted.
    """
    comparison, digest = Comparison(recording.lines(), recording.certain), ""
    try:
        digest = experiment.run(recording.cell, compute, observers=[comparison, *observers])["digest"]
        comparison.close()
    except FedemuError:
        failed_alike = recording.broke_off and comparison.difference is None and comparison.matched >= recording.certain
        if not (comparison.stopped or failed_alike):
            raise
    return _judge(recording, comparison, digest)


def _judge(recording: Recording, comparison: Comparison, digest: str) -> Verdict:
    folder, difference = recording.folder, comparison.difference
    if difference is not None:
        fields = f", in {', '.join(difference.fields)}" if difference.fields else ""
        recorded = "nothing: the log ends here" if difference.recorded is None else difference.recorded
        replayed = "nothing: the run was over" if difference.replayed is None else difference.replayed
        where = f"{folder}: differs at line {difference.line} of {recording.events}{fields}"
        return Verdict(f"{where}\n  recorded  {recorded}\n  replayed  {replayed}", identical=False)
    if recording.broke_off:
        end = "it was interrupted" if recording.reason == "interrupted" else "it failed"
        text = f"identical as far as it went, {comparison.matched} events until {end}"
    else:
        text = f"identical, {comparison.matched} events, digest {digest}"
    return Verdict(f"{folder}: {text}", identical=True)


def _cells(folder: Path) -> list[Path]:
    """Return the directories of the runs below: the directory itself, or a grid's cells."""
    if (folder / SCENARIO).exists() or (folder / EVENTS).exists():
        return [folder]
    cells = sorted({path.parent for name in (SCENARIO, EVENTS) for path in folder.rglob(name)})
    if not cells:
        text = "is not a directory" if not folder.is_dir() else f"has no {SCENARIO}, and no cells with one"
        raise ScenarioError([Fault(str(folder), 1, "replay", f"{text}; name what `fedemu run --out` wrote")])
    return sorted(cells, key=lambda path: _natural(path.relative_to(folder)))


def _natural(path: Path) -> list[tuple[str, int]]:
    """Return a key that sorts seed-2 before seed-10."""
    return [(text, int(number or 0)) for text, number in re.findall(r"([^0-9]*)([0-9]*)", str(path))]


def _read(folder: Path, transport: str | None) -> Recording:
    path = folder / SCENARIO
    plan = load(path, transport=transport)
    cell = plan.cells[0]
    if plan.is_grid:
        raise ScenarioError([Fault(str(path), 1, "matrix", "no place in a run directory, which holds one run")])
    if cell.scenario.clock == "real":
        text = "a run on the real clock never comes back byte for byte; `fedemu verify` compares it with emulated time"
        raise ScenarioError([Fault(str(path), 1, "clock", text)])
    return _survey(folder, cell)


def _survey(folder: Path, cell: Cell) -> Recording:
    """Read the log once, to its end."""
    number = steady = 0
    reason: str | None = None
    path = folder / EVENTS
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                record = _record(path, number, line)
                if record["event"] == "RunFinished":
                    reason = str(record.get("reason"))
                elif record["event"] not in DEPARTURES:
                    steady = number
    except OSError as error:
        raise _fault(path, 1, f"cannot be read: {error.strerror}") from error
    if reason is None:
        raise _fault(path, max(number, 1), "the log ends here without RunFinished: the run was killed, or goes on")
    return Recording(folder, cell, reason, events=number, certain=steady if reason in BREAKS else number)


def _record(path: Path, number: int, line: bytes) -> dict[str, Any]:
    if not line.endswith(b"\n"):
        raise _fault(path, number, "the line is cut off")
    try:
        record = json.loads(line.decode())
    except ValueError as error:
        raise _fault(path, number, f"not a line of JSON: {error}") from error
    if not isinstance(record, dict) or not isinstance(record.get("event"), str):
        raise _fault(path, number, "not an event, which has `at` and `event`")
    return record


def _fault(path: Path, number: int, text: str) -> ScenarioError:
    return ScenarioError([Fault(str(path), number, "event", text)])
