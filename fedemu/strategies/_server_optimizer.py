"""Server optimisers: the mean delta is taken for the negative of a gradient, and the server makes a step of its own.

Reddi, Charles, Zaheer, Garrett, Rush, Konečný, Kumar, McMahan, "Adaptive Federated Optimization", ICLR 2021, Algorithm
1 (FedOpt), with the mean weighted by examples, as in FedAvg and in the paper's experiments. A step is done block by
block in float64, and what is remembered is rounded to the model's type.
"""

from collections.abc import Callable, Mapping
from typing import TypeAlias

import torch

from fedemu.strategies._base import Strategy
from fedemu.strategies._mean import Mean, blocks, by_examples, weighted_mean
from fedemu.strategies._plain import by_sgd, no_extras, zeros
from fedemu.types import Rng, State, Training, Vector

Moments: TypeAlias = Mapping[str, torch.Tensor]
"""The same block, float64, of every vector that the optimiser remembers."""

Rule: TypeAlias = Callable[[torch.Tensor, Moments], tuple[torch.Tensor, Moments]]
"""From a block of the mean delta, float64, and the moments: what to add to the model, and the moments after it."""


def server_step(
    rule: Rule, mean: Mean, weights: Vector, state: State, *, scale: float = 1.0
) -> tuple[Vector, dict[str, Vector]]:
    """Return the next model and moments, new vectors, by `scale` times the mean; as they were if nothing had weight."""
    model = weights.clone()
    moments = {name: vector.clone() for name, vector in state.items()}
    if mean.count == 0:
        return model, moments
    for block in blocks(len(weights)):
        step, after = rule(mean[block] * scale, {name: vector[block].double() for name, vector in state.items()})
        model[block] = weights[block].double() + step
        for name, moment in after.items():
            moments[name][block] = moment
    return model, moments


def fedopt(training: Training, rule: Rule, *moments: str) -> Strategy:
    """Build FedOpt: clients train by SGD, the server steps by `rule`, which remembers `moments`, zero at first."""

    def finish(mean: Mean, weights: Vector, state: State, rng: Rng) -> tuple[Vector, State]:
        return server_step(rule, mean, weights, state)

    return Strategy(by_sgd(training), weighted_mean(by_examples)._replace(finish=finish), zeros(*moments), no_extras)


def heavy_ball(momentum: float, server_lr: float) -> Rule:
    """Build v <- momentum v + delta, x <- x + server_lr v; the moment is `velocity`, and there is none if 0."""

    def rule(delta: torch.Tensor, moments: Moments) -> tuple[torch.Tensor, Moments]:
        if not momentum:
            return server_lr * delta, {}
        velocity = momentum * moments["velocity"] + delta
        return server_lr * velocity, {"velocity": velocity}

    return rule


def adaptive(
    second: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], *, server_lr: float, beta1: float, tau: float
) -> Rule:
    """Build m <- beta1 m + (1 - beta1) delta, v <- second(v, delta^2), x <- x + server_lr m / (sqrt(v) + tau).

    The moments are `m` and `v`. They are not corrected for starting at zero, as in the paper.
    """

    def rule(delta: torch.Tensor, moments: Moments) -> tuple[torch.Tensor, Moments]:
        m = beta1 * moments["m"] + (1 - beta1) * delta
        v = second(moments["v"], delta.square())
        return server_lr * m / (v.sqrt() + tau), {"m": m, "v": v}

    return rule
