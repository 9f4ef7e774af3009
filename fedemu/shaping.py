"""A network device that its kernel shapes for as long as a client stays: all of a link's commands, or none.

What is missing is found by trying, as a kernel's configuration need not be readable, and modules load when asked for.
A device that somebody else shapes already is left alone.
"""

import json
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from fedemu.errors import RunError
from fedemu.net.proxy.sockets import address
from fedemu.tc import FRAME, Command, undoing

ETHERNET = 14
_LACKING = ("unknown", "not found", "no such file", "not supported", "failed to load")
"""What tc and ip say, in small letters, where a kernel or its modules have no such thing."""


class Shaping:
    """What a kernel was asked to do with a device. A context manager: outside it, the device is as before.

    Args:
        device: A network device of this network namespace.
        server: Where the client connects to, which must be through the device: `host:port`.

    Raises:
        RunError: There is no such device.
    """

    def __init__(self, device: str, server: str) -> None:
        if not Path("/sys/class/net", device).exists():
            there = ", ".join(sorted(path.name for path in Path("/sys/class/net").iterdir()))
            raise RunError(f"no network device {device!r}; there are {there}")
        self.device, self._server = device, server
        self._done: list[Command] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with _undisturbed():
            self._undo()

    def shape(self, commands: Sequence[Command]) -> None:
        """Run commands in place of those that were run before.

        Raises:
            RunError: The device, iproute2, the right or something in the kernel is missing, the device is shaped by
                somebody else, or does not lead to the server. Nothing is done then.
        """
        with _undisturbed():
            self._undo()
            found = _asked("ip", "-j", "link", "show", "dev", self.device)
            if (mtu := found[0]["mtu"]) + ETHERNET > FRAME:
                text = f"packets of {mtu} B, which no bucket here holds; `ip link set dev {self.device} mtu 1500`"
                raise RunError(f"{self.device} has {text}")
            self._check_way()
            if (other := self._other()) is not None:
                text = f"{other} that fedemu did not put there; take it away, or leave out --kernel"
                raise RunError(f"{self.device} has a queue discipline {text}")
            try:
                for command in commands:
                    _run(command)
                    self._done.append(command)
            except RunError:
                self._undo()
                raise

    def _undo(self) -> None:
        """Take back what was done.

        Raises:
            RunError: It is still there.
        """
        failed = []
        for words in undoing(self._done):
            try:
                _called(words)
            except RunError as error:
                failed.append(str(error))
        self._done = []
        if failed and self._is_shaped():
            raise RunError(f"{self.device} is not as before: {'; '.join(failed)}")

    def _is_shaped(self) -> bool:
        try:
            return self._other() is not None
        except RunError:
            return False  # a device that went away took all of it along

    def _check_way(self) -> None:
        """Look whether what goes to the server goes through the device.

        Raises:
            RunError: It does not.
        """
        host, port = address(self._server)
        if port is None:
            raise RunError(f"{self._server} is reached through no network device; leave out --kernel")
        try:
            found = [place[4][0] for place in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
        except OSError as error:
            raise RunError(f"{host} has no address: {error.strerror}") from error
        ways = []
        for place in found:
            with suppress(RunError):  # of a family that leads nowhere here
                ways.append(_asked("ip", "-j", "route", "get", str(place))[0]["dev"])
        if self.device not in ways:
            through = ways[0] if ways else "no network device"
            raise RunError(f"{self._server} is reached through {through}, not through {self.device}")

    def _other(self) -> str | None:
        """Return a queue discipline of the device that somebody has put there; the kernel's own have number 0."""
        queues = _asked("tc", "-j", "qdisc", "show", "dev", self.device)
        return next((queue["kind"] for queue in queues if queue["handle"] != "0:"), None)


def _run(command: Command) -> None:
    try:
        _called(command.words)
    except RunError as error:
        complaint = str(error).lower()
        if any(word in complaint for word in _LACKING) and ".dist" not in complaint:  # of a file that tc reads
            text = f"the kernel has no {command.needs}; leave out --kernel, or use a kernel that has it"
            raise RunError(f"{text} ({error})") from None
        raise


def _asked(*words: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(_called(words))
    return found


def _called(words: Sequence[str]) -> str:
    """Run a command and return what it prints.

    Raises:
        RunError: It is not there, may not, or failed; with its complaint.
    """
    try:
        # Ctrl-C is for us, and must not end it in the middle
        done = subprocess.run(words, capture_output=True, text=True, check=False, start_new_session=True)
    except FileNotFoundError:
        raise RunError(f"there is no {words[0]} here: iproute2 is not installed") from None
    if done.returncode:
        complaint = " ".join(done.stderr.split())
        if "not permitted" in complaint:
            raise RunError(f"{words[0]} needs CAP_NET_ADMIN, the right to change the network: {complaint}")
        raise RunError(f"`{' '.join(words)}`: {complaint}")
    return done.stdout


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait until what was begun is done."""
    waiting: list[int] = []
    with ExitStack() as stack:
        with suppress(ValueError):  # not the main thread, which is the one that signals interrupt
            for number in (signal.SIGINT, signal.SIGTERM):
                before = signal.signal(number, lambda number, _: waiting.append(number))
                stack.callback(signal.signal, number, before)
        yield
    if waiting:
        signal.raise_signal(waiting[0])
