"""500 clients, a model of 25 million parameters, 50 at work: a budget bounds the memory, and not the cohort."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

MODEL = """\
from torch import nn

class Wide(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.a, self.b = nn.Linear(64, 333_333), nn.Linear(333_333, classes)

    def forward(self, x):
        return self.b(self.a(x.flatten(1)).relu())

def wide(task, /):
    return Wide(task.classes)
"""
"""64 x 333,333 + 333,333 + 333,333 x 10 + 10 = 24,999,985 parameters, 100 MB."""

SCENARIO = """\
dataset: {kind: digits, examples: 500}
partition: {kind: iid}
model: {kind: 'wide:wide'}
training: {batch_size: full, lr: 0.001}
strategy: {kind: fedavg}
evaluate: {every: end}
rounds: {concurrency: 50}
clients:
  phones:
    count: 500
    device: {kind: constant, per_example: 10s}
    link: {delay: 40ms, up: {rate: 5Mbit/s}, down: {rate: 20Mbit/s}}
stop: {rounds: 1}
compute: {buffer: 500MB}
"""
"""All alike: fifty models arrive in the same moment, and fifty updates."""

RUN = """\
import json, re, threading, time
from pathlib import Path
from fedemu import experiment
from fedemu.scenario import load

def memory(key):
    return 1024 * int(re.search(key + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

peak = {"RssAnon": 0, "RssFile": 0}

def watch():
    while True:
        peak.update({key: max(most, memory(key)) for key, most in peak.items()})
        time.sleep(0.005)

if __name__ == "__main__":
    (cell,) = load("wide.yaml").cells
    before = {key: memory(key) for key in peak}
    threading.Thread(target=watch, daemon=True).start()
    with experiment.workers(cell.scenario) as compute:
        result = experiment.run(cell, compute)
        facts = {"peak": compute.buffer.peak, "held": compute.buffer.held, "filed": compute.buffer.filed}
    print(json.dumps({"before": before, "peak": peak, "buffer": facts, "result": result}))
"""

MODEL_SIZE = 4 * 24_999_985


def test_fifty_updates_of_100_mb_wait_within_their_budget(tmp_path: Path) -> None:
    """500 MB wait in memory, all else in files; beside them ten models' worth at most.

    They are the global model and the next one, the float64 sum (two), the first update of the round, a message that is
    being put together, what lies pickled before the workers, and what comes back from them. Mapped files do not count:
    they are the kernel's cache of what is on the disk, which it takes back where memory is short.
    """
    (tmp_path / "wide.py").write_text(MODEL)
    (tmp_path / "wide.yaml").write_text(SCENARIO)
    (tmp_path / "run.py").write_text(RUN)
    run = subprocess.run(
        [sys.executable, "run.py"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    facts = json.loads(run.stdout.splitlines()[-1])
    buffer, result = facts["buffer"], facts["result"]
    for key in ("before", "peak", "buffer"):
        print(key, {name: f"{size / 1e6:.0f} MB" for name, size in facts[key].items()})
    assert result["updates"]["aggregated"] == 50
    assert 50 * MODEL_SIZE < result["bytes"]["up"] < 50 * MODEL_SIZE * 1.001
    assert buffer["peak"] <= 500e6
    assert buffer["held"] == 0
    assert buffer["filed"] >= 80 * MODEL_SIZE  # of fifty models and fifty updates, five each fit
    assert facts["peak"]["RssAnon"] - facts["before"]["RssAnon"] < 500e6 + 10 * MODEL_SIZE
