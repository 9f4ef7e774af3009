"""Background traffic offers the load that it is asked for."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from fedemu.links._base import Demand, Traffic
from fedemu.links.traffic.constant import constant
from fedemu.links.traffic.poisson import poisson
from fedemu.links.traffic.sine import sine
from fedemu.links.traffic.step import step
from fedemu.registry import kinds

KINDS: dict[str, Traffic] = {
    "constant": constant(rate=5e6),
    "poisson": poisson(rate=8e6, size=100_000),
    "sine": sine(rate=5e6, amplitude=1.0, period=60.0),
    "step": step(rates=[0.0, 8e6, 2e6, 2e6], every=10.0),
}


def demands(traffic: Traffic, count: int, seed: int = 1) -> list[Demand]:
    return list(itertools.islice(traffic(np.random.default_rng(seed)), count))


def asked(demands: list[Demand], until: float) -> float:
    """Return the mean demand of one flow at a time, in bits per second."""
    ends = [*(d.at for d in demands[1:]), math.inf]
    return sum(d.cap * (min(end, until) - d.at) for d, end in zip(demands, ends, strict=True) if d.at < until) / until


def test_every_kind_is_held_to_the_contract() -> None:
    """One entry above for each file of the room."""
    assert sorted(KINDS) == kinds("links.traffic")


@pytest.mark.parametrize("kind", KINDS)
def test_demands_come_in_order_and_the_same_seed_makes_the_same(kind: str) -> None:
    """No time goes back, no cap is below zero, and a flow that has ended does not come back."""
    first = demands(KINDS[kind], 500)
    assert first == demands(KINDS[kind], 500)
    assert all(a.at <= b.at for a, b in itertools.pairwise(first))
    assert all(d.at >= 0 and d.cap >= 0 and d.size > 0 for d in first)
    ended: set[int] = set()
    for demand in first:
        assert demand.flow not in ended
        if demand.cap == 0:
            ended.add(demand.flow)


def test_constant_is_one_demand_for_ever() -> None:
    """One flow from 0 on."""
    assert demands(KINDS["constant"], 5) == [Demand(0.0, 0, 5e6)]


def check_poisson(flows: list[Demand], rate: float, size: float) -> None:
    """Gaps and sizes are exponential (KS, n = 20,000, alpha = 1e-4) and their load is the rate within 4 deviations."""
    gaps = np.diff([0.0, *(flow.at for flow in flows)])
    sizes = np.array([flow.size for flow in flows])
    assert stats.kstest(gaps, stats.expon(scale=8 * size / rate).cdf).pvalue > 1e-4
    assert stats.kstest(sizes, stats.expon(scale=size).cdf).pvalue > 1e-4
    # each mean has a relative deviation of 1/sqrt(n), their ratio sqrt(2/n)
    assert 8 * sizes.sum() / gaps.sum() == pytest.approx(rate, rel=4 * math.sqrt(2 / len(flows)))


def test_poisson_flows_come_and_are_sized_by_chance() -> None:
    """8 Mbit/s of 100 kB flows are ten flows a second."""
    check_poisson(demands(KINDS["poisson"], 20_000), 8e6, 100_000)


def test_flows_that_come_in_step_fail_the_same_check() -> None:
    """Ten a second at even distances have the load and not the law."""
    even = [flow._replace(at=(place + 1) / 10) for place, flow in enumerate(demands(KINDS["poisson"], 20_000))]
    with pytest.raises(AssertionError):
        check_poisson(even, 8e6, 100_000)


def test_poisson_loads_are_coupled() -> None:
    """Twice the rate brings the same flows in half the time."""
    slow, fast = (demands(poisson(rate=rate, size=1000), 50) for rate in (1e6, 2e6))
    assert [flow.at for flow in slow] == pytest.approx([2 * flow.at for flow in fast])
    assert [flow.size for flow in slow] == [flow.size for flow in fast]


def test_a_sine_s_period_carries_its_mean() -> None:
    """Exactly the rate over whole periods; beside crest and trough, sin(d) / d of the swing with d = 2 pi / 64."""
    wave = demands(sine(rate=5e6, amplitude=0.5, period=64.0), 129)
    assert asked(wave, 128.0) == pytest.approx(5e6, rel=1e-12)
    caps, swing = [demand.cap for demand in wave[:64]], 2.5e6 * math.sin(math.pi / 32) / (math.pi / 32)
    assert [caps[15], caps[16], max(caps)] == pytest.approx([5e6 + swing] * 3, rel=1e-12)
    assert [caps[47], caps[48], min(caps)] == pytest.approx([5e6 - swing] * 3, rel=1e-12)


def test_a_sine_s_steps_are_the_wave_within_what_is_said() -> None:
    """At most 4.9 % of the swing off, and that much somewhere."""
    wave = demands(sine(rate=1.0, amplitude=1.0, period=64.0), 64)
    off = [abs(d.cap - 1 - math.sin(2 * math.pi * (d.at + part / 100) / 64)) for d in wave for part in range(101)]
    assert max(off) == pytest.approx(0.049, abs=5e-4)


def test_steps_follow_each_other_and_begin_again() -> None:
    """0 starts nothing and ends the flow; equal neighbours are one demand; (0 + 8 + 2 + 2) / 4 = 3 Mbit/s."""
    steps = demands(KINDS["step"], 6)
    assert steps == [
        Demand(10.0, 0, 8e6),
        Demand(20.0, 0, 2e6),
        Demand(40.0, 0, 0.0),
        Demand(50.0, 1, 8e6),
        Demand(60.0, 1, 2e6),
        Demand(80.0, 1, 0.0),
    ]
    assert asked(steps, 80.0) == pytest.approx(3e6)


def test_steps_that_are_all_the_same_are_a_fault() -> None:
    """There is a kind for that."""
    with pytest.raises(ValueError, match="write kind: constant"):
        step(rates=[5.0, 5.0], every=1.0)
