"""A server that is killed and started again: nothing that it had acknowledged is lost, and the run goes on."""

import json
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from safetensors.torch import load_file

from fedemu import experiment
from fedemu.compute.inline import inline
from fedemu.scenario import load

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SCENARIO = """\
dataset: {kind: digits}
partition: {kind: dirichlet, alpha: 1.0}
model: {kind: twonn, hidden: 16}
training: {batch_size: 32, lr: 0.1}
strategy: {kind: fedavgm, momentum: 0.9}
clients:
  phones:
    count: 2
    link: {delay: 5ms, retry: {timeout: 2min}}
    device: {kind: constant, per_example: 2ms}
  laptops: {count: 1, link: {retry: {timeout: 2min}}}
stop: {rounds: 6}
compute: {kind: inline}
"""
"""A laptop has trained long before a phone has: to kill the server in between finds its update taken."""

ROUNDS = {
    "everybody": {},
    "half of them": {"clients.laptops.count": "4", "rounds": "{fraction: 50%, select: {kind: round-robin}}"},
    "by turns": {
        "rounds": "{concurrency: 3, goal: 2, barrier: false}",
        "strategy": "{kind: fedbuff}",
        "clients.laptops.device": "{kind: constant, per_example: 1ms}",
    },
}


class Federation:
    """A server and its clients, each a process."""

    def __init__(self, folder: Path, sets: Sequence[tuple[str, str]]) -> None:
        self.folder, self._sets = folder, [f"--set={key}={value}" for key, value in sets]
        self._address = f"unix:{folder}/socket"
        self.server = self.serve()
        self._clients: list[subprocess.Popen[bytes]] = []

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.folder / "said").open("ab") as said:
            command = [sys.executable, "-m", "fedemu", *arguments]
            return subprocess.Popen(command, stderr=said, stdout=said, cwd=self.folder)

    def serve(self) -> subprocess.Popen[bytes]:
        listen = ("--listen", self._address, "--out", "run", "--resume")
        self.server = self._start("serve", "three.yaml", *listen, *self._sets)
        return self.server

    def join(self, group: str) -> None:
        self._clients.append(self._start("join", "--server", self._address, "--group", group))

    @property
    def events(self) -> list[dict]:
        try:
            lines = (self.folder / "run" / "events.jsonl").read_bytes().splitlines(keepends=True)
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in lines if line.endswith(b"\n")]

    def kill(self, moment: Callable[[list[dict]], bool]) -> None:
        """Kill the server as soon as its log is such."""
        while not moment(self.events):
            assert self.server.poll() is None, (self.folder / "said").read_text()
            time.sleep(0.01)
        self.server.send_signal(signal.SIGKILL)
        self.server.wait()

    def says(self, pattern: str) -> None:
        """Wait until a process says so."""
        while re.search(pattern, (self.folder / "said").read_text()) is None:
            assert self.server.poll() is None, (self.folder / "said").read_text()
            time.sleep(0.05)

    def close(self) -> list[int]:
        """Return the statuses of all processes, once they have ended."""
        return [process.wait(120) for process in (self.server, *self._clients)]

    def stop(self) -> None:
        for process in (self.server, *self._clients):
            process.kill()
            process.wait()


@pytest.fixture
def federate(tmp_path: Path) -> Iterator[Callable[..., Federation]]:
    """Starts a federation of the scenario with some keys replaced."""
    started = []

    def begin(sets: dict[str, str]) -> Federation:
        (tmp_path / "three.yaml").write_text(SCENARIO)
        started.append(Federation(tmp_path, list(sets.items())))
        for group, seats in load(tmp_path / "three.yaml", list(sets.items())).cells[0].scenario.slots.items():
            for _ in seats:
                started[-1].join(group)
        return started[-1]

    yield begin
    for federation in started:
        federation.stop()


def in_mid_round(number: int) -> Callable[[list[dict]], bool]:
    """Return what tells whether that round or a later one is open, with the first update taken, and not about to close.

    Phones take their time.
    """

    def tell(events: list[dict]) -> bool:
        last = [event for event in events if event["event"] in ("RoundStarted", "RoundClosed", "UpdateReceived")][-2:]
        if [event["event"] for event in last] != ["RoundStarted", "UpdateReceived"] or last[0]["round"] < number:
            return False
        return any(client.startswith("phones") for client in last[0]["cohort"]) or len(last[0]["cohort"]) < 3

    return tell


@pytest.mark.parametrize("way", ROUNDS)
def test_a_server_that_is_killed_twice_learns_what_one_learns_that_is_not(federate, tmp_path, way):
    """In mid-round, with updates taken. Whoever has answered is not asked again; the others draw what they drew.

    Without a barrier it depends on who is first, so that the model may be another; no update is used twice or lost.
    """
    federation = federate(ROUNDS[way])
    for number in (2, 4):
        federation.kill(in_mid_round(number))
        kept = len(list((tmp_path / "run" / "checkpoint").glob("update-*.safetensors")))
        before = federation.events
        federation.serve()
        federation.says(rf"going on after round \d, with {kept} updates of the next")
        assert before == federation.events[: len(before)], "the log has lost what it had"
    assert not any(federation.close())
    events = federation.events
    kinds = Counter(event["event"] for event in events)
    begun = {event["round"]: event for event in events if event["event"] == "RoundStarted"}
    assert kinds["RunResumed"] == kinds["RoundFailed"] == 2
    assert [event["round"] for event in events if event["event"] == "RoundClosed"] == [1, 2, 3, 4, 5, 6]
    aggregated = sum(event["aggregated"] for event in events if event["event"] == "RoundClosed")
    assert aggregated + kinds["UpdateLost"] == kinds["TaskSent"], "every task has one end"
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["updates"]["aggregated"] == aggregated
    assert result["stopped_by"] == "rounds"
    assert not (tmp_path / "run" / "checkpoint").exists()
    if way == "by turns":
        return
    assert aggregated == sum(len(event["cohort"]) for event in begun.values())
    (cell,) = load(tmp_path / "three.yaml", list(ROUNDS[way].items())).cells
    with inline()() as compute:
        alone = experiment.run(cell, compute, out=tmp_path / "alone")
    assert result["final"]["accuracy"] == alone["final"]["accuracy"]
    ours, theirs = (load_file(tmp_path / run / "model.safetensors") for run in ("run", "alone"))
    for name, tensor in theirs.items():
        assert (ours[name] - tensor).abs().max() < 1e-6


def test_a_server_that_is_interrupted_goes_on_too(federate, tmp_path):
    """SIGTERM is what `docker stop` says: the log is closed, and its last line goes when the server goes on."""
    federation = federate({})
    while not in_mid_round(2)(federation.events):
        time.sleep(0.01)
    federation.server.send_signal(signal.SIGTERM)
    assert federation.server.wait(30) == 130
    assert federation.events[-1]["reason"] == "interrupted"
    federation.serve()
    assert not any(federation.close())
    assert [event["reason"] for event in federation.events if event["event"] == "RunFinished"] == ["rounds"]
    restarts = json.loads((tmp_path / "run" / "result.json").read_text())["restarts"]
    (resumed,) = [event for event in federation.events if event["event"] == "RunResumed"]
    assert restarts == {"count": 1, "seconds": resumed["down"]}
    again = federation.serve()  # of a run that is over
    assert again.wait(60) == 0
    assert "run: the run is over" in (tmp_path / "said").read_text()
