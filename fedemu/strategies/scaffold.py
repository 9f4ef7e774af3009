"""SCAFFOLD: control variates on both sides of the wire take the drift out of local steps.

Karimireddy, Kale, Mohri, Reddi, Stich, Suresh, "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning", ICML
2020, Algorithm 1 with option II: a client steps by y <- y - lr (g - c_i + c), and after K steps of its own, counted in
batches, takes c_i+ = c_i - c + (x - y) / (K lr). All clients count the same, so it minimises the plain mean of their
losses. A client that did no step keeps its c_i and counts for nothing. All c start at zero.

The client remembers `c`, its c_i, which holds from when the server has its update. It is sent `c` and sends back `dc`,
c_i+ - c_i: twice the bytes of FedAvg in both directions.
"""

from typing import Annotated, NamedTuple

import torch
from pydantic import Field

from fedemu.strategies._base import Aggregation, Layout, Strategy
from fedemu.strategies._mean import Mean, by_presence
from fedemu.strategies._sgd import local_sgd
from fedemu.types import ClientView, Extras, Objective, Rng, State, Trained, Training, Update, Vector


class _Means(NamedTuple):
    delta: Mean
    dc: Mean


def scaffold(training: Training, /, *, server_lr: Annotated[float, Field(gt=0)] = 1.0) -> Strategy:
    """Averaging of models whose local steps are corrected by control variates.

    Args:
        training: How clients train, without momentum.
        server_lr: Factor of the mean delta, the paper's global step size.

    Raises:
        ValueError: Clients train with momentum, for which (x - y) / (K lr) is not a mean of gradients.
    """
    if training.momentum != 0:
        raise ValueError(f"local momentum {training.momentum}; scaffold's control variates are for 0")

    def train(objective: Objective, start: Vector, extras: Extras, memory: State, rng: Rng) -> tuple[Trained, State]:
        c = extras["c"]
        own = memory["c"] if "c" in memory else torch.zeros_like(start)
        drift = c - own

        def correct(gradient: Vector, weights: Vector) -> None:
            gradient.add_(drift)

        trained = local_sgd(objective, start, training, rng, correct=correct)
        if not trained.num_steps:
            return trained._replace(extras={"dc": torch.zeros_like(start)}), memory
        dc = torch.add(c, trained.delta, alpha=1 / (trained.num_steps * training.lr)).neg_()
        return trained._replace(extras={"dc": dc}), {"c": own + dc}

    def add(means: _Means, update: Update) -> _Means:
        means.delta.add(update.delta, by_presence(update))
        means.dc.add(update.extras["dc"], by_presence(update))
        return means

    def finish(means: _Means, weights: Vector, state: State, rng: Rng) -> tuple[Vector, State]:
        share = means.dc.count / state["clients"].item()
        model = means.delta.added_to(weights, server_lr)
        return model, {"c": means.dc.added_to(state["c"], share), "clients": state["clients"]}

    def fault(update: Update) -> str | None:
        dc = update.extras.get("dc")
        if dc is None or dc.shape != update.delta.shape:
            found = "missing" if dc is None else f"of {dc.numel()} numbers"
            return f"dc is {found}; expected {update.delta.numel()}, as the model has"
        return None

    def init(weights: Vector, layout: Layout, clients: int) -> State:
        return {"c": torch.zeros_like(weights), "clients": torch.tensor([float(clients)])}

    def broadcast(state: State, client: ClientView, rng: Rng) -> Extras:
        return {"c": state["c"]}

    return Strategy(train, Aggregation(lambda: _Means(Mean(), Mean()), add, finish, fault=fault), init, broadcast)
