"""Outages: a link that is up and down by turns, as an alternating renewal process in its stationary law.

Times up and times down are independent draws. The process starts as if it had run for ever: down with probability
`lasting / every`, and with what is left of the sojourn that time 0 falls into (a uniform share of a length-biased draw;
Cox, Renewal Theory, 1962, sections 5.4 and 7.4). So the share of links that are down is the same at every time.
"""

import math
from collections.abc import Iterator
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from fedemu.links._base import Outage
from fedemu.types import Interval, Rng, Seconds
from fedemu.units import Duration


def outage(
    *,
    every: Duration,
    lasting: Duration,
    law: Literal["exponential", "weibull"] = "exponential",
    shape: Annotated[float, Field(ge=0.1, le=100)] | None = None,
) -> Outage:
    """Take a link down now and then.

    Draws are of fixed order and independent of `every` and `lasting`, which only scale them.

    Args:
        every: Mean time from the start of an outage to the start of the next, so that it is up `every - lasting`.
        lasting: Mean length of an outage.
        law: Of the times up and down.
        shape: Of a weibull law: below 1 many short times and few long ones, above 1 regular ones.

    Raises:
        ValueError: outages as long as the time from one to the next, or none; a shape without weibull or the reverse.
    """
    if not 0 < lasting < every:
        raise ValueError(f"outages lasting {lasting:g}s every {every:g}s; expected lasting above 0 and below every")
    if (law == "weibull") != (shape is not None):
        found = "law weibull has no shape" if shape is None else f"shape {shape:g} has no meaning without law: weibull"
        raise ValueError(f"{found}; write e.g. law: weibull, shape: 0.6")
    up, down = (Sojourn(mean, shape or 1.0) for mean in (every - lasting, lasting))

    def intervals(rng: Rng) -> Iterator[Interval]:
        is_down = float(rng.random()) < lasting / every
        now = (down if is_down else up).rest(rng)
        if is_down:
            yield Interval(0.0, now)
            now += up.draw(rng)
        while True:
            end = now + down.draw(rng)
            yield Interval(now, end)
            now = end + up.draw(rng)

    return intervals


class Sojourn(NamedTuple):
    """A weibull law by its mean; shape 1 is the exponential law."""

    mean: Seconds
    shape: float

    def draw(self, rng: Rng) -> Seconds:
        """Return the length of a sojourn."""
        return self._scaled(float(rng.standard_exponential()))

    def rest(self, rng: Rng) -> Seconds:
        """Return what is left of the sojourn that is under way at any given time."""
        # x f(x) / mean, the law of the sojourn that a time falls into, is that of a gamma's power
        return self._scaled(float(rng.standard_gamma(1 + 1 / self.shape))) * float(rng.random())

    def _scaled(self, draw: float) -> Seconds:
        return self.mean / math.gamma(1 + 1 / self.shape) * math.pow(draw, 1 / self.shape)
