"""The runs of a grid: in any number at once the same, gone on with where they stopped, and what is left of failures."""

import json
from pathlib import Path

import pytest

from fedemu import campaign
from fedemu.cli import main
from fedemu.errors import RunError, ScenarioError
from fedemu.scenario import load

SCENARIO = """\
# Which learning rate?
dataset: {kind: digits, examples: 100}
partition: {kind: iid}
model: {kind: softmax}
strategy: {kind: fedavg}
clients:
  phones: {count: 2, device: {kind: constant, per_example: 1ms}, link: {delay: 40ms}}
stop: {rounds: 2, accuracy: 90%}
compute: {kind: inline}
variants:
  plain: {rounds.goal: 2}
  eager: {rounds.goal: 1}
matrix:
  training.lr: [0.01, 0.1]
repeat: 2
"""

FLUX = """\
from torch import nn


class Broken(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, x):
        if self.training and len(x) > 1:
            raise RuntimeError("the flux capacitor is empty")
        return self.layer(x.flatten(1))


def broken(task, /):
    return Broken()
"""


@pytest.fixture
def scenario(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "small.yaml"
    path.write_text(SCENARIO)
    return path


def digests(runs) -> list[str]:
    return [run.result["digest"] for run in runs]


def written(out: Path) -> dict[str, bytes]:
    """Return what a directory holds, but for the real seconds, by file."""
    files = {}
    for path in sorted(out.rglob("*")):
        if path.name == "result.json":
            result = json.loads(path.read_text())
            del result["wall_seconds"]
            files[str(path.relative_to(out))] = json.dumps(result).encode()
        elif path.is_file():
            files[str(path.relative_to(out))] = path.read_bytes()
    return files


def test_runs_at_once_are_those_one_after_the_other(scenario: Path, tmp_path: Path) -> None:
    """Eight runs in two processes: byte for byte the same directories and summary, the runs in order."""
    plan, told = load(scenario), []
    in_turn = campaign.run(plan, out=tmp_path / "turn")
    at_once = campaign.run(plan, out=tmp_path / "once", jobs=2, tell=told.append)
    assert digests(at_once) == digests(in_turn)
    assert len(set(digests(in_turn))) == 8
    files = written(tmp_path / "once")
    assert files == written(tmp_path / "turn")
    assert len(files) == 8 * 4 + 1
    assert len(files["summary.csv"].splitlines()) == 1 + 4
    assert [progress.number for progress in told] == list(range(1, 9))
    assert {progress.cell.path for progress in told} == {cell.path for cell in plan.cells}
    assert not any(progress.is_old for progress in told)


def test_what_is_there_is_not_run_again_and_what_is_not_is(scenario: Path, tmp_path: Path) -> None:
    """Of eight, one was interrupted, one's result is cut off, one has none and one is gone: four run, four do not."""
    plan, out = load(scenario), tmp_path / "out"
    first = campaign.run(plan, out=out)
    before = written(out)
    folders = [out / cell.path for cell in plan.cells]
    result = json.loads((folders[1] / "result.json").read_text())
    (folders[1] / "result.json").write_text(json.dumps(result | {"stopped_by": "interrupted"}))
    (folders[2] / "result.json").write_text('{"stopped_by": "rou')
    (folders[3] / "result.json").unlink()
    for file in folders[4].iterdir():
        file.unlink()
    folders[4].rmdir()
    (out / "summary.csv").unlink()
    times = {folder: (folder / "events.jsonl").stat().st_mtime_ns for folder in folders if folder.exists()}
    told: list[campaign.Progress] = []
    again = campaign.run(plan, out=out, resume=True, tell=told.append)
    assert digests(again) == digests(first)
    assert written(out) == before
    old = [plan.cells[number].path for number in (0, 5, 6, 7)]
    assert [progress.cell.path for progress in told if progress.is_old] == old
    assert len(told) == 8
    untouched = {folder for folder, time in times.items() if (folder / "events.jsonl").stat().st_mtime_ns == time}
    assert untouched == {out / path for path in old}


def test_a_campaign_that_is_over_can_be_gone_on_with_in_no_time(scenario: Path, tmp_path: Path) -> None:
    """Nothing is left to do, at any number of jobs; the summary is written all the same."""
    plan, out = load(scenario), tmp_path / "out"
    campaign.run(plan, out=out)
    summary = (out / "summary.csv").read_bytes()
    (out / "summary.csv").unlink()
    told: list[campaign.Progress] = []
    campaign.run(plan, out=out, resume=True, jobs=2, tell=told.append)
    assert all(progress.is_old for progress in told)
    assert (out / "summary.csv").read_bytes() == summary


def test_another_scenarios_directory_is_not_gone_on_with(scenario: Path, tmp_path: Path) -> None:
    """One key differs in all eight: it is told once, and nothing is touched; a new question is no other scenario."""
    out = tmp_path / "out"
    campaign.run(load(scenario), out=out)
    before = written(out)
    scenario.write_text(SCENARIO.replace("delay: 40ms", "delay: 41ms"))
    with pytest.raises(ScenarioError) as caught:
        campaign.run(load(scenario), out=out, resume=True)
    faults = caught.value.faults
    what = "clients.phones.link.delay was '40ms' and is '41ms'"
    assert [(fault.file, fault.text) for fault in faults] == [
        ("--resume", f"holds another scenario: {what}; name a new directory (7 more like it)")
    ]
    assert written(out) == before
    scenario.write_text(f"# Another question?\n{SCENARIO}")
    assert len(campaign.run(load(scenario), out=out, resume=True)) == 8


def test_the_runs_of_another_version_are_not_gone_on_with(scenario: Path, tmp_path: Path) -> None:
    """What they would be today, nobody knows."""
    scenario.write_text(SCENARIO[: SCENARIO.index("variants:")])
    out = tmp_path / "out"
    campaign.run(load(scenario), out=out)
    result = json.loads((out / "result.json").read_text())
    (out / "result.json").write_text(json.dumps(result | {"version": "0.0.1"}))
    with pytest.raises(ScenarioError, match=f"is of fedemu 0.0.1, this is {result['version']}; name a new directory"):
        campaign.run(load(scenario), out=out, resume=True)


def test_a_directory_with_runs_that_are_not_the_scenarios_is_not_gone_on_with(scenario: Path, tmp_path: Path) -> None:
    """A grid's in place of a single run's, and the other way round; a grid that has grown goes on."""
    single, out = tmp_path / "single.yaml", tmp_path / "out"
    single.write_text(SCENARIO[: SCENARIO.index("variants:")])
    grid = load(scenario, [("matrix", "{training.lr: [0.1]}"), ("repeat", "1")])
    campaign.run(grid, out=out)
    campaign.run(load(single), out=tmp_path / "alone")
    for plan, folder, expected in (
        (load(single), out, [out / cell.path for cell in grid.cells]),
        (grid, tmp_path / "alone", [tmp_path / "alone"]),
        (
            load(scenario, [("matrix", "{training.lr: [0.5]}"), ("repeat", "1")]),
            out,
            [out / c.path for c in grid.cells],
        ),
    ):
        with pytest.raises(ScenarioError) as caught:
            campaign.run(plan, out=folder, resume=True)
        (fault,) = caught.value.faults
        more = f" ({len(expected) - 1} more like it)" if len(expected) > 1 else ""
        assert (fault.key, fault.text) == (
            str(min(expected)),
            f"is no run of this scenario; name a new directory{more}",
        )
    told: list[campaign.Progress] = []
    campaign.run(load(scenario, [("repeat", "1")]), out=out, resume=True, tell=told.append)
    assert [progress.is_old for progress in told] == [True, True, False, False]


def test_a_campaign_may_be_gone_on_with_though_it_never_began(scenario: Path, tmp_path: Path) -> None:
    """A directory that is not there has nothing to leave out."""
    runs = campaign.run(load(scenario), out=tmp_path / "new", resume=True)
    assert len(runs) == 8


def test_a_single_run_is_gone_on_with_too(scenario: Path, tmp_path: Path) -> None:
    """Without a grid the directory is the run's own, and there is no summary."""
    scenario.write_text(SCENARIO[: SCENARIO.index("variants:")])
    plan, told = load(scenario), []
    campaign.run(plan, out=tmp_path / "out")
    campaign.run(plan, out=tmp_path / "out", resume=True, tell=told.append)
    assert [(progress.cell.path, progress.is_old) for progress in told] == [("", True)]
    assert not (tmp_path / "out" / "summary.csv").exists()


def failing(scenario: Path, cell: str) -> None:
    """Make a scenario of three runs of which one fails at its first step."""
    (scenario.parent / "flux.py").write_text(FLUX)
    text = SCENARIO[: SCENARIO.index("variants:")]
    good = "{training.lr: 0.1}"
    names = {name: "{model: {kind: 'flux:broken'}}" if name == cell else good for name in ("a", "b", "c")}
    scenario.write_text(f"{text}variants:\n" + "".join(f"  {name}: {what}\n" for name, what in names.items()))


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_run_that_fails_ends_the_others_and_leaves_what_is_over(
    scenario: Path, tmp_path: Path, jobs: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The last of three fails: status 1, one line, and a summary of the runs that were over."""
    failing(scenario, "c")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert main(["run", str(scenario), "--quiet", "--out", "out", "--jobs", str(jobs)]) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("fedemu: RunError: training of phones/")
    assert err.endswith("in round 1 failed: RuntimeError: the flux capacitor is empty\n")
    assert "Traceback" not in err
    ends = {path.parts[-3]: json.loads(path.read_text())["stopped_by"] for path in Path("out").rglob("result.json")}
    assert ends["c"] == "failed"
    over = [name for name in ("a", "b") if ends.get(name) == "rounds"]
    rows = Path("out/summary.csv").read_text().splitlines()[1:]
    assert [row.split(",")[0] for row in rows] == over
    assert over == ["a", "b"] if jobs == 1 else over


def test_a_failed_run_is_run_again(scenario: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the module is mended, the two that were over stay and the third runs, as the scenario is the same."""
    failing(scenario, "c")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(RunError, match="flux capacitor"):
        campaign.run(load(scenario), out=tmp_path / "out")
    monkeypatch.setattr("flux.Broken.forward", lambda self, x: self.layer(x.flatten(1)))
    told: list[campaign.Progress] = []
    campaign.run(load(scenario), out=tmp_path / "out", resume=True, tell=told.append)
    assert [(progress.cell.path, progress.is_old) for progress in told] == [
        ("a/seed-1", True),
        ("b/seed-1", True),
        ("c/seed-1", False),
    ]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--resume"], "--resume:1: resume: no meaning without --out"),
        (
            ["--jobs", "2", "--metrics-port", "0"],
            "--jobs:1: jobs: runs at once cannot share --metrics-port; leave out one of the two",
        ),
        (
            ["--jobs", "2", "--clock", "real"],
            "--jobs:1: clock: runs at once would disturb each other on the real clock; leave out one of the two",
        ),
        (
            ["--jobs", "2", "--set", "compute={kind: pool}"],
            "--jobs:1: compute.kind: runs at once have one worker each; leave out compute.kind: pool, or --jobs",
        ),
    ],
)
def test_options_that_do_not_go_together_are_faults(
    scenario: Path, arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 2, before anything runs."""
    assert main(["run", str(scenario), *arguments]) == 2
    assert capsys.readouterr().out == f"{text}\n"


def test_progress_says_which_runs_were_there_already(
    scenario: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of two seeds one is over: each run is a line, and the table has both."""
    scenario.write_text(SCENARIO[: SCENARIO.index("variants:")] + "repeat: 2\n")
    assert main(["run", str(scenario), "--quiet", "--out", "out"]) == 0
    table = capsys.readouterr().out
    (tmp_path / "out" / "seed-2" / "result.json").unlink()
    assert main(["run", str(scenario), "--out", "out", "--resume"]) == 0
    out, err = capsys.readouterr()
    assert out == table
    first, second = err.splitlines()
    assert first == "[1/2] seed-1: there already"
    assert second.startswith("[2/2] seed-2: ")
    assert second.endswith(" s emulated")
