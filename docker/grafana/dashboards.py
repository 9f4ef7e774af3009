"""The dashboards, as code: `make dashboards` writes their JSON beside this file.

    python docker/grafana/dashboards.py DIR

Every query keeps `run` and `clock` apart. Where server and clients are scraped apart, both tell of the bytes up: the
larger of the two jobs is taken, not their sum. All else is told by one of them.
"""

import json
import sys
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

from grafana_foundation_sdk.builders import dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.builders.common import ReduceDataOptions, StackingConfig, VizLegendOptions
from grafana_foundation_sdk.builders.dashboard import Dashboard, DatasourceVariable, IntervalVariable, QueryVariable
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    GraphDrawStyle,
    LegendDisplayMode,
    LegendPlacement,
    LineInterpolation,
    StackingMode,
    VisibilityMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    VariableOption,
    VariableRefresh,
    VariableSort,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

Panel = stat.Panel | table.Panel | timeseries.Panel
Queries = dict[str, str]
"""Legend and PromQL. `RUN` and `GROUP` in it stand for the selectors of the variables."""

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
RUN = 'run=~"$run",clock=~"$clock"'
GROUP = f'{RUN},group=~"$group"'

BY_RUN, BY_GROUP, BY_LINK = "{{run}}", "{{run}} {{group}}", "{{run}} {{group}} {{direction}}"


def lines(title: str, about: str, unit: str, queries: Queries, *, stacked: bool = False, width: int = 12) -> Panel:
    """Return a panel of lines against emulated time; each value holds until the next."""
    panel = (
        timeseries.Panel()
        .line_interpolation(LineInterpolation.STEP_AFTER)
        .show_points(VisibilityMode.NEVER)
        .legend(VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM))
    )
    if stacked:
        panel = (
            panel.draw_style(GraphDrawStyle.BARS)
            .fill_opacity(60)
            .stacking(StackingConfig().mode(StackingMode.NORMAL).group("A"))
        )
    return _filled(panel, title, about, unit, queries).span(width).height(8)


def number(title: str, about: str, unit: str, queries: Queries) -> Panel:
    """Return a panel of the last values."""
    panel = stat.Panel().reduce_options(ReduceDataOptions().calcs(["lastNotNull"]))
    return _filled(panel, title, about, unit, queries).span(6).height(5)


def rows(title: str, about: str, query: str) -> Panel:
    """Return a panel with a row for each series."""
    asked = prometheus.Dataquery().expr(_selected(query)).instant().format(PromQueryFormat.TABLE).ref_id("A")
    panel = table.Panel().show_header(True).title(title).description(about).datasource(SOURCE).with_target(asked)
    return panel.span(12).height(8)


def _filled(panel: Panel, title: str, about: str, unit: str, queries: Queries) -> Panel:
    panel = panel.title(title).description(about).unit(unit).datasource(SOURCE)
    for letter, (legend, query) in zip("ABCD", queries.items(), strict=False):
        asked = prometheus.Dataquery().expr(_selected(query)).range().legend_format(legend).ref_id(letter)
        panel = panel.with_target(asked)
    return panel


def _selected(query: str) -> str:
    return query.replace("{RUN", f"{{{RUN}").replace("{GROUP", f"{{{GROUP}")


def mean(metric: str, labels: str, selector: str) -> str:
    """Return the query for the mean of a histogram over the window."""
    total, count = (
        f"sum by ({labels}) (increase({metric}_{part}{{{selector}}}[$window]))" for part in ("sum", "count")
    )
    return f"{total} / {count}"


def quantile(share: float, metric: str, labels: str, selector: str) -> str:
    """Return the query for a quantile of a histogram over the window."""
    return f"histogram_quantile({share}, sum by (le, {labels}) (increase({metric}_bucket{{{selector}}}[$window])))"


def share(metric: str, labels: str, part: str, whole: str = "", window: str = "") -> str:
    """Return the query for a part of a counter, such as `outcome="late"`; 0 where there is a whole and no such part."""
    every = f"sum by ({labels}) ({_over(metric, whole, window)})"
    return f"(sum by ({labels}) ({_over(metric, part, window)}) or 0 * {every}) / {every}"


def _over(metric: str, selector: str, window: str) -> str:
    selected = f"{metric}{{{','.join(filter(None, ('GROUP', selector)))}}}"
    return f"increase({selected}[{window}])" if window else selected


def once(inner: str, labels: str) -> str:
    """Return the query for something that server and clients both tell."""
    return f"max by ({labels}) (sum by (job, {labels}) ({inner}))"


ACCURACY = lines(
    "Accuracy",
    "Of the global model on the test set, and the accuracy that stops the run.",
    "percentunit",
    {
        BY_RUN: "max by (run) (fedemu_accuracy_ratio{RUN})",
        f"{BY_RUN} target": "max by (run) (fedemu_target_accuracy_ratio{RUN})",
    },
)
LOSS = lines("Loss", "Of the global model on the test set.", "short", {BY_RUN: "max by (run) (fedemu_loss{RUN})"})
TO_TARGET = number(
    "Time to target",
    "Emulated time when each target was reached; nothing until then.",
    "s",
    {"{{run}} {{target}}": "max by (run, target) (fedemu_time_to_target_seconds{RUN})"},
)
ROUND_TIME = lines(
    "Round time",
    "Of the rounds that closed in the window.",
    "s",
    {
        f"{BY_RUN} mean": mean("fedemu_round_seconds", "run", "RUN"),
        f"{BY_RUN} 90 %": quantile(0.9, "fedemu_round_seconds", "run", "RUN"),
    },
)

OVERVIEW = (
    number("Accuracy", "The last one.", "percentunit", {BY_RUN: "max by (run) (fedemu_accuracy_ratio{RUN})"}),
    TO_TARGET,
    number("Emulated time", "Of the last event.", "s", {BY_RUN: "max by (run) (fedemu_run_seconds{RUN})"}),
    number(
        "Rounds",
        "Closed with a new model.",
        "short",
        {BY_RUN: 'max by (run) (fedemu_rounds_total{RUN,outcome="closed"})'},
    ),
    ACCURACY,
    LOSS,
    ROUND_TIME,
    lines(
        "Updates",
        "What became of them, in the window.",
        "short",
        {"{{run}} {{outcome}}": "sum by (run, outcome) (increase(fedemu_updates_total{GROUP}[$window]))"},
        stacked=True,
    ),
    lines("Clients", "At work, or idle.", "short", {"{{run}} {{state}}": "max by (run, state) (fedemu_clients{RUN})"}),
    lines(
        "Rounds",
        "That ended in the window: closed with a new model, or failed.",
        "short",
        {"{{run}} {{outcome}}": "max by (run, outcome) (increase(fedemu_rounds_total{RUN}[$window]))"},
        stacked=True,
    ),
)

NETWORK = (
    number(
        "Bytes",
        "Of all attempts at tasks and updates.",
        "bytes",
        {
            "{{run}} {{direction}}": "sum by (run, direction) ("
            + once("fedemu_wire_bytes_total{GROUP}", "run, group, direction")
            + ")"
        },
    ),
    number(
        "Bytes a round",
        "Of closed rounds, both directions.",
        "bytes",
        {
            BY_RUN: f"sum by (run) ({once('fedemu_wire_bytes_total{GROUP}', 'run, group, direction')})"
            ' / on (run) max by (run) (fedemu_rounds_total{RUN,outcome="closed"})'
        },
    ),
    number(
        "Retried",
        "Attempts that were not acknowledged in time and were followed by another, of all.",
        "percentunit",
        {BY_GROUP: share("fedemu_calls_total", "run, group", 'outcome="retried"', 'outcome="sent"')},
    ),
    number(
        "Given up",
        "Calls that failed after the last attempt.",
        "short",
        {
            BY_GROUP: 'sum by (run, group) (fedemu_calls_total{GROUP,outcome="failed"})'
            " or 0 * sum by (run, group) (fedemu_calls_total{GROUP})"
        },
    ),
    lines(
        "Traffic",
        "Of all attempts at tasks and updates, by group and direction.",
        "Bps",
        {BY_LINK: once("rate(fedemu_wire_bytes_total{GROUP}[$window])", "run, group, direction")},
    ),
    lines(
        "Throughput",
        "Bytes over the time from a transfer's first byte to its last.",
        "bps",
        {
            BY_LINK: f"8 * {once('increase(fedemu_wire_bytes_total{GROUP}[$window])', 'run, group, direction')}"
            " / sum by (run, group, direction) (increase(fedemu_transfer_seconds_sum{GROUP}[$window]))"
        },
    ),
    lines(
        "Delay",
        "Half of the messages: as their links asked for, and as it was. Only on the real clock.",
        "s",
        {f"{BY_LINK} {{{{kind}}}}": quantile(0.5, "fedemu_link_delay_seconds", "run, group, direction, kind", "GROUP")},
    ),
    lines(
        "Delay beyond the requested",
        "99 of 100 messages are not later. Only on the real clock; it tells how far its times can be trusted.",
        "s",
        {BY_LINK: quantile(0.99, "fedemu_link_delay_error_seconds", "run, group, direction", "GROUP")},
    ),
    lines(
        "Retries",
        "Attempts that were followed by another, in the window.",
        "short",
        {BY_GROUP: 'sum by (run, group) (increase(fedemu_calls_total{GROUP,outcome="retried"}[$window]))'},
        stacked=True,
    ),
    lines(
        "Transfers that were not delivered",
        "dropped, reset, refused, down or cut, in the window.",
        "short",
        {
            f"{BY_LINK} {{{{outcome}}}}": "sum by (run, group, direction, outcome)"
            ' (increase(fedemu_transfers_total{GROUP,outcome!~"delivered|handed"}[$window]))'
        },
        stacked=True,
    ),
    lines(
        "Share of transfers' time that others and outages took",
        "How much longer they took than alone on their way, with the link up.",
        "percentunit",
        {
            BY_LINK: "sum by (run, group, direction) (increase(fedemu_transfer_queued_seconds_total{GROUP}[$window]))"
            " / sum by (run, group, direction) (increase(fedemu_transfer_seconds_sum{GROUP}[$window]))"
        },
    ),
    lines(
        "Segments sent again",
        "What links with loss lost and TCP sent again.",
        "short",
        {BY_LINK: "sum by (run, group, direction) (increase(fedemu_retransmitted_segments_total{GROUP}[$window]))"},
    ),
)

STRAGGLERS = (
    lines(
        "Where a client's time goes",
        "Mean seconds in each phase, by group.",
        "s",
        {f"{BY_GROUP} {{{{phase}}}}": mean("fedemu_phase_seconds", "run, group, phase", "GROUP")},
        stacked=True,
    ),
    lines(
        "The slow ones",
        "90 of 100 clients are not longer in the phase.",
        "s",
        {f"{BY_GROUP} {{{{phase}}}}": quantile(0.9, "fedemu_phase_seconds", "run, group, phase", "GROUP")},
    ),
    lines(
        "Deadline misses",
        "Share of the updates that the round closed without.",
        "percentunit",
        {BY_GROUP: share("fedemu_updates_total", "run, group", 'outcome="late"', window="$window")},
    ),
    lines(
        "Updates",
        "What became of them, in the window, by group.",
        "short",
        {
            f"{BY_GROUP} {{{{outcome}}}}": "sum by (run, group, outcome)"
            " (increase(fedemu_updates_total{GROUP}[$window]))"
        },
        stacked=True,
    ),
    lines(
        "Staleness",
        "Global versions between an update's task and its arrival; 0 in synchronous rounds.",
        "short",
        {
            f"{BY_RUN} mean": mean("fedemu_update_staleness", "run", "RUN"),
            f"{BY_RUN} 90 %": quantile(0.9, "fedemu_update_staleness", "run", "RUN"),
        },
    ),
    ROUND_TIME,
    lines("Clients", "At work, or idle.", "short", {"{{run}} {{state}}": "max by (run, state) (fedemu_clients{RUN})"}),
    lines(
        "Power",
        "Mean, of all devices of a group together, by phase.",
        "watt",
        {f"{BY_GROUP} {{{{phase}}}}": "sum by (run, group, phase) (rate(fedemu_energy_joules_total{GROUP}[$window]))"},
    ),
)

COMPARE = (
    ACCURACY,
    LOSS,
    TO_TARGET,
    number(
        "Round time",
        "Mean of all rounds.",
        "s",
        {BY_RUN: "max by (run) (fedemu_round_seconds_sum{RUN}) / max by (run) (fedemu_round_seconds_count{RUN})"},
    ),
    number(
        "Bytes",
        "Of all attempts, both directions.",
        "bytes",
        {BY_RUN: f"sum by (run) ({once('fedemu_wire_bytes_total{GROUP}', 'run, group, direction')})"},
    ),
    number(
        "Updates that did not help",
        "Share of those that were late, lost or rejected.",
        "percentunit",
        {BY_RUN: share("fedemu_updates_total", "run", 'outcome!="aggregated"')},
    ),
    lines(
        "Bytes",
        "Until then, both directions.",
        "bytes",
        {BY_RUN: f"sum by (run) ({once('fedemu_wire_bytes_total{GROUP}', 'run, group, direction')})"},
    ),
    lines(
        "Rounds",
        "Closed until then.",
        "short",
        {BY_RUN: 'max by (run) (fedemu_rounds_total{RUN,outcome="closed"})'},
    ),
    rows(
        "Runs",
        "Seed and version of each.",
        "max by (run, clock, seed, version) (last_over_time(fedemu_run_info{RUN}[$__range]))",
    ),
    rows(
        "Time to target",
        "Emulated seconds until each target was reached.",
        "max by (run, clock, target) (last_over_time(fedemu_time_to_target_seconds{RUN}[$__range]))",
    ),
)

DASHBOARDS: dict[str, tuple[Panel, ...]] = {
    "overview": OVERVIEW,
    "network": NETWORK,
    "stragglers": STRAGGLERS,
    "compare": COMPARE,
}


def built(name: str, panels: Sequence[Panel]) -> Dashboard:
    """Return a dashboard."""
    found = (
        Dashboard(f"fedemu {name}")
        .uid(f"fedemu-{name}")
        .tags(["fedemu"])
        .editable()
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .time("now-1h", "now")
        .refresh("10s")
        .link(
            dashboard.DashboardLink("fedemu")
            .type(DashboardLinkType.DASHBOARDS)
            .tags(["fedemu"])
            .keep_time(True)
            .include_vars(True)
        )
        .with_variable(DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    )
    for label, asked in (
        ("run", "label_values(fedemu_run_seconds, run)"),
        ("clock", 'label_values(fedemu_run_seconds{run=~"$run"}, clock)'),
        ("group", 'label_values(fedemu_calls_total{run=~"$run"}, group)'),
    ):
        found = found.with_variable(
            QueryVariable(label)
            .query({"query": asked, "refId": label})
            .datasource(SOURCE)
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(VariableSort.ALPHABETICAL_ASC)
            .multi(True)
            .include_all(True)
            .current(VariableOption(selected=True, text="All", value="$__all"))
        )
    found = found.with_variable(
        IntervalVariable("window")
        .values("1m,5m,15m,1h,6h")
        .current(VariableOption(selected=True, text="5m", value="5m"))
        .description("What is counted or averaged over time is over this much of it")
    )
    for place, panel in enumerate(panels, start=1):
        found = found.with_panel(deepcopy(panel).id(place))
    return found


def main(folder: Path) -> None:
    """Write every dashboard as JSON."""
    for name, panels in DASHBOARDS.items():
        text = json.dumps(built(name, panels).build(), cls=JSONEncoder, indent=1, sort_keys=True)
        (folder / f"{name}.json").write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
