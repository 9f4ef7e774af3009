"""Recorded runs as OpenMetrics text with emulated timestamps, for `promtool tsdb create-blocks-from openmetrics`.

Recorded events go through the observer that Prometheus scrapes while a run goes on, so METRICS.md holds here too; what
was measured beside the run is in no log, and so not here. A look is what a scrape is there: all that has changed since
the last one is written. There is a look wherever a round ends or a model is evaluated, and else once in 1/5760 of the
run: every 15 s of a day, at practically every event of a minute.

OpenMetrics wants all that is said of a series in one place, whereas a run says something of all of them at all times;
what is said waits in a temporary file, and memory holds a piece for each series.
"""

import json
import math
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, NamedTuple, TextIO

from prometheus_client import Metric
from prometheus_client.samples import Sample

from fedemu.errors import Fault, ScenarioError
from fedemu.events import Evaluated, Event, RoundClosed, RoundFailed, RunFinished, TargetReached, from_record
from fedemu.observers.jsonl import EVENTS
from fedemu.observers.prometheus import Metrics
from fedemu.types import Seconds

RESULT = "result.json"

LOOKS = 5760
"""In a run, beside those where a round ends."""
IDLE = 120.0
"""Seconds between two looks at most, and the age of a sample that is said again unchanged: Prometheus takes a series
for gone that says nothing for five minutes."""
HEAD = 3 * 3600.0
"""Seconds that Prometheus may still be writing to: what is backfilled should be older."""
PIECE = 1 << 16
"""Characters of a series that wait in memory."""


class Recorded(NamedTuple):
    """A run directory."""

    folder: Path
    label: str
    """What `run` says: the scenario's name, and of a grid's cell where it is below the grid's directory."""
    clock: str
    target: float | None
    """Accuracy that stops the run."""
    length: Seconds
    """When its last event was."""


def recorded(folder: Path) -> list[Recorded]:
    """Return the run of a run directory, or those of all directories below.

    Raises:
        ScenarioError: with every fault: there is none, or one that did not end.
    """
    folders = sorted(path.parent for path in folder.rglob(EVENTS))
    if not folders:
        text = f"has no {EVENTS}" if folder.is_dir() else "is not a directory"
        raise ScenarioError([Fault(str(folder), 1, "export", f"{text}; name what `fedemu run --out` wrote")])
    found, faults = list[Recorded](), list[Fault]()
    for path in folders:
        try:
            found.append(_read(path, path.relative_to(folder)))
        except ScenarioError as error:
            faults += error.faults
    if faults:
        raise ScenarioError(faults)
    return found


def default_start(runs: Sequence[Recorded], now: float) -> float:
    """Return the latest whole minute, in seconds since 1970, from which on all runs are over three hours before now."""
    return math.floor((now - HEAD - max(run.length for run in runs)) / 60) * 60.0


def write(runs: Sequence[Recorded], start: float, file: TextIO) -> None:
    """Write runs as OpenMetrics text; all of them begin at the same time.

    Args:
        runs: With labels of their own.
        start: When their emulated time is 0, in seconds since 1970; to the millisecond.
        file: Takes the text.

    Raises:
        ScenarioError: A log has a line that is not an event.
    """
    with TemporaryFile() as waiting:
        pages = _Pages(waiting)
        for run in runs:
            _Tape(Metrics(run=run.label, clock=run.clock, target=run.target), run.length, start, pages).play(
                _events(run.folder / EVENTS)
            )
            pages.put_down()
        pages.copy(file)


class _Tape:
    """Looks at the metrics of one run, again and again. Times are whole milliseconds: Prometheus has no others."""

    def __init__(self, metrics: Metrics, length: Seconds, start: float, pages: "_Pages") -> None:
        self._metrics, self._start, self._pages = metrics, _ms(start), pages
        self._step = min(math.ceil(_ms(length) / LOOKS), _ms(IDLE))
        self._looked = 0
        self._said: dict[str, tuple[int, list[float]]] = {}
        """When each series was last written, and what."""

    def play(self, events: Iterator[Event]) -> None:
        now, due = 0, 0
        for event in events:
            at = _ms(event.at)
            if at > now:
                if due < at:
                    self._look(due)
                while at - self._looked > _ms(IDLE):
                    self._look(self._looked + _ms(IDLE))
                now, due = at, max(at, self._looked + self._step)
            self._metrics(event)
            if isinstance(event, RoundClosed | RoundFailed | Evaluated | TargetReached | RunFinished):
                due = now
        self._look(now)

    def _look(self, at: int) -> None:
        self._looked = at
        when = _stamp(self._start + at)
        for metric in self._metrics.registry.collect():
            for series, group in groupby(metric.samples, _series):
                samples = list(group)
                values = [sample.value for sample in samples]
                key = f"{metric.name}{series}"
                written, before = self._said.get(key, (-math.inf, []))
                if values != before or at - written >= _ms(IDLE):
                    self._said[key] = at, values
                    self._pages.add(metric, series, "".join(_line(sample, when) for sample in samples))


class _Pages:
    """Text by metric and series, of which little is in memory."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._metrics: dict[tuple[str, str], dict[str, _Page]] = {}
        """By the metric's heading and its name."""

    def add(self, metric: Metric, series: str, text: str) -> None:
        heading = f"# HELP {metric.name} {metric.documentation}\n# TYPE {metric.name} {metric.type}\n"
        page = self._metrics.setdefault((heading, metric.name), {}).setdefault(series, _Page([], []))
        page.text.append(text)
        if sum(map(len, page.text)) > PIECE:
            self._put_down(page)

    def put_down(self) -> None:
        """Leave nothing in memory."""
        for pages in self._metrics.values():
            for page in pages.values():
                self._put_down(page)

    def _put_down(self, page: "_Page") -> None:
        text = "".join(page.text).encode()
        page.text.clear()
        page.places.append((self._file.tell(), len(text)))
        self._file.write(text)

    def copy(self, file: TextIO) -> None:
        """Write all that has been put down, series by series."""
        for (heading, _), pages in self._metrics.items():
            file.write(heading)
            for page in pages.values():
                for place, length in page.places:
                    self._file.seek(place)
                    file.write(self._file.read(length).decode())
        file.write("# EOF\n")


class _Page(NamedTuple):
    text: list[str]
    """In memory."""
    places: list[tuple[int, int]]
    """In the file: where, and how many bytes."""


def _ms(seconds: Seconds) -> int:
    return round(seconds * 1000)


def _stamp(milliseconds: int) -> str:
    return f"{milliseconds // 1000}.{milliseconds % 1000:03}"


def _series(sample: Sample) -> str:
    """Return what the samples of one histogram have in common, or of one gauge or counter."""
    return _labels(tuple((name, value) for name, value in sample.labels.items() if name != "le"))


def _line(sample: Sample, when: str) -> str:
    return f"{sample.name}{_labels(tuple(sample.labels.items()))} {sample.value!r} {when}\n"


@cache
def _labels(labels: tuple[tuple[str, str], ...]) -> str:
    escaped = ((name, value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")) for name, value in labels)
    return "{" + ",".join(f'{name}="{value}"' for name, value in escaped) + "}"


def _read(folder: Path, below: Path) -> Recorded:
    try:
        result = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        label = "/".join([result["name"], *below.parts])
        target = None if result["target"] is None else result["target"]["accuracy"]
        return Recorded(folder, label, result["clock"], target, _end(folder / EVENTS))
    except (OSError, ValueError, KeyError) as error:
        text = "cannot be read: the run was killed, or goes on"
        raise ScenarioError([Fault(str(folder / RESULT), 1, "export", text)]) from error


def _end(path: Path) -> Seconds:
    with path.open("rb") as file:
        file.seek(0, 2)
        file.seek(max(0, file.tell() - (1 << 16)))  # no event is longer
        *_, last = file
    return float(json.loads(last)["at"])


def _events(path: Path) -> Iterator[Event]:
    """Yield the events of a log."""
    before = 0.0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                event = from_record(json.loads(line))
                if event.at < before:
                    raise ValueError(f"time goes back from {before} s to {event.at} s")
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                text = f"not an event of this version of fedemu: {error}"
                raise ScenarioError([Fault(str(path), number, "event", text)]) from error
            before = event.at
            yield event
