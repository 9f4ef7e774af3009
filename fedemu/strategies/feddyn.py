"""FedDyn: every client's loss is bent by what it did before, so that its optimum moves to everybody's optimum.

Acar, Zhao, Matas Navarro, Mattina, Whatmough, Saligrama, "Federated Learning Based on Dynamic Regularization", ICLR
2021, Algorithm 1: a client minimises L_k(w) - <g_k, w> + alpha / 2 |w - x|^2, here inexactly by SGD, and takes
g_k <- g_k - alpha (w_k - x). The server takes h <- h - alpha (1 / m) sum(w_k - x) over the cohort, m being all clients,
and x <- mean(w_k) - h / alpha. All clients count the same, so it minimises the plain mean of their losses. A client
that did no step keeps its g_k and counts for nothing. All of g and h start at zero.

The client remembers `gradient`, its g_k, which holds from when the server has its update. Nothing beside the model is
sent.
"""

from typing import Annotated

import torch
from pydantic import Field

from fedemu.strategies._base import Layout, Strategy
from fedemu.strategies._mean import Mean, by_presence, weighted_mean
from fedemu.strategies._plain import no_extras
from fedemu.strategies._server_optimizer import Moments, server_step
from fedemu.strategies._sgd import local_sgd
from fedemu.types import Extras, Objective, Rng, State, Trained, Training, Vector


def feddyn(training: Training, /, *, alpha: Annotated[float, Field(gt=0)] = 0.01) -> Strategy:
    """Averaging of models that are trained with a dynamic regulariser.

    Args:
        training: How clients train.
        alpha: Strength of the regulariser; the paper tries 0.001, 0.01 and 0.1.
    """

    def train(objective: Objective, start: Vector, extras: Extras, memory: State, rng: Rng) -> tuple[Trained, State]:
        past = memory["gradient"] if "gradient" in memory else torch.zeros_like(start)
        bend = torch.add(past, start, alpha=alpha)

        def correct(gradient: Vector, weights: Vector) -> None:
            gradient.add_(weights, alpha=alpha).sub_(bend)

        trained = local_sgd(objective, start, training, rng, correct=correct)
        if not trained.num_steps:
            return trained, memory
        return trained, {"gradient": torch.sub(past, trained.delta, alpha=alpha)}

    def finish(mean: Mean, weights: Vector, state: State, rng: Rng) -> tuple[Vector, State]:
        share = mean.count / state["clients"].item()

        def rule(delta: torch.Tensor, moments: Moments) -> tuple[torch.Tensor, Moments]:
            h = moments["h"] - alpha * share * delta
            return delta - h / alpha, {"h": h}

        model, moments = server_step(rule, mean, weights, {"h": state["h"]})
        return model, {"h": moments["h"], "clients": state["clients"]}

    def init(weights: Vector, layout: Layout, clients: int) -> State:
        return {"h": torch.zeros_like(weights), "clients": torch.tensor([float(clients)])}

    return Strategy(train, weighted_mean(by_presence)._replace(finish=finish), init, no_extras)
