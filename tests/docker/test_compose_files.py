"""What docker/'s files say twice is the same: groups, commands and ports."""

import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from fedemu.cli import main
from fedemu.scenario import load

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
CLIENTS = {"phones", "laptops"}


def services(file: str) -> dict[str, Any]:
    return YAML(typ="safe").load(DOCKER / file)["services"]


def options(file: str, service: str) -> set[str]:
    """Return what a service's command says but where it listens, and which scenario it is."""
    return {each for each in services(file)[service]["command"] if "/scenarios/" not in each}


def test_the_groups_of_the_scenario_are_services_that_prometheus_looks_for() -> None:
    """By their names, in all files."""
    assert {name for name, each in services("compose.yaml").items() if "join" in each.get("command", ())} == CLIENTS
    groups = load(ROOT / "scenarios" / "containers.yaml").cells[0].scenario.clients
    replicas = {name: services("compose.yaml")[name]["deploy"]["replicas"] for name in groups}
    assert {name: group.count for name, group in groups.items()} == replicas
    jobs = YAML(typ="safe").load(DOCKER / "prometheus" / "prometheus.yml")["scrape_configs"]
    names = {name for job in jobs for each in job["dns_sd_configs"] for name in each["names"]}
    assert names == CLIENTS | {"server"}
    assert names | {"prometheus"} == set(services("stack.yaml"))


def test_an_override_with_tls_takes_insecure_away_and_nothing_else() -> None:
    """And adds the options of TLS and tokens."""
    plain, tls = options("compose.yaml", "server"), options("compose.tls.yaml", "server")
    assert plain - tls == {"--insecure"}
    assert {each.partition("=")[0] for each in tls - plain} == {"--tls-cert", "--tls-key", "--tokens"}
    for group in CLIENTS:
        plain, tls = options("compose.yaml", group), options("compose.tls.yaml", group)
        assert plain < tls
        assert {each.partition("=")[0] for each in tls - plain} == {"--tls-ca", "--token"}


def test_a_stack_runs_what_compose_runs() -> None:
    """But that its clients have no server elsewhere."""
    assert options("stack.yaml", "server") == options("compose.yaml", "server")
    for group in CLIENTS:
        plain = {re.sub(r"\$\{FEDEMU_SERVER:-(.+)\}", r"\1", each) for each in options("compose.yaml", group)}
        assert options("stack.yaml", group) == plain


@pytest.mark.parametrize("command", ["serve", "join"])
def test_every_option_exists(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """As `--help` says."""
    with pytest.raises(SystemExit):
        main([command, "--help"])
    known = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    for file in ("compose.yaml", "compose.tls.yaml", "stack.yaml"):
        for service in ("server",) if command == "serve" else CLIENTS:
            said = {each.partition("=")[0] for each in options(file, service) if each.startswith("--")}
            assert said <= known
