"""Independent and identically distributed shares: the examples are shuffled and dealt out evenly."""

import numpy as np

from fedemu.partitioners._enough import require_enough
from fedemu.types import Annotations, Indices, Partitioner, Rng


def iid() -> Partitioner:
    """Shuffle the examples and deal them out evenly; sizes differ by one at most."""

    def partition(annotations: Annotations, clients: int, rng: Rng) -> list[Indices]:
        require_enough(annotations, clients, each=1)
        return [np.sort(share) for share in np.array_split(rng.permutation(len(annotations.labels)), clients)]

    return partition
