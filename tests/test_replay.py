"""A run directory, run again: what comes back, what does not, and what cannot be told."""

import json
import shutil
import signal
from pathlib import Path

import pytest

from fedemu import experiment
from fedemu.compute.inline import inline
from fedemu.errors import FedemuError, RunError, ScenarioError
from fedemu.events import (
    ClientJoined,
    ClientLeft,
    DelayMeasured,
    RoundStarted,
    RunFinished,
    RunStarted,
    TrainingStarted,
    UpdateLost,
    as_line,
)
from fedemu.replay import Comparison, recordings, replay
from fedemu.scenario import load

SCENARIO = """\
# How long do three phones take?
dataset: {kind: digits}
partition: {kind: iid}
model: {kind: softmax}
training: {batch_size: 64, lr: 0.1}
strategy: {kind: fedavg}
rounds: {concurrency: 2, deadline: 2s}
clients:
  phones:
    count: 3
    device: {kind: lognormal, per_example: 1ms, sigma: 0.5}
    link: {delay: 40ms, jitter: 10ms, drop: 10%, up: {rate: 1Mbit/s}, down: {rate: 4Mbit/s}}
stop: {rounds: 3}
compute: {kind: inline}
"""

BROKEN = """\
from torch import nn

class Broken(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 10)
        self.batches = 0

    def forward(self, x):
        self.batches += self.training
        if self.batches > 100:
            raise RuntimeError("the flux capacitor is empty")
        return self.layer(x.flatten(1))

def broken(task, /):
    return Broken()
"""


def record(out: Path, **sets: str) -> list[str]:
    """Run the scenario into a run directory, or a grid's; return the lines of the (last) log."""
    path = out.with_suffix(".yaml")
    path.write_text(SCENARIO)
    plan = load(path, [*sets.items()])
    with inline()() as compute:
        for cell in plan.cells:
            experiment.run(cell, compute, out=out / cell.path, question=plan.question)
    return (out / cell.path / "events.jsonl").read_text().splitlines()


def again(folder: Path, *, observers=(), **options: str):
    """Return the verdicts on all runs of a directory."""
    with inline()() as compute:
        return [replay(recording, compute, observers=observers) for recording in recordings(folder, **options)]


def rewrite(folder: Path, lines: list[str]) -> None:
    (folder / "events.jsonl").write_text("".join(f"{line}\n" for line in lines))


def faults(folder: Path) -> list[str]:
    with pytest.raises(ScenarioError) as error:
        recordings(folder)
    return str(error.value).splitlines()


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("recorded") / "run"
    record(out)
    return out


@pytest.fixture
def run(recorded: Path, tmp_path: Path) -> Path:
    """A run directory that a test may spoil."""
    return Path(shutil.copytree(recorded, tmp_path / "run"))


def lines_of(folder: Path) -> list[str]:
    return (folder / "events.jsonl").read_text().splitlines()


@pytest.mark.parametrize("transport", [None, "grpc"])
def test_a_run_comes_back_whatever_the_transport(recorded: Path, transport: str | None) -> None:
    """Random devices, jitter and drops are streams of the seed: every byte, and so the digest, is the recorded one."""
    [verdict] = again(recorded, transport=transport)
    digest = json.loads((recorded / "result.json").read_text())["digest"]
    assert verdict == (f"{recorded}: identical, {len(lines_of(recorded))} events, digest {digest}", True)


def test_a_replay_writes_nothing(run: Path) -> None:
    """The same files with the same times."""
    before = {path: path.stat().st_mtime_ns for path in run.parent.rglob("*")}
    again(run)
    assert {path: path.stat().st_mtime_ns for path in run.parent.rglob("*")} == before


def test_the_first_line_that_differs_is_told_with_its_fields(run: Path) -> None:
    """One task in the middle had other bytes and another version; a later line that differs, too, is not told."""
    lines = lines_of(run)
    tasks = [number for number, line in enumerate(lines, start=1) if '"TaskSent"' in line]
    number, replayed = tasks[2], lines[tasks[2] - 1]
    recorded = json.dumps(json.loads(replayed) | {"bytes": 1, "version": 9}, separators=(",", ":"))
    lines[number - 1], lines[number + 3] = recorded, '{"at":0,"event":"Nothing"}'
    rewrite(run, lines)
    [verdict] = again(run)
    assert not verdict.identical
    assert verdict.text.splitlines() == [
        f"{run}: differs at line {number} of {len(lines)}, in bytes, version",
        f"  recorded  {recorded}",
        f"  replayed  {replayed}",
    ]


@pytest.mark.parametrize(("number", "transport"), [(1, "memory"), (10, "memory"), (20, "memory"), (20, "grpc")])
def test_a_difference_stops_the_replay_at_once(run: Path, number: int, transport: str) -> None:
    """Whoever tells of the event: time does not go on, but that clients leave."""
    lines = lines_of(run)
    lines[number - 1] = lines[number - 1].replace('"at":', '"at":1')
    rewrite(run, lines)
    seen = []
    [verdict] = again(run, observers=[seen.append], transport=transport)
    assert verdict.text.startswith(f"{run}: differs at line {number} of {len(lines)}, in at\n")
    assert [as_line(event) for event in seen[: number - 1]] == lines[: number - 1]
    when = json.loads(lines_of(run)[number - 1].replace('"at":1', '"at":'))["at"]
    stayed = (event for event in seen[number - 1 :] if not isinstance(event, ClientLeft | UpdateLost | RunFinished))
    assert all(event.at <= when for event in stayed)


def test_a_missing_line_shows_another_event_in_its_place(run: Path) -> None:
    """The kinds differ, so that fields say nothing."""
    lines = lines_of(run)
    number = next(number for number, line in enumerate(lines, start=1) if '"TrainingStarted"' in line)
    rewrite(run, lines[: number - 1] + lines[number:])
    [verdict] = again(run)
    head, recorded, replayed = verdict.text.splitlines()
    assert head == f"{run}: differs at line {number} of {len(lines) - 1}"
    assert recorded == f"  recorded  {lines[number]}"
    assert replayed == f"  replayed  {lines[number - 1]}"


def test_lines_after_the_end_of_the_run_are_a_difference(run: Path) -> None:
    """The replay has nothing to show for the last line."""
    lines = lines_of(run)
    rewrite(run, [*lines, lines[0]])
    [verdict] = again(run)
    assert verdict.text.splitlines() == [
        f"{run}: differs at line {len(lines) + 1} of {len(lines) + 1}",
        f"  recorded  {lines[0]}",
        "  replayed  nothing: the run was over",
    ]


STARTED = RunStarted(at=0.0, name="by hand", seed=1, version="1", clients=1, parameters=3)
JOINED = ClientJoined(at=0.0, client="a/0", group="a")
ROUND = RoundStarted(at=0.0, round=1, cohort=("a/0",))
MEASURED = DelayMeasured(at=0.5, group="a", direction="up", requested=0.04, achieved=0.041)


def test_events_that_the_log_does_not_have_are_a_difference() -> None:
    """A log of one line and a run of two events."""
    comparison = Comparison([as_line(STARTED)], certain=1)
    comparison(STARTED)
    with pytest.raises(FedemuError):
        comparison(JOINED)
    assert comparison.difference == (2, None, as_line(JOINED))
    assert (comparison.matched, comparison.stopped) == (1, True)


def test_measurements_are_not_compared() -> None:
    """They never stand in a log: one between two events of a log of two lines changes nothing."""
    comparison = Comparison([as_line(STARTED), as_line(JOINED)], certain=2)
    for event in (STARTED, MEASURED, JOINED):
        comparison(event)
    comparison.close()
    assert (comparison.matched, comparison.difference) == (2, None)


def test_departures_do_not_stop_a_run_that_differs() -> None:
    """They may come from a failure, which has its say first; the next event of another kind does stop it."""
    comparison = Comparison([as_line(STARTED), as_line(JOINED), as_line(ROUND)], certain=3)
    comparison(STARTED)
    comparison(ClientLeft(at=0.0, client="a/0", group="a", reason="it broke"))
    assert comparison.difference is not None
    assert not comparison.stopped
    with pytest.raises(FedemuError):
        comparison(ROUND)


def test_an_interrupted_run_is_compared_as_far_as_it_went(tmp_path: Path) -> None:
    """Ctrl-C when the fourth training begins: all lines but those of the breaking off come back."""

    def interrupt(event) -> None:
        begun.append(event) if isinstance(event, TrainingStarted) else None
        if len(begun) == 4 and event is begun[-1]:
            signal.raise_signal(signal.SIGINT)

    begun: list[TrainingStarted] = []
    path = tmp_path / "small.yaml"
    path.write_text(SCENARIO)
    with inline()() as compute, pytest.raises(KeyboardInterrupt):
        experiment.run(load(path).cells[0], compute, observers=[interrupt], out=tmp_path / "run")
    lines = lines_of(tmp_path / "run")
    kinds = [json.loads(line)["event"] for line in lines]
    certain = next(
        n for n in range(len(kinds), 0, -1) if kinds[n - 1] not in ("RunFinished", "UpdateLost", "ClientLeft")
    )
    assert kinds[:certain].count("TrainingStarted") == 4
    assert "ClientLeft" in kinds[certain:]
    [verdict] = again(tmp_path / "run")
    text = f"{tmp_path}/run: identical as far as it went, {certain} events until it was interrupted"
    assert verdict == (text, True)


def test_an_interrupted_run_may_differ_before_its_end(run: Path) -> None:
    """Cut off after 20 lines, of which the 10th is not what comes back."""
    end = '{"at":9.0,"event":"RunFinished","reason":"interrupted","time":9.0}'
    lines = lines_of(run)[:20]
    rewrite(run, [*lines, end])
    [verdict] = again(run)
    assert verdict.identical
    lines[9] = lines[9].replace('"at":', '"at":1')
    rewrite(run, [*lines, end])
    [verdict] = again(run)
    assert verdict.text.startswith(f"{run}: differs at line 10 of 21, in at\n")


def test_a_run_that_failed_fails_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The 101st batch of the run fails, in both: the failure is what was recorded, and no error of the replay."""
    (tmp_path / "broken_again.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RunError, match="the flux capacitor is empty"):
        record(tmp_path / "run", model="{kind: 'broken_again:broken'}", stop="{rounds: 50}")
    lines = lines_of(tmp_path / "run")
    assert '"reason":"failed"' in lines[-1]
    [verdict] = again(tmp_path / "run")
    assert verdict.identical
    assert verdict.text.endswith(f"identical as far as it went, {len(lines)} events until it failed")


def test_a_replay_that_fails_says_so(run: Path, failing) -> None:
    """The recorded run had not failed: an error of this machine, not a difference of the run."""
    [recording] = recordings(run)
    with inline()() as compute, pytest.raises(RunError, match=r"^the graphics card is on fire$"):
        replay(recording, failing(compute, 3))


def test_every_cell_of_a_grid_is_replayed(tmp_path: Path) -> None:
    """Two delays and two seeds, in the order of their numbers; the one that was spoilt differs, the others do not."""
    grid = tmp_path / "grid"
    record(grid, matrix="{clients.phones.link.delay: [40ms, 100ms]}", repeat="2", stop="{rounds: 1}", seed="9")
    names = [f"clients.phones.link.delay={delay}/seed-{seed}" for delay in ("40ms", "100ms") for seed in (9, 10)]
    spoilt = grid / names[1]
    rewrite(spoilt, [line.replace('"steps":', '"steps":1') for line in lines_of(spoilt)])
    verdicts = again(grid)
    assert [verdict.text.split(":")[0] for verdict in verdicts] == [f"{grid}/{name}" for name in names]
    assert [verdict.identical for verdict in verdicts] == [True, False, True, True]


def test_every_damaged_cell_of_a_grid_is_told_before_anything_runs(tmp_path: Path) -> None:
    """One without its log, one without its scenario."""
    grid = tmp_path / "grid"
    record(grid, repeat="3", stop="{rounds: 1}")
    (grid / "seed-1" / "events.jsonl").unlink()
    (grid / "seed-3" / "scenario.yaml").unlink()
    assert faults(grid) == [
        f"{grid}/seed-1/events.jsonl:1: event: cannot be read: No such file or directory",
        f"{grid}/seed-3/scenario.yaml:1: scenario: cannot be read: No such file or directory",
    ]


@pytest.mark.parametrize(
    ("spoil", "line", "text"),
    [
        (lambda log: log[:-1], -1, "the line is cut off"),
        (lambda log: b"".join(log.splitlines(keepends=True)[:-1]), -2, "the log ends here without RunFinished"),
        (lambda log: b"".join(log.splitlines(keepends=True)[:9]) + b'{"at":0.5,\n', 9, "not a line of JSON"),
        (lambda log: log.replace(b"phones/0", b"phones/\xff", 1), None, "not a line of JSON: 'utf-8' codec"),
        (lambda log: b"[1]\n" + log, 0, "not an event, which has `at` and `event`"),
        (lambda log: b"", 0, "the log ends here without RunFinished"),
    ],
)
def test_a_damaged_log_is_a_fault_that_names_its_line(run: Path, spoil, line: int | None, text: str) -> None:
    """Cut in mid-line, without its end, not JSON, not UTF-8, not events, empty; the file stays as it is."""
    path = run / "events.jsonl"
    log = path.read_bytes()
    first = next(number for number, written in enumerate(log.splitlines()) if b"phones/0" in written)
    number = first if line is None else line % len(log.splitlines())
    path.write_bytes(spoil(log))
    [fault] = faults(run)
    assert fault.startswith(f"{path}:{number + 1}: event: {text}")
    assert path.read_bytes() == spoil(log)


def test_what_is_no_run_directory_is_a_fault(tmp_path: Path) -> None:
    """Nothing there, a file, and a directory of something else."""
    (tmp_path / "file").write_text("")
    (tmp_path / "other").mkdir()
    for name, text in (
        ("none", "is not a directory"),
        ("file", "is not a directory"),
        ("other", "has no scenario.yaml"),
    ):
        [fault] = faults(tmp_path / name)
        assert fault.startswith(f"{tmp_path}/{name}:1: replay: {text}")


def test_a_run_on_the_real_clock_cannot_be_replayed(run: Path) -> None:
    """Its times are measured; the fault names what can be done instead."""
    path = run / "scenario.yaml"
    path.write_text(path.read_text() + "clock: real\n")
    [fault] = faults(run)
    assert fault.startswith(f"{path}:1: clock: ")
    assert "fedemu verify" in fault


def test_a_run_directory_holds_one_run(run: Path) -> None:
    """A scenario with repeats was put there by hand."""
    path = run / "scenario.yaml"
    path.write_text(path.read_text() + "repeat: 2\n")
    assert faults(run) == [f"{path}:1: matrix: no place in a run directory, which holds one run"]
