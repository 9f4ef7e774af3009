"""Clients that are online by the time of day, each in its time zone.

A client is online while a hidden uniform u is below p(t), and u is drawn anew at Poisson times. So the chance of being
online at t is p(t) exactly, at every t, and how long clients stay is a knob of its own.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from fedemu.availabilities._base import Availability, Member
from fedemu.availabilities._process import FOREVER, merged
from fedemu.types import ClientId, Interval, Rng, Seconds
from fedemu.units import Duration, Ratio

DAY = 86400.0
"""Seconds."""


def diurnal(
    *,
    peak: Ratio,
    trough: Ratio,
    peak_hour: Annotated[float, Field(ge=0, lt=24)] = 2.0,
    zones: Annotated[list[Annotated[float, Field(ge=-12, le=14)]], Field(min_length=1)] | None = None,
    stay: Annotated[Duration, Field(gt=0)] = 3600.0,
) -> Availability:
    """Be online with a chance that swings between two shares in 24 hours, like a cosine.

    Time 0 is midnight in zone 0. A client draws its zone, then an exponential and a uniform for each redraw.

    Args:
        peak: Share of clients that are online at the best hour.
        trough: Share that are online twelve hours later.
        peak_hour: The best hour in local time, 0 to 24; phones idle, charge and have Wi-Fi at night.
        zones: Hours ahead of UTC, of which each client draws one; without it, all are in zone 0.
        stay: Mean time between two redraws; the longer, the longer clients stay.

    Raises:
        ValueError: the trough is above the peak.
    """
    if trough > peak:
        raise ValueError(f"trough {trough:g} is above peak {peak:g}; expected it at most that")
    wave = Wave(peak, trough)

    def client(rng: Rng) -> Iterator[Interval]:
        zone = zones[int(rng.integers(len(zones)))] if zones else 0.0
        return wave.online((peak_hour - zone) * 3600, stay, rng)

    def availability(members: Sequence[Member], draw: Callable[[ClientId], Rng]) -> Sequence[Iterator[Interval]]:
        return [client(draw(member.client)) for member in members]

    return availability


@dataclass(frozen=True, slots=True)
class Wave:
    """p(t) = trough + (peak - trough) (1 + cos(2 pi (t - best) / day)) / 2."""

    peak: float
    trough: float

    def online(self, best: Seconds, stay: Seconds, rng: Rng) -> Iterator[Interval]:
        """Return when u < p(t), for a u that is redrawn at the events of a Poisson process of that mean distance.

        Args:
            best: A time of the peak.
            stay: Mean seconds between redraws.
            rng: The client's stream.
        """
        if self.trough == 1:
            return iter((FOREVER,))
        return merged(self._pieces(best, stay, rng)) if self.peak else iter(())

    def _pieces(self, best: Seconds, stay: Seconds, rng: Rng) -> Iterator[Interval]:
        start = 0.0
        while True:
            end = start + stay * rng.standard_exponential()
            yield from self._above(rng.random(), best, Interval(start, end))
            start = end

    def _above(self, u: float, best: Seconds, within: Interval) -> Iterator[Interval]:
        """Yield the parts of an interval where u < p(t)."""
        if u < self.trough:
            yield within
        elif u < self.peak:
            half = DAY / 2 * math.acos(2 * (u - self.trough) / (self.peak - self.trough) - 1) / math.pi
            day = math.floor((within.start - best - half) / DAY)
            while (crest := best + day * DAY) - half < within.end:
                yield Interval(max(within.start, crest - half), min(within.end, crest + half))
                day += 1
