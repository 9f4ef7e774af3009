"""Runs side by side: for each point of a grid what its seeds say of the time, rounds and bytes to a target.

A run that did not reach the target is censored where it stopped: it would have taken longer. Medians are therefore
Kaplan and Meier's ("Nonparametric Estimation from Incomplete Observations", JASA 1958), and their 95 % intervals those
of 2,000 bootstrap samples of the runs (Efron 1979; percentiles).
"""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fedemu.rng import stream

SAMPLES = 2000
"""Of the bootstrap."""


class Run(NamedTuple):
    """One run of a grid."""

    variant: str
    """Empty without variants."""
    values: Mapping[str, str]
    """Axis to value."""
    result: Mapping[str, Any]
    """The content of its `result.json`."""


class Median(NamedTuple):
    """A median and its interval; inf where it lies beyond what the runs saw, NaN where one run has no interval."""

    median: float
    low: float
    high: float


class Row(NamedTuple):
    """The runs of one point of a grid, towards one target."""

    variant: str
    values: Mapping[str, str]
    target: float | None
    """Accuracy, 0..1; None where the scenario has none, and then nothing is told of getting there."""
    n: int
    """Runs."""
    censored: int
    """Those that did not reach the target."""
    time: Median | None
    """Emulated seconds to the target."""
    rounds: Median | None
    bytes: Median | None
    """Up and down together."""
    emulated: float
    """Median of the emulated seconds that runs took in all."""
    up: float
    """Mean of the bytes that clients sent in all."""
    accuracy: float | None
    """Mean of the final accuracies."""
    deviation: float | None
    """Their standard deviation; None of fewer than two runs."""
    rejected: int
    """Updates that the server rejected in all runs together."""


def compared(runs: Iterable[Run]) -> list[Row]:
    """Return a row for each point and target, in the order of the runs."""
    points: dict[tuple[str, tuple[tuple[str, str], ...]], list[Run]] = {}
    for run in runs:
        points.setdefault((run.variant, tuple(run.values.items())), []).append(run)
    return [row for point in points.values() for row in _rows(point)]


def _rows(runs: Sequence[Run]) -> list[Row]:
    first, results = runs[0], [run.result for run in runs]
    aims = list(dict.fromkeys(aim["accuracy"] for aim in _aims(results[0])))
    accuracies = [result["final"]["accuracy"] for result in results if result["final"]]
    spread = float(np.std(accuracies, ddof=1)) if len(accuracies) > 1 else None
    rows = []
    for target in aims or [None]:
        aimed = [next((aim for aim in _aims(result) if aim["accuracy"] == target), None) for result in results]
        known = [aim for aim in aimed if aim is not None]
        reached = [aim["reached"] for aim in known]

        def to_target(costs: Sequence[float], reached: Sequence[bool] = reached) -> Median | None:
            return median(costs, reached) if costs else None

        rows.append(
            Row(
                first.variant,
                first.values,
                target,
                len(runs),
                reached.count(False),
                to_target([aim["time"] for aim in known]),
                to_target([aim["round"] for aim in known]),
                to_target([aim["bytes"]["up"] + aim["bytes"]["down"] for aim in known]),
                float(np.median([result["emulated_seconds"] for result in results])),
                float(np.mean([result["bytes"]["up"] for result in results])),
                float(np.mean(accuracies)) if accuracies else None,
                spread,
                sum(result["updates"]["rejected"] for result in results),
            )
        )
    return rows


def _aims(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [aim for aim in (result["target"], *result.get("targets", ())) if aim is not None]


def median(costs: Sequence[float], reached: Sequence[bool]) -> Median:
    """Return the Kaplan-Meier median of what it cost to get there, and its bootstrap interval, if there are several.

    Args:
        costs: Of each run, until it got there or was stopped.
        reached: Which runs got there.
    """
    cost, got = np.asarray(costs, dtype=float), np.asarray(reached, dtype=bool)
    found = float(kaplan_meier(cost[None], got[None])[0])
    if len(cost) == 1:
        return Median(found, math.nan, math.nan)
    samples = stream(0, "bootstrap").integers(len(cost), size=(SAMPLES, len(cost)))
    medians = kaplan_meier(cost[samples], got[samples])
    low, high = np.quantile(medians, [0.025, 0.975], method="inverted_cdf")
    return Median(found, float(low), float(high))


def kaplan_meier(costs: np.ndarray, reached: np.ndarray) -> np.ndarray:
    """Return the first cost at which no more than half of each sample are still on the way; inf if there is none.

    Args:
        costs: Shape (samples, n).
        reached: Same shape; False is censored at its cost.
    """
    order = np.lexsort((~reached, costs), axis=1)  # of equal costs, those that got there first
    costs, reached = np.take_along_axis(costs, order, 1), np.take_along_axis(reached, order, 1)
    left = costs.shape[1] - np.arange(costs.shape[1])
    surviving = np.cumprod(np.where(reached, 1 - 1 / left, 1.0), axis=1)
    enough = surviving <= 0.5 + 1e-9
    found: np.ndarray = np.where(enough.any(axis=1), costs[np.arange(len(costs)), enough.argmax(axis=1)], np.inf)
    return found


def as_csv(rows: Sequence[Row]) -> str:
    """Return `summary.csv`: seconds, bytes, ratios; empty where there is no number."""
    axes = list(dict.fromkeys(axis for row in rows for axis in row.values))
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    costs = ("time", "rounds", "bytes")
    spread = [f"{cost}_{what}" for cost in costs for what in ("median", "low", "high")]
    at_end = ("accuracy_mean", "accuracy_deviation", "emulated_seconds_median", "bytes_up_mean", "updates_rejected")
    writer.writerow(["variant", *axes, "target", "n", "n_censored", *spread, *at_end])
    for row in rows:
        found = [number for cost in (row.time, row.rounds, row.bytes) for number in cost or (None,) * 3]
        point = [row.variant, *(row.values.get(axis, "") for axis in axes), row.target, row.n]
        aimed = [row.censored if row.target is not None else None, *found]
        whole = [row.accuracy, row.deviation, row.emulated, row.up, row.rejected]
        writer.writerow([*map(_cell, [*point, *aimed, *whole])])
    return file.getvalue()


def as_text(rows: Sequence[Row]) -> str:
    """Return a table for people."""
    axes = list(dict.fromkeys(axis for row in rows for axis in row.values))
    has_variants, aims = any(row.variant for row in rows), any(row.target is not None for row in rows)
    rejected = any(row.rejected for row in rows)
    head = [*(["variant"] if has_variants else []), *axes, *(["target"] if aims else []), "runs"]
    head += ["time to target, median", "95 % interval", "rounds to it", "MB to it", "final accuracy, mean"]
    head += ["emulated time, median", *(["rejected"] if rejected else [])]
    table = [head]
    for row in rows:
        point = [*([row.variant] if has_variants else []), *(row.values.get(axis, "") for axis in axes)]
        aim = [] if not aims else ["-" if row.target is None else f"{100 * row.target:g} %"]
        rounds, megabytes = (_number(cost, scale) for cost, scale in ((row.rounds, 1.0), (row.bytes, 1e6)))
        deviation = "" if row.deviation is None else f" ± {100 * row.deviation:.2f}"
        accuracy = "-" if row.accuracy is None else f"{100 * row.accuracy:.2f}{deviation} %"
        cells = [*point, *aim, str(row.n), *_to_target(row), rounds, megabytes, accuracy, f"{row.emulated:.3f} s"]
        table.append([*cells, *([f"{row.rejected} updates"] if rejected else [])])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in table)


def _to_target(row: Row) -> tuple[str, str]:
    """Write how long it took to the target, and between what."""
    if row.time is None:
        return "-", "-"
    missed = f" ({row.censored} of {row.n} missed)" if row.censored else ""
    median, low, high = (f"{number:.3f}" if math.isfinite(number) else "" for number in row.time)
    interval = "-" if math.isnan(row.time.low) else f"{low or '...'} - {high or '...'}"
    return (f"{median} s" if median else "not reached") + missed, interval


def _number(cost: Median | None, scale: float) -> str:
    return "-" if cost is None or not math.isfinite(cost.median) else f"{cost.median / scale:.4g}"


def _cell(value: float | str | None) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    return f"{value:.10g}" if isinstance(value, float) else str(value)
