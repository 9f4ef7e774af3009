"""FedAsync: the server mixes a client's model into its own as soon as it comes, the less, the staler it is.

Xie, Koyejo, Gupta, "Asynchronous Federated Optimization", OPT 2020, Algorithm 1: x <- (1 - alpha_t) x + alpha_t x_new
with alpha_t = alpha s(t - tau), which depends on this update's staleness alone. The paper takes one update at a time,
`goal: 1`. Several in one round are mixed by the mean of alpha_i (x_i - x), whatever their order. A client that did no
step has no model of its own and is not mixed.

Clients solve a problem with the proximal term rho / 2 |w - w^t|^2 in the paper; here rho is 0 unless it is given.
"""

from typing import Annotated, Literal

from pydantic import Field

from fedemu.strategies._base import Aggregation, Strategy
from fedemu.strategies._mean import Mean, by_presence
from fedemu.strategies._plain import by_sgd, no_extras, no_state
from fedemu.strategies._staleness import Staleness, constant, hinge, polynomial
from fedemu.types import Rng, State, Training, Update, Vector
from fedemu.units import Ratio


def fedasync(
    training: Training,
    /,
    *,
    alpha: Annotated[Ratio, Field(gt=0)] = 0.9,
    staleness: Literal["constant", "polynomial", "hinge"] = "polynomial",
    a: Annotated[float, Field(gt=0)] | None = None,
    b: Annotated[float, Field(ge=0)] | None = None,
    rho: Annotated[float, Field(ge=0)] = 0.0,
) -> Strategy:
    """Mixing of single models into the server's, weighted by their staleness.

    Args:
        training: How clients train.
        alpha: Share of a fresh model in the mixture.
        staleness: How the share falls with staleness s: not at all, as (s + 1)^-a, or as 1 / (a (s - b) + 1) above b.
        a: How steeply the share falls; 0.5 for polynomial and 10 for hinge, unless it is given.
        b: The staleness up to which hinge takes the whole share; 4 unless it is given.
        rho: Strength of the clients' proximal term; 0 is none.

    Raises:
        ValueError: a or b is given to a function of staleness that has none.
    """
    factor = _factor(staleness, a, b)

    def add(mean: Mean, update: Update) -> Mean:
        assert update.base is not None, "the server keeps what needs_base asks for"
        mean.add(update.base + update.delta, by_presence(update) * alpha * factor(update.staleness))
        return mean

    def finish(mean: Mean, weights: Vector, state: State, rng: Rng) -> tuple[Vector, State]:
        return mean.mixed_into(weights, mean.weight / max(mean.count, 1)), state

    return Strategy(by_sgd(training, mu=rho), Aggregation(Mean, add, finish, needs_base=True), no_state, no_extras)


def _factor(staleness: str, a: float | None, b: float | None) -> Staleness:
    if staleness == "constant" and a is not None:
        raise ValueError(f"a {a} for constant staleness; expected none, or polynomial or hinge")
    if staleness != "hinge" and b is not None:
        raise ValueError(f"b {b} for {staleness} staleness; expected none, or hinge")
    match staleness:
        case "constant":
            return constant()
        case "polynomial":
            return polynomial(0.5 if a is None else a)
        case _:
            return hinge(10.0 if a is None else a, 4.0 if b is None else b)
