"""docker/compose.tls.yaml on a real engine: clients in a network of their own reach the server by its address."""

import json
import os
import re
from pathlib import Path

import pytest

from fedemu.cli import main
from tests.docker.engine import free_port, project, run, says, scenario

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to the user of the image"),
    pytest.mark.usefixtures("images"),
]

FILES = ("compose.yaml", "compose.tls.yaml")
USER = 10001
"""Of the image: keys and tokens are for their owner alone."""

SCENARIO = """\
dataset: {kind: digits, examples: 400}
partition: {kind: iid}
model: {kind: softmax}
training: {epochs: 1, batch_size: 16, lr: 0.1}
strategy: {kind: fedavg}
clients:
  phones: {count: 2, link: {delay: 20ms, retry: {timeout: 1min}}}
  laptops: {count: 1, link: {retry: {timeout: 1min}}}
stop: {rounds: 5}
"""


@pytest.fixture
def here() -> str:
    """An address of this machine."""
    return run("hostname", "-I").split()[0]


def certificates(folder: Path, host: str) -> Path:
    """Write certificates and tokens as compose.tls.yaml's head says."""
    certs = folder / "certs"
    assert main(["certs", str(certs), "--host", host, "--tokens", str(folder / "scenarios" / "scenario.yaml")]) == 0
    for group in ("phones", "laptops"):
        [token] = re.findall(rf"^{group} (\S+)$", (certs / "tokens").read_text(), re.MULTILINE)
        (certs / f"{group}.token").write_text(token)
    for path in (certs, *certs.iterdir()):
        os.chown(path, USER, USER)
    return certs


def stranger(address: str, certs: Path) -> str:
    """Return what a client of a third network says that the server will not have."""
    join = ["join", "--server", address, "--group", "phones", "--tls-ca", "/ca.pem", "--token", "guessed"]
    return run("docker", "run", "--rm", "--volume", f"{certs / 'ca.pem'}:/ca.pem:ro", "fedemu", *join, status=1)


def test_clients_of_another_network_join_with_certificate_and_token(tmp_path: Path, here: str) -> None:
    """By the server's published port: nothing else leads from one network into the other."""
    settings = {**scenario(tmp_path, SCENARIO), "FEDEMU_PORT": free_port()}
    certs = certificates(tmp_path, here)
    settings["FEDEMU_CERTS"] = str(certs)
    address = f"{here}:{settings['FEDEMU_PORT']}"
    with project("apart-server", settings, files=FILES) as server:
        server.up("server")
        says(server.server, "enrolling clients")
        assert "this server does not know this token" in stranger(address, certs)
        says(server.server, r"refused \S+: UNAUTHENTICATED: this server does not know this token")
        with project("apart-clients", {**settings, "FEDEMU_SERVER": address}, files=FILES) as clients:
            clients.up("phones", "laptops", phones=2, laptops=1)
            server.finish()
            served = server.fetch(tmp_path)
            joined = {says(container, r"joined as (\w+/\d):")[0] for container in clients.containers()}
    assert joined == {"phones/0", "phones/1", "laptops/0"}
    assert json.loads((served / "result.json").read_text())["updates"]["aggregated"] == 15
