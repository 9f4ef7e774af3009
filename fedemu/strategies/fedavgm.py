"""FedAvgM: federated averaging with momentum on the server.

Hsu, Qi, Brown, "Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification", 2019:
v <- momentum v + delta, x <- x + server_lr v, with delta the mean weighted by examples. The paper prints this rule
without a learning rate and runs it with Nesterov's variant; here it is as printed, which is also the FedAvgM of Reddi
et al., "Adaptive Federated Optimization", ICLR 2021. With momentum 0 and server_lr 1 it is FedAvg bit for bit.
"""

from typing import Annotated

from pydantic import Field

from fedemu.strategies._base import Strategy
from fedemu.strategies._server_optimizer import fedopt, heavy_ball
from fedemu.types import Training
from fedemu.units import Ratio


def fedavgm(
    training: Training,
    /,
    *,
    momentum: Annotated[Ratio, Field(lt=1)] = 0.9,
    server_lr: Annotated[float, Field(gt=0)] = 1.0,
) -> Strategy:
    """Federated averaging with heavy-ball momentum on the server.

    Args:
        training: How clients train; their momentum is another one.
        momentum: How much of the last velocity the server keeps; the paper's 0.9.
        server_lr: Factor of the velocity; 1 is the paper's rule.
    """
    return fedopt(training, heavy_ball(momentum, server_lr), *["velocity"] if momentum else [])
