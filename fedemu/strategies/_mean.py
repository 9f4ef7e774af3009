"""The weighted mean of updates, folded in one by one: w + sum(p_i delta_i) / sum(p_i).

The sum is kept in float64, so that the order of arrival moves it by no more than 1e-12 of its size, and everything
goes block by block, because PyTorch makes a full copy where types are mixed, and a model may have 1 GB.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from fedemu.strategies._base import Aggregation
from fedemu.types import Rng, State, Update, Vector

_BLOCK = 2**20


@dataclass(slots=True)
class Mean:
    """A running weighted mean of vectors of shape (d,)."""

    weight: float = 0.0
    """Sum of the weights so far."""
    count: int = 0
    """Vectors that had weight."""
    only: Vector | None = None
    """The first vector as it came, while it is alone: it is its own mean, and needs no sum."""
    total: torch.Tensor | None = None
    """Weighted sum, shape (d,), float64, from the second vector on."""

    def add(self, delta: Vector, weight: float) -> None:
        """Fold a vector in; one without weight changes nothing."""
        if weight == 0:
            return
        if self.count == 0:
            self.only = delta
        else:
            if self.only is not None:
                self.total = torch.zeros_like(self.only, dtype=torch.float64)
                self._accumulate(self.only, self.weight)
                self.only = None
            self._accumulate(delta, weight)
        self.weight += weight
        self.count += 1

    def __getitem__(self, block: slice) -> torch.Tensor:
        """Return a block of the mean in float64; there is none before something had weight."""
        if self.only is not None:
            return self.only[block].double()
        assert self.total is not None
        return self.total[block] / self.weight

    def added_to(self, weights: Vector, scale: float = 1.0) -> Vector:
        """Return `weights` plus `scale` times the mean as a new vector; a copy of `weights` if nothing had weight."""
        if self.count == 0:
            return weights.clone()
        result = torch.empty_like(weights)
        for block in blocks(len(weights)):
            result[block] = weights[block].double() + self[block] * scale
        return result

    def mixed_into(self, weights: Vector, share: float) -> Vector:
        """Return (1 - share) `weights` + share mean as a new vector; a copy of `weights` if nothing had weight."""
        if self.count == 0:
            return weights.clone()
        result = torch.empty_like(weights)
        for block in blocks(len(weights)):
            result[block] = torch.lerp(weights[block].double(), self[block], share)
        return result

    def _accumulate(self, delta: Vector, weight: float) -> None:
        assert self.total is not None
        for block in blocks(len(delta)):
            self.total[block].add_(delta[block].double(), alpha=weight)


def blocks(size: int) -> Iterator[slice]:
    """Divide 0..size-1 into slices that are small enough to be copied."""
    for start in range(0, size, _BLOCK):
        yield slice(start, start + _BLOCK)


def by_examples(update: Update) -> float:
    """Let a client count by its examples."""
    return float(update.num_examples)


def by_presence(update: Update) -> float:
    """Let all clients count the same, except those that did no step and so have no model of their own."""
    return 1.0 if update.num_steps else 0.0


def weighted_mean(weigh: Callable[[Update], float], *, server_lr: float = 1.0) -> Aggregation:
    """Build the aggregation that adds `server_lr` times the mean delta, each weighted by `weigh`, a number >= 0."""

    def add(mean: Mean, update: Update) -> Mean:
        mean.add(update.delta, weigh(update))
        return mean

    def finish(mean: Mean, weights: Vector, state: State, rng: Rng) -> tuple[Vector, State]:
        return mean.added_to(weights, server_lr), state

    return Aggregation(Mean, add, finish)
