"""Two network namespaces of this machine's kernel, joined by a cable or a WAN: `with lab() as here: ...`.

The sending end is `near`, the receiving one `far`. What runs in a namespace is one of the programs beside this file:
it says `ready`, answers each line with a line, and ends when its input does, so that none outlives the tests.
"""

import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal

End = Literal["near", "far"]
ADDRESSES: dict[End, str] = {"near": "198.18.0.1", "far": "198.18.0.2"}
"""Of the network for benchmarks (RFC 2544)."""
NETWORK = "198.18.0.0/24"
NEEDS = (
    "link set lo up",
    "link add one type veth peer name two",
    "tuntap add dev three mode tun",
    f"route add {NETWORK} dev lo congctl cubic",
    "tc qdisc add dev one root tbf rate 1mbit burst 5kb latency 1s",
    "tc qdisc add dev two root handle 1: htb",
)
"""What must work in a namespace: of `ip`, or of `tc` where it begins with that."""

_numbers = itertools.count()


class Program:
    """A program of this directory that is running in a namespace."""

    def __init__(self, namespace: str, module: str, *arguments: object) -> None:
        command = ["ip", "netns", "exec", namespace, sys.executable, "-m", f"tests.kernel.{module}"]
        self._process = subprocess.Popen(
            [*command, *map(str, arguments)],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            start_new_session=True,  # Ctrl-C is for the tests, which end it
        )
        self._module = module

    def answer(self) -> str:
        """Return the next line that it prints.

        Raises:
            RuntimeError: It has ended.
        """
        assert self._process.stdout is not None
        if not (line := self._process.stdout.readline()):
            raise RuntimeError(f"{self._module} has ended: {self._process.wait()}")
        return line.strip()

    def ask(self, question: str = "") -> str:
        """Return its answer to a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{question}\n")
        return self.answer()

    def stop(self) -> None:
        """End it, and wait until it has."""
        self._process.kill()
        self._process.communicate()


class Lab:
    """Two namespaces; `lab` makes and removes them."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        number = next(_numbers)
        self.namespaces: dict[End, str] = {end: f"fedemu-{os.getpid()}-{number}-{end}" for end in ADDRESSES}
        for name in self.namespaces.values():
            run("ip", "netns", "add", name)
            stack.callback(run, "ip", "netns", "delete", name)

    def ip(self, end: End, command: str) -> None:
        """Run a command of `ip`, or of `tc` where it begins with that, at that end."""
        tool, words = ("tc", command.split()[1:]) if command.startswith("tc ") else ("ip", command.split())
        run(tool, "-n", self.namespaces[end], *words)

    def start(self, end: End, module: str, *arguments: object) -> Program:
        """Run a program at that end until the lab closes; return when it is ready."""
        program = Program(self.namespaces[end], module, *arguments)
        self._stack.callback(program.stop)
        ready = program.answer()
        assert ready == "ready", ready
        return program

    def cable(self) -> None:
        """Join the ends by a cable without a rate or a delay, `path` at both."""
        far = self.namespaces["far"]
        self.ip("near", f"link add path type veth peer name path netns {far}")
        # one packet at a time meets the queue, as on a wire
        self.ip("near", "link set path gso_max_segs 1")
        self._connect()

    def wan(self, *, rate: float, rtt: float, loss: float = 0.0) -> Program:
        """Join the ends by a WAN, `path` at both; return the box that it is, which tells how late it was.

        Its queue holds one product of rate and round trip, and at least 64 packets.

        Args:
            rate: From near to far, bits per second; back there is no limit.
            rtt: Seconds, half of it each way.
            loss: Share of the packets from near to far.
        """
        box = self.start("near", "wan", rate, rtt / 2, max(64 * 1500, rate * rtt / 8), loss)
        self.ip("near", f"link set far netns {self.namespaces['far']}")
        self.ip("far", "link set far name path")
        self.ip("near", "link set near name path")
        self._connect()
        return box

    def _connect(self) -> None:
        for end, address in ADDRESSES.items():
            self.ip(end, "link set path addrgenmode none txqueuelen 10000 up")  # no IPv6 beside what is measured
            self.ip(end, f"addr add {address}/24 dev path")
            self.ip(end, f"route replace {NETWORK} dev path src {address} congctl cubic")


@contextmanager
def lab() -> Iterator[Lab]:
    """Two namespaces that are gone afterwards, with all that runs in them."""
    with ExitStack() as stack:
        yield Lab(stack)


def missing() -> str | None:
    """Say what this machine lacks for a lab, or None. Removes what a test that was killed has left."""
    if os.geteuid() != 0:
        return "needs root"
    for tool in ("ip", "tc"):
        if shutil.which(tool) is None:
            return f"needs {tool} (iproute2)"
    try:
        for line in run("ip", "netns", "list").splitlines():
            owner = line.split()[0].split("-")
            if owner[0] == "fedemu" and len(owner) == 4 and not Path(f"/proc/{owner[1]}").exists():
                run("ip", "netns", "delete", line.split()[0])
        with lab() as scratch:
            for need in NEEDS:
                scratch.ip("near", need)
    except RuntimeError as error:
        return f"needs what this kernel does not let us do: {error}"
    return None


def run(*command: str) -> str:
    """Run a command and return what it prints.

    Raises:
        RuntimeError: It failed; with the command and its complaint.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode:
        raise RuntimeError(f"`{' '.join(command)}`: {done.stderr.strip()}")
    return done.stdout
