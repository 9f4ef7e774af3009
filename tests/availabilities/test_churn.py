"""Clients are online as often, and for as long, as the model says.

Each check is a function that a wrong variant is put through as well. Shares are tested by z at alpha = 1e-4 (two-sided
3.89), sojourns by Kolmogorov-Smirnov at the same alpha, all with fixed seeds.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
from scipy import stats

from fedemu.availabilities._base import Member
from fedemu.availabilities.diurnal import DAY, Wave, diurnal
from fedemu.availabilities.on_off import on_off
from fedemu.availabilities.weibull import weibull
from fedemu.types import Interval, Rng

N = 4000
Z = float(stats.norm.isf(0.5e-4))
Made = Sequence[Iterator[Interval]]


def members(count: int = N) -> list[Member]:
    return [Member(f"phones/{slot}", (1, 1)) for slot in range(count)]


def draw(client: str) -> Rng:
    return np.random.default_rng([7, *client.encode()])


def online(made: Made, times: Sequence[float]) -> "np.ndarray[tuple[int, int], np.dtype[np.bool_]]":
    """Return who is online when, shape (clients, times)."""
    table = np.zeros((len(made), len(times)), np.bool_)
    for client, intervals in enumerate(made):
        for interval in itertools.takewhile(lambda i: i.start <= times[-1], intervals):
            table[client, slice(*np.searchsorted(times, interval))] = True
    return table


def check_shares(made: Made, times: Sequence[float], share: Callable[[float], float]) -> None:
    """At each time the number online is binomial: within Z deviations (Bonferroni over the times)."""
    z = float(stats.norm.isf(0.5e-4 / len(times)))
    for time, count in zip(times, online(made, times).sum(axis=0).tolist(), strict=True):
        p = share(time)
        assert abs(count - len(made) * p) <= z * math.sqrt(len(made) * p * (1 - p)) + 1e-9, (time, count, p)


def check_sojourns(made: Made, on: "stats.rv_frozen", off: "stats.rv_frozen", count: int = 20) -> None:
    """All whole sojourns of clients, from the second on, are of these laws."""
    stays, gaps = [], []
    for intervals in made:
        runs = list(itertools.islice(intervals, count))
        stays += [run.end - run.start for run in runs[1:]]
        gaps += [b.start - a.end for a, b in itertools.pairwise(runs)]
    assert stats.kstest(stays, on.cdf).pvalue > 1e-4
    assert stats.kstest(gaps, off.cdf).pvalue > 1e-4


def check_availability(made: Made, share: float, until: float, deviation: float) -> None:
    """The mean share of the time online is the model's within Z standard errors; `deviation` is one client's."""
    shares = []
    for intervals in made:
        inside = itertools.takewhile(lambda i: i.start < until, intervals)
        shares.append(sum(min(i.end, until) - max(i.start, 0.0) for i in inside) / until)
    assert abs(float(np.mean(shares)) - share) <= Z * deviation / math.sqrt(len(shares))


def scale(mean: float, shape: float) -> float:
    return mean / math.gamma(1 + 1 / shape)


@pytest.mark.parametrize("shape", [None, 0.5, 2.0])
def test_a_third_is_online_from_the_first_second_on(shape: float | None) -> None:
    """10 min on, 20 min off: 1/3 of 4,000 at every time, also at 0; z as in the module's docstring."""
    made = (on_off(online=600.0, offline=1200.0) if shape is None else weibull(online=600, offline=1200, shape=shape))(
        members(), draw
    )
    check_shares(made, [0.0, 1.0, 60.0, 300.0, 900.0, 3600.0, 36_000.0], lambda _: 1 / 3)


def test_clients_that_all_start_online_fail_the_same_check() -> None:
    """The usual mistake: a process that starts with a fresh sojourn online is not in its stationary law."""

    def wrong(rng: Rng) -> Iterator[Interval]:
        at = 0.0
        while True:
            stay, gap = 600 * rng.standard_exponential(), 1200 * rng.standard_exponential()
            yield Interval(at, at + stay)
            at += stay + gap

    with pytest.raises(AssertionError):
        check_shares([wrong(draw(m.client)) for m in members()], [0.0, 60.0], lambda _: 1 / 3)


def test_a_fresh_first_sojourn_fails_the_same_check() -> None:
    """On with the right chance, but at the start of a sojourn: right at 0, wrong minutes later (Weibull 0.5)."""

    def wrong(rng: Rng) -> Iterator[Interval]:
        at, is_on = 0.0, rng.random() < 1 / 3
        while True:
            length = float(rng.standard_exponential() ** 2) * scale(600 if is_on else 1200, 0.5)
            if is_on:
                yield Interval(at, at + length)
            at, is_on = at + length, not is_on

    times = [60.0, 300.0, 600.0, 900.0]
    check_shares([wrong(draw(m.client)) for m in members()], [0.0], lambda _: 1 / 3)
    with pytest.raises(AssertionError):
        check_shares([wrong(draw(m.client)) for m in members()], times, lambda _: 1 / 3)


def test_sojourns_are_exponential() -> None:
    """19 of each of 1,000 clients; 10 % off in one mean is seen."""
    on, off = stats.expon(scale=600), stats.expon(scale=1200)
    check_sojourns(on_off(online=600.0, offline=1200.0)(members(1000), draw), on, off)
    with pytest.raises(AssertionError):
        check_sojourns(on_off(online=660.0, offline=1200.0)(members(1000), draw), on, off)


@pytest.mark.parametrize("shape", [0.5, 2.0])
def test_sojourns_are_weibull_with_the_means_asked_for(shape: float) -> None:
    """scale = mean / Gamma(1 + 1/shape); exponential ones of the same means fail."""
    on, off = (stats.weibull_min(shape, scale=scale(mean, shape)) for mean in (600.0, 1200.0))
    check_sojourns(weibull(online=600.0, offline=1200.0, shape=shape)(members(1000), draw), on, off)
    with pytest.raises(AssertionError):
        check_sojourns(on_off(online=600.0, offline=1200.0)(members(1000), draw), on, off)


def test_measured_availability_is_the_model_s() -> None:
    """Over T = 100 h: variance of a client's share 2 p^2 q^2 (on + off) / T for an exponential on-off process."""
    on, off, until = 600.0, 1200.0, 360_000.0
    p = on / (on + off)
    deviation = math.sqrt(2 * p**2 * (1 - p) ** 2 * (on + off) / until)
    check_availability(on_off(online=on, offline=off)(members(500), draw), p, until, deviation)
    with pytest.raises(AssertionError):
        check_availability(on_off(online=on, offline=off * 1.05)(members(500), draw), p, until, deviation)


def day(time: float, zone: float = 0.0) -> float:
    """70 % at 2 o'clock local time, 10 % at 14 o'clock."""
    return 0.1 + 0.6 * (1 + math.cos(2 * math.pi * (time / 3600 + zone - 2) / 24)) / 2


HOURS = [3600.0 * hour for hour in range(49)]


@pytest.mark.parametrize("stay", [600.0, 3600.0, 86_400.0])
@pytest.mark.parametrize("zone", [0.0, -5.0, 5.5])
def test_clients_online_per_hour_are_those_of_the_day(stay: float, zone: float) -> None:
    """Every hour of two days, whatever the zone and however long clients stay."""
    made = diurnal(peak=0.7, trough=0.1, zones=[zone], stay=stay)(members(1000), draw)
    check_shares(made, HOURS, lambda time: day(time, zone))


def test_zones_are_drawn_alike() -> None:
    """Two zones twelve hours apart level the day: (0.7 + 0.1) / 2 at every hour."""
    made = diurnal(peak=0.7, trough=0.1, zones=[0.0, 12.0])(members(1000), draw)
    check_shares(made, HOURS, lambda _: 0.4)


def test_a_day_that_is_sampled_by_the_stay_fails_the_same_check() -> None:
    """The obvious wrong variant: online or not is decided at redraws and held, so that the day comes late."""

    def wrong(rng: Rng) -> Iterator[Interval]:
        at = 0.0
        while True:
            end = at + 14_400 * rng.standard_exponential()
            if rng.random() < day(at):
                yield Interval(at, end)
            at = end

    with pytest.raises(AssertionError):
        check_shares([wrong(draw(m.client)) for m in members(1000)], HOURS, day)


def test_a_hidden_uniform_that_starts_at_0_fails_the_same_check() -> None:
    """All are online until their first redraw."""

    class Started:
        def __init__(self, rng: Rng) -> None:
            self.rng, self.first = rng, True

        def standard_exponential(self) -> float:
            return float(self.rng.standard_exponential())

        def random(self) -> float:
            value, self.first = (0.0 if self.first else float(self.rng.random())), False
            return value

    wave = Wave(0.7, 0.1)
    with pytest.raises(AssertionError):
        check_shares([wave.online(7200, 3600, Started(draw(m.client))) for m in members(1000)], HOURS, day)  # type: ignore[arg-type]


def test_stay_is_how_fast_clients_change() -> None:
    """A flat day of 50 %: being online now and in t = stay is correlated by 1/e, within Z / sqrt(n)."""
    table = online(diurnal(peak=0.5, trough=0.5, stay=3600.0)(members(), draw), [0.0, 3600.0]).astype(float)
    assert float(np.corrcoef(table.T)[0, 1]) == pytest.approx(math.exp(-1), abs=Z / math.sqrt(N))


def test_a_trough_above_the_peak_is_a_fault() -> None:
    """And a day without a swing is none."""
    with pytest.raises(ValueError, match=r"trough 0.5 is above peak 0.4"):
        diurnal(peak=0.4, trough=0.5)
    assert DAY == 24 * 3600
