"""FedBuff: the server takes a step whenever a buffer of K updates is full, whatever versions they started from.

Nguyen, Malik, Zhan, Yousefpour, Rabbat, Malek, Huba, "Federated Learning with Buffered Asynchronous Aggregation",
AISTATS 2022, Algorithm 1: x <- x + server_lr (1 / K) sum(s(tau_i) delta_i) with s(tau) = (1 + tau)^-a. K is the number
of updates in the round, its `goal` unless a deadline or tick closed it; all count the same, apart from their staleness,
but one of a client that did no step counts for nothing, neither in the sum nor in K.
Momentum on the server, v <- momentum v + step, is what the authors' experiments add. With fresh updates and server_lr 1
it is the uniform FedAvg bit for bit.
"""

from typing import Annotated

from pydantic import Field

from fedemu.strategies._base import Aggregation, Strategy
from fedemu.strategies._mean import Mean, by_presence
from fedemu.strategies._plain import by_sgd, no_extras, zeros
from fedemu.strategies._server_optimizer import heavy_ball, server_step
from fedemu.strategies._staleness import polynomial
from fedemu.types import Rng, State, Training, Update, Vector
from fedemu.units import Ratio


def fedbuff(
    training: Training,
    /,
    *,
    server_lr: Annotated[float, Field(gt=0)] = 1.0,
    a: Annotated[float, Field(ge=0)] = 0.5,
    momentum: Annotated[Ratio, Field(lt=1)] = 0.0,
) -> Strategy:
    """Mean of a buffer of deltas, scaled down by their staleness.

    Args:
        training: How clients train.
        server_lr: Factor of the mean delta.
        a: How steeply a delta's factor (1 + staleness)^-a falls; 0 does not scale.
        momentum: How much of the last velocity the server keeps.
    """
    rule, factor = heavy_ball(momentum, server_lr), polynomial(a)

    def add(mean: Mean, update: Update) -> Mean:
        mean.add(update.delta, by_presence(update) * factor(update.staleness))
        return mean

    def finish(mean: Mean, weights: Vector, state: State, rng: Rng) -> tuple[Vector, State]:
        return server_step(rule, mean, weights, state, scale=mean.weight / max(mean.count, 1))

    init = zeros(*["velocity"] if momentum else [])
    return Strategy(by_sgd(training), Aggregation(Mean, add, finish), init, no_extras)
