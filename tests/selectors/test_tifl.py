"""TiFL's tiers."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from fedemu.rng import stream
from fedemu.selectors.tifl import tifl
from fedemu.selectors.uniform import uniform


def profiled(federation, count: int, **facts: object):
    """Return views of clients of whom the i-th took i + 1 seconds."""
    return federation(count, known={i: {"duration": i + 1.0, "asked": 1, **facts} for i in range(count)}).views


def tier_of(cohort, size: int) -> int:
    """Return the tier of that many clients whose members the cohort is, in the order of `profiled`."""
    (tier,) = {int(client.partition("/")[2]) // size for client in cohort}
    return tier


def test_everybody_is_profiled_first(federation) -> None:
    """Twelve clients in three rounds of four, each once."""
    clients = federation(12)
    chosen = clients.play(tifl(), 3, 4)
    assert sorted(client for cohort in chosen for client in cohort) == sorted(view.client for view in clients.views)


def test_a_cohort_is_of_one_tier_and_all_tiers_are_equally_likely(federation) -> None:
    """Twenty clients in tiers of four by time: each of five in 1,000 rounds of two, 200 each: chi-square at 0.1 %."""
    views, select, rng = profiled(federation, 20), tifl(), stream(0, "select")
    found = Counter(tier_of(select(views, 2, rng), 4) for _ in range(1000))
    assert stats.chisquare([found[tier] for tier in range(5)]).pvalue > 0.001


def test_within_a_tier_all_are_equally_likely(federation) -> None:
    """One tier of six is uniform sampling: one of six in 1,200 rounds, 200 each: chi-square at 0.1 %."""
    views, select, rng = profiled(federation, 6), tifl(tiers=1), stream(0, "select")
    found = Counter(select(views, 1, rng)[0] for _ in range(1200))
    assert stats.chisquare([found[f"phones/{i}"] for i in range(6)]).pvalue > 0.001


def test_a_client_of_unknown_duration_goes_before_the_tier(federation) -> None:
    """The newcomer has a seat in every round until it is known, the other two are of one tier."""
    views = profiled(federation, 20)
    newcomer = federation(21).views[20]
    for seed in range(10):
        chosen = tifl()([*views, newcomer], 3, stream(seed, "select"))
        assert chosen[-1] == newcomer.client
        assert tier_of(chosen[:-1], 4) in range(5)


def test_neighbours_help_out_where_a_tier_is_too_small_the_faster_first(federation) -> None:
    """Four seats for tiers of three: the fast one takes one of the middle, the middle a fast one, the slow a middle."""
    views, select, rng = profiled(federation, 9), tifl(tiers=3), stream(0, "select")
    cohorts = [[int(client[-1]) // 3 for client in select(views, 4, rng)] for _ in range(100)]
    assert set(map(tuple, cohorts)) == {(0, 0, 0, 1), (0, 1, 1, 1), (1, 2, 2, 2)}


def test_a_tier_has_no_more_rounds_than_credits_until_all_are_spent(federation) -> None:
    """With 3 and 1 every four rounds have three fast ones and one slow one, in random order."""
    views, select, rng = profiled(federation, 8), tifl(tiers=2, credits=[3, 1]), stream(0, "select")
    tiers = [tier_of(select(views, 2, rng), 4) for _ in range(400)]
    laps = [tuple(tiers[i : i + 4]) for i in range(0, 400, 4)]
    assert {sum(lap) for lap in laps} == {1}
    assert len(set(laps)) == 4


def with_losses(views, fast: float, slow: float):
    """Return the views with the losses of two tiers of four."""
    return [replace(view, answered=1, loss=fast if i < 4 else slow) for i, view in enumerate(views)]


def test_tiers_that_learn_worse_become_more_likely_where_the_current_one_got_no_better(federation) -> None:
    """Losses 1 and 3 stay as they are: from the second look on the slow tier has 3 of 4 rounds; 750 of 1,000."""
    views = with_losses(profiled(federation, 8), 1.0, 3.0)
    select, rng = tifl(tiers=2, interval=5), stream(0, "select")
    for _ in range(5):
        select(views, 2, rng)
        assert select.chances == [0.5, 0.5]
    slow = sum(tier_of(select(views, 2, rng), 4) for _ in range(1000))
    assert select.chances == [0.25, 0.75]
    assert stats.binomtest(slow, 1000, 0.75).pvalue > 0.001


def test_chances_stay_as_they_are_while_the_current_tier_gets_better(federation) -> None:
    """Both losses fall by a tenth a round, then rise again by a tenth, still below the first: then chances change."""
    views, select, rng = profiled(federation, 8), tifl(tiers=2, interval=1), stream(0, "select")
    for round in range(20):
        select(with_losses(views, 0.9**round, 3 * 0.9**round), 2, rng)
        assert select.chances == [0.5, 0.5]
    select(with_losses(views, 0.9**18, 3 * 0.9**18), 2, rng)
    assert select.chances == pytest.approx([0.25, 0.75])


def test_rounds_of_one_tier_are_shorter_than_rounds_of_all(federation) -> None:
    """100 clients with Pareto(1.2) durations, 2,000 rounds of five after all were asked once.

    A uniform round lasts as long as the slowest of five of all; a tier's as the slowest of five of twenty like it,
    whose mean is known from 4,000 draws of each tier; that of 2,000 rounds is within 4.5 standard errors of it.
    """
    rng = stream(0, "clients")
    durations = (1 + rng.pareto(1.2, 100)).tolist()
    took = {}
    for name, select in (("uniform", uniform()), ("tifl", tifl())):
        clients = federation(100, durations=durations)
        clients.play(select, 2020, 5)
        took[name] = float(np.mean(clients.rounds[20:]))
    tiers = np.sort(durations).reshape(5, 20)
    law = stream(0, "law")
    lengths = np.array([law.permuted(tiers, axis=1)[:, :5].max(axis=1) for _ in range(4000)])
    assert abs(took["tifl"] - lengths.mean()) < 4.5 * lengths.std() / 2000**0.5
    assert took["tifl"] < took["uniform"]


def test_credits_are_for_every_tier() -> None:
    """Two numbers for five tiers."""
    with pytest.raises(ValueError, match="2 credits for 5 tiers; expected one number for each tier"):
        tifl(credits=[1, 2])
