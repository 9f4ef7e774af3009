"""Recorded runs as OpenMetrics text: what a scrape at that emulated time would have said, and nothing else."""

import json
import math
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families as parse_scrape
from prometheus_client.registry import Collector

from fedemu import export
from fedemu.cli import main
from fedemu.events import (
    ClientJoined,
    Evaluated,
    Event,
    RoundClosed,
    RunFinished,
    RunStarted,
    TransferEnded,
    as_line,
)
from fedemu.observers.prometheus import Metrics

SCENARIO = str(Path(__file__).parent / "docker" / "monitored.yaml")
START = 1_700_000_000.0
SUFFIXES = {"gauge": {""}, "counter": {"_total"}, "histogram": {"_bucket", "_count", "_sum"}}

Labels = tuple[tuple[str, str], ...]
Series = dict[tuple[str, Labels], list[tuple[float, float]]]
"""By name and labels: emulated times and values."""


def started(**fields) -> RunStarted:
    return RunStarted(**{"at": 0.0, "name": "hand", "seed": 3, "version": "1", "clients": 1, "parameters": 1, **fields})


def evaluated(at: float, round: int, accuracy: float, loss: float = 1.0) -> Evaluated:
    return Evaluated(at=at, round=round, accuracy=accuracy, loss=loss)


HAND = (
    started(),
    evaluated(0.0, 0, 0.1),
    RoundClosed(at=500.0004, round=1, aggregated=0, late=0, lost=0, duration=500.0004),
    evaluated(500.0004, 1, 0.3, math.inf),
    evaluated(500.2, 2, 0.4, 2.0),
    RunFinished(at=600.0, reason="rounds", time=600.0),
)


def record(folder: Path, events: Sequence[Event], *, target: float | None = 0.9) -> Path:
    """Write the files of a run directory that an export reads."""
    folder.mkdir(parents=True)
    (folder / "events.jsonl").write_text("".join(f"{as_line(event)}\n" for event in events))
    result = {"name": "hand", "clock": "virtual", "target": target and {"accuracy": target}}
    (folder / "result.json").write_text(json.dumps(result))
    return folder


def exported(folder: Path, start: float = START) -> str:
    path = folder.with_suffix(".om")
    with path.open("w") as file:
        export.write(export.recorded(folder), start, file)
    return path.read_text()


def series_of(text: str, start: float = START) -> Series:
    """Read OpenMetrics text; times are emulated again.

    The client library's reader of it loses samples of a histogram that has more than one timestamp.
    """
    found: Series = {}
    *lines, end, nothing = text.split("\n")
    assert (end, nothing) == ("# EOF", "")
    kinds: dict[str, str] = {}
    for line in lines:
        if line.startswith("# TYPE "):
            _, _, family, kind = line.split(" ")
            assert family not in kinds, "a family in two places"
            kinds[family] = kind
        elif not line.startswith("# HELP "):
            parts = re.fullmatch(r"(\w+)\{(.*)\} (\S+) (\d+\.\d{3})", line)
            assert parts, line
            name, labels, value, at = parts.groups()
            assert name.removeprefix(family) in SUFFIXES[kind], line
            key = name, tuple(sorted(re.findall(r'(\w+)="([^"]*)"', labels)))
            found.setdefault(key, []).append((round(float(at) - start, 3), float(value)))
    return found


def scraped(registry: Collector) -> dict[tuple[str, Labels], float]:
    """Return what a scrape would answer."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parse_scrape(generate_latest(registry).decode())
        for sample in family.samples
    }


def named(series: Series, name: str) -> list[tuple[float, float]]:
    """Return the only series of that name."""
    [found] = [points for (its, _), points in series.items() if its == name]
    return found


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of a grid of three, about ten emulated minutes each."""
    folder = tmp_path_factory.mktemp("export") / "grid"
    assert main(["run", SCENARIO, "--quiet", "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def series(grid: Path) -> Series:
    """What is exported of it."""
    return series_of(exported(grid))


def test_a_run_by_hand(tmp_path: Path) -> None:
    """Said when it changes and when a round ends, to the millisecond, and every two minutes in between."""
    series = series_of(exported(record(tmp_path / "run", HAND)))
    accuracy = [(0, 0.1), (120, 0.1), (240, 0.1), (360, 0.1), (480, 0.1), (500, 0.3), (500.2, 0.4)]
    assert named(series, "fedemu_accuracy_ratio") == accuracy
    assert named(series, "fedemu_round_seconds_count") == [
        *((at, 0) for at in (0, 120, 240, 360, 480)),
        (500, 1),
    ]
    assert named(series, "fedemu_run_seconds")[-3:] == [(500, 500.0004), (500.2, 500.2), (600, 600)]
    about = (("clock", "virtual"), ("run", "hand"), ("seed", "3"), ("version", "1"))
    assert {value for _, value in series["fedemu_run_info", about]} == {1}
    assert [at for at, value in named(series, "fedemu_run_finished") if value == 1] == [600]
    assert {value for _, value in named(series, "fedemu_target_accuracy_ratio")} == {0.9}


def test_what_is_no_number_is_not_said(tmp_path: Path) -> None:
    """The loss was infinite in round 1, and the log has null; nothing is said of it until round 2."""
    folder = record(tmp_path / "run", HAND, target=None)
    series = series_of(exported(folder))
    assert 500 not in dict(named(series, "fedemu_loss"))
    assert dict(named(series, "fedemu_loss"))[500.2] == 2
    assert not [name for name, _ in series if name == "fedemu_target_accuracy_ratio"]


def test_every_series_ends_with_what_a_scrape_after_the_run_says(grid: Path, series: Series) -> None:
    """Of all runs: the recorded events, put through the metrics that are served while a run goes on."""
    for run in export.recorded(grid):
        metrics = Metrics(run=run.label, clock="virtual", target=0.85)
        for event in export._events(run.folder / "events.jsonl"):
            metrics(event)
        ends = {key: points[-1][1] for key, points in series.items() if ("run", run.label) in key[1]}
        assert ends == scraped(metrics.registry)


def test_the_runs_of_a_grid_are_told_apart_by_where_they_are(grid: Path, series: Series) -> None:
    """The scenario's name, then the directories below."""
    labels = {dict(labels)["run"] for _, labels in series}
    assert labels == {f"monitored/{variant}/seed-1" for variant in ("synchronous", "buffered", "strict")}
    [one] = export.recorded(grid / "buffered" / "seed-1")
    assert one.label == "monitored"


def test_at_every_evaluation_the_accuracy_is_the_one_of_the_log(grid: Path, series: Series) -> None:
    """To the last bit, and at the millisecond of the event."""
    for run in export.recorded(grid):
        records = [json.loads(line) for line in (run.folder / "events.jsonl").read_text().splitlines()]
        logged = {round(r["at"], 3): r["accuracy"] for r in records if r["event"] == "Evaluated"}
        [points] = [
            p for (n, labels), p in series.items() if n == "fedemu_accuracy_ratio" and ("run", run.label) in labels
        ]
        assert len(logged) >= 5
        assert {at: dict(points)[at] for at in logged} == logged
        assert {value for _, value in points} == set(logged.values())


def test_no_series_is_silent_for_so_long_that_prometheus_takes_it_for_gone(grid: Path, series: Series) -> None:
    """Under five minutes between two samples and after the last; counters and buckets never fall."""
    ends = {run.label: run.length for run in export.recorded(grid)}
    for (name, labels), points in series.items():
        times = [*(at for at, _ in points), ends[dict(labels)["run"]]]
        assert max(after - before for before, after in pairwise(times)) < 240
        assert len(set(times[:-1])) == len(points)
        if name.endswith(("_total", "_bucket", "_count", "_sum")):
            assert all(after >= before for (_, before), (_, after) in pairwise(points)), name


def test_a_long_run_is_not_looked_at_for_each_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """8,000 events in 24 h, and 1,440 looks: none further apart than a minute and the time to the next event."""
    monkeypatch.setattr(export, "LOOKS", 1440)
    step = 86400 / 8000
    events = tuple(ClientJoined(at=number * step, client=f"a/{number}", group="a") for number in range(8000))
    times = [at for at, _ in named(series_of(exported(record(tmp_path / "run", events))), "fedemu_run_seconds")]
    assert 1400 < len(times) <= 1442
    assert max(after - before for before, after in pairwise(times)) <= 60 + step


def test_a_run_of_many_days_is_looked_at_every_two_minutes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a fifth of it, 200 s, would be too long: what happened at 70 s is seen at 120 s."""
    monkeypatch.setattr(export, "LOOKS", 5)
    events = tuple(ClientJoined(at=at, client=f"a/{at:g}", group="a") for at in (0.0, 70.0, 1000.0))
    points = named(series_of(exported(record(tmp_path / "run", events))), "fedemu_run_seconds")
    assert points == [(0, 0), *((at, 70) for at in range(120, 961, 120)), (1000, 1000)]


def test_what_waits_in_the_file_comes_back_in_order(grid: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With room in memory for nothing the text is the same."""
    text = exported(grid)
    monkeypatch.setattr(export, "PIECE", 0)
    assert exported(grid) == text
    assert text.endswith("\n# EOF\n")


def test_events_come_back_from_the_log_as_they_were(tmp_path: Path) -> None:
    """Null is nan where a number must be, and None where it may."""
    at = {"client": "a/0", "group": "a", "round": 1, "attempt": 1}
    sizes = {"bytes": 1, "wire": 2, "began": 0.5, "queued": 0.0, "retransmitted": 0}
    cut = TransferEnded(at=1.0, **at, direction="up", outcome="cut", **sizes, delay=None)
    events = [started(), cut, evaluated(2.0, 1, 0.5, math.nan)]
    folder = record(tmp_path / "run", events)
    back = list(export._events(folder / "events.jsonl"))
    assert back[:2] == events[:2]
    assert math.isnan(back[2].loss)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (
            '{"at":1.0,"event":"Evaluat',
            "events.jsonl:2: event: not an event of this version of fedemu: Invalid control",
        ),
        ('{"at":1.0,"event":"Exploded"}', "events.jsonl:2: event: not an event of this version of fedemu: 'Exploded'"),
        ('{"at":1.0,"event":"Evaluated"}', "events.jsonl:2: event: not an event of this version of fedemu: Evaluated"),
        ('{"at":-1.0,"event":"RoundFailed","round":1,"reason":""}', "time goes back from 0.0 s to -1.0 s"),
        ("[]", "events.jsonl:2: event: not an event of this version of fedemu: "),
    ],
)
def test_a_damaged_line_is_named(tmp_path: Path, line: str, fault: str, capsys: pytest.CaptureFixture[str]) -> None:
    """File and line; status 2."""
    folder = record(tmp_path / "run", [started()])
    path = folder / "events.jsonl"
    path.write_text(f"{path.read_text()}{line}\n" + as_line(HAND[-1]) + "\n")
    assert main(["export", "--openmetrics", str(folder), "-o", str(tmp_path / "out")]) == 2
    assert fault in capsys.readouterr().out


@pytest.mark.parametrize("start", ["2023-11-14T22:13:20Z", "2023-11-14T23:13:20+01:00", "1700000000", "1.7e9"])
def test_the_start_can_be_said(tmp_path: Path, start: str, capsys: pytest.CaptureFixture[str]) -> None:
    """RFC 3339 or seconds since 1970; the text goes to stdout, and what it spans to stderr."""
    folder = record(tmp_path / "run", HAND)
    assert main(["export", "--openmetrics", str(folder), "--start", start]) == 0
    out, err = capsys.readouterr()
    assert out == exported(folder)
    span = "from 2023-11-14T22:13:20+00:00 to 2023-11-14T22:23:20+00:00"
    assert err == f"fedemu: hand: 10min 00s of emulated time, {span}\n"


def test_by_default_a_run_ended_over_three_hours_ago(tmp_path: Path) -> None:
    """Prometheus may still write to what is younger: 600 s and 3 h before, on the minute."""
    runs = export.recorded(record(tmp_path / "run", HAND))
    assert export.default_start(runs, START) == START - 3 * 3600 - 600 - 20


@pytest.mark.parametrize("start", ["2500-01-01T00:00:00Z", "-1"])
def test_a_run_that_would_not_be_over_is_refused(
    tmp_path: Path, start: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Prometheus would take nothing else until then."""
    folder = record(tmp_path / "run", HAND)
    assert main(["export", "--openmetrics", str(folder), f"--start={start}"]) == 2
    assert "of emulated time do not lie in the past" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["run"],
        ["--openmetrics"],
        ["--openmetrics", "run", "--start", "noon"],
        ["--openmetrics", "run", "--start", "nan"],
        ["--openmetrics", "run", "--start", "2023-11-14T22:13:20"],
    ],
)
def test_faulty_arguments_exit_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A moment without an offset is none."""
    with pytest.raises(SystemExit, match="2"):
        main(["export", *arguments])
    assert capsys.readouterr().err.startswith("usage: fedemu")


def test_what_is_no_run_directory_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No directory, no run in it, a run that was killed, or a file that cannot be written."""
    folder = record(tmp_path / "run", HAND)
    (tmp_path / "empty").mkdir()
    for path, fault in ((tmp_path / "none", "is not a directory"), (tmp_path / "empty", "has no events.jsonl")):
        assert main(["export", "--openmetrics", str(path)]) == 2
        assert capsys.readouterr().out.startswith(f"{path}:1: export: {fault}")
    assert main(["export", "--openmetrics", str(folder), "-o", str(tmp_path / "none" / "file")]) == 1
    assert "none/file cannot be written: No such file" in capsys.readouterr().err
    (folder / "result.json").unlink()
    assert main(["export", "--openmetrics", str(folder)]) == 2
    assert "result.json:1: export: cannot be read: the run was killed, or goes on" in capsys.readouterr().out
