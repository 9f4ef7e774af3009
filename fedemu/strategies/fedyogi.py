"""FedYogi: Yogi on the server, Adam whose second moment grows and shrinks by steps of bounded size.

Reddi, Charles, Zaheer, Garrett, Rush, Konečný, Kumar, McMahan, "Adaptive Federated Optimization", ICLR 2021, Algorithm
2: v <- v - (1 - beta2) delta^2 sign(v - delta^2). The paper starts v at tau^2 or more; here it starts at 0, as in the
authors' code and other libraries.
"""

from typing import Annotated

from pydantic import Field

from fedemu.strategies._base import Strategy
from fedemu.strategies._server_optimizer import adaptive, fedopt
from fedemu.types import Training
from fedemu.units import Ratio


def fedyogi(
    training: Training,
    /,
    *,
    server_lr: Annotated[float, Field(gt=0)] = 0.01,
    beta1: Annotated[Ratio, Field(lt=1)] = 0.9,
    beta2: Annotated[Ratio, Field(lt=1)] = 0.99,
    tau: Annotated[float, Field(gt=0)] = 1e-3,
) -> Strategy:
    """Clients train by SGD, the server steps by Yogi.

    Args:
        training: How clients train.
        server_lr: Learning rate of the server; the paper's best ones are between 10^-2.5 and 1, their median 10^-1.75.
        beta1: How much of the last mean step is kept.
        beta2: One minus the share of a squared step by which the second moment moves.
        tau: Added to the root of the second moment; the larger, the less adaptive.
    """
    rule = adaptive(
        lambda v, square: v - (1 - beta2) * square * (v - square).sign(), server_lr=server_lr, beta1=beta1, tau=tau
    )
    return fedopt(training, rule, "m", "v")
