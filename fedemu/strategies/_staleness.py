"""How much an update counts that started from an older model: s(staleness), 1 for a fresh one.

Xie, Koyejo, Gupta, "Asynchronous Federated Optimization", OPT 2020; staleness is their t - tau, the
versions of the model made since the client got its own.
"""

from collections.abc import Callable
from typing import TypeAlias

Staleness: TypeAlias = Callable[[int], float]
"""From staleness, >= 0, to a factor in 0..1."""


def constant() -> Staleness:
    """Let all count the same."""
    return lambda staleness: 1.0


def polynomial(a: float) -> Staleness:
    """Build (staleness + 1)^-a."""
    return lambda staleness: (staleness + 1.0) ** -a


def hinge(a: float, b: float) -> Staleness:
    """Build 1 up to a staleness of b, and 1 / (a (staleness - b) + 1) above."""
    return lambda staleness: 1.0 if staleness <= b else 1.0 / (a * (staleness - b) + 1.0)
