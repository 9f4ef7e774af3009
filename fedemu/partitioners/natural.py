"""The natural partition: every example stays with the user that it is from.

As LEAF does it (Caldas et al., "LEAF: A Benchmark for Federated Settings", 2018): a client is a user of the data set,
with as many examples and with the classes that this user has. Where there are fewer clients than users, every client
stands for equally many users.
"""

import numpy as np

from fedemu.partitioners._enough import require_enough
from fedemu.types import Annotations, Indices, Partitioner, Rng


def natural() -> Partitioner:
    """Give every client the examples of one user, or of equally many users, dealt out in turn."""

    def partition(annotations: Annotations, clients: int, rng: Rng) -> list[Indices]:
        if annotations.owners is None:
            raise ValueError(
                "the data set does not say whom its examples are from; use one that does, e.g. synthetic, or another "
                "partition"
            )
        require_enough(annotations, clients, each=1)
        # numbered anew, as a subset of the examples may leave users out
        users, owners = np.unique(annotations.owners, return_inverse=True)
        if len(users) % clients:
            raise ValueError(
                f"{len(users)} users cannot be divided among {clients} clients; use {len(users)} clients, or a number "
                "that divides it"
            )
        return [np.flatnonzero(owners % clients == client) for client in range(clients)]

    return partition
