"""Sampling without replacement in proportion to weights, coupled between runs."""

from collections.abc import Sequence

import numpy as np

from fedemu.types import ClientId, ClientView, Rng


def draw(weights: Sequence[float], count: int, rng: Rng) -> list[int]:
    """Draw that many distinct positions, one after the other, in proportion to the weights of those that are left.

    Weight 0 comes after all others, then each alike. One exponential variate is drawn for each weight, and the
    smallest quotients win (Efraimidis, Spirakis, "Weighted random sampling with a reservoir", Information Processing
    Letters 2006), so that how much is drawn depends on how many are given only.

    Args:
        weights: Finite, >= 0, shape (n,).
        count: How many; fewer where fewer are there.
        rng: Where the variates come from.

    Returns:
        Positions in 0..n-1 in the order of the draws.
    """
    waiting = rng.exponential(size=len(weights))
    heavy = np.asarray(weights, dtype=np.float64) > 0
    waiting[heavy] /= np.asarray(weights, dtype=np.float64)[heavy]
    order: list[int] = np.lexsort((waiting, ~heavy)).tolist()
    return order[:count]


def given_order(clients: Sequence[ClientView], chosen: Sequence[int]) -> list[ClientId]:
    """Return the ids of the clients at the chosen positions, in the order in which the clients were given."""
    return [clients[i].client for i in sorted(chosen)]
