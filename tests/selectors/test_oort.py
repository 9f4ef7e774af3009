"""Oort, against its paper's Algorithm 1 by hand."""

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from fedemu.rng import stream
from fedemu.selectors.oort import oort
from fedemu.selectors.uniform import uniform


def seen(
    *, loss: float | None = 1.0, at: int = 1, duration: float = 1.0, num_examples: int = 10, answered: int = 1
) -> dict[str, object]:
    """Return what is known of a client that was asked once."""
    return {
        "asked": 1,
        "last_asked": at,
        "answered": answered,
        "loss": loss,
        "squared_loss": None if loss is None else loss**2,
        "duration": duration,
        "num_examples": num_examples,
    }


def exploiting(**keys: float):
    """Return an Oort that never explores where it need not, and after 100 selections."""
    return replace(oort(exploration=0.0, exploration_min=0.0, **keys), selections=99)


def frequencies(select, views, rounds: int) -> Counter[str]:
    """Return how often each was chosen in many selections that start from the same state."""
    rng = stream(0, "select")
    return Counter(client for _ in range(rounds) for client in replace(select)(views, 1, rng))


def test_clients_are_drawn_in_proportion_to_statistical_utility_and_time_since(federation) -> None:
    """Rewards 20, 30, 40 of least 19.98 and range 20.02, plus sqrt(0.1 ln 100 / R_last): chi-square at 0.1 %."""
    views = federation(
        3, known={0: seen(loss=2, at=4), 1: seen(loss=1, num_examples=30, at=50), 2: seen(loss=4, at=90)}
    )
    utilities = np.array(
        [
            0.02 / 20.02 + math.sqrt(0.1 * math.log(100) / 4),
            10.02 / 20.02 + math.sqrt(0.1 * math.log(100) / 50),
            20.02 / 20.02 + math.sqrt(0.1 * math.log(100) / 90),
        ]
    )
    found = frequencies(exploiting(cut_off=0.0, clip=1.0, round_threshold=100.0), views.views, 3000)
    expected = 3000 * utilities / utilities.sum()
    assert stats.chisquare([found[f"phones/{i}"] for i in range(3)], expected).pvalue > 0.001


@pytest.mark.parametrize(
    ("round_threshold", "durations", "expected"),
    [(10.0, (2.0, 2.0, 6.0), [900, 900, 100]), (50.0, (2.0, 4.0, 8.0), [800, 800, 200])],
)
def test_a_client_slower_than_preferred_counts_by_the_square_of_the_ratio(
    federation, round_threshold, durations, expected
) -> None:
    """Equal clients: the 10th percentile of 2, 2 and 6 seconds is 2, so that the third counts (2 / 6)^2; the 50th of
    2, 4 and 8 is 4, and (4 / 8)^2 is a quarter."""
    views = federation(3, known={i: seen(duration=duration) for i, duration in enumerate(durations)}).views
    found = frequencies(exploiting(cut_off=0.0, round_threshold=round_threshold), views, sum(expected))
    assert stats.chisquare([found[f"phones/{i}"] for i in range(3)], expected).pvalue > 0.001


def test_at_percentile_100_nobody_is_too_slow(federation) -> None:
    """The same clients are drawn alike."""
    views = federation(3, known={i: seen(duration=duration) for i, duration in enumerate((2.0, 2.0, 6.0))}).views
    found = frequencies(exploiting(cut_off=0.0, round_threshold=100.0), views, 1500)
    assert stats.chisquare([found[f"phones/{i}"] for i in range(3)]).pvalue > 0.001


def test_rewards_are_cut_at_a_quantile(federation) -> None:
    """Of rewards 10, 20, 20 and 1000 the quantile 0.5 is 20: the outlier counts as those with 20, but for the scale."""
    losses = (1.0, 2.0, 2.0, 100.0)
    views = federation(4, known={i: seen(loss=loss) for i, loss in enumerate(losses)}).views
    found = frequencies(exploiting(cut_off=0.0, clip=0.5, round_threshold=100.0), views, 3000)
    assert stats.chisquare([found[f"phones/{i}"] for i in (1, 2, 3)]).pvalue > 0.001


def test_only_clients_near_the_last_seats_utility_are_drawn(federation) -> None:
    """Rewards 40, 39, 30, 25 and 10 are 1, 0.97, 0.67, 0.50 and 0 of their range; with two seats 0.65 of the second
    is 0.63, which the third has and the fourth has not."""
    losses = (4.0, 3.9, 3.0, 2.5, 1.0)
    views = federation(5, known={i: seen(loss=loss, at=10**9) for i, loss in enumerate(losses)}).views
    rng = stream(0, "select")
    select = exploiting(round_threshold=100.0, clip=1.0, cut_off=0.65)
    found = Counter(client for _ in range(300) for client in replace(select)(views, 2, rng))
    assert found["phones/3"] == found["phones/4"] == 0
    assert min(found[f"phones/{i}"] for i in range(3)) > 100


def test_exploration_decays_from_nine_tenths_to_a_fifth(federation) -> None:
    """Of ten seats 90 %, 85.5 %, ... are for new clients, rounded up; in the first selection nobody is known."""
    clients = federation(1000)
    select, new = oort(), []
    for _ in range(40):
        before = sum(view.asked > 0 for view in clients.views)
        clients.play(select, 1, 10)
        new.append(sum(view.asked > 0 for view in clients.views) - before)
    shares = [max(0.9 * 0.95**i, 0.2) for i in range(40)]
    assert new == [10, *(math.ceil(10 * share - 1e-9) for share in shares[1:])]
    assert new[-1] == 2


def test_new_clients_are_all_equally_likely(federation) -> None:
    """One of five that nobody knows, whatever their size, in 1,000 first selections: chi-square at 0.1 %."""
    views = federation(5, known={i: {"num_examples": 10 * i} for i in range(5)}).views
    found = frequencies(oort(), views, 1000)
    assert stats.chisquare([found[f"phones/{i}"] for i in range(5)]).pvalue > 0.001


def test_a_client_that_never_answered_is_known_and_of_no_statistical_use(federation) -> None:
    """The new client goes first, though ten seconds is no worse; among known ones it has only the time since."""
    silent = seen(loss=None, answered=0, at=90)
    views = federation(3, known={0: silent, 1: seen(at=90)}).views
    assert list(oort()(views, 1, stream(0, "select"))) == ["phones/2"]
    since = math.sqrt(0.1 * math.log(100) / 90)
    found = frequencies(exploiting(cut_off=0.0), views[:2], 1000)
    share = since / (since + since + 0.01 / 0.01)
    assert stats.chisquare([found["phones/0"], found["phones/1"]], [1000 * share, 1000 * (1 - share)]).pvalue > 0.001


def test_the_pacer_prefers_longer_rounds_when_the_gain_falls(federation) -> None:
    """With steps of one: gains 20, 10, 10, none; the percentile rises by 5 after 20 > 10 and after 10 > 0 only."""
    view = federation(1, known={0: seen(loss=2)}).views[0]
    select = exploiting(pacer_step=1)
    select.selections = 0
    thresholds = []
    for answered, loss in ((1, 2.0), (2, 2.0), (3, 1.0), (4, 1.0), (4, 1.0)):
        select([replace(view, answered=answered, squared_loss=loss**2)], 1, stream(0, "select"))
        thresholds.append(select.round_threshold)
    assert thresholds == [10, 10, 15, 15, 20]


def test_the_pacer_compares_windows_of_its_step_and_ends_at_100(federation) -> None:
    """With steps of two and falling gains it acts in selections 4, 6, 8, ...; 90, then 100 for good."""
    view = federation(1, known={0: seen()}).views[0]
    select = exploiting(pacer_step=2, pacer_delta=30.0, round_threshold=60.0)
    select.selections = 0
    thresholds = []
    for number in range(1, 10):
        falling = replace(view, answered=number, squared_loss=(10.0 - number) ** 2)
        select([falling], 1, stream(0, "select"))
        thresholds.append(select.round_threshold)
    # gains 0, 80, 70, 60, ...: 80 < 130 in the 4th, 70 + 60 > 50 + 40 from the 6th on
    assert thresholds == [60, 60, 60, 60, 60, 90, 90, 100, 100]


def test_exploration_that_would_rise_is_refused() -> None:
    """From 10 % it cannot fall to the default 20 %."""
    with pytest.raises(ValueError, match=r"exploration_min 0.2 is above exploration 0.1; expected at most as much"):
        oort(exploration=0.1)


def test_oort_prefers_fast_clients_with_large_losses_to_a_uniform_choice(federation) -> None:
    """100 clients with Pareto(1.2) durations and losses apart from them, 200 rounds of 11 for 10 answers.

    A uniform round lasts as long as the tenth of eleven of all, and clients have the mean loss. Oort, once everybody is
    known, after about 20 rounds, asks fast clients: less than half the time, and a larger mean loss, are modest bounds.
    """
    rng = stream(0, "clients")
    durations, losses = (1 + rng.pareto(1.2, 100)).tolist(), rng.uniform(0.1, 4, 100).tolist()
    took, lost = {}, {}
    for name, select in (("uniform", uniform()), ("oort", oort())):
        clients = federation(100, durations=durations, losses=losses)
        chosen = [clients.place(client) for cohort in clients.play(select, 200, 11, wait=10) for client in cohort]
        took[name], lost[name] = sum(clients.rounds), float(np.mean([losses[i] for i in chosen]))
    assert took["oort"] < took["uniform"] / 2
    assert lost["oort"] > 1.2 * lost["uniform"]
