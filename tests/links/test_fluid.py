"""Flows share pipes max-min fairly and end when they must."""

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from fedemu.links._fluid import Fluid


def run(fluid: Fluid) -> list[tuple[float, list[Hashable]]]:
    """Return (end, flows) of each end until nothing flows."""
    result: list[tuple[float, list[Hashable]]] = []
    while (end := fluid.next_end()) is not None:
        result.append((end, list(fluid.ended(end))))
    return result


def test_a_flow_alone_takes_8_bits_a_byte_over_the_rate() -> None:
    """5 MB at 10 Mbit/s = 4 s, exactly."""
    fluid = Fluid({"up": 10e6})
    fluid.start("a", 5_000_000, ["up"], 1.5)
    assert run(fluid) == [(5.5, ["a"])]


@given(start=st.floats(0, 1e5), size=st.integers(0, 10**8), rate=st.floats(1e3, 1e10))
def test_a_flow_alone_keeps_its_end_to_a_nanosecond_late_in_a_run(start: float, size: int, rate: float) -> None:
    """One ulp of 1e5 s is 1.5e-11 s; a bystander on another pipe changes nothing."""
    fluid = Fluid({"mine": rate, "other": 1e6})
    fluid.start("a", size, ["mine"], start)
    end = fluid.next_end()
    assert end == pytest.approx(start + 8 * size / rate, abs=1e-9, rel=1e-15)
    fluid.start("b", 10**12, ["other"], start)
    assert fluid.next_end() == end
    assert end is not None
    assert fluid.ended(end) == {"a": end}


def test_two_flows_share_and_the_second_speeds_up_when_the_first_has_ended() -> None:
    """8 Mbit/s = 1 MB/s: half each, 1 MB ends at 2 s; the other has 2 MB left at full rate: 4 s."""
    fluid = Fluid({"p": 8e6})
    fluid.start("short", 1_000_000, ["p"], 0.0)
    fluid.start("long", 3_000_000, ["p"], 0.0)
    assert run(fluid) == [(2.0, ["short"]), (4.0, ["long"])]


def test_a_slow_pipe_elsewhere_leaves_its_share_to_the_others() -> None:
    """Server 9 Mbit/s, one client 1 Mbit/s: it gets 1, the other two (9 - 1) / 2 = 4 Mbit/s = 0.5 MB/s."""
    fluid = Fluid({"server": 9e6, "a": 1e6, "b": 100e6, "c": 100e6})
    for flow, size in (("a", 125_000), ("b", 500_000), ("c", 500_000)):
        fluid.start(flow, size, [flow, "server"], 0.0)
    assert run(fluid) == [(1.0, ["a", "b", "c"])]


def test_a_chain_of_three_links_is_shared_as_in_the_textbook() -> None:
    """One flow through links of 3, 2 and 6 bit/s, one beside it in each: 1 bit/s, and 2, 1, 5 beside it."""
    fluid = Fluid({"x": 3, "y": 2, "z": 6})
    fluid.start("all", 1000, ["x", "y", "z"], 0.0)
    for pipe in "xyz":
        fluid.start(pipe, 1000, [pipe], 0.0)
    assert {flow: 8 * fluid.stop(flow, 8.0) / 8 for flow in ("all", "x", "y", "z")} == {
        "all": 1,
        "x": 2,
        "y": 1,
        "z": 5,
    }


def test_a_flow_that_is_stopped_frees_its_share_and_tells_what_it_sent() -> None:
    """Half of 1 MB/s for 1 s = 0.5 MB; the other then has 1.5 MB left at 1 MB/s: 2.5 s."""
    fluid = Fluid({"p": 8e6})
    fluid.start("a", 2_000_000, ["p"], 0.0)
    fluid.start("b", 2_000_000, ["p"], 0.0)
    assert fluid.stop("a", 1.0) == 500_000
    assert run(fluid) == [(2.5, ["b"])]


def test_a_caller_who_comes_late_hears_of_every_end_and_loses_nothing() -> None:
    """Ends at 2 s and 4 s, asked at 3 s: the second had the pipe alone since 2 s, and still ends at 4 s."""
    fluid = Fluid({"p": 8e6})
    fluid.start("short", 1_000_000, ["p"], 0.0)
    fluid.start("long", 3_000_000, ["p"], 0.0)
    fluid.start("late", 0, ["p"], 3.0)
    assert fluid.next_end() == 2.0
    assert list(fluid.ended(3.0)) == ["short", "late"]
    assert run(fluid) == [(4.0, ["long"])]


def test_a_flow_that_has_ended_but_was_not_told_can_still_be_stopped() -> None:
    """It has sent all its 1000 bytes; it is not told twice."""
    fluid = Fluid({"p": 8e6})
    fluid.start("a", 1000, ["p"], 0.0)
    assert fluid.stop("a", 9.0) == 1000
    assert fluid.next_end() is None
    assert fluid.ended(9.0) == {}


def test_equal_flows_end_together_in_order_of_start() -> None:
    """Seven equal flows: 1/7 of the rate does not divide evenly in floats, and still they end at one moment."""
    fluid = Fluid({"p": 1e6, **{str(i): 1e9 for i in range(7)}})
    for i in (3, 1, 6, 0, 2, 5, 4):
        fluid.start(i, 123_457, ["p", str(i)], 0.1)
    assert [flows for _, flows in run(fluid)] == [[3, 1, 6, 0, 2, 5, 4]]


def test_what_happens_on_other_pipes_leaves_an_end_as_it_was() -> None:
    """A thousand starts elsewhere, at moments and rates that no float has: not one rounding is added."""
    fluid = Fluid({"mine": 1.1e6, "other": 0.7e6})
    fluid.start("a", 123_456_789, ["mine"], 0.1)
    end = fluid.next_end()
    for i in range(1000):
        fluid.start(i, 10**12, ["other"], 0.1 + i / 3)
    assert fluid.next_end() == end


def test_what_cannot_flow_is_refused() -> None:
    """No pipe, an unknown pipe, a flow twice, a pipe twice, a rate that serves nothing; and nothing is left behind."""
    fluid = Fluid({"p": 1e6})
    with pytest.raises(ValueError, match="crosses no pipe"):
        fluid.start("a", 1, [], 0.0)
    with pytest.raises(KeyError):
        fluid.start("a", 1, ["p", "q"], 0.0)
    with pytest.raises(KeyError):
        fluid.set_rate("q", 1e6, 0.0)
    with pytest.raises(KeyError):
        fluid.set_cap("a", 1e6, 0.0)
    assert fluid.next_end() is None
    fluid.start("a", 1, ["p"], 0.0)
    with pytest.raises(ValueError, match="in progress"):
        fluid.start("a", 1, ["p"], 0.0)
    with pytest.raises(ValueError, match="exists"):
        fluid.add_pipe("p", 1e6)
    for rate in (0.0, math.inf, math.nan, -1.0):
        with pytest.raises(ValueError, match="above zero"):
            fluid.add_pipe("q", rate)
    for rate in (math.inf, math.nan, -1.0):
        with pytest.raises(ValueError, match="zero or above"):
            fluid.set_rate("p", rate, 0.0)
    assert fluid.next_end() == 8e-6


def test_a_weight_is_a_share_of_the_full_pipe() -> None:
    """Weights 1 and 3 in 8 Mbit/s = 1 MB/s: 0.25 and 0.75 MB/s; both have sent all of it after 1 s."""
    fluid = Fluid({"p": 8e6})
    fluid.start("light", 250_000, ["p"], 0.0)
    fluid.start("heavy", 750_000, ["p"], 0.0, weight=3.0)
    assert run(fluid) == [(1.0, ["light", "heavy"])]


def test_what_a_cap_leaves_goes_to_the_others() -> None:
    """1 MB/s, one of three at most 0.2 MB/s: the others get 0.4 MB/s each; lifted at 1 s, all get a third."""
    fluid = Fluid({"p": 8e6})
    fluid.start("capped", 1_200_000, ["p"], 0.0, cap=1.6e6)
    for flow in "ab":
        fluid.start(flow, 400_000, ["p"], 0.0)
    assert fluid.next_end() == 1.0
    assert fluid.ended(1.0) == {"a": 1.0, "b": 1.0}
    fluid.set_cap("capped", math.inf, 1.0)
    assert run(fluid) == [(2.0, ["capped"])]


def test_a_cap_alone_is_enough_to_flow() -> None:
    """No pipe, 0.8 Mbit/s = 100 kB/s: 100 kB in 1 s."""
    fluid = Fluid()
    fluid.start("a", 100_000, [], 0.0, cap=0.8e6)
    assert run(fluid) == [(1.0, ["a"])]


def test_flows_stand_still_in_a_pipe_of_rate_0_and_then_go_on() -> None:
    """1 MB/s; 0.5 MB of 1.5 MB each are sent by 1 s; still until 11 s; then 2 MB are left at 2 MB/s: 12 s."""
    fluid = Fluid({"p": 8e6})
    for flow in "ab":
        fluid.start(flow, 1_500_000, ["p"], 0.0)
    fluid.set_rate("p", 0.0, 1.0)
    assert fluid.next_end() is None
    assert fluid.ended(11.0) == {}
    fluid.set_rate("p", 16e6, 11.0)
    assert run(fluid) == [(12.0, ["a", "b"])]


def test_a_flow_without_end_takes_its_share_for_ever() -> None:
    """Beside it 1 MB takes 2 s of 1 MB/s instead of 1 s; it is never among those that end."""
    fluid = Fluid({"p": 8e6})
    fluid.start("for ever", math.inf, ["p"], 0.0)
    assert fluid.next_end() is None
    fluid.start("a", 1_000_000, ["p"], 5.0)
    assert run(fluid) == [(7.0, ["a"])]
    assert fluid.has("for ever")
    assert fluid.stop("for ever", 8.0) == 7_000_000


def test_a_pipe_is_shared_by_flows_not_by_crossings() -> None:
    """A pipe that is named twice is crossed once: 1 MB at 1 MB/s is 1 s."""
    fluid = Fluid({"p": 8e6})
    fluid.start("a", 1_000_000, ["p", "p"], 0.0)
    assert run(fluid) == [(1.0, ["a"])]


class Case(NamedTuple):
    """Pipes, the pipes and the weight of each flow, and the rates that they get."""

    pipes: Sequence[float]
    flows: Sequence[tuple[Sequence[int], float]]
    rates: Sequence[Fraction]


# SimGrid's own: src/kernel/lmm/maxmin_test.cpp (its penalty is 1 / weight) and teshsuite/surf/lmm_usage, tests 1 to 3
SIMGRID = {
    "a penalty of 2 halves the share": Case([3], [([0], 1), ([0], 1 / 2)], [Fraction(2), Fraction(1)]),
    "penalties 1, 2 and 3": Case(
        [10], [([0], 1), ([0], 1 / 2), ([0], 1 / 3)], [Fraction(60, 11), Fraction(30, 11), Fraction(20, 11)]
    ),
    "one through three links, one beside it in each": Case(
        [1, 10, 1],
        [([0, 1, 2], 1), ([0], 1), ([1], 1), ([2], 1)],
        [Fraction(1, 2), Fraction(1, 2), Fraction(19, 2), Fraction(1, 2)],
    ),
    "two that do not meet": Case([200, 100], [([0], 1), ([1], 1)], [Fraction(200), Fraction(100)]),
    # link 7 is full first, at 2 each; then 5, at 3; then 1, at 10/3; flow 5 gets what is left of link 9
    "eleven flows over ten links": Case(
        [10] * 10,
        [
            (links, 1)
            for links in (
                [4, 5, 6],
                [0, 1, 2],
                [7, 8],
                [4, 5],
                [5, 6, 7],
                [9],
                [7, 9],
                [0, 1],
                [1, 2, 3],
                [4, 5, 6, 7, 9],
                [6, 7, 8],
            )
        ],
        [Fraction(n) for n in ("3", "10/3", "2", "3", "2", "6", "2", "10/3", "10/3", "2", "2")],
    ),
}


def check(case: Case, make: Callable[[Mapping[str, float]], Fluid]) -> None:
    """Assert that each flow gets its rate."""
    fluid = make({str(i): rate for i, rate in enumerate(case.pipes)})
    for i, (pipes, weight) in enumerate(case.flows):
        fluid.start(i, math.inf, [str(pipe) for pipe in pipes], 0.0, weight=weight)
    got = [8 * fluid.stop(i, 1.0) for i in range(len(case.flows))]
    assert got == pytest.approx([float(rate) for rate in case.rates], rel=1e-12)


@pytest.mark.parametrize("name", SIMGRID)
def test_simgrid_s_published_systems_have_their_solutions(name: str) -> None:
    """Systems of its test suite that are links and flows; solutions by hand, in fractions."""
    check(SIMGRID[name], Fluid)


class Halving(Fluid):
    """A wrong one: each pipe is divided evenly, and what a flow cannot use is lost."""

    def _share(self, pipes: Iterable[object]) -> None:
        for group in self._classes.values():
            shares = [pipe.rate / len(pipe.flows) for pipe in group.pipes]
            self._redraw(group, min([group.cap, *shares]))


@pytest.mark.parametrize("name", ["penalties 1, 2 and 3", "eleven flows over ten links"])
def test_to_divide_each_pipe_evenly_is_found_out(name: str) -> None:
    """It knows no weights, and leaves to nobody what a flow cannot use."""
    with pytest.raises(AssertionError):
        check(SIMGRID[name], Halving)


class Flow(NamedTuple):
    start: int
    """In quarters of a second, as all times here."""
    size: int | None
    """Bytes; None never ends."""
    pipes: frozenset[int]
    cap: int | None
    weight: int


class Change(NamedTuple):
    at: int
    what: str
    """rate, cap, stop or start."""
    which: int
    """Pipe or flow."""
    value: int | None = None
    """Rate or cap; None is no cap."""


END = 400
"""Quarters after which all that still flows is stopped: what it has sent is compared."""

QUARTERS = st.integers(0, 120)
FLOWS = st.lists(
    st.builds(
        Flow,
        start=QUARTERS,
        size=st.integers(0, 200) | st.none(),
        pipes=st.frozensets(st.integers(0, 4), min_size=1, max_size=3),
        cap=st.none() | st.integers(1, 30),
        weight=st.sampled_from([1, 1, 2, 5]),
    ),
    min_size=1,
    max_size=8,
)
CHANGES = st.lists(
    st.builds(Change, QUARTERS, st.just("rate"), st.integers(0, 4), st.integers(0, 50))
    | st.builds(Change, QUARTERS, st.just("cap"), st.integers(0, 7), st.none() | st.integers(0, 30))
    | st.builds(Change, QUARTERS, st.just("stop"), st.integers(0, 7)),
    max_size=8,
)


class Told(NamedTuple):
    """What came of flows: when they ended by themselves, or what they had sent when they were stopped."""

    ended: dict[int, Fraction]
    sent: dict[int, Fraction]


class Rising(NamedTuple):
    """A flow as water-filling knows it."""

    pipes: frozenset[int]
    cap: int | None
    weight: int


def fair(rates: Sequence[int], flows: Mapping[int, Rising]) -> dict[int, Fraction]:
    """Water-fill in exact fractions, by definition: raise all levels alike until a pipe is full or a cap is reached."""
    fixed: dict[int, Fraction] = {}
    while len(fixed) < len(flows):
        rising = {i: flow for i, flow in flows.items() if i not in fixed}
        levels = []
        for pipe, rate in enumerate(rates):
            inside = sum(flow.weight for flow in rising.values() if pipe in flow.pipes)
            used = sum(fixed[i] for i in fixed if pipe in flows[i].pipes)
            if inside:
                levels.append((rate - used) / Fraction(inside))
        levels += [Fraction(flow.cap, flow.weight) for flow in rising.values() if flow.cap is not None]
        level = min(levels)
        for i, flow in rising.items():
            full = [
                sum(rising[j].weight * level for j in rising if pipe in rising[j].pipes)
                + sum(fixed[j] for j in fixed if j not in rising and pipe in flows[j].pipes)
                == rates[pipe]
                for pipe in flow.pipes
            ]
            if any(full) or (flow.cap is not None and flow.weight * level == flow.cap):
                fixed[i] = flow.weight * level
    return fixed


def oracle(rates: Sequence[int], flows: Sequence[Flow], plan: Sequence[Change]) -> Told:
    """Simulate in exact fractions, from change to change and end to end."""
    speeds, caps, left, now = list(rates), [flow.cap for flow in flows], dict[int, Fraction | None](), Fraction(0)
    told = Told({}, {})
    sent: dict[int, Fraction] = {}

    def live_until(then: Fraction) -> None:
        nonlocal now
        while True:
            rate = fair(speeds, {i: Rising(flows[i].pipes, caps[i], flows[i].weight) for i in left})
            ends = {i: now + 8 * rest / rate[i] for i, rest in left.items() if rest is not None and rate[i]}
            step = min([then, *ends.values()])
            for i, rest in left.items():
                sent[i] += rate[i] * (step - now) / 8
                left[i] = None if rest is None else rest - rate[i] * (step - now) / 8
            now = step
            over = [i for i, end in ends.items() if end == step]
            if not over:
                return
            for i in over:
                told.ended[i] = step
                del left[i]

    for change in plan:
        live_until(Fraction(change.at, 4))
        stops = change.what == "stop" or (change.what != "start" and change.value == 0)
        if stops and now in told.ended.values():
            reject()  # a rounding decides whether it ends or is stopped
        match change:
            case Change(what="start", which=i):
                size = flows[i].size
                left[i], sent[i] = None if size is None else Fraction(size), Fraction(0)
            case Change(what="rate", which=i, value=int(rate)):
                speeds[i] = rate
            case Change(what="cap", which=i, value=cap) if i in left:
                caps[i] = cap
            case Change(what="stop", which=i) if i in left:
                told.sent[i] = sent[i]
                del left[i]
    return told


def replay(
    rates: Sequence[int], flows: Sequence[Flow], plan: Sequence[Change], *, is_prompt: bool
) -> tuple[dict[Hashable, float], dict[Hashable, float]]:
    """Do the same with pipes of floats; who is not prompt asks for ends only when all is over."""
    fluid = Fluid({str(pipe): float(rate) for pipe, rate in enumerate(rates)})
    ended: dict[Hashable, float] = {}
    sent: dict[Hashable, float] = {}
    for change in plan:
        at, i = change.at / 4, change.which
        while is_prompt and (end := fluid.next_end()) is not None and end <= at:
            told = fluid.ended(end)
            assert set(told.values()) == {end}
            ended |= told
        match change.what:
            case "start":
                size, pipes = flows[i].size, [str(pipe) for pipe in sorted(flows[i].pipes)]
                cap, weight = as_cap(flows[i].cap), float(flows[i].weight)
                fluid.start(i, math.inf if size is None else size, pipes, at, cap=cap, weight=weight)
            case "rate":
                assert change.value is not None
                fluid.set_rate(str(i), float(change.value), at)
            case "cap":
                ended |= fluid.ended(at)
                if fluid.has(i):
                    fluid.set_cap(i, as_cap(change.value), at)
            case _:
                ended |= fluid.ended(at)
                if fluid.has(i):
                    sent[i] = fluid.stop(i, at)
    return ended | fluid.ended(END / 4), sent


def as_cap(cap: int | None) -> float:
    return math.inf if cap is None else float(cap)


@settings(max_examples=300, deadline=None)
@given(rates=st.lists(st.integers(1, 50), min_size=1, max_size=5), flows=FLOWS, changes=CHANGES)
def test_every_end_and_every_cut_is_that_of_exact_water_filling(
    rates: list[int], flows: list[Flow], changes: list[Change]
) -> None:
    """Starts, stops, weights, caps, rates down to 0 and flows without end against fractions: to 1e-9, asked or not."""
    flows = [flow._replace(pipes=frozenset(pipe % len(rates) for pipe in flow.pipes)) for flow in flows]
    changes = [c._replace(which=c.which % len(rates if c.what == "rate" else flows)) for c in changes]
    starts = [Change(flow.start, "start", i) for i, flow in enumerate(flows)]
    plan = sorted([*changes, *starts], key=lambda change: change.at)
    plan += [Change(END, "stop", i) for i in range(len(flows))]
    expected = oracle(rates, flows, plan)
    for is_prompt in (True, False):
        ended, sent = replay(rates, flows, plan, is_prompt=is_prompt)
        assert ended == pytest.approx({i: float(end) for i, end in expected.ended.items()}, abs=1e-9)
        assert sent == pytest.approx({i: float(size) for i, size in expected.sent.items()}, abs=1e-9)


@given(
    rates=st.lists(st.floats(1e3, 1e9), min_size=1, max_size=6),
    flows=st.lists(st.sets(st.integers(0, 5), min_size=1, max_size=4), min_size=1, max_size=20),
)
def test_every_flow_has_a_full_pipe_in_which_none_is_faster(rates: list[float], flows: list[set[int]]) -> None:
    """The characterisation of max-min fairness (Bertsekas and Gallager): it also means that no work is left undone."""
    flows = [{pipe % len(rates) for pipe in pipes} for pipes in flows]
    fluid = Fluid({str(pipe): rate for pipe, rate in enumerate(rates)})
    for i, pipes in enumerate(flows):
        fluid.start(i, 10**9, [str(pipe) for pipe in pipes], 0.0)
    got = [8 * fluid.stop(i, 1.0) for i in range(len(flows))]
    load = [sum(g for g, pipes in zip(got, flows, strict=True) if pipe in pipes) for pipe in range(len(rates))]
    assert all(used <= rate * (1 + 1e-6) for used, rate in zip(load, rates, strict=True))
    for mine, pipes in zip(got, flows, strict=True):
        full = [pipe for pipe in pipes if load[pipe] >= rates[pipe] * (1 - 1e-6)]
        fastest = [max(g for g, other in zip(got, flows, strict=True) if pipe in other) for pipe in full]
        assert any(mine >= g * (1 - 1e-6) for g in fastest)


def test_a_hundred_flows_through_one_server_finish_in_order_of_size() -> None:
    """100 clients of 10 Mbit/s behind 100 Mbit/s: until ten are left, the server's pipe is full all the time."""
    fluid = Fluid({"server": 100e6, **{f"c{i}": 10e6 for i in range(100)}})
    sizes = [100_000 + 1000 * i for i in range(100)]
    for i, size in enumerate(sizes):
        fluid.start(i, size, [f"c{i}", "server"], 0.0)
    ends = run(fluid)
    assert [flow for _, flows in ends for flow in flows] == list(range(100))
    assert all(a[0] < b[0] for a, b in pairwise(ends))
    assert ends[90][0] == pytest.approx((8 * sum(sizes[:91]) + 9 * 8 * sizes[90]) / 100e6)
