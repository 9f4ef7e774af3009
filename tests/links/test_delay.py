"""Delay has the law, mean, deviation and correlation that it is asked for.

Kolmogorov-Smirnov at alpha = 1e-4 and n = 20,000, left when draws that hang together are thinned by
(1 - rho)/(1 + rho); Spearman's lag-1 correlation is (6/pi) asin(rho/2) +- 0.02.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import integrate, stats

from fedemu.links import delay as module
from fedemu.links._base import Packet, Stage
from fedemu.links.delay import Distribution, Law, Table, delay
from fedemu.registry import parameters

MEAN, DEVIATION, N, ALPHA = 0.2, 0.05, 20_000, 1e-4
SIGMA = math.sqrt(math.log(1 + (DEVIATION / MEAN) ** 2))
LAWS: dict[Law, Any] = {
    "normal": stats.norm(MEAN, DEVIATION),
    "uniform": stats.uniform(MEAN - math.sqrt(3) * DEVIATION, 2 * math.sqrt(3) * DEVIATION),
    "lognormal": stats.lognorm(SIGMA, scale=MEAN / math.sqrt(1 + (DEVIATION / MEAN) ** 2)),
    "exponential": stats.expon(MEAN - DEVIATION, DEVIATION),
    "pareto": stats.pareto(3, loc=MEAN - DEVIATION * math.sqrt(3), scale=DEVIATION * 2 / math.sqrt(3)),
}


class Paretonormal:
    """z/4 + x with x a pareto of shape 3 at the same quantile, shifted and scaled: by bisection and quadrature."""

    @staticmethod
    def shape(z: "float | NDArray[np.float64]") -> Any:
        return z / 4 + stats.pareto.isf(stats.norm.sf(z), 3)

    def __init__(self) -> None:
        # each piece apart, as the quadrature loses the far tail otherwise
        def moment(power: int, centre: float) -> float:
            pieces = [(-9.0, 0.0), (0.0, 6.0), (6.0, 20.0)]
            f = lambda z: (self.shape(z) - centre) ** power * stats.norm.pdf(z)  # noqa: E731
            return sum(integrate.quad(f, *piece, epsrel=1e-10)[0] for piece in pieces)

        self.centre = moment(1, 0.0)
        self.deviation = math.sqrt(moment(2, self.centre))

    def cdf(self, delays: NDArray[np.float64]) -> NDArray[np.float64]:
        low, high = np.full_like(delays, -9.0), np.full_like(delays, 9.0)
        for _ in range(60):
            middle = (low + high) / 2
            below = MEAN + DEVIATION * (self.shape(middle) - self.centre) / self.deviation < delays
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        return np.asarray(stats.norm.cdf(low))

    def mean(self) -> float:
        return MEAN

    def std(self) -> float:
        return DEVIATION


ALL: dict[Law, Any] = {**LAWS, "paretonormal": Paretonormal()}


def draws(stage: Stage, n: int = N, seed: int = 1) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    packets = (stage(Packet(1, 10.0), lambda: rng) for _ in range(n))
    return np.array([packet.at - 10 for packet in packets if packet is not None])


def check_law(sample: NDArray[np.float64], law: Any, correlation: float = 0.0) -> None:
    every = math.ceil((1 + correlation) / (1 - correlation))
    assert stats.kstest(sample[::every], law.cdf).pvalue > ALPHA


def check_correlation(sample: NDArray[np.float64], correlation: float) -> None:
    measured = stats.spearmanr(sample[:-1], sample[1:]).statistic
    assert measured == pytest.approx(6 / math.pi * math.asin(correlation / 2), abs=0.02)


@pytest.mark.parametrize("correlation", [0.0, 0.25, 0.75])
@pytest.mark.parametrize("distribution", ALL)
def test_delays_follow_their_law_whatever_the_correlation(distribution: Law, correlation: float) -> None:
    """200 +- 50 ms, against scipy's law of that mean and deviation."""
    law = ALL[distribution]
    assert (law.mean(), law.std()) == pytest.approx((MEAN, DEVIATION))
    stage = delay(delay=MEAN, jitter=DEVIATION, correlation=correlation, distribution=distribution)
    every = math.ceil((1 + correlation) / (1 - correlation))
    sample = draws(stage, N * every)
    check_law(sample, law, correlation)
    check_correlation(sample, correlation)


def test_the_mean_and_deviation_of_paretonormal_are_exact() -> None:
    """The constants in the code against quadrature: E[x] = 3/2 and the deviation of z/4 + x, 1.0518."""
    law = Paretonormal()
    assert law.centre == pytest.approx(1.5, abs=1e-7)
    assert law.deviation == pytest.approx(1.0517772455, abs=1e-7)
    low, high = (delay(delay=1.0, jitter=0.1, distribution="paretonormal"), law.shape(2.0))
    at = low(Packet(1, 0.0), lambda: Fixed(2.0))
    assert at is not None
    assert at.at == pytest.approx(1 + 0.1 * (high - law.centre) / law.deviation, rel=1e-7)


class Fixed(np.random.Generator):
    """A stream whose next standard normal is known."""

    def __init__(self, z: float) -> None:
        super().__init__(np.random.PCG64(1))
        self.z = z

    def standard_normal(self, *_: Any, **__: Any) -> Any:
        return self.z


@pytest.mark.parametrize("other", [law for law in ALL if law != "lognormal"])
def test_the_check_can_tell_one_law_from_another(other: Law) -> None:
    """A lognormal sample against the other laws of that mean and deviation: each is rejected."""
    with pytest.raises(AssertionError):
        check_law(draws(delay(delay=MEAN, jitter=DEVIATION)), ALL[other])


def crandom(correlation: float, n: int) -> NDArray[np.uint64]:
    """netem's correlated 32-bit numbers (get_crandom in net/sched/sch_netem.c), a running mean of uniform ones."""
    rng = np.random.default_rng(1)
    rho = round(correlation * (2**32 - 1)) + 1
    last, result = int(rng.integers(0, 2**32)), np.empty(n, np.uint64)
    for i, value in enumerate(rng.integers(0, 2**32, n, dtype=np.uint64).tolist()):
        last = (value * (2**32 - rho) + last * rho) >> 32
        result[i] = last
    return result


@pytest.mark.parametrize("correlation", [0.25, 0.75])
def test_netems_own_correlation_fails_these_checks(correlation: float) -> None:
    """It takes numbers modulo the jitter's range, in ns, and so hardly correlates; scaled instead, the law is gone."""
    numbers = crandom(correlation, N)
    reach = math.sqrt(3) * DEVIATION
    width = np.uint64(round(2 * reach * 1e9))
    by_modulo = (numbers % width).astype(float) * 1e-9 - reach + MEAN
    with pytest.raises(AssertionError):
        check_correlation(by_modulo, correlation)
    scaled = numbers.astype(float) / 2**32 * 2 * reach - reach + MEAN
    with pytest.raises(AssertionError):
        check_law(scaled, LAWS["uniform"], correlation)


def test_an_unscaled_pareto_fails_the_check() -> None:
    """netem's table has 4/3 (x - 3/2), whose deviation is 1.15 jitters, not 1."""
    z = np.random.default_rng(1).standard_normal(N)
    sample = MEAN + DEVIATION * 4 / 3 * (stats.norm.sf(z) ** (-1 / 3) - 1.5)
    with pytest.raises(AssertionError):
        check_law(sample, LAWS["pareto"])
    check_law(MEAN + DEVIATION * 2 / math.sqrt(3) * (stats.norm.sf(z) ** (-1 / 3) - 1.5), LAWS["pareto"])


def test_jitter_is_lognormal_unless_told_otherwise() -> None:
    """200 +- 150 ms needs a law without mass below zero."""
    sigma = math.sqrt(math.log(1 + 0.75**2))
    check_law(draws(delay(delay=MEAN, jitter=0.15)), stats.lognorm(sigma, scale=MEAN / 1.25))


def test_without_jitter_the_delay_is_exact_and_nothing_is_drawn() -> None:
    """40 ms after 1 s is 1.04 s; the stream stands where it stood."""
    rng = np.random.default_rng(1)
    before = rng.bit_generator.state
    for distribution in ("constant", "lognormal"):
        stage = delay(delay=0.04, distribution=distribution)
        assert stage(Packet(5, 1.0, "response", 2), lambda: rng) == Packet(5, 1.04, "response", 2)
    assert rng.bit_generator.state == before


@pytest.mark.parametrize("correlation", [0.0, 0.5])
def test_each_packet_draws_one_standard_normal(correlation: float) -> None:
    """The stream after a packet stands where one standard normal leaves it, for every law."""
    for distribution in ALL:
        rng, reference = np.random.default_rng(1), np.random.default_rng(1)
        draws_one = delay(delay=0.2, jitter=0.01, correlation=correlation, distribution=distribution)
        draws_one(Packet(1, 0.0), lambda rng=rng: rng)
        reference.standard_normal()
        assert rng.bit_generator.state == reference.bit_generator.state


def test_laws_are_coupled() -> None:
    """One standard normal each: who is slow under one law is slow under the others, so the ranks agree."""
    orders = [np.argsort(draws(delay(delay=0.2, jitter=0.05, distribution=d), n=200)) for d in ALL]
    assert all(np.array_equal(order, orders[0]) for order in orders)


LARGEST: dict[Law, float] = {
    "normal": 0.2 / 4,
    "uniform": 0.2 / math.sqrt(3),
    "exponential": 0.2,
    "pareto": 0.2 * math.sqrt(3),
    "paretonormal": 0.2 * 1.0517772455 / (1.5 - 1.0556e-5),
}


@pytest.mark.parametrize("distribution", LARGEST)
def test_mass_below_zero_is_a_fault_that_suggests_lognormal(distribution: Law) -> None:
    """The largest jitters of 200 ms: a quarter, 1/sqrt(3), all of it, sqrt(3) of it. paretonormal is cut as normal is,
    4 deviations of the normal out: at z = -4, where it is -1 - 1/2 + 1e-5 over 1.05.
    """
    jitter = LARGEST[distribution]
    assert draws(delay(delay=0.2, jitter=jitter * 0.9999, distribution=distribution)).min() >= 0
    with pytest.raises(ValueError, match=r"reaches below zero; .* distribution: lognormal"):
        delay(delay=0.2, jitter=jitter * 1.0001, distribution=distribution)


def test_jitter_without_delay_is_a_fault() -> None:
    """Mean 0 with deviation 10 ms has no law above zero."""
    with pytest.raises(ValueError, match=r"jitter 0.01s without delay"):
        delay(delay=0.0, jitter=0.01)


def test_jitter_of_a_constant_is_a_fault() -> None:
    """A constant has no deviation."""
    with pytest.raises(ValueError, match="jitter 10ms of a constant delay; leave jitter out"):
        delay(delay=0.1, jitter=0.01, distribution="constant")


def test_correlation_needs_jitter_and_is_below_1() -> None:
    """Nothing to correlate, or nothing but the first draw."""
    with pytest.raises(ValueError, match="correlation 25% has no meaning without jitter"):
        delay(delay=0.1, correlation=0.25)
    with pytest.raises(ValueError, match=r"correlation 100% .* expected less"):
        delay(delay=0.1, jitter=0.01, correlation=1.0)


def dist(folder: Path, text: str) -> Distribution:
    file = folder / "my.dist"
    file.write_text(text)
    return Table(table=str(file))


def test_a_table_gives_its_numbers_shifted_and_scaled(tmp_path: Path) -> None:
    """-1, 0, 0, 1 in eighths of thousands has deviation sqrt(1/2): 200 - 70.7, 200 and 270.7 ms at 1 : 2 : 1."""
    table = dist(tmp_path, "# a comment\n\n 0 -8192\n8192  0 \n")
    sample = draws(delay(delay=0.2, jitter=0.05, distribution=table))
    values, counts = np.unique(sample.round(9), return_counts=True)
    assert values == pytest.approx([0.2 - 0.05 * math.sqrt(2), 0.2, 0.2 + 0.05 * math.sqrt(2)], abs=1e-8)
    assert stats.chisquare(counts, [N / 4, N / 2, N / 4]).pvalue > ALPHA


def test_netems_own_tables_give_their_law(tmp_path: Path) -> None:
    """4096 quantiles of a normal, as its .dist has them: KS cannot tell them from a normal cut at 3.6 deviations."""
    quantiles = stats.norm.ppf((np.arange(4096) + 0.5) / 4096)
    table = dist(tmp_path, "\n".join(str(round(8192 * q)) for q in quantiles))
    check_law(draws(delay(delay=MEAN, jitter=DEVIATION, distribution=table)), LAWS["normal"])


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("1 2\n3 x\n", r"my.dist:2: 'x' is not a whole number of -32768 to 32767"),
        ("# c\n1 2 40000", r"my.dist:2: '40000' is not a whole number"),
        ("# nothing\n", r"my.dist has 0 different numbers"),
        ("5 5 5", r"my.dist has 1 different numbers"),
    ],
)
def test_a_bad_table_names_file_and_line(tmp_path: Path, text: str, fault: str) -> None:
    """16-bit whole numbers, at least two that differ."""
    with pytest.raises(ValueError, match=fault):
        delay(delay=0.2, jitter=0.05, distribution=dist(tmp_path, text))


def test_a_table_that_is_not_there_or_reaches_below_zero_is_a_fault(tmp_path: Path) -> None:
    """1 in 100 is at -9.95 deviations: 100 ms of jitter reach below 200 ms."""
    with pytest.raises(ValueError, match="cannot be read"):
        delay(delay=0.2, jitter=0.05, distribution=Table(table=str(tmp_path / "no.dist")))
    with pytest.raises(ValueError, match="reaches below zero"):
        delay(delay=0.2, jitter=0.1, distribution=dist(tmp_path, "0 " * 99 + "-8192"))


def test_a_scenario_names_a_law_or_a_table() -> None:
    """One fault each for what is neither."""
    keys = parameters(delay)
    good = keys.model_validate({"delay": "40ms", "jitter": "1ms", "distribution": {"table": "a.dist"}})
    assert good.distribution == Table(table="a.dist")  # type: ignore[attr-defined]
    for wrong in ("gaussian", {"tabel": "a.dist"}, {"table": 3}, 5, None):
        with pytest.raises(ValueError, match="1 validation error"):
            keys.model_validate({"delay": "40ms", "distribution": wrong})


def test_the_shape_of_the_pareto_is_netems() -> None:
    """3 in iproute2's netem/pareto.c; its deviation is sqrt(3)/2."""
    assert (module._ALPHA, module._PARETO_MEAN) == (3, 1.5)
    assert math.sqrt(3) / 2 == pytest.approx(module._PARETO_DEVIATION)
