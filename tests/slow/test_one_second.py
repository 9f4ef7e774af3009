"""50 clients that take 1 s each: what a round takes on either clock. README has the figures."""

import json
import statistics
from pathlib import Path

import pytest

from fedemu import experiment
from fedemu.compute.inline import inline
from fedemu.scenario import load

SCENARIO = Path(__file__).parents[2] / "scenarios" / "one-second.yaml"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


def threads(clients: int) -> int:
    """Return how many threads a run over gRPC has, with those that are not Python's."""
    settings = [("clients.phones.count", str(clients)), ("rounds.concurrency", str(clients)), ("stop.rounds", "1")]
    seen: list[int] = []
    with inline()() as compute:
        cell = load(SCENARIO, settings, transport="grpc").cells[0]
        experiment.run(cell, compute, observers=[lambda _: seen.append(len(list(Path("/proc/self/task").iterdir())))])
    return max(seen)


def test_no_client_has_a_thread_of_its_own() -> None:
    """One loop, one thread that trains, and gRPC's few: 45 clients more add none for each."""
    few = threads(5)
    assert threads(50) < few + 10


def rounds(out: Path, clock: str, transport: str) -> list[float]:
    """Return how long each round took."""
    cell = load(SCENARIO, clock=clock, transport=transport).cells[0]
    with inline()() as compute:
        experiment.run(cell, compute, out=out)
    events = map(json.loads, (out / "events.jsonl").read_text().splitlines())
    return [event["duration"] for event in events if event["event"] == "RoundClosed"]


@pytest.mark.parametrize("transport", ["memory", "grpc", "grpc-unix"])
def test_a_virtual_round_takes_a_second_exactly(tmp_path: Path, transport: str) -> None:
    """20 examples of 50 ms on ideal links."""
    assert rounds(tmp_path / "run", "virtual", transport) == [1.0] * 10


@pytest.mark.parametrize("transport", ["memory", "grpc"])
def test_a_real_round_takes_a_second_and_the_work_on_fifty_updates(tmp_path: Path, transport: str) -> None:
    """Never less than the clients take; how much more is this machine's: 25 ms when it is calm. Polling would fail."""
    took = rounds(tmp_path / "run", "real", transport)
    assert min(took) >= 1.0
    assert statistics.median(took) < 1.5
