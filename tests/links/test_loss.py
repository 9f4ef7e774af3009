"""Losses are as many as asked, and hang together as asked.

The stationary share by a z-test whose variance is that of a two-state chain, x (1 + lambda)/(1 - lambda) with
lambda = 1 - p - r; runs of losses by chi-square against the geometric law; both at alpha = 1e-4.
"""

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from fedemu.links._base import Loss
from fedemu.links.loss import Fading, Gemodel, Independent, Markov, loss
from fedemu.registry import parameters
from fedemu.types import Rng

N, ALPHA = 400_000, 1e-4


def one_by_one(process: Loss, n: int = N, seed: int = 1) -> NDArray[np.bool_]:
    rng = np.random.default_rng(seed)
    return np.array([process(1, 0.0, rng) for _ in range(n)], bool)


def check_share(lost: float, n: int, share: float, decay: float) -> None:
    """The z-test; `decay` is the chain's lambda, or 0 for independent losses."""
    deviation = math.sqrt(share * (1 - share) * n * (1 + decay) / (1 - decay))
    assert 2 * stats.norm.sf(abs(lost - share * n) / deviation) > ALPHA


def check_bursts(lost: NDArray[np.bool_], mean: float) -> None:
    """Chi-square of the lengths of runs against the geometric law of that mean, with at least 20 expected a bin."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], lost.astype(np.int8), [0]])))
    lengths = edges[1::2] - edges[::2]
    law = stats.geom(1 / mean)
    bins = max(2, int(law.isf(min(0.5, 20 / len(lengths)))))
    observed = np.bincount(np.minimum(lengths, bins), minlength=bins + 1)[1:]
    expected = np.array([*law.pmf(np.arange(1, bins)), law.sf(bins - 1)]) * len(lengths)
    kept = expected > 0
    assert observed[~kept].sum() == 0
    assert stats.chisquare(observed[kept], expected[kept]).pvalue > ALPHA


@pytest.mark.parametrize("share", [0.001, 0.1])
def test_independent_losses_are_as_many_as_asked(share: float) -> None:
    """One packet at a time or a thousand at once: the same law, with runs of 1/(1 - P)."""
    process = loss(random=share)
    assert process.mean == share
    single = one_by_one(process)
    check_share(single.sum(), N, share, 0.0)
    check_bursts(single, 1 / (1 - share))
    rng = np.random.default_rng(2)
    check_share(sum(process(1000, 0.0, rng) for _ in range(N // 1000)), N, share, 0.0)


@pytest.mark.parametrize(("share", "correlation"), [(0.003, 0.25), (0.1, 0.25), (0.1, 0.75)])
def test_correlated_losses_have_their_share_and_their_lag_1_correlation(share: float, correlation: float) -> None:
    """p = P (1 - C), r = (1 - P)(1 - C): lambda is C, and runs have 1/((1 - P)(1 - C)) packets."""
    process = loss(random=share, correlation=correlation)
    assert process.mean == pytest.approx(share)
    lost = one_by_one(process)
    check_share(lost.sum(), N, share, correlation)
    check_bursts(lost, 1 / ((1 - share) * (1 - correlation)))
    assert np.corrcoef(lost[:-1], lost[1:])[0, 1] == pytest.approx(correlation, abs=0.03)


@pytest.mark.parametrize(("share", "burst"), [(0.01, 5.0), (0.2, 1.5), (0.5, 2.0)])
def test_bursts_have_their_mean_length(share: float, burst: float) -> None:
    """r = 1/b, and the share is P all the same."""
    process = loss(random=share, burst=burst)
    assert process.mean == pytest.approx(share)
    lost = one_by_one(process)
    check_share(lost.sum(), N, share, 1 - share / (1 - share) / burst - 1 / burst)
    check_bursts(lost, burst)


def test_a_burst_of_1_never_loses_two_in_a_row() -> None:
    """r = 1, and p = 1/4 makes up the 20 %; independent losses would have 4 % of pairs."""
    lost = one_by_one(loss(random=0.2, burst=1.0))
    check_share(lost.sum(), N, 0.2, -1 / 4)
    assert not (lost[:-1] & lost[1:]).any()


@pytest.mark.parametrize(
    ("p", "r", "bad", "good"), [(0.01, 0.3, 1.0, 0.0), (0.02, 0.25, 0.7, 0.001), (0.001, 0.1, 1.0, 0.0)]
)
@pytest.mark.parametrize("count", [1, 7, 5000])
def test_gilbert_elliott_loses_its_share_however_packets_come(
    p: float, r: float, bad: float, good: float, count: int
) -> None:
    """(p (1-h) + r (1-k))/(p + r), one by one or thousands at once: the sojourns go on from call to call."""
    process = loss(gemodel=Gemodel(p=p, r=r, one_minus_h=bad, one_minus_k=good))
    share = (p * bad + r * good) / (p + r)
    assert process.mean == pytest.approx(share)
    rng = np.random.default_rng(3)
    lost = sum(process(count, 0.0, rng) for _ in range(N // count))
    check_share(lost, N // count * count, share, 1 - p - r)


def test_a_call_of_many_packets_has_the_variance_of_the_chain() -> None:
    """2,000 fresh chains of 500 packets each, at P = 10 % in bursts of 5: chi-square of their variance."""
    n, count, share, decay = 2000, 500, 0.1, 1 - 1 / 45 - 1 / 5
    rng = np.random.default_rng(4)
    lost = [loss(random=share, burst=5.0)(count, 0.0, rng) for _ in range(n)]
    lags = np.arange(1, count)
    variance = share * (1 - share) * (count + 2 * ((count - lags) * decay**lags).sum())
    # the counts are near enough to normal for the mean; their variance's own deviation is taken from their kurtosis
    spread = variance * math.sqrt((stats.kurtosis(lost) + 2) / n)
    assert np.var(lost) == pytest.approx(variance, abs=stats.norm.isf(ALPHA / 2) * spread)


def test_an_endless_good_state_is_left_alone() -> None:
    """r = 0 in a gemodel with p = 1: the bad state is for ever, and loses its 30 %."""
    process = loss(gemodel=Gemodel(p=1.0, r=0.0, one_minus_h=0.3))
    check_share(process(N, 0.0, np.random.default_rng(5)), N, 0.3, 0.0)


FADE = Gemodel(p=0.1, r=0.4)
"""Down for 2.5 s in 12.5 s on average."""


def check_fade(build: Callable[[], Loss], gap: float) -> None:
    """P(bad at t + D, bad at t) against pi (pi + (1 - pi) e^(-(a + b) D)), by an exact binomial test of fresh pairs."""
    rng, n = np.random.default_rng(6), 20_000
    pairs = 0
    for _ in range(n):
        process = build()
        pairs += bool(process(1, 100.0, rng) and process(1, 100.0 + gap, rng))
    pi = 0.1 / 0.5
    assert stats.binomtest(pairs, n, pi * (pi + (1 - pi) * math.exp(-0.5 * gap))).pvalue > ALPHA


@pytest.mark.parametrize("gap", [0.0, 0.5, 2.0, 100.0])
def test_a_fade_goes_on_in_time(gap: float) -> None:
    """At once it is the same state, after 2 s by 1/e nearer to the stationary one, after 100 s forgotten."""
    check_fade(lambda: loss(gemodel=FADE, clock="time"), gap)


class Forgetful(Markov):
    """A Gilbert-Elliott that starts anew with every message."""

    def __call__(self, count: int, at: float, rng: Rng) -> int:
        self.is_bad = None
        return Markov.__call__(self, count, at, rng)


def test_the_checks_find_a_gilbert_elliott_that_forgets_its_state() -> None:
    """Its share is right, but runs end with the message, and a fade is over in no time."""
    process = Forgetful(0.02, 0.25)
    lost = one_by_one(process)
    check_share(lost.sum(), N, process.mean, 1 - 0.02 - 0.25)
    with pytest.raises(AssertionError):
        check_bursts(lost, 4.0)
    check_bursts(one_by_one(Markov(0.02, 0.25)), 4.0)
    with pytest.raises(AssertionError):
        check_fade(lambda: Forgetful(0.1, 0.4), 0.0)


@pytest.mark.parametrize(("share", "correlation"), [(0.003, 0.25), (0.1, 0.25)])
def test_the_checks_find_netems_own_correlation(share: float, correlation: float) -> None:
    """Its running mean of uniform numbers hardly reaches the threshold: it drops 0 % for 0.3 %, and 1.8 % for 10 %."""
    rng = np.random.default_rng(1)
    rho, last, n = round(correlation * (2**32 - 1)) + 1, 2**31, 100_000
    dropped = 0
    for value in rng.integers(0, 2**32, n, dtype=np.uint64).tolist():
        last = (value * (2**32 - rho) + last * rho) >> 32
        dropped += last <= int(share * (2**32 - 1))
    with pytest.raises(AssertionError):
        check_share(dropped, n, share, correlation)


def test_packets_of_one_moment_share_a_fade() -> None:
    """All 50 of a burst are lost or none; so is the next burst at that time, and at an earlier one."""
    process, rng = loss(gemodel=FADE, clock="time"), np.random.default_rng(7)
    for second in range(0, 2000, 20):
        lost = process(50, float(second), rng)
        assert lost in (0, 50)
        assert process(7, float(second), rng) == lost / 50 * 7
        assert process(7, second - 5.0, rng) == lost / 50 * 7


def test_what_loses_nothing_draws_nothing() -> None:
    """0 % needs no draw; neither do no packets."""
    rng = np.random.default_rng(1)
    before = rng.bit_generator.state
    assert Independent(0.0)(1000, 0.0, rng) == 0
    assert rng.bit_generator.state == before


def test_a_scenario_says_it_in_four_ways() -> None:
    """Each with its chain: 1 % in bursts of 5 is p = 1/495, r = 1/5; 10 % at 25 % is p = 0.075, r = 0.675."""

    def read(**keys: object) -> Loss:
        params = parameters(loss).model_validate(keys)
        return loss(**{name: getattr(params, name) for name in type(params).model_fields})

    assert read(random="1%") == Independent(0.01)
    bursty = read(random="1%", burst=5)
    assert isinstance(bursty, Markov)
    assert (bursty.p, bursty.r) == pytest.approx((1 / 495, 1 / 5))
    correlated = read(random=0.1, correlation="25%")
    assert isinstance(correlated, Markov)
    assert (correlated.p, correlated.r) == pytest.approx((0.075, 0.675))
    assert read(gemodel={"p": "1%", "r": 0.3}) == Markov(0.01, 0.3)
    assert read(gemodel={"p": 0.2, "r": 5, "one_minus_h": "80%"}, clock="time") == Fading(0.2, 5.0, 0.8)


@pytest.mark.parametrize(
    ("keys", "fault"),
    [
        ({}, "expected one of random and gemodel"),
        ({"random": 0.1, "gemodel": FADE}, "expected one of random and gemodel"),
        ({"random": 1.0}, "loss of 100% lets nothing through"),
        ({"random": 0.1, "correlation": 1.0}, "correlation 100%"),
        ({"random": 0.1, "correlation": 0.1, "burst": 2.0}, "correlation and burst say the same thing"),
        ({"random": 0.5, "burst": 1 - 1e-9}, "bursts of 1 cannot make up 50% .* expected a burst of 1 or more"),
        ({"random": 0.8, "burst": 3.0}, "bursts of 3 cannot make up 80% .* expected a burst of 4 or more"),
        ({"gemodel": FADE, "burst": 2.0}, "leave correlation and burst out"),
        ({"random": 0.1, "clock": "time"}, "clock: time has no meaning without gemodel"),
        ({"gemodel": Gemodel(p=0.0, r=0.0)}, "never changes its state"),
        ({"gemodel": Gemodel(p=3.0, r=0.2)}, r"a chance of 3 a packet; expected 0..1, or clock: time"),
        ({"gemodel": Gemodel(p=1.0, r=0.0)}, "loses 100%"),
    ],
)
def test_what_cannot_be_is_a_fault(keys: dict[str, object], fault: str) -> None:
    """Nothing or twice the same, or everything lost, or a chance above 1."""
    with pytest.raises(ValueError, match=fault):
        loss(**keys)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("model", "fault"),
    [
        ({"p": 0.1}, "r is missing"),
        ({"p": 0.1, "r": 0.1, "h": 1}, "'h' is not a key here; there are p, r, one_minus_h, one_minus_k"),
        ({"p": -0.1, "r": 0.1}, "-0.1 is out of range; expected at least 0"),
        ({"p": "x%", "r": 0.1}, "'x%' is not a number; write e.g. 1% or 0.01"),
        ("bad", "'bad' is not a mapping"),
    ],
)
def test_a_gemodel_with_a_wrong_key_is_one_fault(model: object, fault: str) -> None:
    """Worded as the other faults of a scenario."""
    with pytest.raises(ValueError, match="1 validation error") as caught:
        parameters(loss).model_validate({"gemodel": model})
    assert fault in str(caught.value)
