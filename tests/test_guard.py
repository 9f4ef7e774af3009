"""What is open beyond this machine is a fault, unless somebody says that it may be."""

from pathlib import Path

import pytest

from fedemu import certs
from fedemu.errors import ScenarioError
from fedemu.guard import Certificates, of_client, of_server

CLIENTS = {"phones": ["phones/0", "phones/1"]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    certs.write(tmp_path / "c", clients=CLIENTS)
    return tmp_path / "c"


def files(folder: Path, *which: str, of: str = "server") -> Certificates:
    paths = {"cert": folder / f"{of}.pem", "key": folder / f"{of}-key.pem", "ca": folder / "ca.pem"}
    return Certificates(**{name: paths[name] for name in which})


UNENCRYPTED = "is open to other machines, without encryption; add --tls-cert and --tls-key, or say --insecure"
ANYBODY = "is open to other machines, and anybody could join; add --tokens or --tls-ca, or say --insecure"


@pytest.mark.parametrize(
    ("tls", "tokens", "said"),
    [
        ((), False, [("nothing is encrypted", UNENCRYPTED), ("whoever reaches it can join", ANYBODY)]),
        ((), True, [("nothing is encrypted", UNENCRYPTED)]),
        (("cert", "key"), False, [("whoever reaches it can join", ANYBODY)]),
        (("cert", "key"), True, []),
        (("cert", "key", "ca"), False, []),
        (("cert", "key", "ca"), True, []),
    ],
)
def test_a_server_that_is_open_beyond_this_machine_needs_to_be_told_so(folder: Path, tls, tokens, said) -> None:
    """Encryption comes from a certificate; a say in who joins from tokens, or from an authority of the clients."""
    given = files(folder, *tls), folder / "tokens" if tokens else None, CLIENTS
    for listen in ("0.0.0.0:7001", "[::]:0", "server:7001"):
        made, known, opened = of_server(listen, *given, insecure=True)
        assert (made is not None, known is not None) == (bool(tls), tokens)
        assert opened == ", and ".join(short for short, _ in said)
        if said:
            with pytest.raises(ScenarioError) as caught:
                of_server(listen, *given, insecure=False)
            assert str(caught.value).splitlines() == [f"--listen:1: {listen}: {fault}" for _, fault in said]
        else:
            assert of_server(listen, *given, insecure=False)[2] == ""
    for listen in ("127.0.0.1:0", "[::1]:7001", "localhost:7001"):
        assert of_server(listen, *given, insecure=False)[2] == ""


def test_all_faults_of_a_server_come_at_once(folder: Path) -> None:
    """Those of the certificates, of the tokens and of the address."""
    (folder / "tokens").write_text("laptops s1\n")
    with pytest.raises(ScenarioError) as caught:
        of_server("0.0.0.0:0", files(folder, "cert"), folder / "tokens", CLIENTS, insecure=False)
    assert [fault.key for fault in caught.value.faults] == ["tls-cert", "tokens"]
    with pytest.raises(ScenarioError) as caught:
        of_server("unix:s", files(folder, "ca"), folder / "none", CLIENTS, insecure=False)
    assert [fault.text for fault in caught.value.faults] == [
        "cannot be read: No such file or directory",
        "no meaning without --tls-cert",
        "is a Unix socket, which has no host name to verify; leave out --tls-cert, --tls-key and --tls-ca",
    ]


def test_a_client_shows_its_token_to_other_machines_only_with_tls(folder: Path) -> None:
    """In the open it stays on this machine, unless it may go."""
    nothing = Certificates()
    for server in ("127.0.0.1:1", "unix:/s"):
        assert of_client(server, nothing, "secret", insecure=False) == (None, "secret")
    with pytest.raises(ScenarioError) as caught:
        of_client("server:7001", nothing, "secret", insecure=False)
    assert str(caught.value) == (
        "--token:1: token: would go to server:7001 without encryption; add --tls-ca, or say --insecure"
    )
    assert of_client("server:7001", nothing, "secret", insecure=True) == (None, "secret")
    assert of_client("server:7001", nothing, "", insecure=False) == (None, None)
    tls, token = of_client("server:7001", files(folder, "ca"), "secret", insecure=False)
    assert (tls is not None, token) == (True, "secret")


@pytest.mark.parametrize(
    ("which", "server", "insecure", "text"),
    [
        (("cert", "key"), "server:1", False, "no meaning without --tls-ca, whose servers to trust"),
        (("ca",), "server:1", True, "no meaning with --tls-ca: the server's certificate is always verified; "),
        (("ca",), "unix:s", False, "is a Unix socket, which has no host name to verify; "),
        (("ca", "key"), "server:1", False, "no meaning without --tls-cert"),
    ],
)
def test_what_does_not_go_together_is_a_fault_of_a_client(folder: Path, which, server, insecure, text) -> None:
    """Whoever knows --insecure from other tools would think that it leaves out the verification."""
    with pytest.raises(ScenarioError) as caught:
        of_client(server, files(folder, *which, of="client"), "secret", insecure=insecure)
    assert [fault.text.startswith(text) for fault in caught.value.faults] == [True]
    assert "secret" not in str(caught.value)
