"""Dirichlet label skew."""

import numpy as np
import pytest
from scipy import stats

from fedemu.partitioners.dirichlet import _deal, _draw, dirichlet
from fedemu.rng import stream
from fedemu.types import Annotations

LABELS = np.repeat(np.arange(10), 500)
ANNOTATIONS = Annotations(LABELS)


def classes_per_client(alpha: float) -> float:
    """Return the mean over 20 clients and 5 draws."""
    rng = stream(0, "p")
    shares = [share for _ in range(5) for share in dirichlet(alpha=alpha)(ANNOTATIONS, 20, rng)]
    return float(np.mean([len(np.unique(LABELS[share])) for share in shares]))


def test_classes_per_client_rise_with_alpha_from_one_to_ten() -> None:
    """The alphas of seed S0; at 100, where each client expects 25 of each class, all have all ten."""
    means = [classes_per_client(alpha) for alpha in (0.05, 0.1, 0.3, 0.5, 1, 10, 100)]
    assert means == sorted(means)
    assert means[0] < 3
    assert means[-1] == 10


def test_the_first_classs_shares_follow_the_dirichlets_marginal() -> None:
    """Before anybody is full, a client's share of a class is Beta(alpha, (n - 1) alpha): KS at 0.1 %."""
    rng = stream(0, "p")
    shares = [_draw(np.array([10**6, 10**6]), 5, 0.5, rng)[0, 0] / 10**6 for _ in range(2000)]
    assert stats.kstest(shares, stats.beta(0.5, 2.0).cdf).pvalue > 0.001


def test_a_client_with_its_even_share_gets_none_of_the_next_class() -> None:
    """Of 3 x 1000 examples among 4 clients, who has 750 before a class gets nothing of it."""
    rng = stream(0, "p")
    for _ in range(200):
        counts = _draw(np.array([1000, 1000, 1000]), 4, 0.1, rng)
        before = np.cumsum(counts, axis=0) - counts
        assert (counts[before >= 750] == 0).all()
        assert counts.sum(axis=1).tolist() == [1000] * 3


@pytest.mark.parametrize("alpha", [1e-3, 1e6])
def test_extreme_alphas_divide_too(alpha: float) -> None:
    """No zero divided by zero; at 10^6 five clients get 100 of each class, give or take a rounding."""
    shares = dirichlet(alpha=alpha, min_examples=0)(ANNOTATIONS, 5, stream(0, "p"))
    assert sum(map(len, shares)) == 5000
    if alpha > 1:
        assert max(abs(len(share) - 1000) for share in shares) < 20


def test_draws_are_repeated_until_everybody_has_enough() -> None:
    """With alpha 0.5 about every second draw leaves one of 10 clients with less than 200 of its mean 500."""
    rng = stream(0, "p")
    smallest = [min(map(len, dirichlet(alpha=0.5, min_examples=200)(ANNOTATIONS, 10, rng))) for _ in range(30)]
    assert min(smallest) >= 200
    assert min(min(map(len, dirichlet(alpha=0.5)(ANNOTATIONS, 10, rng))) for _ in range(30)) < 200


def test_what_cannot_be_drawn_is_an_error_and_not_an_endless_search() -> None:
    """At alpha 0.001 each of 10 classes goes to one client, so that 20 clients cannot all have some."""
    with pytest.raises(ValueError, match=r"alpha 0.001 left some of 20 clients with less than 1 of 5000 examples"):
        dirichlet(alpha=0.001)(ANNOTATIONS, 20, stream(0, "p"))


def test_examples_of_a_class_are_dealt_at_random() -> None:
    """Example 0, of a class of 4, goes to each of 2 clients half the time: 200 of 400, deviation 10; 4.5 are 45."""
    rng = stream(0, "p")
    first = sum(0 in _deal(np.zeros(4, dtype=np.int64), np.array([[2, 2]]), rng)[0] for _ in range(400))
    assert abs(first - 200) < 45
