"""A model of 1 GiB goes down and up over real gRPC between two processes, in little more than three times its size."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

MODEL = """\
from torch import nn
from torch.nn import functional

class Tower(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.classes = classes
        self.layers = nn.ModuleList(nn.utils.skip_init(nn.Linear, 2048, 2048, bias=False) for _ in range(64))
        for layer in self.layers:
            nn.init.eye_(layer.weight)

    def forward(self, x):
        x = functional.pad(x.flatten(1), (0, 2048 - 64))
        for layer in self.layers:
            x = layer(x)
        return x[:, : self.classes]

def tower(task, /):
    return Tower(task.classes)
"""
"""64 layers of 2048 x 2048 float32 make 256 Mi parameters, 1 GiB; the identity, so that nothing vanishes."""

SCENARIO = """\
dataset: {kind: digits, examples: 8}
partition: {kind: iid}
model: {kind: 'tower:tower'}
training: {batch_size: full, lr: 0.01}
strategy: {kind: fedavg}
evaluate: {every: end}
clients:
  phones: {count: 1}
stop: {rounds: 2}
compute: {kind: inline}
"""

RUN = """\
import re, sys
from pathlib import Path
from fedemu.cli import main
status = main(sys.argv[1:])
print("peak", re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1], file=sys.stderr)
sys.exit(status)
"""

SIZE = 2**30


def test_a_model_of_1_gib_takes_less_than_three_and_a_half_times_its_size_on_either_end(tmp_path: Path) -> None:
    """The server needs the current model, the update and the next one; the client the task, its copy, and gradients.

    Two rounds: what the first leaves behind would show in the second.
    """
    (tmp_path / "tower.py").write_text(MODEL)
    (tmp_path / "large.yaml").write_text(SCENARIO)
    errors = {name: tmp_path / f"{name}.err" for name in ("server", "client")}
    processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(name: str, *arguments: str) -> None:
        with errors[name].open("wb") as err:
            processes[name] = subprocess.Popen([sys.executable, "-c", RUN, *arguments], stderr=err, cwd=tmp_path)

    try:
        start("server", "serve", "large.yaml", "--listen", "127.0.0.1:0", "--out", "run")
        while (address := re.search(r"serving large at (\S+)", errors["server"].read_text())) is None:
            assert processes["server"].poll() is None, errors["server"].read_text()
            time.sleep(0.1)
        start("client", "join", "--server", address[1], "--group", "phones", "--allow", "tower")
        assert [process.wait(500) for process in processes.values()] == [0, 0], [e.read_text() for e in errors.values()]
    finally:
        for process in processes.values():
            process.kill()
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["updates"]["aggregated"] == 2
    assert result["final"]["loss"] is not None
    assert 2 * SIZE < result["bytes"]["up"] < 2 * SIZE * 1.001
    peaks = {name: int(error.read_text().split()[-1]) * 1024 / SIZE for name, error in errors.items()}
    print(f"peaks in models of 1 GiB: {peaks}; {result['emulated_seconds']:.1f} s")
    assert max(peaks.values()) < 3.5, peaks
