"""Power of choice."""

from collections import Counter

import pytest
from scipy import stats

from fedemu.rng import stream
from fedemu.selectors.power_of_choice import power_of_choice
from fedemu.selectors.weighted import weighted


def heard(*losses: float) -> dict[int, dict[str, object]]:
    """Return that clients answered with these losses."""
    return {i: {"asked": 1, "answered": 1, "loss": loss} for i, loss in enumerate(losses)}


def test_with_all_as_candidates_the_largest_losses_train(federation) -> None:
    """Losses 1, 5, 3, 4: two of them are 5 and 4, whatever is drawn."""
    views = federation(4, known=heard(1, 5, 3, 4)).views
    for seed in range(10):
        assert list(power_of_choice(candidates=4)(views, 2, stream(seed, "select"))) == ["phones/1", "phones/3"]


def test_two_candidates_of_three_give_the_largest_loss_two_thirds_of_the_time(federation) -> None:
    """Of three equal clients it is a candidate in 2 of 3 pairs, the second wins 1, the third none: chi-square."""
    views = federation(3, known=heard(3, 2, 1)).views
    rng = stream(0, "select")
    found = Counter(power_of_choice(candidates=2)(views, 1, rng)[0] for _ in range(1500))
    assert stats.chisquare([found["phones/0"], found["phones/1"]], [1000, 500]).pvalue > 0.001
    assert found["phones/2"] == 0


def test_candidates_are_drawn_by_their_examples(federation) -> None:
    """With one candidate for one seat losses do not matter, and examples do: 10 of 40 against 30 of 40."""
    views = federation(2, known={0: {"num_examples": 10, "loss": 9.0}, 1: {"num_examples": 30, "loss": 1.0}}).views
    rng = stream(0, "select")
    found = Counter(power_of_choice(candidates=1)(views, 1, rng)[0] for _ in range(1000))
    assert stats.chisquare([found["phones/0"], found["phones/1"]], [250, 750]).pvalue > 0.001


@pytest.mark.parametrize("candidates", [1, 3])
def test_no_more_candidates_than_seats_is_sampling_by_examples(federation, candidates) -> None:
    """Three seats and at most three candidates: the same choice as `weighted` makes with the same stream."""
    views = federation(8, known=heard(*range(8))).views
    for seed in range(10):
        chosen = power_of_choice(candidates=candidates)(views, 3, stream(seed, "select"))
        assert chosen == weighted()(views, 3, stream(seed, "select"))


def test_who_never_answered_goes_first_and_who_has_no_examples_last(federation) -> None:
    """Infinite loss for client 2, asked or not; client 0 answers without a loss, as it has nothing to train on."""
    silent = {"asked": 1, "duration": 9.0}
    empty = {"num_examples": 0, "asked": 1, "answered": 1}
    for facts in ({}, silent):
        views = federation(4, known={**heard(0, 1e9, 0, 2), 0: empty, 2: facts}).views
        select = power_of_choice(candidates=4)
        assert list(select(views, 1, stream(0, "select"))) == ["phones/2"]
        assert list(select(views, 3, stream(0, "select"))) == ["phones/1", "phones/2", "phones/3"]
