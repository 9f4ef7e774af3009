"""Dirichlet label skew: each class is divided among the clients by a draw from Dir(alpha).

Hsu, Qi, Brown, "Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification", 2019,
in the form that is common since Yurochkin et al., "Bayesian Nonparametric Federated Learning of Neural Networks", ICML
2019: class by class, a client that already has its even share of all examples gets none of the next class, and the
whole is drawn anew until everybody has `min_examples`. Sizes differ between clients.
"""

from typing import Annotated

import numpy as np
from pydantic import Field

from fedemu.partitioners._enough import require_enough
from fedemu.types import Annotations, Indices, Labels, Partitioner, Rng

_DRAWS = 1000


def dirichlet(*, alpha: Annotated[float, Field(gt=0)], min_examples: Annotated[int, Field(ge=0)] = 1) -> Partitioner:
    """Divide each class by a draw from a symmetric Dirichlet distribution.

    Args:
        alpha: Concentration; the smaller, the fewer classes a client knows.
        min_examples: Fewest examples that a client may have.
    """

    def partition(annotations: Annotations, clients: int, rng: Rng) -> list[Indices]:
        require_enough(annotations, clients, each=min_examples)
        labels = annotations.labels
        totals = np.bincount(labels)
        for _ in range(_DRAWS):
            counts = _draw(totals, clients, alpha, rng)
            if counts.sum(axis=0).min() >= min_examples:
                return _deal(labels, counts, rng)
        raise ValueError(
            f"alpha {alpha} left some of {clients} clients with less than {min_examples} of {len(labels)} examples in "
            f"each of {_DRAWS} draws; raise alpha, lower min_examples or use fewer clients"
        )

    return partition


def _draw(totals: Indices, clients: int, alpha: float, rng: Rng) -> Indices:
    """Draw how many examples of each class each client gets, shape (classes, clients)."""
    counts = np.zeros((len(totals), clients), dtype=np.int64)
    for label, total in enumerate(totals):
        # To zero the others' shares and scale up the rest is the same as a smaller Dirichlet, and never 0 / 0.
        held = counts.sum(axis=0)
        opened = np.flatnonzero(held * clients < totals.sum())
        ends = (np.cumsum(rng.dirichlet(np.full(len(opened), alpha))) * total).astype(np.int64)
        ends[-1] = total
        counts[label, opened] = np.diff(ends, prepend=0)
    return counts


def _deal(labels: Labels, counts: Indices, rng: Rng) -> list[Indices]:
    """Deal the examples of each class out in random order, by shape (classes, clients) of counts."""
    hands: list[list[Indices]] = [[] for _ in range(counts.shape[1])]
    for label, row in enumerate(counts):
        examples = rng.permutation(np.flatnonzero(labels == label))
        for hand, share in zip(hands, np.split(examples, np.cumsum(row)[:-1]), strict=True):
            hand.append(share)
    return [np.sort(np.concatenate(hand)) for hand in hands]
