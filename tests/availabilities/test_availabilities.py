"""The contract of every availability: intervals that are apart, in order, and the same for the same seed."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from fedemu.availabilities._base import Availability, Member
from fedemu.registry import find, kinds
from fedemu.types import Interval, Rng

MEMBERS = [
    Member("a/0", (5, 0, 3)),
    Member("a/1", (0, 0, 40)),
    Member("a/2", (1, 0, 0)),
    Member("a/3", (0, 0, 0)),
]
KINDS: dict[str, list[dict[str, object]]] = {
    "always": [{}, {"after": 60.0, "until": 90.0}],
    "bernoulli": [{"probability": p} for p in (0.0, 0.5, 0.99, 1.0)],
    "by-label": [{"beta": 0.0}, {"beta": 1.0}, {}],
    "by-label-count": [{"beta": 0.0}, {"beta": 1.0}, {}],
    "diurnal": [
        {"peak": 0.9, "trough": 0.1, "zones": [-5.0, 0.0, 5.5]},
        {"peak": 0.5, "trough": 0.5, "stay": 60.0},
        {"peak": 0.0, "trough": 0.0},
        {"peak": 1.0, "trough": 1.0},
        {"peak": 1.0, "trough": 0.0, "peak_hour": 13.0, "stay": 1e6},
    ],
    "label-cycle": [{}, {"beta": 1.0}, {"beta": 0.0}],
    "less-data": [{}, {"beta": 0.0}],
    "lognormal": [{}, {"beta": 0.0}, {"beta": 0.9}],
    "more-data": [{}, {"beta": 0.0}, {"beta": 10.0}],
    "on-off": [{"online": 60.0, "offline": 600.0}],
    "sine-lognormal": [{}, {"beta": 0.9, "cycle": 5}],
    "trace": [{"offset": offset, "period": period} for offset in ("random", "none") for period in (None, 250.0)],
    "weibull": [{"online": 60.0, "offline": 600.0, "shape": shape} for shape in (0.1, 0.5, 3.0)],
}


def streams(seed: int) -> Callable[[str], Rng]:
    return lambda client: np.random.default_rng([seed, *client.encode()])


def build(kind: str, params: dict[str, object], folder: Path) -> Availability:
    if kind == "trace":
        file = folder / "record.csv"
        file.write_text("client,start,end\nx,0,10\nx,10,20\nx,30,200\ny,5,7\nz,0,100\nz,100,200\n")
        params = {"file": str(file), **params}
    built: Availability = find("availabilities", kind)(**params)
    return built


def first(intervals: Iterator[Interval], count: int = 300) -> list[Interval]:
    return list(itertools.islice(intervals, count))


def apart(intervals: Sequence[Interval]) -> None:
    """Assert what every consumer relies on."""
    assert all(interval.start < interval.end for interval in intervals)
    assert all(one.end < other.start for one, other in itertools.pairwise(intervals)), "they touch or overlap"
    assert not intervals or intervals[0].end > 0


CASES = [(kind, number) for kind, cases in KINDS.items() for number in range(len(cases))]


def test_every_kind_is_held_to_the_contract() -> None:
    """One entry above for each file of the room."""
    assert sorted(KINDS) == kinds("availabilities")


@pytest.mark.parametrize(("kind", "number"), CASES)
def test_intervals_are_apart_and_in_order(kind: str, number: int, tmp_path: Path) -> None:
    """300 of each client: not one touches the next, and the first is not over before the run."""
    for intervals in build(kind, KINDS[kind][number], tmp_path)(MEMBERS, streams(1)):
        apart(first(intervals))


@pytest.mark.parametrize(("kind", "number"), CASES)
def test_the_same_seed_makes_the_same_intervals(kind: str, number: int, tmp_path: Path) -> None:
    """In whatever order the clients' streams are looked into; one availability can be asked twice."""
    availability = build(kind, KINDS[kind][number], tmp_path)
    one = [first(intervals) for intervals in availability(MEMBERS, streams(1))]
    backwards = list(reversed([first(i) for i in reversed(list(availability(MEMBERS, streams(1))))]))
    assert one == backwards


@pytest.mark.parametrize("kind", ["on-off", "weibull", "diurnal", "bernoulli", "lognormal", "trace"])
def test_another_seed_makes_others(kind: str, tmp_path: Path) -> None:
    """What is random is."""
    number = 1 if kind == "bernoulli" else 0
    availability = build(kind, KINDS[kind][number], tmp_path)
    one, other = ([first(i, 5) for i in availability(MEMBERS, streams(seed))] for seed in (1, 2))
    assert one != other


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "trace"])
def test_no_members_are_no_intervals(kind: str, tmp_path: Path) -> None:
    """Also where chances are divided by the largest."""
    assert list(build(kind, KINDS[kind][0], tmp_path)([], streams(1))) == []


def test_touching_intervals_fail_the_same_check() -> None:
    """The contract sees slots that nobody has put together, and intervals of no length."""
    for wrong in ([Interval(0, 60), Interval(60, 120)], [Interval(0, 60), Interval(50, 70)], [Interval(5, 5)]):
        with pytest.raises(AssertionError):
            apart(wrong)


def test_always_is_one_interval() -> None:
    """From `after` to `until`, for ever without it; and not the wrong way round."""
    always = find("availabilities", "always")
    assert [first(i) for i in always()(MEMBERS[:2], streams(1))] == [[Interval(0.0, math.inf)]] * 2
    assert [first(i) for i in always(after=60.0, until=90.0)(MEMBERS[:1], streams(1))] == [[Interval(60.0, 90.0)]]
    with pytest.raises(ValueError, match="until 60s is not later than after 60s"):
        always(after=60.0, until=60.0)
