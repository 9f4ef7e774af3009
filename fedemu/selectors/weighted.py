"""Sampling in proportion to the number of examples, without replacement.

As FedProx chooses its devices (Li, Sahu, Zaheer, Sanjabi, Talwalkar, Smith, "Federated Optimization in Heterogeneous
Networks", MLSys 2020, Algorithm 2), there with plain averages: a strategy that weights updates by examples as well
counts size twice.
"""

from collections.abc import Sequence

from fedemu.selectors._weights import draw, given_order
from fedemu.types import ClientId, ClientView, Rng, Selector


def weighted() -> Selector:
    """Choose in proportion to the number of examples; clients without any only if nobody else is there."""

    def select(clients: Sequence[ClientView], count: int, rng: Rng) -> Sequence[ClientId]:
        return given_order(clients, draw([client.num_examples for client in clients], count, rng))

    return select
