"""Ctrl-C while several runs are at work in processes of their own: all end soon, and say that they were interrupted."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

SCENARIO = """\
dataset: {kind: digits, examples: 100}
partition: {kind: iid}
model: {kind: softmax}
strategy: {kind: fedavg}
clients:
  phones: {count: 2, device: {kind: constant, per_example: 1ms}}
variants:
  short: {stop.rounds: 1}
  long: {stop.rounds: 100000000}
  longer: {stop.rounds: 100000001}
  never: {stop.rounds: 100000002}
stop: {rounds: 1}
"""


def wait_for(condition, seconds: float = 60.0) -> None:
    """Return when it is true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def is_gone(group: int) -> bool:
    """Tell whether no process of a group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize(
    ("by", "all_of_them"),
    [(signal.SIGINT, True), (signal.SIGINT, False), (signal.SIGTERM, False)],
    ids=["from the terminal", "to the parent", "termination"],
)
def test_ctrl_c_ends_all_runs_within_seconds_and_they_say_so(
    tmp_path: Path, by: signal.Signals, all_of_them: bool
) -> None:
    """Two of four are at work, one is over and one has not begun: status 130, and no process is left."""
    (tmp_path / "grid.yaml").write_text(SCENARIO)
    command = [sys.executable, "-m", "fedemu", "run", "grid.yaml", "--jobs", "2", "--out", "out"]
    out = tmp_path / "out"
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            wait_for(lambda: all((out / name / "seed-1" / "events.jsonl").exists() for name in ("long", "longer")))
            time.sleep(1.0)
            sent = time.monotonic()
            if all_of_them:
                os.killpg(process.pid, by)
            else:
                process.send_signal(by)
            said, told = process.communicate(timeout=20)
            latency = time.monotonic() - sent
            wait_for(lambda: is_gone(process.pid), 5.0)
        finally:
            if not is_gone(process.pid):
                os.killpg(process.pid, signal.SIGKILL)
    assert latency < 5.0
    assert (process.returncode, said) == (130, "")
    assert told.splitlines()[-1] == "fedemu: interrupted"
    assert "Traceback" not in told
    ends = {path.parts[-3]: json.loads(path.read_text())["stopped_by"] for path in out.rglob("result.json")}
    assert ends == {"short": "rounds", "long": "interrupted", "longer": "interrupted"}
    for name in ("long", "longer"):
        last = json.loads((out / name / "seed-1" / "events.jsonl").read_text().splitlines()[-1])
        assert (last["event"], last["reason"]) == ("RunFinished", "interrupted")
    assert [row.split(",")[0] for row in (out / "summary.csv").read_text().splitlines()] == ["variant", "short"]
