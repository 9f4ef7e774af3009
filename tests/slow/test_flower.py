"""S1's experiment as the paper ran it, with an unmodified Flower app: the delay is in the link, not in client.py.

One server and three clients, each behind a proxy of its own. The paper's 3 to 5 seconds are scaled down to one.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import pytest
from scipy import stats

from fedemu.rng import stream

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

APP = Path(__file__).parents[2] / "scenarios" / "papers" / "s1-flower-delay" / "flower"
CLIENTS, ROUNDS, DURATION = 3, 40, 1.0
FLOWER = "flwr==1.41.0"
"""A release that has start_server and start_client: it is not among fedemu's own dependencies, whose versions clash."""


@pytest.fixture(scope="session")
def flower(pytestconfig: pytest.Config) -> str:
    """A Python that has Flower, in an environment of its own that is kept from run to run."""
    folder = pytestconfig.cache.mkdir("flower")
    python = folder / "bin" / "python"
    ready = folder / FLOWER
    if not ready.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        install = [python, "-m", "pip", "install", "--quiet", FLOWER]
        if (done := subprocess.run(install, capture_output=True, text=True, check=False)).returncode:
            pytest.skip(f"{FLOWER} cannot be installed: {done.stderr.strip().splitlines()[-1]}")
        ready.touch()
    return str(python)


class Process:
    """A process whose stderr goes to a file."""

    def __init__(self, stack: ExitStack, name: str, folder: Path, *command: str) -> None:
        self.err = folder / f"{name}.err"
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "GRPC_VERBOSITY": "NONE"}
        with self.err.open("w") as err:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=err, text=True, env=environment)
        stack.callback(self.end)

    def says(self, pattern: str) -> str:
        """Wait until stderr has the pattern; return its group."""
        end = time.monotonic() + 60
        while (match := re.search(pattern, self.err.read_text())) is None:
            assert self.process.poll() is None, self.err.read_text()
            assert time.monotonic() < end, self.err.read_text()
            time.sleep(0.05)
        return match[1] if match.groups() else match[0]

    def output(self) -> str:
        """Wait for its end; return its stdout."""
        out, _ = self.process.communicate(timeout=240)
        assert self.process.returncode == 0, self.err.read_text()
        return out

    def end(self) -> None:
        self.process.terminate()
        self.process.communicate(timeout=30)


def round_times(flower: str, folder: Path, probability: float, port: int) -> list[float]:
    """Return the durations of the rounds after the first, which begins before all clients are there."""
    link = folder / "link.yaml"
    link.write_text(f"delay: 5ms\nrate: 100Mbit/s\nstall: {{probability: {probability}, duration: {DURATION}s}}\n")
    address = f"127.0.0.1:{port}"
    with ExitStack() as stack:
        server = Process(
            stack, "server", folder, flower, str(APP / "server.py"), address, str(ROUNDS + 1), str(CLIENTS)
        )
        server.says("initial parameters")
        clients = []
        for number in range(CLIENTS):
            arguments = ["--listen", "127.0.0.1:0", "--upstream", address, "--link", str(link), "--seed", str(number)]
            code = f"import sys; from fedemu.cli import main; sys.exit(main(['proxy', *{arguments}]))"
            proxy = Process(stack, f"proxy-{number}", folder, sys.executable, "-c", code)
            at = proxy.says(r"proxy at (\S+),")
            clients.append(Process(stack, f"client-{number}", folder, flower, str(APP / "client.py"), at, str(number)))
        ends = json.loads(server.output())["ends"]
        for client in clients:
            client.output()
    return [end - start for start, end in pairwise(ends[1:])]


def stalls(probability: float) -> list[bool]:
    """Return whether some client stalls in each round after the first, as the seeds of the proxies have it."""
    return [
        any(stream(seed, "proxy", 1, "up", "stall", "burst", number).random() < probability for seed in range(CLIENTS))
        for number in range(2, ROUNDS + 2)
    ]


@pytest.fixture
def ports() -> Iterator[int]:
    """Ports that are probably free; Flower's server cannot choose one itself."""
    return iter(range(20_000 + os.getpid() % 10_000, 40_000))


def test_round_times_of_an_unmodified_flower_app_follow_the_law(
    flower: str, tmp_path: Path, ports: Iterator[int]
) -> None:
    """c + d (1 - (1-p)^3), within the 99.9 % interval of 40 rounds; and every round is late that the seeds say is.

    c is what rounds take at p = 0; a late round takes d more.
    """
    means = {}
    for probability in (0.0, 0.4, 0.8):
        folder = tmp_path / str(probability)
        folder.mkdir()
        times = round_times(flower, folder, probability, next(ports))
        means[probability] = sum(times) / ROUNDS
        usual = means[0.0]
        late = [time > usual + DURATION / 2 for time in times]
        chance = 1 - (1 - probability) ** CLIENTS
        low, high = stats.binom.interval(0.999, ROUNDS, chance) if probability else (0, 0)
        law = usual + DURATION * chance
        print(
            f"p = {probability:.0%}: {means[probability]:.3f} s a round, law {law:.3f} s, {sum(late)} of {ROUNDS} late"
        )
        assert late == stalls(probability)
        assert low <= sum(late) <= high
        slack = 0.15 * DURATION  # c is training on this machine, whose load changes from one run to the next
        assert usual + DURATION * low / ROUNDS - slack <= means[probability] <= usual + DURATION * high / ROUNDS + slack
