"""Eligibility."""

from collections import Counter

import pytest
from scipy import stats

from fedemu.rng import stream
from fedemu.selectors.eligible import eligible

CONDITIONS = [
    {"charging", "unmetered", "idle"},
    {"charging", "unmetered"},
    {"charging", "idle"},
    {"unmetered", "idle"},
    {"charging"},
    set(),
    {"charging", "unmetered", "idle"},
]


@pytest.fixture
def views(federation):
    """Clients of which 0 and 6 are all that is asked for by default."""
    return federation(7, known={i: {"conditions": frozenset(true)} for i, true in enumerate(CONDITIONS)}).views


@pytest.mark.parametrize(
    ("require", "expected"),
    [
        (None, [0, 6]),
        (["charging"], [0, 1, 2, 4, 6]),
        (["unmetered", "idle"], [0, 3, 6]),
        ([], [0, 1, 2, 3, 4, 5, 6]),
    ],
)
def test_only_those_are_chosen_for_whom_all_conditions_hold(views, require, expected) -> None:
    """With a seat for everybody."""
    chosen = eligible(require=require)(views, 7, stream(0, "select"))
    assert list(chosen) == [f"phones/{i}" for i in expected]


def test_maybe_nobody_is_chosen(views) -> None:
    """Clients 1 to 5 lack one condition or more."""
    assert list(eligible()(views[1:6], 3, stream(0, "select"))) == []


def test_all_eligible_clients_are_equally_likely(views) -> None:
    """One of five in 1,000 rounds, 200 each: chi-square at 0.1 %."""
    rng = stream(0, "select")
    found = Counter(eligible(require=["charging"])(views, 1, rng)[0] for _ in range(1000))
    assert stats.chisquare([found[f"phones/{i}"] for i in (0, 1, 2, 4, 6)]).pvalue > 0.001


def test_a_condition_that_begins_to_hold_moves_nobody_else_past_another(views, federation) -> None:
    """With client 5 idle, charging and unmetered too, whoever of 0 and 6 was first is still before the other."""
    for seed in range(20):
        first = eligible()(views, 1, stream(seed, "select"))[0]
        more = federation(7, known={i: {"conditions": views[0].conditions} for i in (0, 5, 6)}).views
        assert eligible()(more, 1, stream(seed, "select"))[0] in {first, "phones/5"}
