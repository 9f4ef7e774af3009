"""Certificates and join tokens for clients on other machines: a small authority of one's own, in a directory.

Its certificates are X.509 with ECDSA keys on P-256. The server's and the clients' certificates say what they are for,
so that no client can pass itself off as the server.
"""

import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from fedemu.errors import Fault, ScenarioError
from fedemu.types import ClientId

HERE = ("localhost", "127.0.0.1", "::1")
"""What every server's certificate is good for."""

SKEW = timedelta(hours=1)
"""How far the clocks of two machines may be apart: certificates are valid since then."""


def write(
    folder: Path, *, hosts: Sequence[str] = (), days: int = 365, clients: Mapping[str, Sequence[ClientId]] | None = None
) -> list[Path]:
    """Write an authority's, a server's and a client's certificate, each with its key; return the files.

    Private keys and tokens are for their owner alone to read.

    Args:
        folder: Made if it is not there; what is there stays.
        hosts: Names and addresses by which clients reach the server, beside those of this machine.
        days: For which the certificates are valid.
        clients: The clients of each group of a scenario, to write a token for each group and each client; None
            writes none.

    Raises:
        ScenarioError: One of the files exists, a host cannot be in a certificate, or nothing can be written there.
    """
    names, faults = _names((*HERE, *hosts))
    contents = _certificates(names, days)
    if clients is not None:
        contents["tokens"] = _tokens(clients)
    taken = [folder / name for name in contents if (folder / name).exists()]
    faults += [Fault(str(path), 1, "certs", "exists already; name a new directory") for path in taken]
    if faults:
        raise ScenarioError(faults)
    path = folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            path = folder / name
            mode = 0o600 if name.endswith("-key.pem") or name == "tokens" else 0o644
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
                file.write(content)
    except OSError as error:
        raise ScenarioError([Fault(str(path), 1, "certs", f"cannot be written: {error.strerror}")]) from error
    return [folder / name for name in contents]


def _tokens(clients: Mapping[str, Sequence[ClientId]]) -> bytes:
    """Return a line for each group, which opens any slot of it, and for each client."""
    places = [*clients, *(client for group in clients.values() for client in group)]
    return "".join(f"{place} {secrets.token_hex(32)}\n" for place in places).encode()


def _names(hosts: Iterable[str]) -> tuple[list[x509.GeneralName], list[Fault]]:
    names: list[x509.GeneralName] = []
    faults = []
    for host in dict.fromkeys(hosts):
        try:
            names.append(x509.IPAddress(ip_address(host)))
        except ValueError:
            if host and host.isascii() and all(part for part in host.split(".")) and not set(host) & set(" :/,"):
                names.append(x509.DNSName(host))
            else:
                fault = f"{host!r} is neither a host name nor an IP address; write it without a port"
                faults.append(Fault("--host", 1, "host", fault))
    return names, faults


def _certificates(names: Sequence[x509.GeneralName], days: int) -> dict[str, bytes]:
    """Return the files of the authority, the server and the clients, by name."""
    now = datetime.now(UTC)
    authority = ec.generate_private_key(ec.SECP256R1())
    issuer = _named("fedemu CA")

    def signed(
        subject: x509.Name, key: ec.EllipticCurvePublicKey, extensions: Iterable[tuple[x509.ExtensionType, bool]]
    ) -> bytes:
        builder = (
            x509.CertificateBuilder()
            .issuer_name(issuer)
            .subject_name(subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - SKEW)
            .not_valid_after(now + timedelta(days=days))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical=critical)
        return builder.sign(authority, SHA256()).public_bytes(Encoding.PEM)

    def leaf(name: str, purpose: ObjectIdentifier, *more: x509.ExtensionType) -> dict[str, bytes]:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = signed(
            _named(f"fedemu {name}"),
            key.public_key(),
            [
                (x509.BasicConstraints(ca=False, path_length=None), True),
                (_usage(), True),
                (x509.ExtendedKeyUsage([purpose]), False),
                (x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), False),
                *((extension, False) for extension in more),
            ],
        )
        return {f"{name}.pem": certificate, f"{name}-key.pem": _pem(key)}

    root = signed(
        issuer,
        authority.public_key(),
        [(x509.BasicConstraints(ca=True, path_length=0), True), (_usage(signs=True), True)],
    )
    return {
        "ca.pem": root,
        "ca-key.pem": _pem(authority),
        **leaf("server", ExtendedKeyUsageOID.SERVER_AUTH, x509.SubjectAlternativeName(names)),
        **leaf("client", ExtendedKeyUsageOID.CLIENT_AUTH),
    }


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _usage(*, signs: bool = False) -> x509.KeyUsage:
    """Allow a key to sign certificates, or to sign handshakes."""
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
