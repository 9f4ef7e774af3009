"""Power of choice: of some candidates, those with the largest loss.

Cho, Wang, Joshi, "Towards Understanding Biased Client Selection in Federated Learning", AISTATS 2022: of candidates
that are drawn in proportion to their examples without replacement, the ones with the largest local losses train. This
is the paper's variant without extra communication, rpow-d: in place of the global model's loss, which would have to be
asked for, stands the mean training loss of a client's last update, and a client that was never heard of counts as
infinite loss, so that all are heard in time. The same is true of one that was asked but never answered: it has a seat
whenever it is a candidate. Equal losses go in the order of the draw.
"""

import math
from collections.abc import Sequence

from fedemu.selectors._weights import draw, given_order
from fedemu.types import ClientId, ClientView, Rng, Selector
from fedemu.units import Count


def power_of_choice(*, candidates: Count) -> Selector:
    """Choose those with the largest last known loss among candidates drawn in proportion to examples.

    Args:
        candidates: How many are drawn to choose among, the paper's d; with no more than are to be chosen, losses do
            not matter.
    """

    def select(clients: Sequence[ClientView], count: int, rng: Rng) -> Sequence[ClientId]:
        drawn = draw([client.num_examples for client in clients], max(candidates, count), rng)
        return given_order(clients, sorted(drawn, key=lambda i: -_loss(clients[i]))[:count])

    return select


def _loss(client: ClientView) -> float:
    """Return the last known loss; of a client that answers without examples, one below all others."""
    if client.loss is not None:
        return client.loss
    return -math.inf if client.answered else math.inf
