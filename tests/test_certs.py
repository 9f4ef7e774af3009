"""`certs.write`: an authority of one's own, certificates that are good for one purpose, and tokens."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import verification

from fedemu import certs, tokens
from fedemu.errors import ScenarioError

PAIRS = ["ca", "client", "server"]


def certificate(folder: Path, name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate((folder / f"{name}.pem").read_bytes())


def verifier(folder: Path) -> verification.PolicyBuilder:
    return verification.PolicyBuilder().store(verification.Store([certificate(folder, "ca")]))


def test_every_certificate_has_its_key_for_the_owner_alone(tmp_path: Path) -> None:
    """P-256, without a password; 0600 for keys and tokens, whatever the directory's mode."""
    written = certs.write(tmp_path / "new" / "c", clients={"phones": ["phones/0"]})
    assert sorted(path.name for path in written) == sorted(
        [f"{name}{end}.pem" for name in PAIRS for end in ("", "-key")] + ["tokens"]
    )
    for path in written:
        secret = path.name.endswith("-key.pem") or path.name == "tokens"
        assert path.stat().st_mode & 0o777 == (0o600 if secret else 0o644)
    for name in PAIRS:
        key = load_pem_private_key((tmp_path / "new" / "c" / f"{name}-key.pem").read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        assert key.curve.name == "secp256r1"
        assert key.public_key() == certificate(tmp_path / "new" / "c", name).public_key()


def test_the_server_is_trusted_under_each_of_its_names_and_no_other(tmp_path: Path) -> None:
    """By the rules of the web's authorities, which are stricter than those of TLS libraries."""
    certs.write(tmp_path, hosts=["fed.example", "10.0.0.3", "localhost"])
    builder, server = verifier(tmp_path), certificate(tmp_path, "server")
    for name in ("localhost", "fed.example"):
        builder.build_server_verifier(x509.DNSName(name)).verify(server, [])
    for address in ("127.0.0.1", "::1", "10.0.0.3"):
        builder.build_server_verifier(x509.IPAddress(ip_address(address))).verify(server, [])
    with pytest.raises(verification.VerificationError):
        builder.build_server_verifier(x509.DNSName("other.example")).verify(server, [])
    certs.write(tmp_path / "other")
    with pytest.raises(verification.VerificationError):
        verifier(tmp_path / "other").build_server_verifier(x509.DNSName("localhost")).verify(server, [])


def test_a_certificate_is_good_for_one_purpose(tmp_path: Path) -> None:
    """A client that has been broken into cannot pose as the server, nor sign certificates."""
    certs.write(tmp_path)
    server, client = certificate(tmp_path, "server"), certificate(tmp_path, "client")

    def purposes(one: x509.Certificate) -> list[str]:
        return [oid._name for oid in one.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value]

    assert (purposes(server), purposes(client)) == (["serverAuth"], ["clientAuth"])
    for one in (server, client):
        assert not one.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        assert not one.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign


def test_certificates_are_valid_since_an_hour_and_for_the_days_asked_for(tmp_path: Path) -> None:
    """A client whose clock is a little behind can join at once."""
    before = datetime.now(UTC).replace(microsecond=0)
    certs.write(tmp_path, days=3)
    after = datetime.now(UTC)
    for name in PAIRS:
        one = certificate(tmp_path, name)
        assert before <= one.not_valid_before_utc + timedelta(hours=1) <= after
        assert before <= one.not_valid_after_utc - timedelta(days=3) <= after


def test_nothing_is_replaced_and_then_nothing_is_written(tmp_path: Path) -> None:
    """One file is in the way: it is named, it stays, and none of the others is there."""
    (tmp_path / "client-key.pem").write_text("precious")
    with pytest.raises(ScenarioError) as caught:
        certs.write(tmp_path, hosts=["two words"])
    assert str(caught.value).splitlines() == [
        "--host:1: host: 'two words' is neither a host name nor an IP address; write it without a port",
        f"{tmp_path}/client-key.pem:1: certs: exists already; name a new directory",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["client-key.pem"]
    assert (tmp_path / "client-key.pem").read_text() == "precious"


@pytest.mark.parametrize("host", ["", "fed:7001", "größe", "a..b", "http://a", "10.0.0.0/8"])
def test_what_is_no_host_is_a_fault(tmp_path: Path, host: str) -> None:
    """A certificate with such a name would not do what its owner believes."""
    with pytest.raises(ScenarioError, match="is neither a host name nor an IP address"):
        certs.write(tmp_path / "c", hosts=[host])
    assert not (tmp_path / "c").exists()


def test_a_place_that_cannot_be_written_is_a_fault(tmp_path: Path) -> None:
    """A file stands where the directory should be."""
    (tmp_path / "c").write_text("")
    with pytest.raises(ScenarioError, match=f"{tmp_path}/c/d:1: certs: cannot be written: Not a directory"):
        certs.write(tmp_path / "c" / "d")


def test_each_group_and_each_client_gets_a_token_of_its_own(tmp_path: Path) -> None:
    """Of 256 random bits each, and a server takes the file as it is."""
    clients = {"phones": ["phones/0", "phones/1"], "laptops": ["laptops/0"]}
    certs.write(tmp_path / "one", clients=clients)
    certs.write(tmp_path / "two", clients=clients)
    lines = [
        line.split() for folder in ("one", "two") for line in (tmp_path / folder / "tokens").read_text().splitlines()
    ]
    assert [place for place, _ in lines] == ["phones", "laptops", "phones/0", "phones/1", "laptops/0"] * 2
    assert len({token for _, token in lines}) == 10
    assert {len(bytes.fromhex(token)) for _, token in lines} == {32}
    known = tokens.load(tmp_path / "one" / "tokens", clients)
    assert known.open(lines[0][1], "phones", None) == {"phones"}
    assert known.open(lines[3][1], "phones", None) == {"phones/1"}
