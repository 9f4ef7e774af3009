"""One seed, one event log: whatever carries the messages, however Python hashes, and however busy the machine is."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROUGH = ROOT / "scenarios" / "rough.yaml"
"""50 clients, jitter, lost calls, retries, deadlines, stragglers, training in a pool of processes, cancellations."""

RUNS = 5
"""Of each transport under each hash seed."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@contextmanager
def replicas(transport: str, seed: int, runs: int = RUNS, without: str = "") -> Iterator["subprocess.Popen[str]"]:
    """Run the scenario in a process of its own, which prints the digests."""
    command = [sys.executable, "-m", "tests.slow.replicas", str(ROUGH), transport, str(runs)]
    with subprocess.Popen(
        [*command, *([without] if without else [])],
        env={**os.environ, "PYTHONHASHSEED": str(seed)},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL if without else None,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def noise() -> Iterator[None]:
    """Keep a core busy."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        try:
            yield
        finally:
            process.kill()


def digests(process: "subprocess.Popen[str]") -> list[str]:
    """Wait for a process, and return what it printed."""
    return process.communicate(timeout=600)[0].split()


def test_sixty_runs_have_one_digest() -> None:
    """20 in memory, 20 over Unix sockets, 20 over TCP, three processes at a time on a machine that is busy besides."""
    found: dict[tuple[str, int], list[str]] = {}
    for seed in range(4):
        with ExitStack() as stack:
            if seed % 2:
                stack.enter_context(noise())
            processes = {
                transport: stack.enter_context(replicas(transport, seed))
                for transport in ("memory", "grpc-unix", "grpc")
            }
            for transport, process in processes.items():
                found[transport, seed] = digests(process)
    assert all(len(of_one) == RUNS for of_one in found.values()), found
    assert len({digest for of_one in found.values() for digest in of_one}) == 1, found


@pytest.mark.parametrize("without", ["gate", "order"])
def test_without_the_gate_or_its_order_they_have_more_than_one(without: str) -> None:
    """The test above can fail: effects that happen as the real world has it, or ties that it decides, differ."""
    with replicas("grpc", 0, 4, without) as process:
        assert len(set(digests(process))) > 1
