"""The run for who watches it: a live bar on a terminal, plain lines elsewhere."""

from typing import Self

from rich.console import Console as Screen
from rich.progress import BarColumn, Progress, TextColumn

from fedemu.events import Evaluated, Event, Measurement, RoundClosed, RunFinished, RunStarted, TargetReached
from fedemu.types import Seconds
from fedemu.units import show_duration

PAUSE = 1.0
"""Real seconds between two plain lines, at least."""


class Console:
    """Shows rounds, accuracy, emulated time and stragglers. Use as a context manager.

    Args:
        rounds: Rounds after which the run stops, if set: the bar's length; else the target's accuracy is.
        target: Accuracy that the run is for, 0..1; None without one.
        screen: Where to write; None is stderr.
    """

    def __init__(self, *, rounds: int | None, target: float | None, screen: Screen | None = None) -> None:
        self._rounds, self._target = rounds, target
        self._screen = Screen(stderr=True) if screen is None else screen
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=10),  # leaves the facts room in 80 columns
            TextColumn("{task.fields[facts]}", markup=False),
            console=self._screen,
            disable=not self._screen.is_terminal,
        )
        self._bar = self._progress.add_task("", total=rounds or target, facts="")
        self._round, self._stragglers = 0, 0
        self._time: Seconds = 0.0
        self._accuracy: float | None = None
        self._untold = self._unprinted = False
        self._told = -PAUSE

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def __call__(self, event: Event) -> None:
        if self._untold and not isinstance(
            event, Evaluated | TargetReached | Measurement
        ):  # the line waits for its round's accuracy
            self._tell()
        match event:
            case RunStarted():
                self._progress.update(self._bar, description=event.name)
                if not self._screen.is_terminal:
                    self._print(
                        f"{event.name}: seed {event.seed}, {event.clients} clients, {event.parameters:,} parameters"
                    )
            case RoundClosed():
                self._round, self._time, self._untold = event.round, event.at, True
                self._stragglers += event.late + event.lost
            case Evaluated():
                self._accuracy = event.accuracy
            case RunFinished() if self._unprinted:
                self._print(self._facts)
            case _:
                pass

    @property
    def _facts(self) -> str:
        said = self._screen.is_terminal  # by the bar
        facts = [("" if said else "round ") + f"{self._round}" + (f"/{self._rounds}" if self._rounds else "")]
        if self._accuracy is not None:
            target = "" if self._target is None else f" of {self._target:.1%}"
            facts.append(("" if said else "accuracy ") + f"{self._accuracy:.1%}{target}")
        facts.append(f"{show_duration(self._time)} emulated")
        if self._stragglers:
            facts.append(f"{self._stragglers} straggler{'s' if self._stragglers > 1 else ''}")
        return ", ".join(facts)

    def _tell(self) -> None:
        self._untold = False
        done = self._round if self._rounds else min(self._accuracy or 0.0, self._target or 0.0)
        self._progress.update(self._bar, completed=done, facts=self._facts)
        if self._screen.is_terminal:
            return
        now = self._screen.get_time()
        self._unprinted = now - self._told < PAUSE
        if not self._unprinted:
            self._told = now
            self._print(self._facts)

    def _print(self, line: str) -> None:
        self._screen.print(line, markup=False, highlight=False, soft_wrap=True)
