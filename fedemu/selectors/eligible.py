"""Eligibility: only devices that are charging, on an unmetered network and idle, so that nobody is disturbed.

Bonawitz et al., "Towards Federated Learning at Scale: System Design", MLSys 2019, section 2.1: phones check in when
these conditions hold, and the server samples among those that have.
"""

from collections.abc import Sequence
from typing import Literal, TypeAlias

from fedemu.selectors._weights import draw, given_order
from fedemu.types import ClientId, ClientView, Rng, Selector

Condition: TypeAlias = Literal["charging", "unmetered", "idle"]


def eligible(*, require: list[Condition] | None = None) -> Selector:
    """Choose at random, all equally likely, among those whose conditions hold; maybe nobody.

    Args:
        require: What must be true of a device; default charging, unmetered and idle.
    """
    required = frozenset(("charging", "unmetered", "idle") if require is None else require)

    def select(clients: Sequence[ClientView], count: int, rng: Rng) -> Sequence[ClientId]:
        # among all, so that who is eligible moves no draw
        shuffled = draw([1.0] * len(clients), len(clients), rng)
        return given_order(clients, [i for i in shuffled if required <= clients[i].conditions][:count])

    return select
