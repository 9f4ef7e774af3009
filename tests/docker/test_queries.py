"""Every query of every dashboard and of METRICS.md, asked of a real Prometheus that has runs in it."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fedemu import export
from fedemu.cli import main
from tests.docker.prometheus import Prometheus, backfill, needs_prometheus, prometheus

ROOT = Path(__file__).parents[2]
SCENARIO = str(Path(__file__).parent / "monitored.yaml")
START = 1_700_000_000.0

VARIABLES = {"$run": ".+", "$clock": ".+", "$group": ".+", "$window": "5m", "$__range": "1h"}
EXAMPLES = {"flaky-uplink": "monitored/synchronous/seed-1"}
"""What METRICS.md calls a run."""

REAL = ("fedemu_link_delay_seconds", "fedemu_link_delay_error_seconds")
"""Only on the real clock, and measured beside the log: no export has them; `slow/test_scraped.py` asks for them."""


def panels() -> dict[str, list[dict[str, Any]]]:
    """Return the panels of each dashboard that is checked in."""
    folder = ROOT / "docker" / "grafana" / "dashboards"
    return {path.stem: json.loads(path.read_text())["panels"] for path in sorted(folder.glob("*.json"))}


def panel_queries() -> dict[str, str]:
    """Return every query, its variables filled in, by dashboard, panel and letter."""
    found = {}
    for name, shown in panels().items():
        for panel in shown:
            for target in panel["targets"]:
                query = target["expr"]
                for variable, value in VARIABLES.items():
                    query = query.replace(variable, value)
                found[f"{name} {panel['id']} {panel['title']} {target['refId']}"] = query
    return found


def example_queries() -> dict[str, str]:
    """Return the examples of METRICS.md by their metric."""
    page = (ROOT / "METRICS.md").read_text().partition("# Metrics of a proxy")[0]
    found = {}
    for section in re.split(r"^## ", page, flags=re.MULTILINE)[1:]:
        metric = re.match(r"`(\w+)`", section)
        query = re.search(r"\n\n    (.+)\n", section)
        assert metric, section
        assert query, f"{metric[1]} has no example query"
        text = query[1]
        for name, run in EXAMPLES.items():
            text = text.replace(name, run)
        found[metric[1]] = text
    return found


QUERIES = {**panel_queries(), **example_queries()}


def is_real(query: str) -> bool:
    return any(metric in query for metric in REAL)


@pytest.fixture(scope="module")
def backfilled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Prometheus, float]]:
    """A Prometheus with three runs in it, and when the longer one ended."""
    folder = tmp_path_factory.mktemp("prometheus")
    assert main(["run", SCENARIO, "--quiet", "--out", str(folder / "runs")]) == 0
    with (folder / "text.om").open("w") as file:
        runs = export.recorded(folder / "runs")
        export.write(runs, START, file)
    backfill(folder / "text.om", folder)
    with prometheus(folder) as server:
        yield server, START + max(run.length for run in runs)


@needs_prometheus
@pytest.mark.parametrize("name", [name for name, query in QUERIES.items() if not is_real(query)])
def test_a_query_has_an_answer_in_backfilled_runs(name: str, backfilled: tuple[Prometheus, float]) -> None:
    """A number, at some time of the runs."""
    server, end = backfilled
    assert server.ever(QUERIES[name], START, end), QUERIES[name]


@needs_prometheus
@pytest.mark.parametrize("dashboard", panels())
def test_a_panel_tells_runs_apart(dashboard: str, backfilled: tuple[Prometheus, float]) -> None:
    """Each legend's labels are there, whatever the query aggregates over."""
    server, end = backfilled
    for panel in panels()[dashboard]:
        for target in panel["targets"]:
            query = QUERIES[f"{dashboard} {panel['id']} {panel['title']} {target['refId']}"]
            if is_real(query):
                continue
            legend = set(re.findall(r"\{\{(\w+)\}\}", target.get("legendFormat", "{{run}}")))
            found = server.ever(query, START, end)
            assert all(legend <= labels.keys() for labels in found), query
            assert found


@needs_prometheus
def test_what_only_the_real_clock_has_is_in_no_export(backfilled: tuple[Prometheus, float]) -> None:
    """No series of it: the reason why its queries are asked elsewhere."""
    server, end = backfilled
    for metric in REAL:
        assert server.series(f'{{__name__=~"{metric}.*"}}', START, end) == []


@needs_prometheus
def test_the_variables_have_values(backfilled: tuple[Prometheus, float]) -> None:
    """All runs, both groups, one clock: what the dashboards' menus offer."""
    server, end = backfilled
    found = server.series("fedemu_calls_total", START, end)
    assert {labels["run"] for labels in found} == {
        f"monitored/{variant}/seed-1" for variant in ("synchronous", "buffered", "strict")
    }
    assert {labels["group"] for labels in found} == {"phones", "sensors"}
    assert {labels["clock"] for labels in found} == {"virtual"}


def test_every_dashboard_has_its_variables_and_every_panel_a_place_of_its_own() -> None:
    """Run, group and clock, and which Prometheus; ids and corners are unique."""
    for path in (ROOT / "docker" / "grafana" / "dashboards").glob("*.json"):
        dashboard = json.loads(path.read_text())
        variables = {variable["name"] for variable in dashboard["templating"]["list"]}
        assert variables == {"datasource", "run", "clock", "group", "window"}
        shown = dashboard["panels"]
        assert len({panel["id"] for panel in shown}) == len(shown)
        assert len({(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in shown}) == len(shown)
        for panel in shown:
            assert panel["description"].endswith(".")
            for target in panel["targets"]:
                assert 'run=~"$run",clock=~"$clock"' in target["expr"]
    assert set(panels()) == {"overview", "network", "stragglers", "compare"}
