"""Federated averaging: clients train by SGD, the server takes the mean of their models.

McMahan, Moore, Ramage, Hampson, Agüera y Arcas, "Communication-Efficient Learning of Deep Networks from Decentralized
Data", AISTATS 2017, Algorithm 1. The printed sum runs over all clients; as only the cohort trains, the mean here is
over those who answered, sum(n_k w_k) / sum(n_k). FedSGD is `epochs: 1, batch_size: full`.
"""

from typing import Literal

from fedemu.strategies._base import Layout, Strategy
from fedemu.strategies._mean import weighted_mean
from fedemu.strategies._sgd import local_sgd
from fedemu.types import ClientView, Extras, Objective, Rng, State, Trained, Training, Vector


def fedavg(training: Training, /, *, weighting: Literal["examples", "uniform"] = "examples") -> Strategy:
    """Federated averaging of models that clients train by SGD.

    Args:
        training: How clients train.
        weighting: A client counts by its examples, as in the paper, or all count the same (1/K).
    """

    def train(objective: Objective, start: Vector, extras: Extras, memory: State, rng: Rng) -> tuple[Trained, State]:
        return local_sgd(objective, start, training, rng), memory

    def init(weights: Vector, layout: Layout, clients: int) -> State:
        return {}

    def broadcast(state: State, client: ClientView, rng: Rng) -> Extras:
        return {}

    aggregate = weighted_mean(lambda update: float(update.num_examples) if weighting == "examples" else 1.0)
    return Strategy(train, aggregate, init, broadcast)
