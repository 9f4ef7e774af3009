"""`fedemu certs`, and `serve` and `join` beyond this machine, as a user types them."""

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fedemu.cli import main

SCENARIO = """\
dataset: {kind: digits}
partition: {kind: iid}
model: {kind: softmax}
strategy: {kind: fedavg}
clients:
  phones: {count: 2, link: {retry: {timeout: 2min}}}
stop: {rounds: 2}
compute: {kind: inline}
"""


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a scenario, certificates of ours and of others, and tokens."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FEDEMU_TOKEN", raising=False)
    (tmp_path / "two.yaml").write_text(SCENARIO)
    assert main(["certs", "ours", "--tokens", "two.yaml", "--host", "127.0.0.2"]) == 0
    assert main(["certs", "theirs", "--days", "1"]) == 0
    return tmp_path


CERTIFIED = ("--tls-cert", "ours/server.pem", "--tls-key", "ours/server-key.pem")


def test_certs_names_what_it_writes_and_replaces_nothing(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A second time everything is a fault, and stays."""
    assert main(["certs", "new", "--tokens", "two.yaml"]) == 0
    written = capsys.readouterr().out.splitlines()
    assert written == [
        f"new/{name}"
        for name in ("ca.pem", "ca-key.pem", "server.pem", "server-key.pem", "client.pem", "client-key.pem", "tokens")
    ]
    before = [(there / path).read_bytes() for path in written]
    assert main(["certs", "new", "--tokens", "two.yaml"]) == 2
    assert capsys.readouterr().out.splitlines() == [
        f"{path}:1: certs: exists already; name a new directory" for path in written
    ]
    assert [(there / path).read_bytes() for path in written] == before


def test_certs_takes_the_clients_of_the_scenario_that_is_served(
    there: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the keys that are replaced; a grid cannot be served."""
    assert main(["certs", "more", "--tokens", "two.yaml", "--set", "clients.phones.count=3"]) == 0
    places = [line.split()[0] for line in (there / "more" / "tokens").read_text().splitlines()]
    assert places == ["phones", "phones/0", "phones/1", "phones/2"]
    capsys.readouterr()
    assert main(["certs", "none", "--set", "clients.phones.count=3"]) == 2
    assert capsys.readouterr().out == "--set:1: set: no meaning without --tokens\n"
    assert main(["certs", "none", "--tokens", "two.yaml", "--set", "repeat=2"]) == 2
    assert "2 runs cannot be served at once" in capsys.readouterr().out
    assert not (there / "none").exists()


def test_serve_refuses_to_listen_beyond_this_machine_in_the_open(
    there: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 2, before anything is loaded or written; what to do is said."""
    capsys.readouterr()
    assert main(["serve", "two.yaml", "--listen", "0.0.0.0:0", "--out", "run"]) == 2
    out, err = capsys.readouterr()
    assert err == ""
    assert [line.partition("; ")[2] for line in out.splitlines()] == [
        "add --tls-cert and --tls-key, or say --insecure",
        "add --tokens or --tls-ca, or say --insecure",
    ]
    assert main(["serve", "two.yaml", "--listen", "0.0.0.0:0", *CERTIFIED]) == 2
    assert "anybody could join; add --tokens or --tls-ca" in capsys.readouterr().out
    assert not (there / "run").exists()


def test_join_keeps_its_token_from_strangers(
    there: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the arguments as from the environment."""
    capsys.readouterr()
    join = ["join", "--server", "server.invalid:7001", "--group", "phones"]
    assert main([*join, "--token", "secret"]) == 2
    assert capsys.readouterr() == (
        "--token:1: token: would go to server.invalid:7001 without encryption; add --tls-ca, or say --insecure\n",
        "",
    )
    monkeypatch.setenv("FEDEMU_TOKEN", "@nowhere")
    assert main(join) == 2
    assert capsys.readouterr().out.startswith("nowhere:1: token: cannot be read: No such file")
    assert main([*join, "--tls-cert", "ours/client.pem"]) == 2
    keys = [line.split(": ")[1] for line in capsys.readouterr().out.splitlines()]
    assert keys == ["tls-cert", "token", "tls-cert"]


# --- processes


class Command:
    """A running `fedemu` command whose output goes to a file."""

    def __init__(self, folder: Path, number: int, arguments: tuple[str, ...]) -> None:
        self.said = folder / f"{number}.err"
        code = f"import sys; from fedemu.cli import main; sys.exit(main({list(arguments)}))"
        with self.said.open("w") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=err, cwd=folder
            )

    def says(self, pattern: str, patience: float = 60.0) -> str:
        """Wait until stderr has the pattern; return its group, or all that fits."""
        end = time.monotonic() + patience
        while (match := re.search(pattern, self.said.read_text())) is None:
            assert self.process.poll() is None, self.said.read_text()
            assert time.monotonic() < end, self.said.read_text()
            time.sleep(0.05)
        return match[1] if match.groups() else match[0]

    def ends(self, patience: float = 90.0) -> tuple[int, str]:
        """Return its status and the last thing that it says."""
        status = self.process.wait(patience)
        return status, self.said.read_text().splitlines()[-1]


Start = Callable[..., Command]


@pytest.fixture
def start(there: Path) -> Iterator[Start]:
    """Starts `fedemu` commands, and kills what is left of them."""
    commands: list[Command] = []

    def begin(*arguments: str) -> Command:
        commands.append(Command(there, len(commands), arguments))
        return commands[-1]

    yield begin
    for command in commands:
        command.process.kill()
        command.process.wait()


def token(place: str) -> str:
    lines = [line.split() for line in Path("ours/tokens").read_text().splitlines()]
    return next(secret for name, secret in lines if name == place)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_only_clients_with_certificate_and_token_take_part(
    start: Start, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of six strangers ends with status 1 and says why, and so does the server; then two join, and it runs.

    The server listens on all addresses and is reached by one that its certificate was written for.
    """
    trusting = ("--tls-ca", "ours/ca.pem")
    certified = (*trusting, "--tls-cert", "ours/client.pem", "--tls-key", "ours/client-key.pem")
    foreign = (*trusting, "--tls-cert", "theirs/client.pem", "--tls-key", "theirs/client-key.pem")
    server = start(
        "serve", "two.yaml", "--listen", "0.0.0.0:0", *CERTIFIED, *trusting, "--tokens", "ours/tokens", "--quiet"
    )
    port = server.says(r"serving two at 0\.0\.0\.0:(\d+)")
    join = ("join", "--server", f"127.0.0.2:{port}", "--group", "phones")
    strangers = {
        "the server speaks TLS; join with --tls-ca and its authority's certificate": (),
        "the server's certificate is not trusted: unable to get local issuer certificate": (
            "--tls-ca",
            "theirs/ca.pem",
        ),
        "the server asks for a client certificate; join with --tls-cert and --tls-key": trusting,
        "the server does not accept the client certificate theirs/client.pem": foreign,
        "no token, and this server asks for one; join with --token": certified,
        "this token is not for slot 0 of phones": (*certified, "--token", token("phones/1"), "--slot", "0"),
    }
    started = {why: start(*join, *arguments) for why, arguments in strangers.items()}
    for why, command in started.items():
        assert command.ends() == (1, f"fedemu: PeerError: UNAUTHENTICATED: {why}")
    said = server.said.read_text()
    for reason in ("no token, and this server asks for one; join with --token", "this token is not for slot 0"):
        assert re.search(rf"fedemu: refused ipv4:127\.[\d.]+:\d+: UNAUTHENTICATED: {reason}", said)
    for reason in ("PEER_DID_NOT_RETURN_A_CERTIFICATE", "CERTIFICATE_VERIFY_FAILED"):  # gRPC's own lines, nameless
        assert re.search(rf"Handshake failed .*{reason}", said)
    (there / "token").write_text(token("phones/0"))
    monkeypatch.setenv("FEDEMU_TOKEN", token("phones"))
    clients = [start(*join, *certified, "--token", "@token")]
    clients[0].says("joined as phones/0")  # before the other, whose token would open that slot, too
    clients.append(start(*join, *certified))
    assert [client.ends() for client in clients] == [(0, "fedemu: the run is over")] * 2
    assert server.process.wait(60) == 0
    everything = "".join(path.read_text() for path in there.glob("*.err"))
    assert not any(secret in everything for secret in map(token, ("phones", "phones/0", "phones/1")))
    assert "Traceback" not in everything


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_client_that_loses_its_server_joins_again_with_tls(start: Start) -> None:
    """While nobody is there it tries again; what answers then has the same certificate."""
    tls = (*CERTIFIED, "--tls-ca", "ours/ca.pem")
    serve = ("serve", "two.yaml", "--set", "stop.rounds=100000", *tls, "--quiet")
    server = start(*serve, "--listen", "127.0.0.1:0")
    address = server.says(r"serving two at (\S+)")
    own = ("--tls-ca", "ours/ca.pem", "--tls-cert", "ours/client.pem", "--tls-key", "ours/client-key.pem")
    client = start("join", "--server", address, "--group", "phones", *own)
    client.says("joined as phones/0")
    server.process.kill()
    client.says("nobody answers at .*; trying again")
    start(*serve, "--listen", address).says("serving two at")
    client.says(r"(?s)trying again.*joined as phones/0")


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_insecure_says_in_the_open_what_it_opens(start: Start) -> None:
    """A server on all addresses without anything; a client shows it its token, which nobody asked for."""
    server = start("serve", "two.yaml", "--set", "clients.phones.count=1", "--listen", "0.0.0.0:0", "--insecure")
    port = server.says(r"serving two at 0\.0\.0\.0:(\d+)")
    assert server.said.read_text().splitlines()[0] == (
        "fedemu: --insecure: 0.0.0.0:0 is open to other machines: nothing is encrypted, and whoever reaches it can join"
    )
    client = start("join", "--server", f"127.0.0.1:{port}", "--group", "phones", "--insecure", "--token", "x")
    assert client.ends() == (0, "fedemu: the run is over")
    assert server.process.wait(60) == 0
