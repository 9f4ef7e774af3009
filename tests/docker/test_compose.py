"""docker/compose.yaml on a real engine: a server, its clients and a real Prometheus, in containers."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from safetensors.torch import load_file

from fedemu.cli import main
from tests.docker.engine import ROOT, Project, facts, project, run, says, scenario
from tests.docker.prometheus import Prometheus
from tests.docker.test_queries import panel_queries

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.usefixtures("images")]

SCENARIO = ROOT / "scenarios" / "containers.yaml"

MANY = """\
dataset: {kind: digits}
partition: {kind: iid}
model: {kind: softmax}
training: {epochs: 1, batch_size: 16, lr: 0.1}
strategy: {kind: fedavg}
clients:
  phones: {count: 1, link: {delay: 40ms, retry: {timeout: 2min}}, device: {kind: constant, per_example: 40ms}}
  laptops: {count: 1, link: {delay: 10ms, retry: {timeout: 2min}}}
stop: {rounds: 5}
"""


class Show(NamedTuple):
    """A run in containers that is over, and its Prometheus, which is still there."""

    folder: Path
    result: dict
    prometheus: Prometheus
    start: float
    end: float
    addresses: dict[str, set[str]]


def address(project: Project) -> str:
    """Return where a project's Prometheus answers on this machine."""
    [container] = project.containers("prometheus")
    return "http://" + run("docker", "port", container, "9090").split()[-1]


@pytest.fixture(scope="module")
def show(images: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Show]:
    """Five phones and three laptops have learned scenarios/containers.yaml."""
    folder, start = tmp_path_factory.mktemp("show"), time.time()
    with project("show", {"FEDEMU_LINGER": "8s"}) as it:
        it.up()
        says(it.server, "round 1/")
        addresses = {
            service: {
                network["IPAddress"]
                for container in it.containers(service)
                for network in facts(container)["NetworkSettings"]["Networks"].values()
            }
            for service in ("server", "phones", "laptops")
        }
        it.finish()
        served = it.fetch(folder)
        result = json.loads((served / "result.json").read_text())
        yield Show(folder, result, Prometheus(address(it)), start, time.time(), addresses)


def test_containers_learn_what_one_process_learns(show: Show) -> None:
    """All clients are in every round: only the order in which their updates are added may differ."""
    how = ["--clock", "virtual", "--transport", "memory", "--quiet", "--out", str(show.folder / "here")]
    assert main(["run", str(SCENARIO), *how]) == 0
    here = json.loads((show.folder / "here" / "result.json").read_text())
    assert show.result["target"]["reached"]
    assert "energy" in here
    assert "energy" not in show.result  # who is elsewhere knows what it has spent
    assert show.result["final"]["round"] == here["final"]["round"]
    assert show.result["final"]["accuracy"] == pytest.approx(here["final"]["accuracy"], abs=1e-5)
    models = [load_file(show.folder / name / "model.safetensors") for name in ("served", "here")]
    assert models[0].keys() == models[1].keys()
    assert max(float((models[0][name] - models[1][name]).abs().max()) for name in models[0]) < 1e-5


def test_every_container_was_scraped(show: Show) -> None:
    """Each by its own address, found by the name of its service."""
    found = show.prometheus.ever("max_over_time(up[5m]) == 1", show.start, show.end)
    scraped = {
        service: {labels["instance"].partition(":")[0] for labels in found if service in labels.values()}
        for service in ("server", "phones", "laptops")
    }
    assert scraped == show.addresses
    assert {service: len(addresses) for service, addresses in scraped.items()} == {
        "server": 1,
        "phones": 5,
        "laptops": 3,
    }


@pytest.mark.parametrize(("name", "query"), panel_queries().items())
def test_a_panel_has_data_of_containers(name: str, query: str, show: Show) -> None:
    """A number, at some time of the run."""
    assert show.prometheus.ever(query, show.start, show.end), f"{name}: {query}"


def test_thirty_clients_need_no_edit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Twelve phones and eighteen laptops by `--scale` alone; what each container takes is printed."""
    with project("thirty", scenario(tmp_path, MANY)) as it:
        begun = time.monotonic()
        it.up("server", "phones", "laptops", phones=12, laptops=18)
        says(it.server, r"serving \S+ at", patience=180)
        ready = time.monotonic() - begun
        says(it.server, r"round 1/", patience=60)
        clients = it.containers("phones") + it.containers("laptops")
        used = run("docker", "stats", "--no-stream", "--format", "{{.MemUsage}}", *clients)
        it.finish()
        served = it.fetch(tmp_path)
        size = facts(it.server)["Image"]
        image = int(run("docker", "image", "inspect", "--format", "{{.Size}}", size))
    memory = sorted(float(number) for number in re.findall(r"([\d.]+)MiB /", used))
    with capsys.disabled():
        print(
            f"\nimage {image / 1e6:.0f} MB; 30 clients: first round after {ready:.0f} s;"
            f" memory of a client {memory[0]:.0f} to {memory[-1]:.0f} MiB"
        )
    result = json.loads((served / "result.json").read_text())
    assert result["updates"] == {"aggregated": 150, "late": 0, "lost": 0, "rejected": 0}
    events = map(json.loads, (served / "events.jsonl").read_text().splitlines())
    joined = {event["client"] for event in events if event["event"] == "ClientJoined"}
    assert joined == {f"phones/{n}" for n in range(12)} | {f"laptops/{n}" for n in range(18)}
