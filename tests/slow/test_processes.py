"""Server and clients as operating-system processes, on the real clock and over real gRPC."""

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fedemu import durable, experiment
from fedemu.compute.inline import inline
from fedemu.journal import FILE
from fedemu.scenario import load

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

SCENARIO = """\
dataset: {kind: digits}
partition: {kind: dirichlet, alpha: 1.0}
model: {kind: twonn, hidden: 16}
training: {batch_size: 32, lr: 0.1}
strategy: {kind: fedavg}
clients:
  phones:
    count: 3
    link: {delay: 5ms, jitter: 2ms, up: {rate: 5Mbit/s}, down: {rate: 20Mbit/s}, retry: {timeout: 2min}}
    device: {kind: constant, per_example: 1ms}
  laptops:
    count: 2
    link: {retry: {timeout: 2min}}
server:
  link: {up: {rate: 50Mbit/s}, down: {rate: 50Mbit/s}}
stop: {rounds: 3}
compute: {kind: inline}
"""
"""A client that is slow to start is not sent its task again: on a loaded machine that takes more than 10 s."""

FOREIGN = """\
from torch import nn
print("foreign code has run")
def small(task, /):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, task.classes))
"""

Start = Callable[..., "Command"]


class Command:
    """A running `fedemu` command whose output goes to files."""

    def __init__(self, folder: Path, number: int, arguments: tuple[str, ...]) -> None:
        self.out, self.err = folder / f"{number}.out", folder / f"{number}.err"
        code = f"import sys; from fedemu.cli import main; sys.exit(main({list(arguments)}))"
        with self.out.open("w") as out, self.err.open("w") as err:
            self.process = subprocess.Popen([sys.executable, "-c", code], stdout=out, stderr=err, cwd=folder)

    def says(self, pattern: str, patience: float = 60.0) -> str:
        """Wait until stderr has the pattern; return its group."""
        end = time.monotonic() + patience
        while (match := re.search(pattern, self.err.read_text())) is None:
            assert self.process.poll() is None, self.err.read_text()
            assert time.monotonic() < end, self.err.read_text()
            time.sleep(0.05)
        return match[1] if match.groups() else match[0]

    def status_or_joined(self) -> int | None:
        """Wait until it has joined, which is None, or ended."""
        while "joined as" not in self.err.read_text():
            if self.process.poll() is not None:
                return self.process.returncode
            time.sleep(0.05)
        return None

    def status(self, patience: float = 90.0) -> int:
        return self.process.wait(patience)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts `fedemu` commands in the test's directory, and kills what is left of them."""
    commands: list[Command] = []

    def begin(*arguments: str) -> Command:
        commands.append(Command(tmp_path, len(commands), arguments))
        return commands[-1]

    yield begin
    for command in commands:
        command.process.kill()
        command.process.wait()


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    (tmp_path / "six.yaml").write_text(SCENARIO)
    return tmp_path / "six.yaml"


def serve(start: Start, *arguments: str, listen: str = "127.0.0.1:0") -> tuple[Command, str]:
    server = start("serve", "six.yaml", "--listen", listen, "--out", "run", *arguments)
    return server, server.says(r"serving \S+ at (\S+)")


def everybody(start: Start, address: str) -> list[Command]:
    return [start("join", "--server", address, "--group", group) for group in ["phones"] * 3 + ["laptops"] * 2]


def result_of(folder: Path) -> dict:
    return json.loads((folder / "run" / "result.json").read_text())


def events_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "run" / "events.jsonl").read_text().splitlines()]


def test_six_processes_learn_what_one_learns(scenario: Path, start: Start, tmp_path: Path) -> None:
    """Nobody is late without a deadline, so that the learning is the same to the last bit, on either clock.

    The metrics are scraped from outside all the while: accuracy is there during the run, the time to target after it.
    """
    with inline()() as compute:
        alone = experiment.run(load(scenario, [("stop.accuracy", "30%")]).cells[0], compute)
    assert alone["target"]["reached"]
    arguments = ("--set", "stop.accuracy=30%", "--metrics-port", "0", "--linger", "4s")
    server, address = serve(start, *arguments)
    metrics = server.says(r"metrics at (\S+)")
    clients = everybody(start, address)
    pages = []
    while server.process.poll() is None:
        try:
            with urllib.request.urlopen(metrics, timeout=5) as answer:
                pages.append(answer.read().decode())
        except OSError:
            pass  # it has just left
        time.sleep(0.2)
    assert [server.status(), *(client.status() for client in clients)] == [0] * 6
    result = result_of(tmp_path)
    for key in ("accuracy", "loss", "round"):
        assert result["final"][key] == alone["final"][key]
    assert result["bytes"] == alone["bytes"]
    assert result["updates"] == alone["updates"]
    assert result["transport"] == "grpc"
    assert result["clock"] == "real"
    assert "fedemu_accuracy_ratio{" not in pages[0]
    assert re.search(rf"fedemu_accuracy_ratio\{{[^}}]*\}} {result['final']['accuracy']}\n", pages[-1])
    to_target = re.search(r"fedemu_time_to_target_seconds\{[^}]*\} (\S+)\n", pages[-1])
    assert to_target is not None
    assert float(to_target[1]) == result["target"]["time"]
    assert "reached after" in server.out.read_text()
    seen = events_of(tmp_path)
    assert [event["at"] for event in seen] == sorted(event["at"] for event in seen)
    assert {event["reason"] for event in seen if event["event"] == "ClientLeft"} == {"the run is over"}


def test_a_client_that_was_killed_comes_back_to_its_slot(scenario: Path, start: Start, tmp_path: Path) -> None:
    """SIGKILL in the middle of training: its round goes on without it, and later ones have it again."""
    server, address = serve(start, "--set", "stop.rounds=8", "--set", "clients.phones.device.per_example=6ms")
    clients = everybody(start, address)
    server.says(r"round 1/8")
    victim = clients[0]
    slot = victim.says(r"joined as phones/(\d)")
    victim.process.send_signal(signal.SIGKILL)
    assert victim.status() == -signal.SIGKILL
    again = start("join", "--server", address, "--group", "phones")
    while again.status_or_joined() == 1:  # the server has not noticed yet: all slots are in use
        time.sleep(0.5)
        again = start("join", "--server", address, "--group", "phones")
    assert again.says(r"joined as phones/(\d)") == slot
    assert [server.status(), again.status(), *(client.status() for client in clients[1:])] == [0] * 6
    client = f"phones/{slot}"
    seen = [event for event in events_of(tmp_path) if event.get("client") == client]
    left = next(i for i, event in enumerate(seen) if event["event"] == "ClientLeft")
    assert [event["event"] for event in seen[left + 1 :]].count("ClientJoined") == 1
    assert any(event["event"] == "UpdateReceived" for event in seen[left + 1 :])
    result = result_of(tmp_path)
    assert result["stopped_by"] == "rounds"
    assert result["updates"]["aggregated"] + result["updates"]["lost"] >= 8 * 4


SCAFFOLD = """\
dataset: {kind: digits}
partition: {kind: dirichlet, alpha: 0.5}
model: {kind: softmax}
training: {batch_size: 32, lr: 0.1}
strategy: {kind: scaffold}
clients:
  phones: {count: 3, link: {retry: {timeout: 2min}}, device: {kind: constant, per_example: 500us}}
stop: {rounds: 100000}
compute: {kind: inline}
"""


def test_what_clients_remember_outlives_kills_at_any_moment(start: Start, tmp_path: Path) -> None:
    """SCAFFOLD's c is the mean of its clients' c_i, always: the server's is in its checkpoint, theirs on their disks.

    One client is killed five times, at moments that have nothing to do with its training (0.2 to 0.4 s) and its
    messages, and the server last. Each client's file has what was accepted last, and what may have been after that:
    which it is says the checkpoint. A client that had forgotten its c_i once would leave them different for ever.
    """
    (tmp_path / "six.yaml").write_text(SCAFFOLD)
    server, address = serve(start)
    join, moments = ("join", "--server", address, "--group", "phones", "--memory", "kept"), random.Random(1)
    clients = [start(*join) for _ in range(3)]
    victim = clients[0]
    slot = victim.says(r"joined as phones/(\d)")
    server.says(r"round \d")
    for _ in range(5):
        time.sleep(moments.uniform(0.5, 1.5))
        victim.process.kill()
        victim.process.wait()
        victim = start(*join)
        while victim.status_or_joined() == 1:  # the server has not noticed yet: all slots are in use
            victim = start(*join)
        assert victim.says(r"joined as phones/(\d)") == slot
    time.sleep(2)
    server.process.kill()
    server.process.wait()
    saved = durable.load(tmp_path / "run" / FILE)
    assert saved is not None
    own = []
    for client, accepted in saved.facts["notes"]["accepted"].items():
        kept = durable.load(tmp_path / "kept" / f"{client.replace('/', '-')}.safetensors")
        assert kept is not None
        known = {tuple(kept.facts[which] or ()): place for which, place in (("task", "state"), ("learned", "learned"))}
        own.append(kept.below(known[tuple(accepted)])["c"])
    assert len(own) == 3
    c = saved.below("strategy")["c"]
    assert min(mine.abs().max() for mine in own) > 0.01
    assert (sum(own) / 3 - c).abs().max() < 1e-6
    lost = [event for event in events_of(tmp_path) if event["event"] == "UpdateLost"]
    assert 1 <= len(lost) <= 5
    assert "remember" not in "".join(path.read_text() for path in tmp_path.glob("*.err"))


def test_those_who_enrol_are_the_clients_of_the_run(scenario: Path, start: Start, tmp_path: Path) -> None:
    """The file says 3 phones and 2 laptops; 2 and 1 come, and learn what 2 and 1 in one process do.

    They are sent away when the enrolment ends, and come again to the same port without a word of alarm.
    """
    counts = [("clients.phones.count", "2"), ("clients.laptops.count", "1")]
    with inline()() as compute:
        alone = experiment.run(load(scenario, counts).cells[0], compute)
    server = start("serve", "six.yaml", "--listen", "127.0.0.1:0", "--enrol", "4s", "--out", "run")
    address = server.says(r"enrolling clients at (\S+)")
    join = ("join", "--server", address, "--group")
    clients = [start(*join, group) for group in ("phones", "phones", "laptops")]
    assert server.says(r"serving six at (\S+)") == address
    assert [command.status() for command in (server, *clients)] == [0] * 4
    result = result_of(tmp_path)
    for key in ("accuracy", "loss", "round"):
        assert result["final"][key] == alone["final"][key]
    assert result["updates"] == alone["updates"]
    for client in clients:
        enrolled, joined, over = client.err.read_text().splitlines()
        assert enrolled == "fedemu: enrolled; waiting for the run"
        assert re.fullmatch(r"fedemu: joined as (phones/[01]|laptops/0): \d+ examples", joined)
        assert over == "fedemu: the run is over"
    assert "enrolled: phones 2, laptops 1" in server.err.read_text()


def test_ctrl_c_ends_an_enrolment(scenario: Path, start: Start, tmp_path: Path) -> None:
    """Status 130, and nothing is written; the client that had enrolled looks for the server."""
    server = start("serve", "six.yaml", "--listen", "127.0.0.1:0", "--enrol", "4s", "--out", "run")
    address = server.says(r"enrolling clients at (\S+)")
    client = start("join", "--server", address, "--group", "phones")
    client.says("enrolled; waiting for the run")
    server.process.send_signal(signal.SIGINT)
    assert server.status() == 130
    assert not (tmp_path / "run").exists()
    client.says("trying again in")
    client.process.send_signal(signal.SIGINT)
    assert client.status() == 130
    assert "Traceback" not in server.err.read_text() + client.err.read_text()


def test_clients_that_are_early_wait_for_the_server(scenario: Path, start: Start, tmp_path: Path) -> None:
    """They look for it with growing pauses, and join when it comes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    clients = everybody(start, address)
    for client in clients:
        client.says(rf"nobody answers at {address}; trying again in [\d.]+ s")
    server, _ = serve(start, listen=address)
    assert [server.status(), *(client.status() for client in clients)] == [0] * 6
    assert result_of(tmp_path)["updates"]["aggregated"] == 15


def test_a_client_runs_a_scenarios_own_code_only_if_told_to(scenario: Path, start: Start, tmp_path: Path) -> None:
    """Without --allow it leaves with status 1 and never imports the module; with it, the run is as any other.

    The one that left had joined, and may have taken the first of the three rounds with it.
    """
    (tmp_path / "theirs.py").write_text(FOREIGN)
    one = ("--set", "clients={phones: {count: 1}}")
    server, address = serve(start, "--set", "model={kind: 'theirs:small'}", *one)
    refuses = start("join", "--server", address, "--group", "phones")
    assert refuses.status() == 1
    assert "names code of theirs, which is not allowed here; join with --allow theirs" in refuses.err.read_text()
    assert "Traceback" not in refuses.err.read_text()
    assert refuses.out.read_text() == ""
    allows = start("join", "--server", address, "--group", "phones", "--allow", "theirs")
    assert (allows.status(), server.status()) == (0, 0)
    assert allows.out.read_text() == "foreign code has run\n"
    assert result_of(tmp_path)["updates"]["aggregated"] >= 2


def test_ctrl_c_at_a_server_writes_what_it_has_and_clients_try_again(
    scenario: Path, start: Start, tmp_path: Path
) -> None:
    """Status 130 and a closed log; a client that loses its server looks for it, and ends at its own Ctrl-C."""
    server, address = serve(start, "--set", "stop.rounds=100000")
    clients = everybody(start, address)
    server.says("round 1/")
    server.process.send_signal(signal.SIGINT)
    sent = time.monotonic()
    assert server.status() == 130
    latency = time.monotonic() - sent
    print(f"Ctrl-C to exit: {latency:.2f} s")
    assert latency < 2
    assert events_of(tmp_path)[-1]["reason"] == result_of(tmp_path)["stopped_by"] == "interrupted"
    for client in clients:
        client.says("trying again in")
    for client in clients:
        client.process.send_signal(signal.SIGINT)
    assert [client.status() for client in clients] == [130] * 5
    said = "".join(command.err.read_text() for command in [server, *clients])
    assert "Traceback" not in said, said


def test_sigkill_at_a_server_leaves_no_workers(start: Start, tmp_path: Path) -> None:
    """They see that it is gone, and end; so does the process that they came from."""
    (tmp_path / "six.yaml").write_text(SCENARIO)
    server, _ = serve(start, "--set", "compute={kind: pool, workers: 2}")
    while len(children := list(family(server.process.pid))) < 4:  # the fork server, two workers, the tracker
        assert server.process.poll() is None
        time.sleep(0.1)
    server.process.send_signal(signal.SIGKILL)
    end = time.monotonic() + 30
    while any(is_alive(child) for child in children):
        assert time.monotonic() < end, children
        time.sleep(0.1)


def family(parent: int) -> Iterator[int]:
    """Yield the processes that came of one."""
    for children in Path(f"/proc/{parent}/task").glob("*/children"):
        for child in map(int, children.read_text().split()):
            yield child
            yield from family(child)


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_sigterm_ends_what_a_script_has_put_into_the_background(tmp_path: Path) -> None:
    """Such a process is born with SIGINT ignored."""
    (tmp_path / "six.yaml").write_text(SCENARIO)
    command = [sys.executable, "-m", "fedemu", "serve", "six.yaml", "--listen", f"unix:{tmp_path}/socket"]
    with (tmp_path / "said").open("w") as said:
        process = subprocess.Popen(
            ["sh", "-c", '"$@" & echo $! > pid; wait $!', "sh", *command], cwd=tmp_path, stdout=said, stderr=said
        )
    while "serving six at" not in (tmp_path / "said").read_text():
        time.sleep(0.1)
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGTERM)
    assert process.wait(30) == 130
    assert "fedemu: interrupted" in (tmp_path / "said").read_text()
