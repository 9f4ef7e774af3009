"""Packet loss: independent, correlated, in bursts, or Gilbert and Elliott's two states, in packets or in time.

On TCP it loses no message: it costs time (`tcp: rounds`). All but independent loss is a Markov chain of a good and a
bad state (Gilbert, Capacity of a burst-noise channel, 1960; Elliott, Estimates of error rates, 1963), which starts in
its stationary law. Per packet it goes from good to bad with chance p and back with chance r:

    random P, correlation C    p = P (1 - C), r = (1 - P)(1 - C); a bad state loses all: exactly P, lag-1 exactly C
    random P, burst b          r = 1 / b, p = P r / (1 - P): runs of b lost packets on average
    gemodel                    p, r, and the shares that each state loses, as tc-netem writes them

With `clock: time` p and r are rates per second, and D seconds later P(bad) = pi + (x - pi) exp(-(p + r) D), with
pi = p / (p + r): a fade goes on while a client trains, instead of waiting for it as netem's does.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from fedemu.links._base import Loss
from fedemu.types import Rng, Seconds
from fedemu.units import Ratio


def _number(value: Any) -> Any:
    if not isinstance(value, str) or not value.endswith("%"):
        return value
    try:
        return float(value[:-1]) / 100
    except ValueError:
        raise ValueError(f"{value!r} is not a number; write e.g. 1% or 0.01") from None


Transition: TypeAlias = Annotated[
    float, BeforeValidator(_number, json_schema_input_type=float | Ratio), Field(ge=0, allow_inf_nan=False)
]
"""A chance per packet in 0..1, or with `clock: time` a rate per second."""


class Gemodel(BaseModel):
    """Gilbert-Elliott as tc-netem has it: `gemodel p r 1-h 1-k`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    p: Transition
    """Chance to go bad, a packet; with clock: time a rate, a second."""
    r: Transition
    """Chance to go good again, a packet; with clock: time a rate, a second."""
    one_minus_h: Ratio = 1.0
    """Share of packets lost in the bad state."""
    one_minus_k: Ratio = 0.0
    """Share of packets lost in the good state."""


def _known(value: Any) -> Any:
    if isinstance(value, Gemodel):
        return value
    if not isinstance(value, dict):
        raise ValueError(f"{value!r} is not a mapping; write e.g. {{p: 1%, r: 30%}}")
    keys = Gemodel.model_fields
    if wrong := [key for key in value if key not in keys]:
        raise ValueError(f"{wrong[0]!r} is not a key here; there are {', '.join(keys)}")
    if missing := [key for key in ("p", "r") if key not in value]:
        raise ValueError(f"{missing[0]} is missing; write e.g. {{p: 1%, r: 30%}}")
    return value


def loss(
    *,
    random: Ratio | None = None,
    correlation: Ratio = 0.0,
    burst: Annotated[float, Field(ge=1)] | None = None,
    gemodel: Annotated[Gemodel, BeforeValidator(_known), WithJsonSchema(Gemodel.model_json_schema())] | None = None,
    clock: Literal["packet", "time"] = "packet",
) -> Loss:
    """Lose packets of one direction of a link.

    Args:
        random: Share of packets that are lost, in the long run.
        correlation: Of a packet's loss with that of the packet before.
        burst: Mean number of packets that are lost in a row.
        gemodel: Two states by their transitions and losses: {p, r, one_minus_h, one_minus_k}.
        clock: What moves a gemodel from state to state: each packet, or each second that goes by.

    Raises:
        ValueError: what to lose is said not at all or twice, loses everything, or cannot be.
    """
    if (random is None) == (gemodel is None):
        raise ValueError("expected one of random and gemodel; write e.g. random: 1%")
    if gemodel is not None:
        if correlation or burst is not None:
            raise ValueError("a gemodel says how losses hang together; leave correlation and burst out")
        return _gilbert_elliott(gemodel, clock)
    if clock == "time":
        raise ValueError("clock: time has no meaning without gemodel; set it or leave clock out")
    assert random is not None
    if random == 1:
        raise ValueError("loss of 100% lets nothing through, and TCP would try for ever; expected less, or an outage")
    if correlation and burst is not None:
        raise ValueError("correlation and burst say the same thing in two ways; leave one out")
    if burst is not None:
        p, r = random / (1 - random) / burst, 1 / burst
        if p > 1:
            raise ValueError(
                f"bursts of {burst:g} cannot make up {random * 100:g}% of the packets, with one between them at least; "
                f"expected a burst of {random / (1 - random):.4g} or more"
            )
        return Markov(p, r)
    if correlation == 1:
        raise ValueError("correlation 100% would lose all packets or none; expected less than 100%")
    if correlation:
        return Markov(random * (1 - correlation), (1 - random) * (1 - correlation))
    return Independent(random)


def _gilbert_elliott(model: Gemodel, clock: Literal["packet", "time"]) -> Loss:
    p, r, bad, good = model.p, model.r, model.one_minus_h, model.one_minus_k
    if p + r == 0:
        raise ValueError("gemodel with p 0 and r 0 never changes its state; set one of them")
    if clock == "packet" and max(p, r) > 1:
        raise ValueError(f"gemodel with a chance of {max(p, r):g} a packet; expected 0..1, or clock: time")
    process = Markov(p, r, bad, good) if clock == "packet" else Fading(p, r, bad, good)
    if process.mean == 1:
        raise ValueError("gemodel that loses 100% lets nothing through, and TCP would try for ever; expected less")
    return process


@dataclass(frozen=True, slots=True)
class Independent:
    """Each packet is lost by itself."""

    mean: float

    def __call__(self, count: int, at: Seconds, rng: Rng) -> int:
        """Return how many of `count` packets are lost."""
        return _binomial(count, self.mean, rng)


@dataclass(slots=True)
class Markov:
    """A chain that moves from packet to packet. Sojourns are drawn, not packets."""

    p: float
    """Chance a packet to go bad."""
    r: float
    """Chance a packet to go good."""
    bad: float = 1.0
    """Share lost in the bad state."""
    good: float = 0.0
    """Share lost in the good state."""
    is_bad: bool | None = None
    """The state that the next packet finds; None before the first."""

    @property
    def mean(self) -> float:
        """Share lost in the long run."""
        return _stationary(self.p, self.r, self.bad, self.good)

    def __call__(self, count: int, at: Seconds, rng: Rng) -> int:
        """Return how many of `count` packets are lost."""
        if self.is_bad is None:
            self.is_bad = float(rng.random()) < self.p / (self.p + self.r)
        lost = 0
        while count > 0:
            leave, share = (self.r, self.bad) if self.is_bad else (self.p, self.good)
            # that a sojourn outlasts the packets says nothing of what is left of it: the geometric law has no memory
            sojourn = int(rng.geometric(leave)) if leave else count + 1
            lost += _binomial(min(count, sojourn), share, rng)
            self.is_bad ^= sojourn <= count
            count -= sojourn
        return lost


@dataclass(slots=True)
class Fading:
    """A chain that moves in time. Packets of one moment share its state."""

    p: float
    """Rate a second to go bad."""
    r: float
    """Rate a second to go good."""
    bad: float = 1.0
    """Share lost in the bad state."""
    good: float = 0.0
    """Share lost in the good state."""
    is_bad: bool | None = None
    """The state at `at`; None before the first packet."""
    at: Seconds = 0.0

    @property
    def mean(self) -> float:
        """Share lost in the long run, over moments."""
        return _stationary(self.p, self.r, self.bad, self.good)

    def __call__(self, count: int, at: Seconds, rng: Rng) -> int:
        """Return how many of `count` packets of that moment are lost; one in the past finds the state as it is now."""
        chance = self.p / (self.p + self.r)
        if self.is_bad is not None:
            chance += (self.is_bad - chance) * math.exp(-(self.p + self.r) * max(0.0, at - self.at))
        self.is_bad = float(rng.random()) < chance
        self.at = max(self.at, at)
        return _binomial(count, self.bad if self.is_bad else self.good, rng)


def _binomial(count: int, share: float, rng: Rng) -> int:
    if share in (0, 1):
        return count if share else 0
    return int(rng.binomial(count, share))


def _stationary(p: float, r: float, bad: float, good: float) -> float:
    return (p * bad + r * good) / (p + r)
