"""FedAdagrad: Adagrad on the server.

Reddi, Charles, Zaheer, Garrett, Rush, Konečný, Kumar, McMahan, "Adaptive Federated Optimization", ICLR 2021, Algorithm
2: v <- v + delta^2. The paper starts v at tau^2 or more; here it starts at 0, as in the authors' code and other
libraries.
"""

from typing import Annotated

from pydantic import Field

from fedemu.strategies._base import Strategy
from fedemu.strategies._server_optimizer import adaptive, fedopt
from fedemu.types import Training
from fedemu.units import Ratio


def fedadagrad(
    training: Training,
    /,
    *,
    server_lr: Annotated[float, Field(gt=0)] = 0.1,
    beta1: Annotated[Ratio, Field(lt=1)] = 0.0,
    tau: Annotated[float, Field(gt=0)] = 1e-3,
) -> Strategy:
    """Clients train by SGD, the server steps by Adagrad.

    Args:
        training: How clients train.
        server_lr: Learning rate of the server; 0.1 is the median of the best ones in the paper's six tasks.
        beta1: How much of the last mean step is kept; Adagrad usually has none.
        tau: Added to the root of the squared steps' sum; the larger, the less adaptive.
    """
    rule = adaptive(lambda v, square: v + square, server_lr=server_lr, beta1=beta1, tau=tau)
    return fedopt(training, rule, "m", "v")
