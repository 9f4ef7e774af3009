"""What availabilities are made of: intervals put together, slots that are redrawn, and sojourns on and off."""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from fedemu.types import Interval, Rng, Seconds

_NEVER = 1e-5
"""A chance below it counts as none, and one as near to 1 as certainty: else the search for a client's next slot, which
is months off, would take longer than the run."""
_CHUNKS = (256, 65_536)
"""Slots that are drawn at once, first and after a long search."""

FOREVER = Interval(0.0, math.inf)


def merged(intervals: Iterator[Interval]) -> Iterator[Interval]:
    """Yield intervals in order, those that touch or overlap as one, without empty ones and those that end by 0.

    They must not touch for ever: an interval is yielded when the next one is known.
    """
    last: Interval | None = None
    for interval in intervals:
        if interval.end <= max(interval.start, 0.0):
            continue
        if last is None:
            last = interval
        elif interval.start <= last.end:
            last = Interval(last.start, max(last.end, interval.end))
        else:
            yield last
            last = interval
    if last is not None:
        yield last


def slots(chances: Sequence[float], period: Seconds, rng: Rng) -> Iterator[Interval]:
    """Return when a client is online that draws anew in every slot of `period` seconds.

    One uniform u is drawn a slot, and the client is online where u < its chance: runs that differ in the chances alone
    are coupled.

    Args:
        chances: Of being online, for each slot of a cycle, which begins again after the last.
        period: Length of a slot; the first starts at 0.
        rng: The client's stream.
    """
    settled = [0.0 if chance < _NEVER else 1.0 if chance > 1 - _NEVER else chance for chance in chances]
    if not any(settled):
        return iter(())
    if min(settled) == 1:
        return iter((FOREVER,))
    return merged(_online(settled, period, rng))


def _online(chances: Sequence[float], period: Seconds, rng: Rng) -> Iterator[Interval]:
    cycle = np.array(chances)
    slot, chunk = 0, _CHUNKS[0]
    while True:
        found = np.flatnonzero(rng.random(chunk) < cycle[np.arange(slot, slot + chunk) % len(cycle)])
        for place in (slot + found).tolist():
            yield Interval(place * period, (place + 1) * period)
        slot, chunk = slot + chunk, _CHUNKS[0] if len(found) else min(2 * chunk, _CHUNKS[1])


def sojourns(online: Seconds, offline: Seconds, shape: float, rng: Rng) -> Iterator[Interval]:
    """Return when a client is online that stays on and off for independent Weibull times, in its stationary law.

    It is online at 0 with chance online / (online + offline). What is left of its first sojourn has the equilibrium law
    of a renewal process (Cox, Renewal Theory, 1962, section 5.2): a uniform share of a sojourn that is drawn in
    proportion to its length, for a Weibull law scale * Gamma(1 + 1/shape)^(1/shape).

    Args:
        online: Mean time online, > 0.
        offline: Mean time offline, > 0.
        shape: Of both; 1 is exponential, below it many short sojourns and few long ones.
        rng: The client's stream: three draws for the start, then one a sojourn.
    """
    return merged(_alternating(online, offline, shape, rng))


def _alternating(online: Seconds, offline: Seconds, shape: float, rng: Rng) -> Iterator[Interval]:
    mean_of_unit = math.gamma(1 + 1 / shape)
    is_online = rng.random() < online / (online + offline)
    first = float(rng.standard_gamma(1 + 1 / shape)) ** (1 / shape) * rng.random()
    start, length = 0.0, first
    while True:
        end = start + length * (online if is_online else offline) / mean_of_unit
        if is_online:
            yield Interval(start, end)
        start, is_online, length = end, not is_online, float(rng.standard_exponential()) ** (1 / shape)
