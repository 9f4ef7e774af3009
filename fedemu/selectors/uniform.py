"""Uniform sampling without replacement, the S_t of FedAvg's Algorithm 1."""

from collections.abc import Sequence

from fedemu.types import ClientId, ClientView, Rng, Selector


def uniform() -> Selector:
    """Choose clients at random, all equally likely, in the order in which they are given."""

    def select(clients: Sequence[ClientView], count: int, rng: Rng) -> Sequence[ClientId]:
        chosen = rng.choice(len(clients), size=min(count, len(clients)), replace=False)
        return [clients[i].client for i in sorted(chosen)]

    return select
