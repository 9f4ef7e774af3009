"""Local training by mini-batch SGD on one flat vector."""

import math
from collections.abc import Callable
from typing import TypeAlias

import torch

from fedemu.types import Objective, Rng, Trained, Training, Vector

Correct: TypeAlias = Callable[[Vector, Vector], None]
"""Correct a gradient, shape (d,), in place; given the local weights that it was taken at."""


def local_sgd(
    objective: Objective, start: Vector, training: Training, rng: Rng, *, correct: Correct | None = None
) -> Trained:
    """Train from `start` over all local examples, in an order drawn anew in every epoch.

    The last batch of an epoch is the short one; none is dropped. A client without examples answers with a zero delta.
    Momentum is v <- m v + g, w <- w - lr v with v = 0 at the start of the round, as in PyTorch's SGD; g is the
    corrected gradient.
    """
    count = objective.num_examples
    size = training.batch_size or max(count, 1)
    weights = start.clone()
    velocity = torch.zeros_like(start) if training.momentum else None
    steps, losses, squares = 0, 0.0, 0.0
    for _ in range(training.epochs):
        order = rng.permutation(count)
        for first in range(0, count, size):
            gradient, loss = objective.gradient(weights, order[first : first + size])
            if correct is not None:
                correct(gradient, weights)
            if velocity is None:
                weights.add_(gradient, alpha=-training.lr)
            else:
                velocity.mul_(training.momentum).add_(gradient)
                weights.add_(velocity, alpha=-training.lr)
            steps += 1
            losses += loss.mean
            squares += loss.mean_square
    delta = weights.sub_(start)
    return Trained(
        delta, count, steps, losses / steps if steps else math.nan, squared_loss=squares / steps if steps else 0.0
    )


def proximal(start: Vector, mu: float) -> Correct | None:
    """Return the gradient of mu / 2 |w - start|^2, to be added; None for mu = 0, which corrects nothing."""
    if mu == 0:
        return None

    def correct(gradient: Vector, weights: Vector) -> None:
        gradient.add_(weights, alpha=mu).sub_(start, alpha=mu)

    return correct
