"""gRPC over TLS: what the wire shows, whom either end refuses, and what it is told of that."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from fedemu import certs
from fedemu.errors import NetworkError, PeerError, ScenarioError
from fedemu.net.grpc import GrpcTransport
from fedemu.net.tls import Tls, read, stays_here

SECRET = b"this is a model, or a token"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates of three authorities: ours, theirs, and an old one whose time is over."""
    made = tmp_path_factory.mktemp("certs")
    certs.write(made / "ours")
    certs.write(made / "theirs")
    certs.write(made / "old", days=0)
    return made


@pytest.fixture
def tls(folder: Path) -> Callable[..., Tls | None]:
    """Makes one end's TLS: whose certificate it shows, whom it trusts; with neither, none."""

    def make(shows: str | None = None, trusts: str | None = None) -> Tls | None:
        if shows is trusts is None:
            return None
        shown = (None, None) if shows is None else (folder / f"{shows}.pem", folder / f"{shows}-key.pem")
        return read(*shown, None if trusts is None else folder / trusts / "ca.pem")

    return make


async def echo(channel) -> None:
    with suppress(NetworkError):
        while True:
            await channel.send(await channel.receive())


async def trip(transport: GrpcTransport, address: str) -> bytes:
    """Return what comes back of the secret."""
    channel = await transport.connect(address)
    try:
        await channel.send(SECRET)
        return await channel.receive()
    finally:
        await channel.aclose()


ENDS = {
    "open": ((), ()),
    "server": (("ours/server",), (None, "ours")),
    "mutual": (("ours/server", "ours"), ("ours/client", "ours")),
    "certificate not asked for": (("ours/server",), ("theirs/client", "ours")),
}


@pytest.mark.parametrize("name", ENDS)
async def test_ends_that_trust_each_other_talk_and_only_they_can_read_it(name: str, tls) -> None:
    """Everything passes a relay that notes it: the secret is there both ways in the open, and never with TLS."""
    server, client = ENDS[name]
    async with (
        GrpcTransport(tls=tls(*server)).serve(echo) as address,
        relayed(address) as (relay, noted),
    ):
        assert await trip(GrpcTransport(tls=tls(*client)), relay) == SECRET
    assert bytes(noted).count(SECRET) == (2 if name == "open" else 0)
    assert len(noted) > 2 * len(SECRET)


@asynccontextmanager
async def relayed(address: str) -> AsyncIterator[tuple[str, bytearray]]:
    """Pass on what comes to another address, and note it."""
    noted, (host, _, port) = bytearray(), address.partition(":")

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(2**16):
            noted.extend(data)
            writer.write(data)
        writer.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(host, int(port))
        await asyncio.gather(pump(reader, back), pump(there, writer))

    async with listening(relay) as relay_address:
        yield relay_address, noted


@asynccontextmanager
async def listening(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[str]:
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


NOT_TRUSTED = "the server's certificate is not trusted: "
REFUSALS = {
    "open client": (("ours/server",), (), "the server speaks TLS; join with --tls-ca and its authority's certificate"),
    "open client, mutual": (
        ("ours/server", "ours"),
        (),
        "the server speaks TLS; join with --tls-ca and its authority's certificate",
    ),
    "open server": (
        (),
        (None, "ours"),
        "the server does not speak TLS; join without --tls-ca, or serve with --tls-cert",
    ),
    "another authority's server": (
        ("theirs/server",),
        (None, "ours"),
        f"{NOT_TRUSTED}unable to get local issuer certificate",
    ),
    "an old server": (("old/server",), (None, "old"), f"{NOT_TRUSTED}certificate has expired"),
    "a client as a server": (("ours/client",), (None, "ours"), f"{NOT_TRUSTED}uns.+ certificate purpose"),
    "no client certificate": (
        ("ours/server", "ours"),
        (None, "ours"),
        "the server asks for a client certificate; join with --tls-cert and --tls-key",
    ),
    "another authority's client": (
        ("ours/server", "ours"),
        ("theirs/client", "ours"),
        "the server does not accept the client certificate {}/theirs/client.pem",
    ),
    "an old client": (
        ("ours/server", "old"),
        ("old/client", "ours"),
        "the server does not accept the client certificate {}/old/client.pem",
    ),
    "a server as a client": (
        ("ours/server", "ours"),
        ("ours/server", "ours"),
        "the server does not accept the client certificate {}/ours/server.pem",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
async def test_ends_that_do_not_trust_each_other_say_why_at_once(name: str, tls, folder: Path) -> None:
    """No frame is ever served; the peer error is not retried. 3 s are far less than the 5 minutes of a client."""
    server, client, why = REFUSALS[name]
    served = []

    async def serve(channel) -> None:
        served.append(await channel.receive())

    async with GrpcTransport(tls=tls(*server)).serve(serve) as address:
        began = time.monotonic()
        with pytest.raises(PeerError) as caught:
            await trip(GrpcTransport(tls=tls(*client)), address)
        assert time.monotonic() - began < 3
    assert caught.value.status == "UNAUTHENTICATED"
    assert re.fullmatch(why.format(folder), caught.value.text), caught.value.text
    assert served == []


async def test_a_server_under_another_address_than_its_certificates_is_refused(tls) -> None:
    """All of 127.0.0.0/8 is this machine, and the certificate is for 127.0.0.1."""
    async with GrpcTransport("0.0.0.0:0", tls=tls("ours/server")).serve(echo) as address:
        port = address.rpartition(":")[2]
        with pytest.raises(PeerError, match=r"not valid for '127\.0\.0\.2'"):
            await trip(GrpcTransport(tls=tls(None, "ours")), f"127.0.0.2:{port}")
        for host in ("127.0.0.1", "localhost"):
            assert await trip(GrpcTransport(tls=tls(None, "ours")), f"{host}:{port}") == SECRET


@pytest.mark.parametrize("client", [(), (None, "ours")], ids=["open", "tls"])
async def test_nobody_there_and_who_hangs_up_are_worth_another_try(client, tls) -> None:
    """The second is a port that is forwarded to a server which is not there yet."""

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    transport = GrpcTransport(tls=tls(*client))
    async with listening(hang_up) as address:
        with pytest.raises(NetworkError, match=f"nobody answers at {address}"):
            await transport.connect(address)
    with pytest.raises(NetworkError, match=f"nobody answers at {address}"):
        await transport.connect(address)
    with pytest.raises(NetworkError, match=r"nobody answers at none\.invalid:1"):
        await transport.connect("none.invalid:1")


def test_every_fault_of_the_files_is_told(folder: Path, tmp_path: Path) -> None:
    """A file that is not there, one that is no PEM, a key with a password, another's key, one without the other."""

    def faults(*files: Path | None) -> list[str]:
        with pytest.raises(ScenarioError) as caught:
            read(*files)
        return str(caught.value).splitlines()

    ours, none, junk, locked = folder / "ours", tmp_path / "none", tmp_path / "junk", tmp_path / "locked"
    junk.write_bytes(b"\x00 no PEM")
    key = load_pem_private_key((ours / "server-key.pem").read_bytes(), None)
    locked.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")))
    assert faults(none, junk, ours / "server-key.pem") == [
        f"{none}:1: tls-cert: cannot be read: No such file or directory",
        f"{junk}:1: tls-key: has no private key in PEM",
        f"{ours}/server-key.pem:1: tls-ca: has no certificate in PEM",
    ]
    assert faults(ours / "server.pem", locked, tmp_path) == [
        f"{locked}:1: tls-key: needs a password; write the key without one",
        f"{tmp_path}:1: tls-ca: cannot be read: Is a directory",
    ]
    assert faults(ours / "server.pem", ours / "client-key.pem", None) == [
        f"{ours}/client-key.pem:1: tls-key: is not the key of {ours}/server.pem"
    ]
    assert faults(ours / "server.pem", None, None) == ["--tls-cert:1: tls-cert: no meaning without --tls-key"]
    assert faults(None, ours / "server-key.pem", None) == ["--tls-key:1: tls-key: no meaning without --tls-cert"]


def test_a_key_is_never_shown(tls, folder: Path) -> None:
    """Not in a traceback that shows values."""
    key = (folder / "ours" / "server-key.pem").read_text().splitlines()[1]
    assert key not in repr(tls("ours/server", "ours"))


@pytest.mark.parametrize(
    ("address", "here"),
    [
        ("127.0.0.1:0", True),
        ("127.8.9.10:7001", True),
        ("localhost:7001", True),
        ("[::1]:7001", True),
        ("unix:/run/fedemu", True),
        ("0.0.0.0:7001", False),
        ("[::]:7001", False),
        ("10.0.0.3:7001", False),
        ("server:7001", False),
        ("localhost.example.org:7001", False),
        ("127.0.0.1.example.org:7001", False),
        ("127.0.0.1:7001,0.0.0.0:7001", False),
        ("dns:///localhost:7001", False),
        (":7001", False),
        ("localhost", False),
    ],
)
def test_only_what_is_sure_to_stay_on_this_machine_stays_here(address: str, here: bool) -> None:
    """In doubt it does not: a name may be anybody's."""
    assert stays_here(address) is here
