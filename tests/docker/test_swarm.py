"""docker/stack.yaml on a swarm of one node."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker.engine import ROOT, SETTINGS, facts, free_port, run, succeeds
from tests.docker.prometheus import Prometheus

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.usefixtures("images")]

STACK = "fedemu-test-swarm"
SCENARIO = """\
dataset: {kind: digits, examples: 400}
partition: {kind: iid}
model: {kind: softmax}
training: {epochs: 1, batch_size: 16, lr: 0.1}
strategy: {kind: fedavg}
clients:
  phones: {count: 5, link: {delay: 20ms, retry: {timeout: 1min}}, device: {kind: constant, per_example: 5ms}}
  laptops: {count: 3, link: {retry: {timeout: 1min}}}
stop: {rounds: 20}
"""


def tasks(service: str) -> list[str]:
    """Return the containers of a service of the stack."""
    label = f"label=com.docker.swarm.service.name={STACK}_{service}"
    return run("docker", "ps", "--all", "--quiet", "--no-trunc", "--filter", label).split()


def wait_for(what: str, service: str, state: str, count: int, patience: float = 120) -> None:
    end = time.monotonic() + patience
    while sum(facts(each)["State"]["Status"] == state for each in tasks(service)) != count:
        assert time.monotonic() < end, f"{what}\n{run('docker', 'stack', 'ps', '--no-trunc', STACK, status=None)}"
        time.sleep(1)


@pytest.fixture
def swarm(images: None) -> Iterator[None]:
    """A swarm of this engine alone, without what the test deploys when it is over."""
    joined = succeeds("docker", "node", "ls")
    if not joined:
        run("docker", "swarm", "init", "--advertise-addr", "127.0.0.1", "--listen-addr", "127.0.0.1")
    try:
        yield
    finally:
        run("docker", "stack", "rm", STACK, status=None)
        end = time.monotonic() + 60
        label = ["--filter", f"label=com.docker.stack.namespace={STACK}", "--quiet"]
        while run("docker", "ps", "--all", *label) or run("docker", "network", "ls", *label):
            assert time.monotonic() < end, "the stack does not go away"
            time.sleep(0.5)
        if volumes := run("docker", "volume", "ls", *label).split():
            run("docker", "volume", "rm", *volumes)
        if not joined:
            run("docker", "swarm", "leave", "--force")
            run("docker", "network", "rm", "docker_gwbridge", status=None)  # the swarm's


def test_a_stack_runs_on_a_swarm(swarm: None, tmp_path: Path) -> None:
    """Two phones and a laptop; Prometheus finds them all by the names of their services."""
    (tmp_path / "scenario.yaml").write_text(SCENARIO)
    settings = {"FEDEMU_SCENARIO": str(tmp_path / "scenario.yaml"), "FEDEMU_PHONES": "2", "FEDEMU_LAPTOPS": "1"}
    settings |= SETTINGS | {"FEDEMU_LINGER": "6s", "PROMETHEUS_PORT": free_port()}
    deploy = ["docker", "stack", "deploy", "--resolve-image", "never", "--compose-file"]
    start = time.time()
    run(*deploy, str(ROOT / "docker" / "stack.yaml"), STACK, environment=settings)
    wait_for("the server has not ended", "server", "exited", 1)
    [server] = tasks("server")
    assert facts(server)["State"]["ExitCode"] == 0, run("docker", "logs", server)
    run("docker", "cp", f"{server}:/runs/run", str(tmp_path / "served"))
    assert json.loads((tmp_path / "served" / "result.json").read_text())["updates"]["aggregated"] == 60
    found = Prometheus(f"http://127.0.0.1:{settings['PROMETHEUS_PORT']}").ever(
        "max_over_time(up[5m]) == 1", start, time.time()
    )
    assert sorted(labels.get("service", labels["job"]) for labels in found) == ["laptops", "phones", "phones", "server"]
