"""FedNova: deltas are divided by how far local steps reach, so that clients with more steps do not pull harder.

Wang, Liu, Liang, Joshi, Poor, "Tackling the Objective Inconsistency Problem in Heterogeneous Federated Optimization",
NeurIPS 2020, equations 6 and 7: d_i = delta_i / |a_i|_1 and x <- x + tau_eff sum(p_i d_i), where delta_i is -lr times
a_i's combination of the local gradients and p_i counts by examples. |a_i|_1 is the number of steps tau_i for SGD; with
momentum, the sum over all steps of a counter <- momentum counter + 1; with the proximal term, a <- a (1 - lr mu) + 1.
tau_eff is sum(p_i |a_i|_1), with the proximal term sum(p_i tau_i), as in the authors' code, where both together have
no consistent a_i: it is refused. A client sends its |a_i|_1 as `a`, shape (1,).
"""

from dataclasses import dataclass, field
from typing import Annotated

import torch
from pydantic import Field

from fedemu.strategies._base import Aggregation, Strategy
from fedemu.strategies._mean import Mean
from fedemu.strategies._plain import by_sgd, no_extras, no_state
from fedemu.types import Extras, Objective, Rng, State, Trained, Training, Update, Vector


@dataclass(slots=True)
class _Normalised:
    mean: Mean = field(default_factory=Mean)
    """Of the deltas, weighted by examples / |a_i|_1."""
    examples: float = 0.0
    reach: float = 0.0
    """Sum of examples times |a_i|_1, or tau_i."""


def fednova(
    training: Training,
    /,
    *,
    mu: Annotated[float, Field(ge=0)] = 0.0,
    server_lr: Annotated[float, Field(gt=0)] = 1.0,
) -> Strategy:
    """Normalised averaging of models that clients train by SGD, however many steps each takes.

    Args:
        training: How clients train.
        mu: Strength of the proximal term that pulls towards the server's model; 0 is none.
        server_lr: Factor of the step that the paper takes.

    Raises:
        ValueError: A proximal term comes with momentum, or is so strong that its steps overshoot.
    """
    if mu and training.momentum:
        raise ValueError(f"mu {mu} and local momentum {training.momentum}; fednova is defined for one of them")
    if training.lr * mu >= 1:
        raise ValueError(f"lr {training.lr} times mu {mu} is {training.lr * mu:g}; expected less than 1")
    train_plainly = by_sgd(training, mu=mu)

    def train(objective: Objective, start: Vector, extras: Extras, memory: State, rng: Rng) -> tuple[Trained, State]:
        trained, memory = train_plainly(objective, start, extras, memory, rng)
        return trained._replace(extras={"a": torch.tensor([_norm(trained.num_steps, training, mu)])}), memory

    def add(sums: _Normalised, update: Update) -> _Normalised:
        if update.num_examples and update.num_steps:
            a = update.extras["a"].item()
            sums.mean.add(update.delta, update.num_examples / a)
            sums.examples += update.num_examples
            sums.reach += update.num_examples * (update.num_steps if mu else a)
        return sums

    def finish(sums: _Normalised, weights: Vector, state: State, rng: Rng) -> tuple[Vector, State]:
        if not sums.examples:
            return weights.clone(), state
        reach = sums.reach / sums.examples
        return sums.mean.added_to(weights, server_lr * reach * sums.mean.weight / sums.examples), state

    def fault(update: Update) -> str | None:
        a = update.extras.get("a")
        if a is None or a.shape != (1,):
            return f"a is {'missing' if a is None else f'of {a.numel()} numbers'}; expected one number"
        return (
            f"a is {a.item():g} after {update.num_steps} steps; expected at least 1"
            if update.num_steps and a < 1
            else None
        )

    return Strategy(train, Aggregation(_Normalised, add, finish, fault=fault), no_state, no_extras)


def _norm(steps: int, training: Training, mu: float) -> float:
    """Return |a_i|_1 of that many local steps."""
    counter = norm = 0.0
    for _ in range(steps):
        counter = training.momentum * counter + 1
        norm = norm * (1 - training.lr * mu) + counter
    return norm
