"""Heterogeneous quadratics F_i(w) = (w - b_i)^T A_i (w - b_i) / 2, whose optimum and FedAvg's fixed point are known.

In double precision, so that what is left of an error is the algorithm's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fedemu.types import BatchLoss, Indices, Vector


@dataclass(frozen=True)
class Quadratic:
    """A client's quadratic; an epoch of full batches is one gradient step."""

    a: np.ndarray
    """Shape (d, d), symmetric, positive definite."""
    b: np.ndarray
    """Shape (d,)."""
    num_examples: int = 1

    def gradient(self, weights: Vector, batch: Indices) -> tuple[Vector, BatchLoss]:
        distance = weights - torch.from_numpy(self.b)
        slope = torch.from_numpy(self.a) @ distance
        loss = (distance @ slope).item() / 2
        return slope, BatchLoss(loss, loss * loss)


def optimum(clients: Sequence[Quadratic], weights: Sequence[float]) -> np.ndarray:
    """Return the least point of sum(p_i F_i): sum(p_i A_i) w = sum(p_i A_i b_i)."""
    return _solve([p * client.a for p, client in zip(weights, clients, strict=True)], clients)


def fixed_point(clients: Sequence[Quadratic], weights: Sequence[float], steps: Sequence[int], lr: float) -> np.ndarray:
    """Return where averaging with these weights stands still: client i's tau_i steps move w by -M_i (w - b_i).

    M_i = I - (I - lr A_i)^tau_i, and the mean move is zero. For FedNova, `weights` are p_i / tau_i.
    """
    eye = np.eye(len(clients[0].b))
    moves = [eye - np.linalg.matrix_power(eye - lr * c.a, tau) for c, tau in zip(clients, steps, strict=True)]
    return _solve([p * move for p, move in zip(weights, moves, strict=True)], clients)


def _solve(matrices: Sequence[np.ndarray], clients: Sequence[Quadratic]) -> np.ndarray:
    total = sum(matrix @ client.b for matrix, client in zip(matrices, clients, strict=True))
    return np.linalg.solve(sum(matrices), total)
