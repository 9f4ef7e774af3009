"""Sampling by weight without replacement."""

import itertools
from collections import Counter

import numpy as np
from scipy import stats

from fedemu.rng import stream
from fedemu.selectors._weights import draw


def test_pairs_are_drawn_one_after_the_other_in_proportion_to_weights() -> None:
    """Of weights 1, 2, 3, 4 the pair (i, j) has the chance w_i / 10 * w_j / (10 - w_i): chi-square at 0.1 %."""
    rng = stream(0, "select")
    weights = [1.0, 2.0, 3.0, 4.0]
    found = Counter(tuple(draw(weights, 2, rng)) for _ in range(5000))
    pairs = list(itertools.permutations(range(4), 2))
    chances = [weights[i] / 10 * weights[j] / (10 - weights[i]) for i, j in pairs]
    assert stats.chisquare([found[pair] for pair in pairs], 5000 * np.array(chances)).pvalue > 0.001


def test_weight_zero_comes_after_all_others_and_then_each_alike() -> None:
    """Of (0, 5, 0, 1) the first two are 1 and 3; the third is 0 in half of 400 draws, deviation 10; 4.5 are 45."""
    rng = stream(0, "select")
    drawn = [draw([0.0, 5.0, 0.0, 1.0], 3, rng) for _ in range(400)]
    assert all(set(order[:2]) == {1, 3} for order in drawn)
    assert abs(sum(order[2] == 0 for order in drawn) - 200) < 45


def test_a_heavier_client_is_drawn_no_later_with_the_same_stream() -> None:
    """Variates belong to positions: to double client 3's weight moves it forward and nobody else past another."""
    for seed in range(50):
        before = draw([1.0] * 6, 6, stream(seed, "select"))
        after = draw([1.0, 1.0, 1.0, 2.0, 1.0, 1.0], 6, stream(seed, "select"))
        assert after.index(3) <= before.index(3)
        assert [i for i in after if i != 3] == [i for i in before if i != 3]
