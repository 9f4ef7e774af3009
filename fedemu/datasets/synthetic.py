"""Synthetic(alpha, beta): users whose models and inputs differ by as much as one likes, made from a seed.

Li, Sahu, Zaheer, Sanjabi, Talwalkar, Smith, "Federated Optimization in Heterogeneous Networks", MLSys 2020, section
5.1 and appendix C.1, as its code (litian96/FedProx) makes it. User k labels x as argmax(softmax(W x + b)), with W and b
of N(u, 1) and u of N(0, alpha): alpha is how much models differ. Its x have the covariance diag(j^-1.2) about v of
N(B, 1), and B is of N(0, beta): beta is how much inputs differ. In the paper's notation alpha and beta could be
variances; in its code they are standard deviations, and so they are here. Sizes are 50 and a lognormal (4, 2), rounded
down, without a cap: one in eight sets of 30 users has one with over 10,000. Of each user's examples the first
nine tenths are for training, rounded down, the others for testing; the code shuffles them before, which changes
nothing in law.

Every user has its own random stream, so that more users leave the others as they are, and data that differ in alpha or
beta alone are made of the same draws.
"""

from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch
from pydantic import Field

from fedemu.datasets._base import Dataset, Examples
from fedemu.rng import stream
from fedemu.types import Rng
from fedemu.units import Count

_FEATURES = 60
_CLASSES = 10
_DEVIATION = np.arange(1, _FEATURES + 1) ** -0.6


class _User(NamedTuple):
    """A user's true model and examples."""

    weights: np.ndarray
    """W, shape (classes, features)."""
    bias: np.ndarray
    """b, shape (classes,)."""
    center: np.ndarray
    """v, shape (features,)."""
    x: np.ndarray
    """Shape (n, features)."""
    y: np.ndarray
    """Shape (n,), int64."""


def synthetic(
    folder: Path,
    /,
    *,
    alpha: Annotated[float, Field(ge=0)] = 1.0,
    beta: Annotated[float, Field(ge=0)] = 1.0,
    users: Count = 30,
    seed: Annotated[int, Field(ge=0)] = 0,
) -> Dataset:
    """Users whose models and inputs differ, FedProx's Synthetic(alpha, beta): 60 features, 10 classes.

    Args:
        folder: Not used, as nothing is read.
        alpha: How much users' models differ: the standard deviation of their mean.
        beta: How much users' inputs differ: the standard deviation of their mean.
        users: How many there are.
        seed: Of the data; apart from the scenario's, so that repeated runs learn from the same.
    """
    drawn = [_user(alpha, beta, stream(seed, "synthetic", user)) for user in range(users)]
    cuts = [len(user.y) * 9 // 10 for user in drawn]
    train = _join([(user.x[:cut], user.y[:cut]) for user, cut in zip(drawn, cuts, strict=True)])
    test = _join([(user.x[cut:], user.y[cut:]) for user, cut in zip(drawn, cuts, strict=True)])
    zeros, ones = (0.0,) * _FEATURES, (1.0,) * _FEATURES
    owners = np.repeat(np.arange(users, dtype=np.int64), cuts)
    return Dataset("synthetic", train, test, (_FEATURES,), _CLASSES, 1, zeros, ones, "generated", owners)


def _user(alpha: float, beta: float, rng: Rng) -> _User:
    size = 50 + int(rng.lognormal(4, 2))
    model_mean, input_mean = alpha * rng.standard_normal(), beta * rng.standard_normal()
    center = input_mean + rng.standard_normal(_FEATURES)
    weights = model_mean + rng.standard_normal((_CLASSES, _FEATURES))
    bias = model_mean + rng.standard_normal(_CLASSES)
    x = center + _DEVIATION * rng.standard_normal((size, _FEATURES))
    # the softmax does not move the largest
    return _User(weights, bias, center, x, np.argmax(x @ weights.T + bias, axis=1))


def _join(parts: list[tuple[np.ndarray, np.ndarray]]) -> Examples:
    x, y = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return Examples(torch.from_numpy(x.astype(np.float32)), torch.from_numpy(y))
