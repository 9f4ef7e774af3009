"""Shards of the examples sorted by label: most clients know a few classes only.

The pathological non-IID split of McMahan, Moore, Ramage, Hampson, Agüera y Arcas, "Communication-Efficient Learning of
Deep Networks from Decentralized Data", AISTATS 2017, section 3: MNIST sorted by digit in 200 shards of 300, two to
each of 100 clients. A shard may straddle two labels.
"""

import numpy as np

from fedemu.partitioners._enough import require_enough
from fedemu.types import Annotations, Indices, Partitioner, Rng
from fedemu.units import Count


def shards(*, per_client: Count = 2) -> Partitioner:
    """Sort the examples by label, cut them into equal shards, and deal these out at random.

    Args:
        per_client: Shards that each client gets.
    """

    def partition(annotations: Annotations, clients: int, rng: Rng) -> list[Indices]:
        require_enough(annotations, clients, each=per_client)
        pieces = np.array_split(np.argsort(annotations.labels, kind="stable"), clients * per_client)
        dealt = rng.permutation(len(pieces)).reshape(clients, per_client)
        return [np.sort(np.concatenate([pieces[i] for i in hand])) for hand in dealt]

    return partition
