"""Flows share pipes max-min fairly and end when they must."""

import math
from collections.abc import Hashable, Mapping, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import TypeAlias

import pytest
from hypothesis import given, settings
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
    assert fluid.next_end() is None
    fluid.start("a", 1, ["p"], 0.0)
    with pytest.raises(ValueError, match="in progress"):
        fluid.start("a", 1, ["p"], 0.0)
    with pytest.raises(ValueError, match="exists"):
        fluid.add_pipe("p", 1e6)
    for rate in (0.0, math.inf, math.nan, -1.0):
        with pytest.raises(ValueError, match="above zero"):
            fluid.add_pipe("q", rate)


Planned: TypeAlias = tuple[int, int, set[int], int | None]

RATES = st.lists(st.integers(1, 50), min_size=1, max_size=5)
FLOWS = st.lists(
    st.tuples(
        st.integers(0, 40),  # start, in quarters of a second
        st.integers(0, 200),  # size
        st.sets(st.integers(0, 4), min_size=1, max_size=3),
        st.none() | st.integers(0, 80),  # stopped so many quarters after its start
    ),
    min_size=1,
    max_size=8,
)


def fair(rates: Sequence[int], crossing: Mapping[int, set[int]]) -> dict[int, Fraction]:
    """Water-fill in exact fractions, by definition: raise all levels alike, a full pipe fixes those who cross it."""
    level, fixed = Fraction(0), dict[int, Fraction]()
    while len(fixed) < len(crossing):
        rise = []
        for pipe, rate in enumerate(rates):
            rising = sum(pipe in pipes for flow, pipes in crossing.items() if flow not in fixed)
            if rising:
                used = sum(r for flow, r in fixed.items() if pipe in crossing[flow])
                rise.append(((rate - used - rising * level) / rising, pipe))
        level += min(rise)[0]
        full = {pipe for step, pipe in rise if step == min(rise)[0]}
        for flow, pipes in crossing.items():
            if flow not in fixed and full & pipes:
                fixed[flow] = level
    return fixed


def oracle(rates: Sequence[int], flows: Sequence[Planned]) -> dict[int, tuple[str, Fraction]]:
    """Return flow -> ("ended", when) or ("stopped", bytes sent) from a simulation in exact fractions."""
    starts = {i: Fraction(start, 4) for i, (start, *_) in enumerate(flows)}
    stops = {i: starts[i] + Fraction(f[3] or 0, 4) for i, f in enumerate(flows) if f[3] is not None}
    left, done, now = dict[int, Fraction](), dict[int, tuple[str, Fraction]](), Fraction(0)
    while len(done) < len(flows):
        speed = fair(rates, {i: flows[i][2] for i in left})
        coming = [starts[i] for i in starts if i not in left and i not in done]
        coming += [stops[i] for i in stops if i in left]
        coming += [now + 8 * left[i] / speed[i] for i in left]
        then = min(coming)
        left = {i: rest - speed[i] * (then - now) / 8 for i, rest in left.items()}
        now = then
        for i in [i for i, rest in left.items() if rest == 0]:
            done[i] = ("ended", now)
            del left[i]
        for i in [i for i in left if stops.get(i) == now]:
            done[i] = ("stopped", flows[i][1] - left.pop(i))
        for i in [i for i in starts if starts[i] == now and i not in left and i not in done]:
            left[i] = Fraction(flows[i][1])
    return done


@settings(max_examples=150, deadline=None)
@given(rates=RATES, flows=FLOWS)
def test_every_end_and_every_cut_is_that_of_exact_water_filling(rates: list[int], flows: list[Planned]) -> None:
    """Random starts, stops and pipes against the oracle in fractions, to 1e-9."""
    flows = [(start, size, {p % len(rates) for p in pipes}, stop) for start, size, pipes, stop in flows]
    expected = oracle(rates, flows)
    fluid = Fluid({str(pipe): float(rate) for pipe, rate in enumerate(rates)})
    todo = sorted(
        [(start / 4, 1, i) for i, (start, *_) in enumerate(flows)]
        + [((f[0] + f[3]) / 4, 0, i) for i, f in enumerate(flows) if f[3] is not None]
    )
    found: dict[Hashable, tuple[str, float]] = {}

    def ends(until: float) -> None:
        while (end := fluid.next_end()) is not None and end <= until:
            found.update(dict.fromkeys(fluid.ended(end), ("ended", end)))

    for at, starting, i in todo:
        ends(at)
        if starting:
            fluid.start(i, flows[i][1], [str(pipe) for pipe in sorted(flows[i][2])], at)
            if flows[i][3] == 0:  # sorted before its own start above
                found[i] = ("stopped", fluid.stop(i, at))
        elif i not in found and flows[i][3] != 0:
            found[i] = ("stopped", fluid.stop(i, at))
    ends(math.inf)
    for i, (what, value) in expected.items():
        if what != found[i][0]:  # an end and a stop within rounding of each other
            assert flows[i][3] is not None
            sent = found[i][1] if found[i][0] == "stopped" else value
            assert float(sent) == pytest.approx(flows[i][1], abs=1e-6)
        else:
            assert found[i][1] == pytest.approx(float(value), abs=1e-9)


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
