"""Prometheus' own checks of what stands in docker/prometheus."""

import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.docker.prometheus import needs_prometheus, promtool

FILES = Path(__file__).parents[2] / "docker" / "prometheus"
UNIT_TESTS = Path(__file__).parent / "rules.yml"


@needs_prometheus
def test_the_configuration_and_its_rules_are_sound() -> None:
    """Every file that it names is found and has no fault."""
    assert "SUCCESS: 2 rule files found" in promtool("check", "config", FILES / "prometheus.yml")


@needs_prometheus
def test_the_rules_give_what_was_worked_out_by_hand() -> None:
    """And alerts fire, and do not fire."""
    assert "SUCCESS" in promtool("test", "rules", UNIT_TESTS)


@pytest.mark.parametrize("file", ["rules.yml", "alerts.yml"])
def test_every_rule_and_alert_has_a_unit_test(file: str) -> None:
    """A new one is found unasked; an alert has one in which it fires."""
    tests = UNIT_TESTS.read_text()
    for group in YAML(typ="safe").load(FILES / file)["groups"]:
        for rule in group["rules"]:
            if "record" in rule:
                assert f"expr: {rule['record']}" in tests
            else:
                fires = rf"alertname: {rule['alert']}\n +exp_alerts:\n +- exp_labels"
                assert re.search(fires, tests), rule["alert"]
