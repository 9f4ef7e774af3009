"""Addresses and sockets of a proxy: listen, connect, hang up, reset."""

import asyncio
import contextlib
import socket
import stat
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fedemu.errors import NetworkError

BACKLOG = 4096
"""Connections that may wait to be accepted; the kernel has a limit of its own."""


class Address(NamedTuple):
    """`host:port`, or `unix:PATH`."""

    host: str
    """The path of a Unix socket."""
    port: int | None
    """None for a Unix socket."""

    def __str__(self) -> str:
        if self.port is None:
            return f"unix:{self.host}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def address(text: str) -> Address:
    """Return the address that is written there.

    Raises:
        ValueError: It is neither host:port nor unix:PATH.
    """
    if text.startswith("unix:") and len(text) > len("unix:"):
        return Address(text.removeprefix("unix:"), None)
    host, _, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""
    if not (host and port.isdecimal() and int(port) <= 65535):
        raise ValueError(f"{text!r} is no address; write host:port, [IPv6]:port or unix:PATH")
    return Address(host, int(port))


def listen(at: Address) -> tuple[socket.socket, Address]:
    """Return a socket that listens, and where: port 0 takes a free one. A Unix socket that was left behind is replaced.

    Raises:
        NetworkError: It cannot listen there.
    """
    try:
        if at.port is None:
            with contextlib.suppress(FileNotFoundError):
                if stat.S_ISSOCK(Path(at.host).stat().st_mode):
                    Path(at.host).unlink()
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            listener.bind(at.host)
            listener.listen(BACKLOG)
        else:
            family = socket.getaddrinfo(at.host, at.port, type=socket.SOCK_STREAM)[0][0]
            listener = socket.create_server((at.host, at.port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise NetworkError(f"cannot listen at {at}: {error.strerror}; choose another address") from error
    listener.setblocking(False)
    return listener, at if at.port is None else Address(at.host, listener.getsockname()[1])


def hang_up(listener: socket.socket) -> None:
    """Close a socket that listens, and take a Unix socket's name away."""
    if listener.family == socket.AF_UNIX:
        Path(listener.getsockname()).unlink(missing_ok=True)
    listener.close()


class Upstream(NamedTuple):
    """Where a proxy connects to, resolved."""

    at: Address
    places: Sequence[tuple[int, tuple[Any, ...] | str]]
    """Family and socket address of each place to try."""


async def resolve(at: Address) -> Upstream:
    """Look an address up.

    Raises:
        NetworkError: There is no such host.
    """
    if at.port is None:
        return Upstream(at, [(socket.AF_UNIX, at.host)])
    try:
        found = await asyncio.get_running_loop().getaddrinfo(at.host, at.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise NetworkError(f"cannot find {at.host!r}: {error.strerror}") from error
    return Upstream(at, [(family, place) for family, _, _, _, place in found])


async def connect(upstream: Upstream) -> socket.socket:
    """Return a connection to the first place that answers.

    Raises:
        NetworkError: None does; it says what the last one said.
    """
    reason = "no address"
    for family, place in upstream.places:
        try:
            peer = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:
            raise NetworkError(f"no socket for {upstream.at}: {error.strerror}") from error
        try:
            peer.setblocking(False)
            await asyncio.get_running_loop().sock_connect(peer, place)
        except OSError as error:
            peer.close()
            reason = error.strerror or str(error)
        except BaseException:
            peer.close()
            raise
        else:
            prompt(peer)
            return peer
    raise NetworkError(f"cannot connect to {upstream.at}: {reason}")


def prompt(peer: socket.socket) -> None:
    """Have what is written leave at once."""
    if peer.family != socket.AF_UNIX:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def reset(peer: socket.socket) -> None:
    """Close a connection with RST, so that the other end reads a connection reset (a Unix socket just ends)."""
    with contextlib.suppress(OSError):
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()
