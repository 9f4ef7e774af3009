"""Federated averaging: clients train by SGD, the server takes the mean of their models.

McMahan, Moore, Ramage, Hampson, Agüera y Arcas, "Communication-Efficient Learning of Deep Networks from Decentralized
Data", AISTATS 2017, Algorithm 1. The printed sum runs over all clients; as only the cohort trains, the mean here is
over those who answered, sum(n_k w_k) / sum(n_k). A server learning rate other than 1 is not in the paper: it is the
SGD of Reddi et al., "Adaptive Federated Optimization", ICLR 2021, on the server.
"""

from typing import Annotated, Literal

from pydantic import Field

from fedemu.strategies._base import Strategy
from fedemu.strategies._mean import by_examples, weighted_mean
from fedemu.strategies._plain import by_sgd, no_extras, no_state
from fedemu.types import Training


def fedavg(
    training: Training,
    /,
    *,
    weighting: Literal["examples", "uniform"] = "examples",
    server_lr: Annotated[float, Field(gt=0)] = 1.0,
) -> Strategy:
    """Federated averaging of models that clients train by SGD.

    Args:
        training: How clients train.
        weighting: A client counts by its examples, as in the paper, or all count the same (1/K), also who did no step.
        server_lr: Factor of the mean delta; 1 makes it the mean of the models, as in the paper.
    """
    weigh = by_examples if weighting == "examples" else lambda update: 1.0
    return Strategy(by_sgd(training), weighted_mean(weigh, server_lr=server_lr), no_state, no_extras)
