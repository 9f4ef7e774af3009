"""TLS for one end of a connection: certificates from files, and gRPC's credentials made of them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import TypeVar

import grpc
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from fedemu.errors import Fault, ScenarioError
from fedemu.net.proxy.sockets import address as parsed

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Pem:
    """A file, as it was when it was read."""

    path: Path
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Tls:
    """What one end shows and whom it trusts; a server that trusts somebody asks clients for a certificate."""

    certificate: Pem | None
    """The end's own, then those between it and the authority."""
    key: Pem | None
    """Of the certificate; one is there with the other."""
    ca: Pem | None
    """Authorities that the other end's certificate may come from."""

    def of_server(self) -> grpc.ServerCredentials:
        """Return the credentials of an end that has a certificate."""
        assert self.certificate is not None
        assert self.key is not None
        pair = self.key.data, self.certificate.data
        return grpc.ssl_server_credentials([pair], self.ca and self.ca.data, require_client_auth=self.ca is not None)

    def of_client(self) -> grpc.ChannelCredentials:
        """Return the credentials of an end that trusts an authority."""
        assert self.ca is not None
        own = self.certificate and self.certificate.data
        return grpc.ssl_channel_credentials(self.ca.data, self.key and self.key.data, own)


def read(certificate: Path | None, key: Path | None, ca: Path | None) -> Tls:
    """Read what `--tls-cert`, `--tls-key` and `--tls-ca` name.

    Raises:
        ScenarioError: With every file that cannot be read or is not what it should be, and a certificate without its
            key or a key without its certificate.
    """
    faults: list[Fault] = []

    def load(path: Path | None, option: str, what: str, parse: Callable[[bytes], T]) -> tuple[Pem | None, T | None]:
        if path is None:
            return None, None
        try:
            data = path.read_bytes()
            return Pem(path, data), parse(data)
        except OSError as error:
            faults.append(Fault(str(path), 1, option, f"cannot be read: {error.strerror}"))
        except TypeError:
            faults.append(Fault(str(path), 1, option, "needs a password; write the key without one"))
        except (ValueError, UnsupportedAlgorithm):
            faults.append(Fault(str(path), 1, option, f"has no {what} in PEM"))
        return None, None

    own, chain = load(certificate, "tls-cert", "certificate", x509.load_pem_x509_certificates)
    secret, private = load(key, "tls-key", "private key", lambda data: load_pem_private_key(data, None))
    trusted, _ = load(ca, "tls-ca", "certificate", x509.load_pem_x509_certificates)
    if (certificate is None) != (key is None):
        there, missing = ("tls-cert", "tls-key") if key is None else ("tls-key", "tls-cert")
        faults.append(Fault(f"--{there}", 1, there, f"no meaning without --{missing}"))
    if chain and private is not None and chain[0].public_key() != private.public_key():
        faults.append(Fault(str(key), 1, "tls-key", f"is not the key of {certificate}"))
    if faults:
        raise ScenarioError(faults)
    return Tls(own, secret, trusted)


def stays_here(address: str) -> bool:
    """Return whether a connection to this address is sure not to leave this machine."""
    if address.startswith("unix:"):
        return True
    try:
        host = parsed(address).host
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
