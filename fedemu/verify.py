"""How true emulated time is: one scenario on the virtual clock and on the real one, side by side.

`verify` runs both, `compare` matches rounds and phases by what happened in them, `as_text` is the table. A round that
went another way on the real clock (another cohort, another number of late updates) says nothing about time: it is
marked, and in no statistics.
"""

import dataclasses
import statistics
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fedemu import experiment
from fedemu.events import Event, Observer, RoundClosed, RoundFailed, RoundStarted
from fedemu.observers.phases import spent
from fedemu.observers.trips import Trips
from fedemu.scenario import Cell, parse
from fedemu.types import ClientId, Seconds
from fedemu.units import show_duration

CLOCKS = ("virtual", "real")
PHASES = ("download", "compute", "upload", "wait")


class RoundRow(NamedTuple):
    """One round on both clocks."""

    round: int
    emulated: Seconds | None
    """None: there was no such round."""
    measured: Seconds | None
    note: str
    """Why the two cannot be compared; empty where they can."""

    @property
    def error(self) -> float | None:
        """Measured less emulated, as a share of emulated; None where there is nothing to compare."""
        if self.note or not self.emulated or self.measured is None:
            return None
        return (self.measured - self.emulated) / self.emulated


class PhaseRow(NamedTuple):
    """A phase, over all clients and rounds that had it on both clocks."""

    phase: str
    pairs: int
    """Times that are there twice, emulated and measured, for the same client and round."""
    emulated: Seconds
    """Mean, as the two that follow."""
    measured: Seconds
    error: Seconds
    """Measured less emulated."""
    tail: Seconds
    """99th percentile of |measured - emulated|."""


class Agreement(NamedTuple):
    """How far the clocks agree."""

    rounds: Sequence[RoundRow]
    phases: Sequence[PhaseRow]
    """Of the rounds that can be compared; without those that never happened."""

    @property
    def is_any(self) -> bool:
        """Tell whether there was a round to compare."""
        return any(row.error is not None for row in self.rounds)


class _Round(NamedTuple):
    cohort: tuple[ClientId, ...]
    outcome: str
    duration: Seconds


class _Seen:
    """What is compared of a run."""

    def __init__(self, events: Iterable[Event]) -> None:
        self.rounds: dict[int, _Round] = {}
        self.phases: dict[tuple[str, ClientId, int], list[Seconds]] = {}
        """By phase, client and round: one time for each task of the client in the round."""
        started: dict[int, RoundStarted] = {}
        trips = Trips()
        for event in events:
            for phase in spent(event, trips.follow(event)):
                self.phases.setdefault((phase.phase, phase.client, phase.round), []).append(phase.seconds)
            match event:
                case RoundStarted():
                    started[event.round] = event
                case RoundClosed():
                    outcome = f"{event.aggregated} aggregated, {event.late} late, {event.lost} lost"
                    self.rounds[event.round] = _Round(started[event.round].cohort, outcome, event.duration)
                case RoundFailed():
                    begin = started[event.round]
                    self.rounds[event.round] = _Round(begin.cohort, f"failed: {event.reason}", event.at - begin.at)
                case _:
                    pass


def verify(
    cell: Cell,
    *,
    watch: Callable[[Cell], AbstractContextManager[Sequence[Observer]]],
    announce: Callable[[str], None],
    out: Path | None = None,
    question: str = "",
) -> Agreement:
    """Run a cell on the virtual clock, then on the real one, and compare.

    Args:
        cell: What to run; its own clock does not matter.
        watch: Gives the observers of each run.
        announce: Told how long the real run will take, before it begins.
        out: Where `virtual` and `real`, the two run directories, are made; None writes nothing.
        question: First comment line of the scenario that is written there.

    Raises:
        ScenarioError: The cell cannot run on one of the clocks.
        FedemuError: A run failed.
        KeyboardInterrupt: A run was interrupted.
    """
    cells = {clock: _on(clock, cell) for clock in CLOCKS}
    logs: dict[str, list[Event]] = {clock: [] for clock in CLOCKS}
    with experiment.workers(cell.scenario) as compute:
        for clock in CLOCKS:
            with watch(cells[clock]) as observers:
                result = experiment.run(
                    cells[clock],
                    compute,
                    observers=[logs[clock].append, *observers],
                    out=out and out / clock,
                    question=question,
                )
            if clock == "virtual":
                announce(f"now in real time, which takes {show_duration(result['emulated_seconds'])} and a little more")
    return compare(logs["virtual"], logs["real"])


def compare(virtual: Iterable[Event], real: Iterable[Event]) -> Agreement:
    """Match the events of one scenario on the two clocks, round by round and phase by phase."""
    emulated, measured = _Seen(virtual), _Seen(real)
    numbers = sorted(emulated.rounds | measured.rounds)
    rounds = [_round_row(number, emulated.rounds.get(number), measured.rounds.get(number)) for number in numbers]
    alike = {row.round for row in rounds if not row.note}
    pairs = {phase: _pairs(phase, alike, emulated, measured) for phase in PHASES}
    return Agreement(rounds, [_phase_row(phase, times) for phase, times in pairs.items() if times])


def as_text(agreement: Agreement) -> str:
    """Return the table of rounds, the table of phases, and the line that sums them up."""
    rounds = [
        (str(row.round), _number(row.emulated), _number(row.measured), _percent(row.error), row.note)
        for row in agreement.rounds
    ]
    phases = [(row.phase, str(row.pairs), *map(_number, row[2:4]), *map(_fine, row[4:])) for row in agreement.phases]
    tables = [
        _table(("round", "emulated s", "measured s", "error %", ""), rounds),
        _table(("phase", "count", "mean emulated s", "mean measured s", "mean error s", "p99 |error| s"), phases),
    ]
    return "\n\n".join([*tables, _summary(agreement.rounds)])


def _on(clock: str, cell: Cell) -> Cell:
    resolved = {**cell.resolved, "clock": clock}
    return dataclasses.replace(cell, scenario=parse(resolved), resolved=resolved)


def _round_row(number: int, emulated: _Round | None, measured: _Round | None) -> RoundRow:
    if emulated is None or measured is None:
        clock = "real" if emulated is None else "virtual"
        note = f"on the {clock} clock alone"
    elif emulated.outcome != measured.outcome:
        note = f"{measured.outcome}; emulated {emulated.outcome}"
    elif emulated.cohort != measured.cohort:
        note = "another cohort"
    elif emulated.outcome.startswith("failed"):
        note = emulated.outcome
    else:
        note = "" if emulated.duration else "no emulated time"
    return RoundRow(number, emulated and emulated.duration, measured and measured.duration, note)


def _pairs(phase: str, rounds: set[int], emulated: _Seen, measured: _Seen) -> list[tuple[Seconds, Seconds]]:
    """Return the times of a phase that both runs have, emulated and measured, matched by client and round."""
    return [
        pair
        for key, times in emulated.phases.items()
        if key[0] == phase and key[2] in rounds
        for pair in zip(times, measured.phases.get(key, []), strict=False)
    ]


def _phase_row(phase: str, pairs: Sequence[tuple[Seconds, Seconds]]) -> PhaseRow:
    emulated, measured = np.array(pairs).T
    error = measured - emulated
    tail = float(np.percentile(np.abs(error), 99))
    return PhaseRow(phase, len(pairs), float(emulated.mean()), float(measured.mean()), float(error.mean()), tail)


def _summary(rounds: Sequence[RoundRow]) -> str:
    errors = [abs(row.error) for row in rounds if row.error is not None]
    compared = f"{len(errors)} of {len(rounds)} rounds compared"
    if not errors:
        return f"round times cannot be told to agree, {compared}"
    median, worst = 100 * statistics.median(errors), 100 * max(errors)
    return f"round times agree within {median:.2f} % (median) and {worst:.2f} % (worst), {compared}"


def _number(seconds: Seconds | None) -> str:
    return "-" if seconds is None else f"{seconds:.4f}"


def _fine(seconds: Seconds) -> str:
    return f"{seconds:.5f}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:+.2f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return columns set flush right; notes have no heading and stand on the left."""
    columns = zip(head, *rows, strict=True)
    widths = [max(map(len, column)) if column[0] else 0 for column in columns]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in (head, *rows)
    )
