"""Runs side by side: medians of runs that may not have got there, their intervals, and the tables."""

import csv
import io
import math

import numpy as np
import pytest
from scipy import stats

from fedemu.comparison import Run, as_csv, as_text, compared, kaplan_meier, median
from fedemu.rng import stream


def run(time, variant="", target=0.6, accuracy=0.6, rejected=0, **values):
    """Return a run that took so long to its target; None missed it, and was stopped at 500 s."""
    aim = {
        "accuracy": target,
        "reached": time is not None,
        "time": time or 500.0,
        "round": 10,
        "bytes": {"up": 1_000_000, "down": 2_000_000},
    }
    result = {
        "target": aim if target else None,
        "targets": [],
        "emulated_seconds": aim["time"],
        "bytes": {"up": 1_500_000, "down": 2_000_000},
        "updates": {"rejected": rejected},
        "final": {"accuracy": accuracy},
    }
    return Run(variant, values, result)


@pytest.mark.parametrize(
    ("costs", "reached", "expected"),
    [
        ([1, 2, 9], [True, True, True], 2),
        ([1, 9], [True, True], 1),  # at 1 half are left
        ([1, 3, 500], [True, True, False], 3),
        ([1, 500, 500], [True, False, False], math.inf),
        ([2, 1, 5, 4], [True, False, True, True], 4),  # one left early: of three, 2/3 after 2, 1/3 after 4
        ([5, 5], [False, True], 5),  # at 5 one gets there first: half are left
        ([500], [False], math.inf),
    ],
)
def test_a_median_by_hand(costs, reached, expected) -> None:
    """The first cost at which no more than half are still on their way."""
    assert median(costs, reached).median == expected


def test_the_estimate_is_kaplan_and_meiers() -> None:
    """Against SciPy's on 200 censored samples of 1 to 30 runs, with ties."""
    rng = stream(0, "km")
    for _ in range(200):
        n = int(rng.integers(1, 31))
        costs, reached = rng.integers(1, 12, n).astype(float), rng.random(n) < 0.7
        censored = stats.CensoredData(uncensored=costs[reached], right=costs[~reached])
        curve = stats.ecdf(censored).sf
        below = curve.quantiles[curve.probabilities <= 0.5 + 1e-9]
        wanted = math.inf
        if len(below):
            wanted = below[0]
        assert kaplan_meier(costs[None], reached[None])[0] == wanted


def test_the_interval_covers_the_median_nearly_as_often_as_it_says() -> None:
    """95 % nominally; percentiles of 15 exponential runs cover theirs 90 % to 98 % of 300 times."""
    rng = stream(1, "cover")
    hits = 0
    for _ in range(300):
        found = median(list(rng.exponential(1.0, 15)), [True] * 15)
        hits += found.low <= math.log(2) <= found.high
    assert 0.9 <= hits / 300 <= 0.98


def test_an_interval_may_have_no_end() -> None:
    """Three of five got there: some samples have a majority that did not."""
    found = median([1, 2, 3, 500, 500], [True, True, True, False, False])
    assert (found.median, found.low, found.high) == (3, 1, math.inf)


def test_a_row_for_each_point_in_the_order_of_the_runs() -> None:
    """Two variants at two values, of which one missed once."""
    runs = [run(time, variant, loss=loss) for variant in "ba" for loss in ("0%", "5%") for time in (4.0, 2.0, 9.0)]
    runs[-1] = run(None, "a", loss="5%")
    rows = compared(runs)
    assert [(row.variant, row.values["loss"], row.n, row.censored) for row in rows] == [
        ("b", "0%", 3, 0),
        ("b", "5%", 3, 0),
        ("a", "0%", 3, 0),
        ("a", "5%", 3, 1),
    ]
    assert [row.time.median for row in rows if row.time] == [4, 4, 4, 4]
    assert rows[0].bytes is not None
    assert rows[0].bytes.median == 3_000_000


def test_other_targets_have_rows_of_their_own() -> None:
    """The target first, then the others in the order in which they stand."""
    first = run(4.0)
    first.result["targets"].append({**first.result["target"], "accuracy": 0.5, "time": 1.0})
    rows = compared([first])
    assert [(row.target, row.time.median) for row in rows if row.time] == [(0.6, 4.0), (0.5, 1.0)]
    assert [line.split()[0] for line in as_text(rows).splitlines()] == ["target", "60", "50"]


def test_the_csv_has_numbers_and_leaves_out_what_there_is_none_of() -> None:
    """A median beyond what was seen, the deviation of one run, a target that nobody set."""
    rows = compared([run(None, "a", accuracy=0.25), run(1.0, "b", target=None)])
    missed, aimless = csv.DictReader(io.StringIO(as_csv(rows)))
    assert (missed["n"], missed["n_censored"], missed["time_median"], missed["accuracy_mean"]) == ("1", "1", "", "0.25")
    assert (missed["accuracy_deviation"], missed["emulated_seconds_median"]) == ("", "500")
    assert (aimless["target"], aimless["n_censored"], aimless["time_low"]) == ("", "", "")


def test_the_deviation_is_that_of_a_sample() -> None:
    """Of 0.5 and 0.7: 0.1 sqrt(2)."""
    rows = compared([run(1.0, accuracy=0.5), run(1.0, accuracy=0.7)])
    assert rows[0].deviation == pytest.approx(0.1 * np.sqrt(2))
    assert "60.00 ± 14.14 %" in as_text(rows)


def test_people_read_how_many_missed() -> None:
    """Columns line up; a median that is not known says so."""
    text = as_text(compared([run(1.0, "a"), run(3.0, "a"), run(None, "a"), run(None, "b"), run(None, "b")]))
    head, first, second = text.splitlines()
    assert len(head) == len(first) == len(second)
    assert "3.000 s (1 of 3 missed)" in first
    assert "not reached (2 of 2 missed)" in second
    assert as_text(compared([run(1.0, target=None)])).splitlines()[1].split()[1:3] == ["-", "-"]


def test_one_run_has_no_interval() -> None:
    """It says nothing of how others would differ."""
    rows = compared([run(4.0)])
    (row,) = csv.DictReader(io.StringIO(as_csv(rows)))
    assert (row["time_median"], row["time_low"], row["time_high"]) == ("4", "", "")
    assert as_text(rows).splitlines()[1].split()[:5] == ["60", "%", "1", "4.000", "s"]
    assert as_text(rows).splitlines()[1].split()[5] == "-"


def test_what_the_server_rejected_stands_in_the_table() -> None:
    """A run that diverges differs from one that is slow; where nothing was rejected there is no such column."""
    rows = compared([run(4.0, "good"), run(None, "bad", rejected=7), run(None, "bad", rejected=5)])
    head, good, bad = as_text(rows).splitlines()
    assert (head.split()[-1], good.split()[-2:], bad.split()[-2:]) == ("rejected", ["0", "updates"], ["12", "updates"])
    assert [row["updates_rejected"] for row in csv.DictReader(io.StringIO(as_csv(rows)))] == ["0", "12"]
    assert "rejected" not in as_text(rows[:1])
