"""Quantity skew: every client sees all classes alike, but some have far more examples than others.

Sizes are lognormal: after one example for everybody, the others are divided in proportion to exp(sigma z) with z
standard normal. Sigma 0 divides evenly; the coefficient of variation is about sqrt(exp(sigma^2) - 1).
"""

from typing import Annotated

import numpy as np
from pydantic import Field

from fedemu.partitioners._enough import require_enough
from fedemu.types import Annotations, Indices, Partitioner, Rng


def quantity(*, sigma: Annotated[float, Field(ge=0)]) -> Partitioner:
    """Shuffle the examples and divide them in lognormal sizes, at least one each.

    Args:
        sigma: Standard deviation of the logarithm of the sizes; 0 divides evenly.
    """

    def partition(annotations: Annotations, clients: int, rng: Rng) -> list[Indices]:
        count = len(annotations.labels)
        require_enough(annotations, clients, each=1)
        log_sizes = sigma * rng.standard_normal(clients)
        parts = np.cumsum(np.exp(log_sizes - log_sizes.max()))
        ends = np.round(parts / parts[-1] * (count - clients)).astype(np.int64) + np.arange(1, clients + 1)
        return [np.sort(share) for share in np.split(rng.permutation(count), ends[:-1])]

    return partition
