"""What a server and its clients must have before they talk beyond this machine: TLS, and a say in who may join."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from fedemu import tokens as join_tokens
from fedemu.errors import Fault, ScenarioError
from fedemu.net.tls import Tls, read, stays_here
from fedemu.tokens import Tokens
from fedemu.types import ClientId


class Certificates(NamedTuple):
    """The files that `--tls-cert`, `--tls-key` and `--tls-ca` name."""

    cert: Path | None = None
    key: Path | None = None
    ca: Path | None = None


def of_server(
    listen: str,
    files: Certificates,
    tokens: Path | None,
    clients: Mapping[str, Sequence[ClientId] | None],
    *,
    insecure: bool,
) -> tuple[Tls | None, Tokens | None, str]:
    """Return a server's certificates and tokens, and what is open about it beyond this machine, for people.

    Args:
        listen: Where it listens.
        files: Its certificate; with an authority, clients need a certificate from there.
        tokens: A file of tokens that clients need; None asks for none.
        clients: The clients of each group of the scenario; None, any number may come.
        insecure: Listen beyond this machine whatever is open.

    Raises:
        ScenarioError: A file is not what it should be, one is missing beside another, or something is open.
    """
    faults: list[Fault] = []
    tls = known = None
    with _collected(faults):
        tls = read(*files) if any(files) else None
    with _collected(faults):
        known = None if tokens is None else join_tokens.load(tokens, clients)
    if files.ca is not None and not (files.cert or files.key):
        faults.append(Fault("--tls-ca", 1, "tls-ca", "no meaning without --tls-cert"))
    faults += _on_a_socket("--listen", listen, files)
    away = not stays_here(listen)
    unencrypted = away and not any(files)
    anybody = away and not (files.ca or tokens)
    if not insecure:
        if unencrypted:
            fault = "is open to other machines, without encryption; add --tls-cert and --tls-key, or say --insecure"
            faults.append(Fault("--listen", 1, listen, fault))
        if anybody:
            fault = "is open to other machines, and anybody could join; add --tokens or --tls-ca, or say --insecure"
            faults.append(Fault("--listen", 1, listen, fault))
    if faults:
        raise ScenarioError(faults)
    opened = [*["nothing is encrypted"] * unencrypted, *["whoever reaches it can join"] * anybody]
    return tls, known, ", and ".join(opened)


def of_client(server: str, files: Certificates, token: str, *, insecure: bool) -> tuple[Tls | None, str | None]:
    """Return a client's certificates and token.

    Args:
        server: Where it connects to.
        files: The authority of the server's certificate, and the client's own certificate.
        token: The token, or `@FILE`; empty where there is none.
        insecure: Show it where others may read along.

    Raises:
        ScenarioError: A file is not what it should be, one is missing beside another, or the token would be shown.
    """
    faults: list[Fault] = []
    tls = shown = None
    with _collected(faults):
        tls = read(*files) if any(files) else None
    with _collected(faults):
        shown = join_tokens.given(token) if token else None
    if files.ca is None and files.cert is not None:
        faults.append(Fault("--tls-cert", 1, "tls-cert", "no meaning without --tls-ca, whose servers to trust"))
    faults += _on_a_socket("--server", server, files)
    if insecure and any(files):
        fault = "no meaning with --tls-ca: the server's certificate is always verified; leave out one of the two"
        faults.append(Fault("--insecure", 1, "insecure", fault))
    if token and not (insecure or any(files) or stays_here(server)):
        fault = f"would go to {server} without encryption; add --tls-ca, or say --insecure"
        faults.append(Fault("--token", 1, "token", fault))
    if faults:
        raise ScenarioError(faults)
    return tls, shown


def _on_a_socket(option: str, address: str, files: Certificates) -> list[Fault]:
    if address.startswith("unix:") and any(files):
        fault = "is a Unix socket, which has no host name to verify; leave out --tls-cert, --tls-key and --tls-ca"
        return [Fault(option, 1, address, fault)]
    return []


@contextmanager
def _collected(faults: list[Fault]) -> Iterator[None]:
    """Note faults instead of raising them."""
    try:
        yield
    except ScenarioError as error:
        faults += error.faults
