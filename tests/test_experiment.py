"""A whole run, from a scenario file to its run directory: small, on digits, with softmax regression."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fedemu import experiment, server
from fedemu.compute.inline import inline
from fedemu.compute.pool import pool
from fedemu.errors import RunError
from fedemu.events import RunFinished
from fedemu.scenario import load

SCENARIO = """\
# How long do three phones take?
dataset: {kind: digits}
partition: {kind: iid}
model: {kind: softmax}
training: {batch_size: 64, lr: 0.1}
strategy: {kind: fedavg}
rounds: {concurrency: 2}
clients:
  phones:
    count: 3
    device: {kind: lognormal, per_example: 1ms, sigma: 0.5}
    link: {delay: 40ms, jitter: 10ms, drop: 10%, up: {rate: 1Mbit/s}, down: {rate: 4Mbit/s}}
stop: {rounds: 2, accuracy: 99%}
"""

DELAY_LAW = """\
dataset: {kind: digits, examples: 128}
partition: {kind: copy}
model: {kind: softmax}
strategy: {kind: fedavg}
clients:
  clients:
    count: 3
    device: {kind: constant, per_example: 7.8125ms}
    link: {stall: {probability: 0%, duration: 4s}}
stop: {rounds: 4}
evaluate: {every: end}
matrix:
  clients.clients.link.stall.probability: [0%, 20%, 40%, 60%, 80%, 100%]
repeat: 3
"""

KEYS = {
    "name": None,
    "seed": None,
    "clock": None,
    "transport": None,
    "version": None,
    "data": {"dataset", "verified"},
    "target": {"accuracy", "reached", "time", "round", "updates", "bytes"},
    "targets": None,
    "stopped_by": None,
    "final": {"accuracy", "loss", "round", "time"},
    "best": {"accuracy", "round", "time"},
    "emulated_seconds": None,
    "wall_seconds": None,
    "bytes": {"up", "down", "wasted"},
    "updates": {"aggregated", "late", "lost", "rejected"},
    "calls": {"sent", "retried", "failed"},
    "links": set(),
    "digest": None,
}
"""Those of contract.md, by level."""


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    (tmp_path / "small.yaml").write_text(SCENARIO)
    return tmp_path / "small.yaml"


def play(path: Path, out: Path | None = None, workers: int | None = None, **options: str):
    plan = load(path, [*options.items()])
    with (pool(workers=workers) if workers else inline())() as compute:
        return experiment.run(plan.cells[0], compute, out=out, question=plan.question)


def events(out: Path):
    return [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]


def test_two_runs_of_a_seed_write_the_same_bytes_wherever_training_runs(scenario: Path, tmp_path: Path) -> None:
    """Random devices, jitter, drops and selection; one thread against two processes, which finish in any order."""
    again = {}
    for name, workers in (("one", None), ("other", None), ("pool", 2)):
        again[name] = play(scenario, tmp_path / name, workers)
    log = (tmp_path / "one" / "events.jsonl").read_bytes()
    assert all((tmp_path / name / "events.jsonl").read_bytes() == log for name in again)
    assert len({result["digest"] for result in again.values()}) == 1
    assert play(scenario, seed="2")["digest"] != again["one"]["digest"]


def test_the_digest_does_not_depend_on_pythons_hash_seed(scenario: Path) -> None:
    """Nothing iterates a set of strings: two processes with different hash seeds agree, also with this one."""
    code = """if True:
        import sys
        from fedemu import experiment
        from fedemu.compute.inline import inline
        from fedemu.scenario import load
        with inline()() as compute:
            print(experiment.run(load(sys.argv[1]).cells[0], compute)["digest"])
    """
    digests = [
        subprocess.run(
            [sys.executable, "-c", code, str(scenario)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    ]
    assert digests == [play(scenario)["digest"]] * 2


def test_the_scenario_in_a_run_directory_gives_the_same_run(scenario: Path, tmp_path: Path) -> None:
    """Replaced keys are in it, the name too, and the question stays on top."""
    first = play(scenario, tmp_path / "first", **{"training.lr": "0.2", "seed": "7"})
    again = play(tmp_path / "first" / "scenario.yaml", tmp_path / "again")
    assert again["digest"] == first["digest"]
    assert again["name"] == "small"
    assert (tmp_path / "first" / "scenario.yaml").read_bytes() == (tmp_path / "again" / "scenario.yaml").read_bytes()
    assert (tmp_path / "first" / "scenario.yaml").read_text().startswith("# How long do three phones take?\n")


def test_the_result_has_the_keys_of_the_contract(scenario: Path, tmp_path: Path) -> None:
    """And speaks of the same run as the log: its digest is the file's, its time that of the last round's close."""
    result = play(scenario, tmp_path / "run")
    assert result == json.loads((tmp_path / "run" / "result.json").read_text())
    assert list(result) == list(KEYS)
    assert {key: set(result[key]) for key, inner in KEYS.items() if inner} == {k: v for k, v in KEYS.items() if v}
    hashed = subprocess.run(
        ["sha256sum", tmp_path / "run" / "events.jsonl"], capture_output=True, text=True, check=True
    ).stdout
    assert hashed.startswith(result["digest"])
    log = events(tmp_path / "run")
    closed = [event for event in log if event["event"] == "RoundClosed"]
    assert [event["round"] for event in closed] == [1, 2]
    assert result["emulated_seconds"] == closed[-1]["at"] == log[-1]["time"]
    assert result["bytes"]["down"] == sum(event.get("bytes", 0) for event in log if event["event"] == "TaskSent")
    assert result["target"]["reached"] is False
    assert result["stopped_by"] == log[-1]["reason"] == "rounds"
    assert 0.5 < result["final"]["accuracy"] < 0.99


def test_a_failing_training_ends_the_run_and_leaves_a_valid_run_directory(
    scenario: Path, tmp_path: Path, failing
) -> None:
    """The second client to train fails: one error with its message, and RunFinished closes the log."""

    seen = []
    with inline()() as compute, pytest.raises(RunError, match=r"^the graphics card is on fire$"):
        experiment.run(load(scenario).cells[0], failing(compute, 2), observers=[seen.append], out=tmp_path / "run")
    assert isinstance(seen[-1], RunFinished)
    last, at = events(tmp_path / "run")[-1], seen[-1].at
    assert last == {"at": at, "event": "RunFinished", "reason": "failed", "time": at}
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["stopped_by"] == "failed"
    assert result["final"] is None
    assert list(result) == list(KEYS)


def test_the_time_of_stalled_rounds_follows_the_law_of_the_maximum(tmp_path: Path) -> None:
    """128 examples of 7.8125 ms are c = 1 s of training; one stall of d = 4 s among three holds up the round.

    R = 4 rounds take R c at p = 0 and R (c + d) at p = 1, exactly. Stalls are coupled: who stalls at 20 % stalls at
    40 % too, so that no seed's time ever falls as p grows.
    """
    (tmp_path / "law.yaml").write_text(DELAY_LAW)
    times: dict[int, list[float]] = {}
    with inline()() as compute:
        for cell in load(tmp_path / "law.yaml").cells:
            times.setdefault(cell.seed, []).append(experiment.run(cell, compute)["emulated_seconds"])
    for series in times.values():
        assert series[0] == 4 * 1.0
        assert series[-1] == 4 * (1.0 + 4.0)
        assert series == sorted(series)
        assert all(math.isclose((time - 4) % 4, 0) for time in series)
    assert len({tuple(series) for series in times.values()}) > 1


def test_a_target_that_is_reached_ends_the_run(scenario: Path, tmp_path: Path) -> None:
    """Softmax regression is far beyond 50 % after a round or two of digits."""
    result = play(scenario, tmp_path / "run", stop="{accuracy: 50%, rounds: 20}")
    assert result["stopped_by"] == "accuracy"
    assert result["target"]["reached"]
    assert result["target"]["time"] == result["final"]["time"] == result["emulated_seconds"]
    names = [event["event"] for event in events(tmp_path / "run")]
    assert names[-1] == "RunFinished"
    assert names.count("TargetReached") == 1
    assert names.count("ClientLeft") == 3


def test_nothing_is_written_without_a_directory(scenario: Path, tmp_path: Path) -> None:
    """The scenario stays the only file."""
    play(scenario)
    assert [path.name for path in tmp_path.iterdir()] == ["small.yaml"]


SCENARIO_OF_A_CUT = """\
clock: real
dataset: {kind: digits, examples: 100}
partition: {kind: iid}
model: {kind: softmax}
strategy: {kind: fedavg}
clients:
  a: {count: 2, device: {kind: constant, per_example: 1ms}, link: {schedule: [{at: 200ms, lasting: 1h, cut: {}}]}}
stop: {time: 500ms}
"""


@pytest.mark.timeout(30)
def test_a_run_ends_though_its_clients_cannot_hear_that_it_does(tmp_path: Path, monkeypatch) -> None:
    """Cut off for an hour from 0.2 s on; time is over at 0.5 s, and half a second later nobody is waited for."""
    monkeypatch.setattr(server, "PARTING", 0.5)
    (tmp_path / "cut.yaml").write_text(SCENARIO_OF_A_CUT)
    with inline()() as compute:
        result = experiment.run(load(tmp_path / "cut.yaml").cells[0], compute)
    assert (result["stopped_by"], result["emulated_seconds"]) == ("time", 0.5)
