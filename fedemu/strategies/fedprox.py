"""FedProx: FedAvg whose clients are held near the server's model by a proximal term, so that partial work counts.

Li, Sahu, Zaheer, Sanjabi, Talwalkar, Smith, "Federated Optimization in Heterogeneous Networks", MLSys 2020, Algorithm
2: a client minimises F_k(w) + mu / 2 |w - w^t|^2 inexactly, here by SGD, w <- w - lr (g + mu (w - w^t)). Stragglers
send what they have after fewer epochs. The paper draws clients by their examples and takes the plain mean; here, as in
FedAvg, whoever draws them, the mean is weighted by examples. With mu = 0 it is FedAvg bit for bit.
"""

from typing import Annotated

from pydantic import Field

from fedemu.strategies._base import Strategy
from fedemu.strategies._mean import by_examples, weighted_mean
from fedemu.strategies._plain import by_sgd, no_extras, no_state
from fedemu.types import Training


def fedprox(training: Training, /, *, mu: Annotated[float, Field(ge=0)]) -> Strategy:
    """Federated averaging of models that are trained with a proximal term.

    Args:
        training: How clients train.
        mu: Strength of the pull towards the server's model; the paper tries 0.001, 0.01, 0.1, 0.5 and 1.
    """
    return Strategy(by_sgd(training, mu=mu), weighted_mean(by_examples), no_state, no_extras)
