"""`fedemu run` as a user types it: what it prints, where, and its exit status."""

import json
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest

from fedemu.cli import main

SCENARIO = """\
# How long do two phones take?
dataset: {kind: digits}
partition: {kind: iid}
model: {kind: softmax}
training: {batch_size: 64, lr: 0.1}
strategy: {kind: fedavg}
clients:
  phones:
    count: 2
    device: {kind: constant, per_example: 1ms}
    link: {delay: 40ms, up: {rate: 1Mbit/s}}
stop: {rounds: 10, accuracy: 50%}
compute: {kind: inline}
"""

BROKEN = """\
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
def scenario(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "small.yaml").write_text(SCENARIO)
    return "small.yaml"


def until_clients_work(address: str) -> None:
    """Wait until the metrics say that both clients have a task."""
    end = time.monotonic() + 60
    while 'state="working"} 2.0' not in urllib.request.urlopen(address).read().decode():
        assert time.monotonic() < end
        time.sleep(0.1)


def of_log(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]


def test_run_ends_by_printing_what_was_asked_for(scenario: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Target, emulated time, round and bytes on stdout, progress on stderr; the numbers are those of result.json."""
    assert main(["run", scenario, "--out", "run"]) == 0
    out, err = capsys.readouterr()
    result = json.loads(Path("run/result.json").read_text())
    assert result["target"]["reached"]
    assert re.search(rf"target +50 % accuracy, reached after .* in round {result['target']['round']}\n", out)
    assert re.search(rf"emulated time +{result['emulated_seconds']:.3f} s ", out)
    assert re.search(r"traffic +[\d.]+kB up, [\d.]+kB down", out)
    assert result["digest"] in out
    assert "2 clients, 650 parameters" in err
    assert "round 1" in err


def test_quiet_shows_no_progress(scenario: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The summary stays: it is what was asked for."""
    assert main(["run", scenario, "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "reached after" in out


def test_set_replaces_keys(scenario: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A target that cannot be reached in one round is not, and the summary says what stopped the run."""
    arguments = ["--set", "stop.accuracy=100%", "--set", "stop.rounds=1", "--seed", "5"]
    assert main(["run", scenario, "--quiet", *arguments]) == 0
    out = capsys.readouterr().out
    assert out.startswith("small, seed 5, virtual clock over memory\n")
    assert "not reached; the run was stopped by rounds" in out


def test_an_out_directory_that_exists_is_a_fault(scenario: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing in it is touched."""
    Path("old").mkdir()
    assert main(["run", scenario, "--out", "old"]) == 2
    assert "old: exists already" in capsys.readouterr().out
    assert list(Path("old").iterdir()) == []


def test_a_faulty_scenario_exits_2_with_all_faults_on_stdout(scenario: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Two faults, each with file and line; no run directory is made."""
    Path(scenario).write_text(SCENARIO.replace("fedavg", "fedprx").replace("40ms", "40"))
    assert main(["run", scenario, "--out", "run"]) == 2
    out, err = capsys.readouterr()
    written = SCENARIO.splitlines()
    lines = [number for number, line in enumerate(written, start=1) if "fedavg" in line or "40ms" in line]
    assert [line.split(" ")[0] for line in out.splitlines()] == [f"small.yaml:{number}:" for number in lines]
    assert err == ""
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ("dataset.examples=5000", "dataset.examples: 5000 examples are more than the 1437"),
        ("model={kind: lenet}", "model: inputs have the shape (1, 8, 8)"),
        ("clients.phones.count=2000", "partition: 1437 examples are too few for 2000 clients"),
    ],
)
def test_what_does_not_fit_the_data_is_a_fault_too(
    scenario: str, change: str, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only loading the data can tell; it is the scenario's author who can mend it."""
    assert main(["run", scenario, "--out", "run", "--set", change]) == 2
    assert f": {fault}" in capsys.readouterr().out
    assert not Path("run").exists()


def test_missing_data_name_file_hash_and_remedy(
    scenario: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An empty data directory and MNIST: one line, exit status 1."""
    monkeypatch.setenv("FEDEMU_DATA", str(tmp_path / "empty"))
    assert main(["run", scenario, "--set", "dataset={kind: mnist}"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"fedemu: DataError: {tmp_path}/empty/MNIST/raw/")
    assert re.search(r"expected sha256 [0-9a-f]{64}; set FEDEMU_DATA to a directory that has it", err)
    assert err.count("\n") == 1


@pytest.mark.parametrize("compute", ["inline", "pool"])
def test_a_failing_training_is_one_clear_line(
    scenario: str, compute: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Exit status 1, whose training failed and why, and a run directory that says so."""
    (tmp_path / f"broken_{compute}.py").write_text(BROKEN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    arguments = ["--set", f"model={{kind: 'broken_{compute}:broken'}}", "--set", f"compute.kind={compute}"]
    assert main(["run", scenario, "--quiet", "--out", "run", *arguments]) == 1
    out, err = capfd.readouterr()
    assert out == ""
    text = "training of phones/. in round 1 failed: RuntimeError: the flux capacitor is empty"
    assert re.fullmatch(rf"fedemu: RunError: {text}\n", err)
    assert of_log(Path("run"))[-1]["reason"] == "failed"
    assert json.loads(Path("run/result.json").read_text())["stopped_by"] == "failed"


def test_a_grid_prints_a_table_and_writes_a_directory_for_each_run(
    scenario: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two values and two seeds are four runs and two rows; the slower link's row says so."""
    matrix = ["--set", "matrix={clients.phones.link.delay: [40ms, 540ms]}", "--set", "repeat=2"]
    assert main(["run", scenario, "--out", "grid", "--set", "stop={rounds: 1}", *matrix]) == 0
    out, err = capsys.readouterr()
    head, *rows = out.splitlines()
    assert head.split()[0] == "clients.phones.link.delay"
    assert [row.split()[:2] for row in rows] == [["40ms", "2"], ["540ms", "2"]]
    # half a second more each way; TCP needs no second window for 2.6 kB
    fast, slow = (float(row.split()[-2]) for row in rows)
    assert slow - fast == pytest.approx(1.0, abs=1e-9)
    assert len(list(Path("grid").glob("*/seed-*/result.json"))) == 4
    assert [line.split(",")[0:4] for line in Path("grid/summary.csv").read_text().splitlines()[1:]] == [
        ["", "40ms", "", "2"],
        ["", "540ms", "", "2"],
    ]
    assert err.count("s emulated") == 4


def test_variants_at_once_have_a_row_each_and_a_line_as_they_end(
    scenario: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the order of the file, whichever ends first; `far` takes a second more each way in each of its two rounds."""
    variants = "variants={far: {clients.phones.link.delay: 1040ms}, near: {stop.time: 1h}}"
    arguments = ["--jobs", "2", "--set", "stop={rounds: 2}", "--set", variants]
    assert main(["run", scenario, "--out", "grid", *arguments]) == 0
    out, err = capsys.readouterr()
    head, *rows = out.splitlines()
    assert head.split()[:2] == ["variant", "runs"]
    assert [row.split()[:2] for row in rows] == [["far", "1"], ["near", "1"]]
    far, near = (float(row.split()[-2]) for row in rows)
    assert far - near == pytest.approx(4.0, abs=1e-9)
    lines = [re.fullmatch(r"\[(\d)/2\] (\w+)/seed-1: [\d.]+ s emulated", line) for line in err.splitlines()]
    assert [line and line[1] for line in lines] == ["1", "2"]
    assert sorted(line[2] for line in lines if line) == ["far", "near"]


def test_metrics_are_scraped_over_http_during_the_run(scenario: str, capfd: pytest.CaptureFixture[str]) -> None:
    """A free port; after the run it lingers, and the last scrape has accuracy and time to target."""
    arguments = ["run", scenario, "--quiet", "--metrics-port", "0", "--linger", "3s", "--out", "run"]
    status: list[int] = []
    running = threading.Thread(target=lambda: status.append(main(arguments)))
    running.start()
    err, page, deadline = "", "", time.monotonic() + 30
    while "time_to_target_seconds{" not in page:
        assert time.monotonic() < deadline, page
        time.sleep(0.1)
        err += capfd.readouterr().err
        address = re.search(r"http://localhost:\d+/metrics", err)
        if address:
            with urllib.request.urlopen(address[0]) as answer:
                page = answer.read().decode()
    running.join()
    assert status == [0]
    result = json.loads(Path("run/result.json").read_text())
    samples = dict(re.findall(r"^(fedemu_\w+)\{[^}]*\} (\S+)$", page, re.MULTILINE))
    assert float(samples["fedemu_accuracy_ratio"]) == result["final"]["accuracy"]
    assert float(samples["fedemu_time_to_target_seconds"]) == result["target"]["time"]


@pytest.mark.parametrize(
    ("clock", "compute", "changes"),
    [
        ("virtual", "inline", ["training.epochs=1000000"]),
        pytest.param("virtual", "pool", ["training.epochs=1000000"], marks=pytest.mark.slow),
        pytest.param("virtual", "inline", ["stop.rounds=1000000"], marks=pytest.mark.slow),
        ("real", "inline", ["stop.rounds=1000000", "clients.phones.link.delay=5ms"]),
    ],
)
def test_ctrl_c_ends_a_run_within_two_seconds_and_writes_what_it_has(
    scenario: str, tmp_path: Path, clock: str, compute: str, changes: list[str]
) -> None:
    """In the middle of a long training or between short rounds, on both clocks: status 130, no traceback.

    The best of three: what else the machine does may take longer than two seconds.
    """
    sets = [f"compute.kind={compute}", "stop.accuracy=100%", *changes]
    command = ["run", scenario, "--clock", clock, *(a for s in sets for a in ("--set", s))]
    busy = any("epochs" in change for change in changes)
    command += ["--metrics-port", "0"] if busy else []
    for attempt in range(3):
        out = tmp_path / f"run-{attempt}"
        latency = until_interrupted([*command, "--out", str(out)], busy=busy)
        check_interrupted(out)
        if latency < 2:
            break
    assert latency < 2


def test_a_termination_is_an_interruption(scenario: str, tmp_path: Path) -> None:
    """Containers are stopped with SIGTERM: the same status and the same valid run directory."""
    out = tmp_path / "run"
    sets = ["compute.kind=inline", "stop.accuracy=100%", "stop.rounds=1000000", "clients.phones.link.delay=5ms"]
    command = ["run", scenario, "--clock", "real", "--out", str(out), *(a for s in sets for a in ("--set", s))]
    until_interrupted(command, busy=False, by=signal.SIGTERM)
    check_interrupted(out)


def until_interrupted(command: list[str], *, busy: bool, by: signal.Signals = signal.SIGINT) -> float:
    """Interrupt the command when clients work; return the seconds until it has ended as it should."""
    with subprocess.Popen(
        [sys.executable, "-c", f"import sys; from fedemu.cli import main; sys.exit(main({command}))"],
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stderr is not None
            for line in process.stderr:
                if busy and (address := re.search(r"http://\S+", line)):
                    until_clients_work(address[0])
                    break
                if not busy and "round " in line:
                    break
            time.sleep(0.5)
            sent = time.monotonic()
            process.send_signal(by)
            rest = process.communicate(timeout=20)[1]
            latency = time.monotonic() - sent
        finally:
            process.kill()
    print(f"Ctrl-C to exit: {latency:.2f} s")
    assert process.returncode == 130
    assert rest.splitlines()[-1] == "fedemu: interrupted"
    assert "Traceback" not in rest
    return latency


def check_interrupted(out: Path) -> None:
    """Assert that the run directory is valid, and says that the run was interrupted."""
    log = of_log(out)
    assert (log[-1]["event"], log[-1]["reason"]) == ("RunFinished", "interrupted")
    assert any(event["event"] == "TrainingStarted" for event in log)
    result = json.loads((out / "result.json").read_text())
    assert result["stopped_by"] == "interrupted"
    assert result["emulated_seconds"] == log[-1]["time"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["join", "--server", "x", "--group", "g", "--slot=-1"], "'-1' is not a whole number from 0"),
        (["run", "s.yaml", "--metrics-port", "99999"], "'99999' is not a whole number from 0 to 65535"),
    ],
)
def test_numbers_out_of_range_are_faulty_arguments(
    arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit status 2, and what was expected."""
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert text in capsys.readouterr().err


def test_an_out_directory_that_cannot_be_made_is_one_line(
    scenario: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A plain file stands where a directory would have to be: status 1, and the system's own words."""
    (tmp_path / "file").write_text("")
    assert main(["run", scenario, "--quiet", "--out", str(tmp_path / "file" / "run")]) == 1
    assert "cannot be written: Not a directory" in capsys.readouterr().err
