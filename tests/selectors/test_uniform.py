"""Uniform sampling."""

import itertools
from collections import Counter

import pytest
from scipy import stats

from fedemu.rng import stream
from fedemu.selectors.uniform import uniform
from fedemu.types import ClientView

CLIENTS = [ClientView(client=f"phones/{i}", group="phones", num_examples=i) for i in range(6)]


@pytest.mark.parametrize(("count", "chosen"), [(0, 0), (1, 1), (4, 4), (6, 6), (9, 6)])
def test_exactly_that_many_distinct_clients_are_chosen(count: int, chosen: int) -> None:
    """Fewer only where fewer are there."""
    ids = uniform()(CLIENTS, count, stream(0, "select"))
    assert len(ids) == len(set(ids)) == chosen
    assert list(ids) == sorted(ids)


def test_nobody_is_chosen_of_nobody() -> None:
    """An empty cohort is no error of the selector."""
    assert uniform()([], 3, stream(0, "select")) == []


def test_every_cohort_is_equally_likely() -> None:
    """15 pairs of 6 clients in 3,000 rounds, 200 each: chi-square at 0.1 %."""
    rng = stream(0, "select")
    cohorts = Counter(tuple(uniform()(CLIENTS, 2, rng)) for _ in range(3000))
    pairs = [tuple(c.client for c in pair) for pair in itertools.combinations(CLIENTS, 2)]
    assert stats.chisquare([cohorts[pair] for pair in pairs]).pvalue > 0.001
    assert sum(cohorts[pair] for pair in pairs) == 3000


def test_the_choice_depends_on_the_stream_and_the_order_given_and_on_nothing_else() -> None:
    """Renamed clients are chosen at the same places."""
    renamed = [ClientView(client=f"x{i}", group="x", num_examples=0) for i in range(6)]
    chosen = uniform()(CLIENTS, 3, stream(0, "select"))
    assert [c[-1] for c in uniform()(renamed, 3, stream(0, "select"))] == [c[-1] for c in chosen]
    assert len({tuple(uniform()(CLIENTS, 3, stream(seed, "select"))) for seed in range(20)}) > 5
