"""Processes on the real clock and a proxy, scraped by a real Prometheus while they work: every query has an answer."""

import re
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from tests.docker.prometheus import Prometheus, needs_prometheus, prometheus
from tests.docker.test_queries import QUERIES, ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), needs_prometheus]

RULES = ROOT / "docker" / "prometheus"

SCENARIO = """\
name: scraped
dataset: {kind: digits, examples: 300}
partition: {kind: iid}
model: {kind: softmax}
training: {epochs: 1, batch_size: 16, lr: 0.1}
strategy: {kind: fedavg}
rounds: {concurrency: 3, deadline: 1s, quorum: 1}
clients:
  phones:
    count: 2
    device: {kind: lognormal, per_example: 4ms, sigma: 0.5, energy: {compute: 2W}}
    link: {delay: 20ms, drop: 20%, up: {rate: 5Mbit/s}, down: {rate: 20Mbit/s}, retry: {attempts: 4, timeout: 300ms}}
  laptops:
    count: 1
    device: {kind: constant, per_example: 12ms, energy: {compute: 20W}}
    link: {delay: 5ms, up: {rate: 50Mbit/s}, down: {rate: 50Mbit/s}}
stop: {accuracy: 99%, rounds: 15}
targets: {accuracy: [60%]}
"""

SCRAPED = """\
global: {{evaluation_interval: 1s}}
rule_files: [{rules}/rules.yml, {rules}/alerts.yml]
scrape_configs:
- job_name: server
  scrape_interval: 500ms
  static_configs: [{{targets: ['127.0.0.1:{server}']}}]
- job_name: clients
  scrape_interval: 500ms
  static_configs: [{{targets: [{clients}]}}]
- job_name: proxy
  scrape_interval: 500ms
  static_configs: [{{targets: ['127.0.0.1:{proxy}']}}]
"""


def recorded() -> list[str]:
    """Return the names of the recording rules."""
    return re.findall(r"- record: (\S+)", (RULES / "rules.yml").read_text())


def proxy_queries() -> dict[str, str]:
    """Return the examples of METRICS.md's table of the proxy by metric."""
    page = (ROOT / "METRICS.md").read_text()
    return dict(re.findall(r"^\| `(fedemu_proxy_\w+)` \|.*\| `(.+)` \|$", page, re.MULTILINE))


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for it in sockets:
            it.bind(("127.0.0.1", 0))
        return [it.getsockname()[1] for it in sockets]


@contextmanager
def process(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run fedemu inside the context; its output is a file of the folder."""
    command = [sys.executable, "-m", "fedemu", *arguments]
    with (folder / "output").open("ab") as output:
        running = subprocess.Popen(command, cwd=folder, stdout=output, stderr=output)
        try:
            yield running
        finally:
            running.terminate()
            running.wait(30)


def echo(upstream: socket.socket) -> None:
    """Answer one connection with what it sends."""
    with upstream, upstream.accept()[0] as connection:
        while data := connection.recv(1000):
            connection.sendall(data)


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Prometheus, float, float]]:
    """A Prometheus that has scraped a server, three clients and a proxy, and from when to when."""
    folder = tmp_path_factory.mktemp("scraped")
    (folder / "scraped.yaml").write_text(SCENARIO)
    (folder / "link.yaml").write_text("delay: 20ms\n")
    listen, server, proxy, through, *clients = free_ports(7)
    targets = ", ".join(f"'127.0.0.1:{port}'" for port in clients)
    upstream = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=echo, args=[upstream], daemon=True).start()
    start = time.time()
    with ExitStack() as stack:
        config = SCRAPED.format(rules=RULES, server=server, clients=targets, proxy=proxy)
        it = stack.enter_context(prometheus(folder, config=config))
        address = f"127.0.0.1:{listen}"
        serve = ["serve", "scraped.yaml", "--listen", address, "--metrics-port", str(server), "--linger", "3s"]
        serving = stack.enter_context(process(folder, *serve))
        for group, port in zip(("phones", "phones", "laptops"), clients, strict=True):
            join = ["join", "--server", address, "--group", group, "--metrics-port", str(port)]
            stack.enter_context(process(folder, *join))
        ends = ["--listen", f"127.0.0.1:{through}", "--upstream", f"127.0.0.1:{upstream.getsockname()[1]}"]
        stack.enter_context(process(folder, "proxy", *ends, "--link", "link.yaml", "--metrics-port", str(proxy)))
        connection = stack.enter_context(dialled(through))
        while serving.poll() is None:
            connection.sendall(b"x" * 500)
            assert connection.recv(1000)
            time.sleep(0.1)
        assert serving.returncode == 0, (folder / "output").read_text()
        yield it, start, time.time()


def dialled(port: int) -> socket.socket:
    """Return a connection to a process that may not be there yet."""
    end = time.monotonic() + 60
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=10)
        except OSError:
            assert time.monotonic() < end
            time.sleep(0.1)


def test_every_process_was_scraped(scraped: tuple[Prometheus, float, float]) -> None:
    """A server, three clients and a proxy."""
    it, start, end = scraped
    up = [labels["job"] for labels in it.ever("max_over_time(up[5m]) == 1", start, end)]
    assert sorted(up) == ["clients", "clients", "clients", "proxy", "server"]


@pytest.mark.parametrize("name", QUERIES)
def test_a_query_has_an_answer_while_processes_are_scraped(name: str, scraped: tuple[Prometheus, float, float]) -> None:
    """A number, at some time of the run."""
    it, start, end = scraped
    query = QUERIES[name].replace("monitored/synchronous/seed-1", "scraped")
    assert it.ever(query, start, end), query


@pytest.mark.parametrize("name", recorded())
def test_a_recording_rule_has_recorded_something(name: str, scraped: tuple[Prometheus, float, float]) -> None:
    """The usual questions about a run of half a minute; no alert fires but, on a busy machine, the one about delays."""
    it, start, end = scraped
    assert it.ever(name, start, end)
    alerts = {labels["alertname"] for labels in it.ever('ALERTS{alertstate="firing"}', start, end)}
    assert alerts <= {"FedemuDelaysWrong"}


@pytest.mark.parametrize("metric", proxy_queries())
def test_an_example_about_a_proxy_has_an_answer(metric: str, scraped: tuple[Prometheus, float, float]) -> None:
    """All seven of them."""
    it, start, end = scraped
    assert len(proxy_queries()) == 7
    assert it.ever(proxy_queries()[metric], start, end)


def test_the_runs_of_a_grid_have_the_labels_that_an_export_gives_them(tmp_path: Path) -> None:
    """One after the other at the same port, a second each after they are over."""
    [port] = free_ports(1)
    seen: set[str] = set()
    scenario = str(ROOT / "tests" / "docker" / "monitored.yaml")
    with process(tmp_path, "run", scenario, "--metrics-port", str(port), "--linger", "1s") as run:
        while run.poll() is None:
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
                seen |= set(re.findall(r'run="([^"]*)"', answer.read().decode()))
            time.sleep(0.1)
        assert run.returncode == 0
    assert seen == {f"monitored/{variant}/seed-1" for variant in ("synchronous", "buffered", "strict")}
