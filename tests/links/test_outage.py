"""Outages have their laws, and are as frequent at time 0 as ever after."""

import math
from collections.abc import Callable
from itertools import islice, takewhile
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from fedemu.links._base import Outage
from fedemu.links.outage import Sojourn, outage
from fedemu.types import Interval

EVERY, LASTING, ALPHA = 600.0, 30.0, 1e-4
BUILDS: list[tuple[Outage, Callable[[float], Any]]] = [
    (outage(every=EVERY, lasting=LASTING), lambda mean: stats.expon(scale=mean)),
    (
        outage(every=EVERY, lasting=LASTING, law="weibull", shape=0.6),
        lambda mean: stats.weibull_min(0.6, scale=mean / math.gamma(1 + 1 / 0.6)),
    ),
    (
        outage(every=EVERY, lasting=LASTING, law="weibull", shape=3.0),
        lambda mean: stats.weibull_min(3.0, scale=mean / math.gamma(1 + 1 / 3)),
    ),
]


def intervals(build: Outage, count: int, seed: int = 1) -> NDArray[np.float64]:
    """The first outages of a link, shape (count, 2)."""
    return np.array(list(islice(build(np.random.default_rng(seed)), count)))


@pytest.mark.parametrize(("build", "law"), BUILDS)
def test_times_up_and_down_follow_their_laws(build: Outage, law: Callable[[float], Any]) -> None:
    """20,000 outages of 30 s and 570 s between them, each Kolmogorov-Smirnov; the first sojourn is another law."""
    found = intervals(build, 20_001)[1:]
    assert stats.kstest(found[:, 1] - found[:, 0], law(LASTING).cdf).pvalue > ALPHA
    assert stats.kstest(found[1:, 0] - found[:-1, 1], law(EVERY - LASTING).cdf).pvalue > ALPHA
    assert law(LASTING).mean() == pytest.approx(LASTING)


def check_stationary(build: Outage, every: float, lasting: float) -> None:
    """The share of 20,000 links that are down at each of four times, by an exact binomial test."""
    links = [
        list(takewhile(lambda outage: outage.start <= 3 * every, build(np.random.default_rng(seed))))
        for seed in range(20_000)
    ]
    for at in (0.0, 0.1 * lasting, every / 3, 3 * every):
        down = sum(any(start <= at < end for start, end in link) for link in links)
        assert stats.binomtest(down, len(links), lasting / every).pvalue > ALPHA


@pytest.mark.parametrize(
    "keys", [{}, {"law": "weibull", "shape": 0.6}, {"law": "weibull", "shape": 3.0}], ids=["exponential", "0.6", "3"]
)
def test_as_many_links_are_down_at_time_0_as_later(keys: dict[str, Any]) -> None:
    """30 % of them, whatever the law."""
    check_stationary(outage(every=100.0, lasting=30.0, **keys), 100.0, 30.0)


def test_a_process_that_starts_with_a_fresh_sojourn_fails_this_check() -> None:
    """Down with the right probability at time 0, but for a whole regular sojourn and not for what is left of one."""

    def fresh(rng: np.random.Generator) -> Any:
        up, down = Sojourn(70.0, 3.0), Sojourn(30.0, 3.0)
        now = -down.draw(rng) if rng.random() < 0.3 else up.draw(rng)
        now = max(now, 0.0)
        while True:
            end = now + down.draw(rng)
            yield Interval(now, end)
            now = end + up.draw(rng)

    with pytest.raises(AssertionError):
        check_stationary(fresh, 100.0, 30.0)


def test_what_is_left_of_a_sojourn_has_the_equilibrium_law() -> None:
    """Density (1 - F(x)) / mean: its distribution function for shape 2 and mean sqrt(pi)/2 is erf(x)."""
    rng, sojourn = np.random.default_rng(2), Sojourn(math.sqrt(math.pi) / 2, 2.0)
    sample = [sojourn.rest(rng) for _ in range(20_000)]
    assert stats.kstest(sample, lambda x: np.array([math.erf(v) for v in x])).pvalue > ALPHA


def test_runs_that_differ_in_length_alone_are_coupled() -> None:
    """Twice as long outages, and as long between them: the same draws, each outage exactly twice as long."""
    short, long = (intervals(outage(every=100.0 + lasting, lasting=lasting), 50, seed=4) for lasting in (0.001, 0.002))
    assert np.ptp(short, axis=1) * 2 == pytest.approx(np.ptp(long, axis=1), rel=1e-6)


@pytest.mark.parametrize(("every", "lasting"), [(30.0, 30.0), (30.0, 40.0), (30.0, 0.0)])
def test_outages_without_an_end_or_a_beginning_are_faults(every: float, lasting: float) -> None:
    """`every` counts from start to start, so that it must be the longer one."""
    with pytest.raises(ValueError, match="expected lasting above 0 and below every"):
        outage(every=every, lasting=lasting)


def test_weibull_and_shape_go_together() -> None:
    """One without the other says nothing."""
    with pytest.raises(ValueError, match="law weibull has no shape; write"):
        outage(every=10.0, lasting=1.0, law="weibull")
    with pytest.raises(ValueError, match="shape 2 has no meaning without law: weibull"):
        outage(every=10.0, lasting=1.0, shape=2.0)
