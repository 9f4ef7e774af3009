"""A run that is killed, and goes on: real processes, and a kill that nobody can catch."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SCENARIO = """\
dataset: {kind: digits}
partition: {kind: iid}
model: {kind: twonn, hidden: 400}
training: {epochs: 20, batch_size: 8, lr: 0.05}
strategy: {kind: scaffold}
rounds: {concurrency: 8, goal: 4, barrier: false}
evaluate: {every: 4}
clients:
  phones:
    count: 16
    device: {kind: pareto, per_example: 10ms, shape: 1.5}
    link: {delay: 40ms, up: {rate: 1Mbit/s}, down: {rate: 5Mbit/s}}
stop: {rounds: 60}
"""


def run(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "fedemu", "run", "long.yaml", "--quiet", *arguments],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_a_run_that_was_killed_goes_on_to_the_log_that_it_would_have_had(tmp_path: Path) -> None:
    """SIGKILL to all its processes, some seconds after the first checkpoint; then --resume, without training again."""
    (tmp_path / "long.yaml").write_text(SCENARIO)
    killed = run(tmp_path, "--out", "killed")
    started = time.monotonic()
    while not (tmp_path / "killed/checkpoint/last.safetensors").exists():
        assert killed.poll() is None, "the run was over before its first checkpoint"
        time.sleep(0.1)
    time.sleep(2)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    lost = time.monotonic() - started
    resumed = run(tmp_path, "--out", "killed", "--resume")
    _, said = resumed.communicate()
    assert resumed.returncode == 0, said
    assert "killed: going on from round " in said
    whole = run(tmp_path, "--out", "whole")
    whole.communicate()
    results = [json.loads((tmp_path / name / "result.json").read_text()) for name in ("killed", "whole")]
    print(
        f"killed after {lost:.1f} s; went on for {results[0]['wall_seconds']} s, whole {results[1]['wall_seconds']} s"
    )
    assert results[0]["digest"] == results[1]["digest"]
    assert results[0]["final"] == results[1]["final"]
    assert not (tmp_path / "killed/checkpoint").exists()
