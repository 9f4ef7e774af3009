"""Whole runs with clients that come and go: who is online when, in the log, is what the model of availability says.

Counts are tested by z at alpha = 1e-4 (Bonferroni over the hours), means by their standard error, sojourns by
Kolmogorov-Smirnov at the same alpha. Each check is a function that a wrong model is put through as well.
"""

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from fedemu import experiment
from fedemu.clock import RealClock
from fedemu.compute.inline import inline
from fedemu.events import ClientJoined, ClientLeft, Event
from fedemu.learning import Learning
from fedemu.scenario import Cell, load
from fedemu.types import Interval
from fedemu.world import World

DIURNAL = Path(__file__).parents[2] / "scenarios" / "diurnal.yaml"
HOUR, DAY = 3600.0, 86400.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

Stays = Mapping[str, Sequence[Interval]]


def attendance(cell: Cell) -> Stays:
    """Run, and return when each client was connected; the last stay may end with the run."""
    stays: defaultdict[str, list[Interval]] = defaultdict(list)
    joined: dict[str, float] = {}

    def see(event: Event) -> None:
        if isinstance(event, ClientJoined):
            joined[event.client] = event.at
        elif isinstance(event, ClientLeft):
            stays[event.client].append(Interval(joined.pop(event.client), event.at))

    with inline()() as compute:
        experiment.run(cell, compute, observers=[see])
    assert not joined
    return stays


def check_hours(stays: Stays, clients: int, share: Callable[[float], float]) -> list[float]:
    """On every hour the clients online are binomial; return how many deviations each hour is off."""
    bound = float(stats.norm.isf(0.5e-4 / 24))
    deviations = []
    for hour in range(24):
        at = (hour + 0.5) * HOUR
        count = sum(any(i.start <= at < i.end for i in intervals) for intervals in stays.values())
        p = share(at)
        deviations.append((count - clients * p) / math.sqrt(clients * p * (1 - p)))
    assert max(map(abs, deviations)) <= bound, deviations
    return deviations


def check_availability(stays: Stays, clients: int, until: float, share: float) -> float:
    """The mean share of its time that a client is online is the model's; return how many standard errors it is off."""
    shares = np.zeros(clients)
    for place, intervals in enumerate(stays.values()):
        shares[place] = sum(min(i.end, until) - i.start for i in intervals if i.start < until) / until
    off = float((shares.mean() - share) / (shares.std(ddof=1) / math.sqrt(clients)))
    assert abs(off) <= stats.norm.isf(0.5e-4), off
    return off


def check_sojourns(stays: Stays, online: float, offline: float, count: int) -> tuple[float, float]:
    """The first `count` whole sojourns of each kind are exponential with these means; return the two p-values."""
    on, off = [], []
    for intervals in stays.values():
        assert len(intervals) > count + 1, "the run is too short for as many sojourns of each client"
        on += [i.end - i.start for i in intervals[1 : count + 1]]
        off += [b.start - a.end for a, b in itertools.pairwise(intervals[: count + 1])]
    found = stats.kstest(on, stats.expon(scale=online).cdf), stats.kstest(off, stats.expon(scale=offline).cdf)
    assert min(test.pvalue for test in found) > 1e-4, found
    return found[0].pvalue, found[1].pvalue


def day(peak: float) -> Callable[[float], float]:
    """Return the share online at a time in scenarios/diurnal.yaml: the mean over its zones."""

    def share(at: float) -> float:
        waves = [(1 + math.cos(2 * math.pi * (at / HOUR + zone - 2) / 24)) / 2 for zone in (-1, 0, 1)]
        return 0.1 + (peak - 0.1) * sum(waves) / 3

    return share


def test_a_thousand_clients_of_a_day_are_online_as_the_day_says() -> None:
    """24 h of the shipped scenario: per hour, and on the whole (0.6 + 0.1) / 2; a peak of 70 % fails both.

    A client that leaves in mid-upload is heard of when what had left has arrived, 50 ms later.
    """
    stays = attendance(load(DIURNAL).cells[0])
    deviations = check_hours(stays, 1000, day(0.6))
    off = check_availability(stays, 1000, DAY, 0.35)
    count = sum(map(len, stays.values()))
    print(f"{count} stays; hours off by at most {max(map(abs, deviations)):.2f}, mean by {off:.2f} deviations")
    with pytest.raises(AssertionError):
        check_hours(stays, 1000, day(0.7))
    with pytest.raises(AssertionError):
        check_availability(stays, 1000, DAY, 0.4)


ON_OFF = """\
dataset: {kind: digits, examples: 100}
partition: {kind: iid}
model: {kind: softmax}
strategy: {kind: fedavg}
evaluate: {every: end}
rounds: {concurrency: 5}
availability: {kind: on-off, online: 10min, offline: 5min}
clients:
  phones:
    count: 100
    device: {kind: constant, per_example: 5min}
    link: {up: {rate: 1Mbit/s}, down: {rate: 1Mbit/s}}
stop: {time: 12h}
"""


def test_sojourns_on_and_off_in_the_log_are_exponential(tmp_path: Path) -> None:
    """20 of each of 100 clients in 12 h, 48 cycles of 15 min; a mean 25 % longer or 20 % shorter fails."""
    (tmp_path / "on-off.yaml").write_text(ON_OFF)
    stays = attendance(load(tmp_path / "on-off.yaml").cells[0])
    print("p-values of sojourns on and off: {:.3f} and {:.3f}".format(*check_sojourns(stays, 600, 300, 20)))
    print(f"mean off by {check_availability(stays, 100, 12 * HOUR, 2 / 3):.2f} deviations")
    for online, offline in ((750, 300), (600, 240)):
        with pytest.raises(AssertionError):
            check_sojourns(stays, online, offline, 20)


def test_everybody_is_there_exactly_when_its_availability_says(tmp_path: Path) -> None:
    """What the log has is what the model drew, to the nanosecond: nobody comes late or stays on."""
    (tmp_path / "on-off.yaml").write_text(ON_OFF.replace("12h", "2h"))
    cell = load(tmp_path / "on-off.yaml").cells[0]
    stays = attendance(cell)
    world = World(cell.scenario, Learning.of(cell.scenario), RealClock(), lambda _: None, exchange=None)
    for view, online in world.online():
        drawn = list(itertools.takewhile(lambda i: i.start < 2 * HOUR, online))
        seen = stays.get(view.client, [])
        assert [i.start for i in seen] == [max(0.0, round(i.start * 1e9) / 1e9) for i in drawn]
        assert [i.end for i in seen] == [min(2 * HOUR, round(i.end * 1e9) / 1e9) for i in drawn]
