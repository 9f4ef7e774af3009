"""FedProx's Synthetic(alpha, beta)."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from fedemu.datasets._base import Dataset, subset
from fedemu.datasets.synthetic import _User, _user, synthetic
from fedemu.rng import stream


@cache
def users(alpha: float = 1.0, beta: float = 1.0) -> list[_User]:
    """Return 300 users."""
    return [_user(alpha, beta, stream(0, "synthetic", user)) for user in range(300)]


@cache
def data() -> Dataset:
    """Return Synthetic(1, 1) of 30 users."""
    return synthetic(Path("nowhere"))


def test_labels_are_what_the_users_model_says() -> None:
    """argmax(softmax(W x + b)), example by example, as the paper writes it."""
    for user in users()[:5]:
        for x, y in zip(user.x[:50], user.y[:50], strict=True):
            logits = user.weights @ x + user.bias
            odds = np.exp(logits - logits.max())
            assert y == np.argmax(odds / odds.sum())


def test_sizes_beyond_fifty_are_lognormal() -> None:
    """ln(size - 50) is N(4, 2) but for rounding down, which matters little above the median. That is e^4 = 54.6,
    so that half of 300 are above, with a deviation of 8.7; 3 deviations are 26; and KS at 0.1 % of those above."""
    beyond = np.array([len(user.y) - 50 for user in users()])
    assert beyond.min() >= 0
    above = beyond[beyond >= 55]
    assert abs(len(above) - 150) < 26
    upper_half = stats.truncnorm(a=(np.log(55) - 4) / 2, b=np.inf, loc=4, scale=2)
    assert stats.kstest(np.log(above + 0.5), upper_half.cdf).pvalue > 0.001


@pytest.mark.parametrize("spread", [0.5, 1.0, 3.0])
def test_users_models_are_normal_about_a_normal_of_deviation_alpha(spread: float) -> None:
    """A mean of 610 numbers of N(u, 1) is N(0, alpha^2 + 1/610) with u; about it they have variance 1: KS at 0.1 %,
    and the variance of 300 * 610 standard normals is 1 within 4.5 deviations of sqrt(2 / 183,000) = 0.0033."""
    models = np.array([[*user.weights.ravel(), *user.bias] for user in users(alpha=spread)])
    means = models.mean(axis=1)
    assert stats.kstest(means / np.sqrt(spread**2 + 1 / 610), "norm").pvalue > 0.001
    assert abs(models.var(axis=1, ddof=1).mean() - 1) < 0.015


@pytest.mark.parametrize("spread", [0.5, 1.0, 3.0])
def test_users_inputs_are_centred_on_a_normal_of_deviation_beta(spread: float) -> None:
    """As the models, with 60 numbers of N(B, 1): 4.5 * sqrt(2 / (300 * 59)) = 0.048."""
    centers = np.array([user.center for user in users(beta=spread)])
    assert stats.kstest(centers.mean(axis=1) / np.sqrt(spread**2 + 1 / 60), "norm").pvalue > 0.001
    assert abs(centers.var(axis=1, ddof=1).mean() - 1) < 0.048


def test_the_jth_feature_has_variance_j_to_the_minus_1_2() -> None:
    """About a user's center, independent of each other: with n > 100,000 examples of all users, variances are right
    within 4.5 * sqrt(2 / n) = 2 %, and correlations below 4.5 / sqrt(n) = 1.5 %."""
    rest = np.concatenate([user.x - user.center for user in users()])
    assert len(rest) > 100_000
    assert np.abs(rest.var(axis=0) * np.arange(1, 61) ** 1.2 - 1).max() < 0.02
    correlations = np.corrcoef(rest, rowvar=False)
    assert np.abs(correlations - np.eye(60)).max() < 0.015


def test_more_alpha_makes_models_differ_more() -> None:
    """The mean squared difference of two users' weights is 2 (alpha^2 + 1); neighbours of 300 users, fixed seed."""
    found = []
    for alpha in (0.0, 0.5, 1.0, 3.0):
        weights = np.array([user.weights for user in users(alpha=alpha)])
        found.append(float(np.mean(np.diff(weights, axis=0) ** 2)))
    assert found == pytest.approx([2 * (alpha**2 + 1) for alpha in (0.0, 0.5, 1.0, 3.0)], rel=0.25)
    assert found == sorted(found)


def test_nine_tenths_of_every_users_examples_are_for_training() -> None:
    """Rounded down; in the order of the users, whom `owners` names."""
    drawn = users()[:30]
    assert data().owners is not None
    assert np.bincount(data().owners).tolist() == [int(0.9 * len(user.y)) for user in drawn]
    assert len(data().train.y) + len(data().test.y) == sum(len(user.y) for user in drawn)
    third = torch.from_numpy(data().owners == 3)
    cut = int(third.sum())
    assert np.array_equal(data().train.x[third].numpy(), drawn[3].x[:cut].astype(np.float32))
    assert np.array_equal(data().train.y[third].numpy(), drawn[3].y[:cut])
    rest = len(drawn[29].y) - int(0.9 * len(drawn[29].y))
    assert np.array_equal(data().test.y[-rest:].numpy(), drawn[29].y[-rest:])


def test_inputs_are_the_features_themselves() -> None:
    """Scale 1, mean 0 and deviation 1 for each of 60 features; nobody vouches for generated data."""
    assert data().shape == (60,)
    assert len(data().mean) == len(data().std) == 60
    assert torch.equal(data().inputs(data().test.x), data().test.x)
    assert data().verified == "generated"


def test_the_same_seed_gives_the_same_data_and_more_users_change_nobodys() -> None:
    """Streams are by user; another seed is another federation."""
    again, more, other = synthetic(Path()), synthetic(Path(), users=40), synthetic(Path(), seed=1)
    count = len(data().train.y)
    assert torch.equal(again.train.x, data().train.x)
    assert torch.equal(more.train.x[:count], data().train.x)
    assert more.owners is not None
    assert more.owners.max() == 39
    assert not torch.equal(other.train.x[:50], data().train.x[:50])


def test_a_subset_keeps_the_owners_of_what_it_keeps() -> None:
    """500 of the examples: each is found among its owner's, by its features."""
    part = subset(data(), 500, stream(0, "subset"))
    assert part.owners is not None
    assert data().owners is not None
    assert len(part.owners) == len(part.train.y) == 500
    by_features = {x.numpy().tobytes(): owner for x, owner in zip(data().train.x, data().owners, strict=True)}
    assert part.owners.tolist() == [by_features[x.numpy().tobytes()] for x in part.train.x]
