"""Containers that are killed in the middle of a run, cut off or stopped, and what becomes of it."""

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.docker.engine import Project, project, run, says, scenario

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.usefixtures("images")]

LEARNS = """\
dataset: {kind: digits}
partition: {kind: dirichlet, alpha: 1.0}
model: {kind: softmax}
training: {epochs: 1, batch_size: 16, lr: 0.05}
strategy: {kind: fedavg}
rounds: {deadline: 20s}
clients:
  phones:
    count: 3
    device: {kind: constant, per_example: 5ms}
    link: {delay: 20ms, jitter: 5ms, up: {rate: 5Mbit/s}, down: {rate: 20Mbit/s}, retry: {timeout: 30s}}
  laptops:
    count: 2
    device: {kind: constant, per_example: 2ms}
    link: {delay: 5ms, retry: {timeout: 30s}}
stop: {accuracy: 90%, rounds: 60}
"""

GOES_ON = """\
dataset: {kind: digits, examples: 200}
partition: {kind: iid}
model: {kind: softmax}
training: {epochs: 1, batch_size: 16, lr: 0.1}
strategy: {kind: fedavg}
rounds: {deadline: 3s, quorum: 1}
clients:
  phones: {count: 3, device: {kind: constant, per_example: 20ms}, link: {delay: 10ms}}
stop: {rounds: 1000}
"""
"""A round takes one second, and three where somebody does not answer."""


def parsed(lines: list[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines]


def of(events: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [event for event in events if event["event"] == kind]


def rounds_closed(it: Project) -> list[dict[str, Any]]:
    """Return the rounds that have closed so far; the last line may be half written."""
    return of(parsed([line for line in it.events() if line.endswith("}")]), "RoundClosed")


def closed_with(it: Project, aggregated: int, after: int, patience: float = 60) -> dict[str, Any]:
    """Wait for a round after the given one that closes with so many updates."""
    end = time.monotonic() + patience
    while True:
        found = [each for each in rounds_closed(it) if each["round"] > after and each["aggregated"] == aggregated]
        if found:
            return found[0]
        assert time.monotonic() < end, rounds_closed(it)[-5:]
        time.sleep(0.5)


def test_what_was_acknowledged_outlives_clients_and_server(tmp_path: Path) -> None:
    """Two clients are killed and one comes back, to its slot; then the server is killed and started again."""
    with project("crashes", scenario(tmp_path, LEARNS)) as it:
        it.up("server", "phones", "laptops", phones=3, laptops=2)
        says(it.server, r"round [2-9]/", patience=120)
        dead, back, _ = it.containers("phones")
        [slot] = says(back, r"joined as (\S+):")
        run("docker", "kill", dead, back)
        run("docker", "start", back)
        assert says(back, r"joined as (\S+):", times=2) == [slot, slot]
        closed = rounds_closed(it)[-1]["round"]
        closed_with(it, aggregated=4, after=closed)
        before = it.events()
        run("docker", "kill", it.server)
        run("docker", "start", it.server)
        it.finish()
        served = it.fetch(tmp_path)
        logs = {container: run("docker", "logs", container) for container in it.containers("phones")[1:]}
    lines = (served / "events.jsonl").read_text().splitlines()
    assert json.loads((served / "result.json").read_text())["target"]["reached"]
    # what the log said stays: but for half a line, and a close of a round whose model no checkpoint has
    known = [line for line in before if line.endswith("}") and '"RoundClosed"' not in line.rsplit('"event"', 1)[-1]]
    kept = {(each["client"], each["round"]) for each in of(parsed(known), "UpdateReceived")}
    events = parsed(lines)
    [resumed] = of(events, "RunResumed")
    received = Counter((each["client"], each["round"]) for each in of(events, "UpdateReceived"))
    assert kept <= received.keys()
    for lost in of(events, "UpdateLost"):  # what came and was not written down yet was not acknowledged
        if lost["reason"] == "the server stopped" and received[lost["client"], lost["round"]] > 1:
            received[lost["client"], lost["round"]] -= 1
    assert set(received.values()) == {1}  # none was taken twice
    numbers = [each["round"] for each in of(events, "RoundClosed")]
    assert numbers == list(range(1, len(numbers) + 1))
    assert sum(each["aggregated"] for each in of(events, "RoundClosed")) == received.total()
    assert resumed["at"] > 0
    for log in logs.values():
        assert log.count("the run is over") == 1


def test_a_round_closes_without_who_is_away(tmp_path: Path) -> None:
    """At its deadline, with the updates of the other two; and with three once the third is there again."""
    with project("away", scenario(tmp_path, GOES_ON)) as it:
        it.up("server", "phones", phones=3)
        says(it.server, r"round [2-9]/", patience=120)
        network, (paused, cut, _) = f"{it.name}_default", it.containers("phones")
        closed = [
            missed(it, ["docker", "pause", paused], ["docker", "unpause", paused]),
            missed(
                it,
                ["docker", "network", "disconnect", network, cut],
                ["docker", "network", "connect", "--alias", "phones", network, cut],
            ),
        ]
        events = parsed([line for line in it.events() if line.endswith("}")])
    for each in closed:
        assert each["duration"] >= 3.0
        assert "late" in [event["reason"] for event in of(events, "UpdateLost") if event["round"] == each["round"]]
    assert not of(events, "RoundFailed")


def missed(it: Project, begin: list[str], end: list[str]) -> dict[str, Any]:
    """Have a client go away and come back; return the first round that closed without it."""
    before = rounds_closed(it)[-1]["round"]
    run(*begin)
    without = closed_with(it, aggregated=2, after=before)
    run(*end)
    closed_with(it, aggregated=3, after=without["round"])
    return without
