"""`tc` and this machine's kernel: what it takes, what it lacks, how fast it then is, and that all is as before."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fedemu.links._bucket import Bucket
from fedemu.links._fluid import Fluid
from fedemu.links.tcp._segments import wire
from fedemu.scenario import parse
from fedemu.scenario.presets import PRESETS
from fedemu.tc import commands
from tests.kernel.lab import ADDRESSES, End, Lab, lab, run
from tests.kernel.links import scenario

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120), pytest.mark.usefixtures("kernel")]

NEEDS = {
    "netem": "tc qdisc add dev path root netem delay 1ms",
    "ifb": "link add dev between type ifb",
    "u32": "tc filter add dev path parent ffff: protocol all u32 match u32 0 0 action mirred egress redirect dev lo",
}
"""What a kernel may lack, and how else than by our commands that is seen."""
LINKS = [
    "{up: {rate: 5Mbit/s, burst: 15kB}}",
    "{up: {rate: 5.46875kbit/s}}",
    "{up: {rate: 1Gbit/s}}",
    "{down: {rate: 20Mbit/s}}",
    "{rate: 20Mbit/s, loss: 0%}",
    "{up: {delay: 40ms}}",
    "{up: {delay: 40ms, jitter: 5ms, distribution: normal}}",
    "{up: {delay: 40ms, jitter: 5ms, distribution: pareto}}",
    "{up: {delay: 40ms, jitter: 5ms, distribution: paretonormal}}",
    "{delay: 40ms, jitter: 5ms, distribution: uniform}",
    "{down: {rate: 5Mbit/s, delay: 40ms, loss: 1%}}",
    "{up: {rate: 5Mbit/s, loss: {random: 20%, burst: 4}}}",
    "{up: {rate: 1Mbit/s, loss: {gemodel: {p: 1%, r: 30%, one_minus_h: 50%, one_minus_k: 0.1%}}}}",
    *(f"{{preset: {name}}}" for name in PRESETS if name != "lora"),
]
SERVER = f"{ADDRESSES['far']}:50051"


def state(here: Lab, end: End = "near") -> object:
    """Return the devices and queue disciplines of a namespace, without numbers that are new for each."""
    name = here.namespaces[end]
    links = json.loads(run("ip", "-n", name, "-j", "-d", "link", "show"))
    queues = json.loads(run("tc", "-n", name, "-j", "qdisc", "show"))
    return [{k: v for k, v in link.items() if k != "stats64"} for link in links], queues


def takes(rate: float, size: int, burst: int) -> float:
    """Return the seconds that so many bytes on the wire take behind our bucket."""
    fluid = Fluid({"link": rate})
    fluid.start("transfer", Bucket(rate, burst).take(size, 0.0), ["link"], 0.0)
    end = fluid.next_end()
    assert end is not None
    return end


@pytest.fixture
def here(kernel: None) -> Iterator[Lab]:
    """Two ends joined by a cable; packets come in trains, as anywhere."""
    with lab() as here:
        here.cable()
        here.ip("near", "link set path gso_max_segs 65535")
        yield here


@pytest.fixture(scope="module")
def lacks(kernel: None) -> set[str]:
    """What this kernel does not have."""
    found = set()
    for name, need in NEEDS.items():
        with lab() as here:
            here.cable()
            if name == "u32":
                here.ip("near", "tc qdisc add dev path handle ffff: ingress")
            try:
                here.ip("near", need)
            except RuntimeError:
                found.add(name)
    return found


def test_a_kernel_takes_every_command_that_it_has_the_discipline_for(lacks: set[str]) -> None:
    """And says which one it lacks, of the first command that needs one; then nothing is left of those before it."""
    with lab() as here:
        here.cable()
        before, shaper = state(here), here.start("near", "shaper", SERVER)
        for link in LINKS:
            wanted = commands(parse(scenario(link)), "phones", "path")
            missing = [c for c in wanted if any(re.search(rf"\b{name}\b", str(c)) for name in lacks)]
            answer = shaper.ask(link)
            if missing:
                assert answer.startswith(f"the kernel has no {missing[0].needs}; leave out --kernel, or use"), link
                assert state(here) == before, link
            else:
                assert answer == "done", link
                assert state(here) != before, link
        assert shaper.ask("{}") == "done"
        assert state(here) == before


def test_delay_is_refused_where_there_is_no_netem(here: Lab, lacks: set[str]) -> None:
    """By name of what is missing, of what needs it, and of what to do."""
    if "netem" not in lacks:
        pytest.skip("this kernel has netem")
    answer = here.start("near", "shaper", SERVER).ask("{delay: 40ms}")
    assert answer.startswith(
        "the kernel has no netem queue discipline (CONFIG_NET_SCH_NETEM), which delay and loss need; "
        "leave out --kernel, or use a kernel that has it ("
    )


@pytest.mark.parametrize(("end", "link"), [("near", "up"), ("far", "down")])
def test_a_transfer_takes_the_time_of_the_links_bucket(here: Lab, lacks: set[str], end: End, link: str) -> None:
    """3 MB with 66 bytes on each 1448, less the burst, at 10 Mbit/s: 2.497 s, at the sender or at the receiver."""
    if link == "down" and lacks & {"ifb", "u32"}:
        pytest.skip(f"this kernel lacks {', '.join(lacks)}")
    server = SERVER if end == "near" else f"{ADDRESSES['near']}:50051"
    assert here.start(end, "shaper", server).ask(f"{{{link}: {{rate: 10Mbit/s, burst: 15kB}}}}") == "done"
    here.start("far", "transfers", "serve")
    seconds = float(here.start("near", "transfers", "send").ask("3000000:0"))
    model = takes(10e6, wire(3_000_000), 15_000)
    print(f"tc {link}: kernel {seconds:.4f} s, ours {model:.4f} s, {model / seconds - 1:+.2%}")
    assert seconds == pytest.approx(model, rel=0.01)


@pytest.mark.parametrize("loss", ["", ", loss: 1%"])
def test_loss_meets_packets_and_not_trains(here: Lab, lacks: set[str], loss: str) -> None:
    """What waits in the bucket has at most one packet each where netem shall stand there; without, it is tens of kB."""
    if lacks & {"ifb", "u32"}:
        pytest.skip(f"this kernel lacks {', '.join(lacks)}")
    link = f"{{down: {{rate: 2Mbit/s, burst: 100kB{loss}}}}}"
    for command in commands(parse(scenario(link)), "phones", "path"):
        if "netem" not in command.words:  # the rest is enough to see what it would meet
            here.ip("far", str(command) if command.words[0] == "tc" else str(command).removeprefix("ip "))
    here.start("far", "transfers", "serve")
    sender = here.start("near", "transfers", "send")
    with ThreadPoolExecutor() as pool:
        transfer = pool.submit(sender.ask, "600000:0")  # 2 s
        time.sleep(1.0)
        shown = run("tc", "-n", here.namespaces["far"], "-s", "-j", "qdisc", "show", "dev", "ifb-path")
        transfer.result()
    queue = json.loads(shown)[0]
    mean = queue["backlog"] / queue["qlen"]
    assert mean <= 1514 if loss else mean > 10 * 1514


def test_a_device_that_somebody_shapes_is_left_alone(here: Lab) -> None:
    """Root or ingress; the kernel's own queue discipline has number 0."""
    shaper = here.start("near", "shaper", SERVER)
    for theirs in ("root handle 7: pfifo limit 10", "handle ffff: ingress"):
        here.ip("near", f"tc qdisc add dev path {theirs}")
        before = state(here)
        answer = shaper.ask("{up: {rate: 1Mbit/s}}")
        assert re.match("path has a queue discipline (pfifo|ingress) that fedemu did not put there; take it", answer)
        assert state(here) == before
        here.ip("near", f"tc qdisc del dev path {theirs.split()[0] if 'root' in theirs else 'ingress'}")
    assert shaper.ask("{up: {rate: 1Mbit/s}}") == "done"


def test_a_command_that_fails_takes_those_before_it_back(here: Lab, lacks: set[str]) -> None:
    """A device of the name of ours is in the way of the downlink, when the uplink is done."""
    here.ip("near", "link add dev ifb-path type veth peer name other")
    before = state(here)
    answer = here.start("near", "shaper", SERVER).ask("{rate: 1Mbit/s}")
    assert "`ip link add dev ifb-path type ifb`: RTNETLINK answers: File exists" in answer
    assert state(here) == before


@pytest.mark.parametrize(
    ("server", "mtu", "fault"),
    [
        ("127.0.0.1:50051", 1500, "127.0.0.1:50051 is reached through lo, not through path"),
        ("unix:/tmp/x", 1500, "unix:/tmp/x is reached through no network device; leave out --kernel"),
        (SERVER, 9000, "path has packets of 9000 B, which no bucket here holds; `ip link set dev path mtu 1500`"),
    ],
)
def test_a_device_that_is_not_the_way_or_has_no_ordinary_packets_is_refused(
    here: Lab, server: str, mtu: int, fault: str
) -> None:
    """A link that shapes nothing of a run, or lets nothing through."""
    here.ip("near", "link set lo up")
    here.ip("near", f"link set path mtu {mtu}")
    assert here.start("near", "shaper", server).ask("{up: {rate: 1Mbit/s}}") == fault


def test_who_may_not_is_told_so(here: Lab) -> None:
    """Root of a container has all but the right to change its network."""
    ask = "from tests.kernel.shaper import main; main('198.18.0.2:1')"
    done = subprocess.run(
        [
            *f"ip netns exec {here.namespaces['near']} setpriv --bounding-set=-net_admin".split(),
            sys.executable,
            "-c",
            ask,
        ],
        input="{up: {rate: 1Mbit/s}}\n",
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[1].startswith("tc needs CAP_NET_ADMIN, the right to change the network: ")


# --- a run


class Fedemu:
    """A fedemu command in a namespace."""

    def __init__(self, here: Lab, end: End, folder: Path, *arguments: str) -> None:
        self.err = folder / f"{arguments[0]}.err"
        code = f"import sys; from fedemu.cli import main; sys.exit(main({list(arguments)}))"
        with self.err.open("w") as err:
            self.process = subprocess.Popen(
                ["ip", "netns", "exec", here.namespaces[end], sys.executable, "-c", code],
                stdout=subprocess.DEVNULL,
                stderr=err,
                cwd=Path(__file__).parents[2],
            )

    def says(self, text: str) -> None:
        """Wait until it has said so."""
        end = time.monotonic() + 60
        while text not in self.err.read_text():
            assert self.process.poll() is None, self.err.read_text()
            assert time.monotonic() < end, self.err.read_text()
            time.sleep(0.05)


@pytest.fixture
def started(here: Lab) -> Iterator[list[Fedemu]]:
    """Commands that end with the test."""
    found = list[Fedemu]()
    yield found
    for command in found:
        command.process.kill()
        command.process.wait()


def served(here: Lab, folder: Path, link: str, started: list[Fedemu], *more: str) -> Fedemu:
    """Return a client with --kernel of a run that is served at the other end."""
    file = folder / "kernel.yaml"
    file.write_text(json.dumps(scenario(link)))
    here.ip("far", "link set lo up")
    arguments = ["serve", str(file), "--listen", SERVER, "--insecure", "--out", str(folder / "out"), "--quiet", *more]
    started.append(Fedemu(here, "far", folder, *arguments))
    started.append(Fedemu(here, "near", folder, "join", "--server", SERVER, "--group", "phones", "--kernel", "path"))
    return started[1]


def test_a_run_moves_its_bytes_at_the_kernels_rate(
    here: Lab, lacks: set[str], tmp_path: Path, started: list[Fedemu]
) -> None:
    """1.15 MB down at 8 Mbit/s, and up at 4: 3.6 s a round; neither end adds a delay, and none is claimed."""
    if lacks & {"ifb", "u32"}:
        pytest.skip(f"this kernel lacks {', '.join(lacks)}")
    before = state(here)
    client = served(here, tmp_path, "{down: {rate: 8Mbit/s}, up: {rate: 4Mbit/s}, tcp: slow-start}", started)
    client.says("the kernel shapes path: 6 commands of tc and ip")
    assert [command.process.wait(90) for command in started] == [0, 0], client.err.read_text()
    assert state(here) == before
    events = [json.loads(line) for line in (tmp_path / "out" / "events.jsonl").read_text().splitlines()]
    sent = [event for event in events if event["event"] == "TaskSent"]
    came = [event for event in events if event["event"] == "UpdateReceived"]
    model = sum(8 * wire(event["bytes"]) / rate for event, rate in ((sent[1], 8e6), (came[1], 4e6)))
    seconds = came[1]["at"] - sent[1]["at"]
    print(f"a round: {seconds:.3f} s, rates alone {model:.3f} s, {seconds / model - 1:+.2%}")
    assert seconds == pytest.approx(model, rel=0.03)
    handed = [event for event in events if event["event"] == "TransferEnded"]
    assert {(event["outcome"], event["delay"]) for event in handed} == {("handed", None)}
    links = json.loads((tmp_path / "out" / "result.json").read_text())["links"]["phones"]["down"]
    assert links["outcomes"] == {"handed": 2}
    assert links["bytes"] == sum(event["bytes"] for event in sent)
    assert links["seconds"] is links["throughput"] is links["delay"] is None
    assert "tcp: not needed, as the kernel's own TCP sends" in client.err.read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_client_that_is_stopped_leaves_its_device_as_it_was(
    here: Lab, lacks: set[str], tmp_path: Path, started: list[Fedemu], number: signal.Signals
) -> None:
    """In the middle of a transfer that would take minutes."""
    if lacks & {"ifb", "u32"}:
        pytest.skip(f"this kernel lacks {', '.join(lacks)}")
    before = state(here)
    client = served(here, tmp_path, "{rate: 100kbit/s}", started)
    client.says("joined as phones/0")
    assert state(here) != before
    client.process.send_signal(number)
    assert client.process.wait(30) == 130, client.err.read_text()
    assert state(here) == before
    assert "Traceback" not in client.err.read_text()


def test_what_the_kernel_cannot_do_ends_the_client_before_anything_is_done(
    here: Lab, tmp_path: Path, started: list[Fedemu]
) -> None:
    """A link of messages that are dropped: exit status 2, as of any scenario that is faulty for what is asked."""
    before = state(here)
    client = served(here, tmp_path, "{rate: 1Mbit/s, drop: 1%}", started)
    assert client.process.wait(60) == 2
    assert state(here) == before
