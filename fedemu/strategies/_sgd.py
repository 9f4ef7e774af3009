"""Local training by mini-batch SGD on one flat vector."""

import math

import torch

from fedemu.types import Objective, Rng, Trained, Training, Vector


def local_sgd(objective: Objective, start: Vector, training: Training, rng: Rng) -> Trained:
    """Train from `start` over all local examples, in an order drawn anew in every epoch.

    The last batch of an epoch is the short one; none is dropped. A client without examples answers with a zero delta.
    Momentum is v <- m v + g, w <- w - lr v with v = 0 at the start of the round, as in PyTorch's SGD.
    """
    count = objective.num_examples
    size = training.batch_size or max(count, 1)
    weights = start.clone()
    velocity = torch.zeros_like(start) if training.momentum else None
    steps, losses = 0, 0.0
    for _ in range(training.epochs):
        order = rng.permutation(count)
        for first in range(0, count, size):
            gradient, loss = objective.gradient(weights, order[first : first + size])
            if velocity is None:
                weights.add_(gradient, alpha=-training.lr)
            else:
                velocity.mul_(training.momentum).add_(gradient)
                weights.add_(velocity, alpha=-training.lr)
            steps += 1
            losses += loss
    return Trained(weights.sub_(start), count, steps, losses / steps if steps else math.nan)
