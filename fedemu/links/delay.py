"""Propagation delay with jitter: every packet later by a draw of exact mean and deviation."""

import math
from collections.abc import Callable
from typing import Literal, TypeAlias

from fedemu.links._base import Packet, Stage
from fedemu.types import Rng, Seconds
from fedemu.units import Duration

Distribution: TypeAlias = Literal["normal", "uniform", "lognormal"]


def delay(
    *,
    delay: Duration,
    jitter: Duration = 0.0,
    distribution: Distribution = "lognormal",
) -> Stage:
    """Hold up every packet by its propagation delay.

    The draw is F^-1(Phi(z)) of one standard normal z a packet, so that runs that differ in `distribution` or `jitter`
    alone are coupled. Without jitter nothing is drawn.

    Args:
        delay: Mean one-way delay.
        jitter: Standard deviation of the delay.
        distribution: Its law; only the lognormal has room for a jitter of any size.

    Raises:
        ValueError: jitter without delay, or a law with mass below zero.
    """
    if jitter == 0:
        return lambda packet, _: packet._replace(at=packet.at + delay)
    if delay == 0:
        raise ValueError(f"jitter {jitter:g}s without delay would need delays below zero; set delay as well")
    held_up = _quantile(delay, jitter, distribution)

    def stage(packet: Packet, draw: Callable[[], Rng]) -> Packet:
        return packet._replace(at=packet.at + held_up(float(draw().standard_normal())))

    return stage


def _quantile(mean: Seconds, deviation: Seconds, distribution: Distribution) -> Callable[[float], Seconds]:
    """Return z -> F^-1(Phi(z)) of the law with that mean and deviation."""
    match distribution:
        case "lognormal":
            sigma = math.sqrt(math.log1p((deviation / mean) ** 2))
            mu = math.log(mean) - sigma**2 / 2
            return lambda z: math.exp(mu + sigma * z)
        case "uniform":
            half = math.sqrt(3) * deviation
            _above_zero(mean, deviation, math.sqrt(3), distribution)
            return lambda z: mean + half * math.erf(z / math.sqrt(2))  # 2 Phi(z) - 1
        case _:
            # 4 deviations leave 3e-5 of the mass below zero; what is cut there moves the mean by 1e-5 deviations
            _above_zero(mean, deviation, 4, distribution)
            return lambda z: max(0.0, mean + deviation * z)


def _above_zero(mean: Seconds, deviation: Seconds, reach: float, distribution: Distribution) -> None:
    if mean < reach * deviation:
        raise ValueError(
            f"{distribution} delay {mean * 1e3:g}ms with jitter {deviation * 1e3:g}ms reaches below zero; "
            f"expected a jitter of at most {mean / reach * 1e3:.4g}ms, or write distribution: lognormal"
        )
