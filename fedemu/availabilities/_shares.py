"""Chances of being online that differ from client to client, the largest being 1."""

import math
from collections.abc import Sequence

from fedemu.types import Rng


def lognormal_shares(beta: float, rngs: Sequence[Rng]) -> list[float]:
    """Return exp(sigma z) over the largest of the population, sigma = -ln(1 - beta); one normal z of each stream.

    FLGo takes -ln(1 - beta - 1e-6), so that sigma is above zero with beta 0 too.
    """
    sigma = -math.log1p(-beta)
    logs = [sigma * float(rng.standard_normal()) for rng in rngs]
    return [math.exp(log - max(logs)) for log in logs]


def over_largest(values: Sequence[float]) -> list[float]:
    """Return values >= 0 over the largest of them; all 0 stay 0."""
    largest = max(values, default=0.0)
    return [value / largest if largest else 0.0 for value in values]
