"""A device that a kernel shapes, where there is no kernel to ask: what is missing, and who interrupts when.

With a kernel, it is tested in `tests/kernel/test_tc.py`.
"""

import os
import signal
from pathlib import Path

import pytest

from fedemu.errors import RunError
from fedemu.shaping import Shaping
from fedemu.tc import Command

SHAPED = Command(("tc", "qdisc", "add", "x"), "x queue discipline (CONFIG_X), which this needs", ("tc", "qdisc", "del"))


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Programs of ours by the names of iproute2's: `ip` knows eth0, `tc` writes down what it is asked."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    write(tmp_path / "ip", """echo '[{"mtu": 1500, "dev": "eth0"}]'""")
    write(
        tmp_path / "tc",
        f"""[ $1 = -j ] && echo '[{{"kind": "noqueue", "handle": "0:"}}]' || echo "$@" >> {tmp_path}/log""",
    )
    return tmp_path


def write(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def log(tools: Path) -> list[str]:
    return (tools / "log").read_text().splitlines()


def test_a_machine_without_iproute2_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its tools are looked for where programs are."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with Shaping("eth0", "127.0.0.1:1") as shaping, pytest.raises(RunError, match="iproute2 is not installed"):
        shaping.shape([SHAPED])


def test_what_was_done_is_taken_back_once(tools: Path) -> None:
    """Before other commands, and at the end."""
    with Shaping("eth0", "127.0.0.1:1") as shaping:
        shaping.shape([SHAPED])
        shaping.shape([SHAPED._replace(words=("tc", "qdisc", "add", "y"))])
        assert log(tools) == ["qdisc add x", "qdisc del", "qdisc add y"]
    assert log(tools)[3:] == ["qdisc del"]


@pytest.mark.parametrize(
    ("complaint", "expected"),
    [
        (
            "Error: Specified qdisc kind is unknown.",
            "the kernel has no x queue discipline (CONFIG_X), which this needs; ",
        ),
        ("RTNETLINK answers: No such file or directory", "the kernel has no x queue discipline"),
        ("Error: TC classifier not found.", "the kernel has no x queue discipline"),
        ("RTNETLINK answers: Operation not supported", "the kernel has no x queue discipline"),
        ("RTNETLINK answers: Operation not permitted", "tc needs CAP_NET_ADMIN"),
        ("/usr/lib/tc/normal.dist: No such file or directory", "`tc qdisc add x`: /usr/lib/tc/normal.dist: No such"),
        ("RTNETLINK answers: Invalid argument", "`tc qdisc add x`: RTNETLINK answers: Invalid argument"),
    ],
)
def test_a_complaint_is_understood(tools: Path, complaint: str, expected: str) -> None:
    """Kernels say in different words that they lack something; a file of iproute2's is not the kernel's."""
    write(tools / "tc", f"""[ $1 = -j ] && echo '[]' || {{ echo "{complaint}" >&2; exit 2; }}""")
    with Shaping("eth0", "127.0.0.1:1") as shaping, pytest.raises(RunError) as caught:
        shaping.shape([SHAPED])
    assert str(caught.value).startswith(expected)


def test_a_device_that_is_not_as_before_is_an_error_and_one_that_is_gone_is_not(tools: Path) -> None:
    """Who cuts a container off from its network takes the device away, with all that was done to it."""
    left = Shaping("eth0", "127.0.0.1:1")
    left.shape([SHAPED])
    write(tools / "tc", """[ $1 = -j ] && echo '[{"kind": "tbf", "handle": "1:"}]' || { echo busy >&2; exit 2; }""")
    with pytest.raises(RunError, match="eth0 is not as before: `tc qdisc del`: busy"):
        left.__exit__()
    write(tools / "tc", """[ $1 = -j ] && echo '[]'; true""")
    gone = Shaping("eth0", "127.0.0.1:1")
    gone.shape([SHAPED])
    write(tools / "tc", "echo no such device >&2; exit 1")
    gone.__exit__()


def test_an_interruption_waits_until_what_was_begun_is_done(tools: Path) -> None:
    """Ctrl-C in the middle of the first of two commands: both are done, and both are taken back."""
    write(tools / "slow", f"kill -INT {os.getpid()}; echo slow >> {tools}/log")
    slow = Command(("slow",), "", ("tc", "qdisc", "del", "slow"))
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), Shaping("eth0", "127.0.0.1:1") as shaping:
        shaping.shape([slow, SHAPED])
    assert log(tools) == ["slow", "qdisc add x", "qdisc del", "qdisc del slow"]
    assert signal.getsignal(signal.SIGINT) is before


def test_a_name_that_nobody_knows_is_an_error(tools: Path) -> None:
    """It is looked up before anything is done."""
    with (
        Shaping("eth0", "nowhere.invalid:1") as shaping,
        pytest.raises(RunError, match=r"nowhere\.invalid has no address"),
    ):
        shaping.shape([SHAPED])
    assert not (tools / "log").exists()
