"""Pipes in time: what a transfer takes when rates change, others flow beside it, and it pauses."""

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import repeat
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedemu.clock import VirtualClock, run
from fedemu.errors import Deadlock
from fedemu.links._base import Burst, Demand
from fedemu.links._trace import Trace
from fedemu.links.traffic.constant import constant
from fedemu.links.traffic.poisson import poisson
from fedemu.links.traffic.sine import sine
from fedemu.links.traffic.step import step
from fedemu.net.network import Network, Pipe, Route, Transfer, alone
from fedemu.rng import stream
from fedemu.types import Seconds

T = TypeVar("T")
MB = 1_000_000
RATE = 8e6
"""Bits per second: 1 MB/s."""
OTHER = 64e6


def whole(size: int) -> list[Burst]:
    return [Burst(size, 0.0)]


def play(pipes: Mapping[str, Pipe], main: Callable[[Network, VirtualClock], Awaitable[T]]) -> T:
    """Run `main(network, clock)` on a virtual loop of its own."""

    async def start() -> T:
        clock = VirtualClock()
        return await main(Network(clock, pipes), clock)

    return run(start(), virtual=True)


def ends(pipes: Mapping[str, Pipe], *transfers: tuple[Seconds, int, Route]) -> list[Seconds]:
    """Return when each transfer ends: (start, bytes, route)."""

    async def main(network: Network, clock: VirtualClock) -> list[Seconds]:
        async def send(at: Seconds, size: int, route: Route) -> Seconds:
            await clock.sleep_until(at)
            end = await Transfer(network, whole(size), route).run(clock, at)
            assert clock.now() == end
            return end

        return await asyncio.gather(*(send(*transfer) for transfer in transfers))

    return play(pipes, main)


# --- rates that change


def test_a_rate_that_changes_in_mid_transfer_counts_from_then_on() -> None:
    """1 MB at 1 MB/s, halved after 0.25 s and doubled after 1 s more: 0.25 + 0.5 + 0.25 MB at 2 MB/s, 1.375 s."""
    pipe = Pipe(RATE, [(0.25, RATE / 2), (1.25, 2 * RATE)])
    assert ends({"p": pipe}, (0.0, MB, Route(["p"]))) == [1.375]


def test_a_pipe_that_stands_still_lets_a_transfer_wait_and_go_on() -> None:
    """Nothing from 0.5 s to 60 s: 60.5 s."""
    pipe = Pipe(RATE, [(0.5, 0.0), (60.0, RATE)])
    assert ends({"p": pipe}, (0.0, MB, Route(["p"]))) == [60.5]


def test_changes_while_nothing_flows_are_made_up_for() -> None:
    """Three changes while nobody looks; the rate of 2 s holds when the transfer begins at 5 s."""
    pipe = Pipe(RATE, [(1.0, 1.0), (1.5, 100 * RATE), (2.0, 4 * RATE)])
    assert ends({"p": pipe}, (5.0, MB, Route(["p"]))) == [5.25]


def test_a_change_at_the_very_start_holds() -> None:
    """At 0 s and at 3 s, when the transfers begin."""
    pipe = Pipe(1.0, [(0.0, RATE), (3.0, 2 * RATE)])
    assert ends({"p": pipe}, (0.0, MB, Route(["p"])), (3.0, MB, Route(["p"]))) == [1.0, 3.5]


def test_a_change_elsewhere_changes_nothing() -> None:
    """Not by one rounding: a thousand changes of another pipe."""
    others = [(i / 7, 1e6 + i) for i in range(1, 1000)]
    busy = {"p": Pipe(1.1e6), "q": Pipe(1e6, others)}
    start, size = 0.1, 12_345_678
    assert ends(busy, (start, size, Route(["p"])), (0.0, 10**9, Route(["q"])))[:1] == ends(
        {"p": Pipe(1.1e6)}, (start, size, Route(["p"]))
    )


def test_nobody_waits_for_changes_that_concern_nobody() -> None:
    """Changes for ever; the run is over when the transfer is, at 1 s, and no later change was made."""

    def forever() -> Iterator[tuple[Seconds, float]]:
        for second in range(1, 10**9):
            made.append(second)
            yield float(second), RATE

    made: list[int] = []
    assert ends({"p": Pipe(RATE, forever())}, (0.0, MB, Route(["p"]))) == [1.0]
    assert made[-1] <= 2


def test_what_waits_for_something_else_is_a_deadlock_whatever_pipes_do() -> None:
    """Background traffic and rates go on for ever, and no timer of theirs keeps the loop alive."""

    async def main(network: Network, clock: VirtualClock) -> None:
        await Transfer(network, whole(MB), Route(["p"])).run(clock, 0.0)
        await asyncio.get_running_loop().create_future()

    changes = ((float(second), RATE) for second in range(1, 10**9))
    traffic = sine(rate=RATE / 4, period=1.0)(stream(1, "traffic"))
    with pytest.raises(Deadlock, match="nothing is scheduled"):
        play({"p": Pipe(RATE, changes, traffic)}, main)


def test_a_transfer_that_nothing_will_ever_serve_is_a_deadlock() -> None:
    """The rate falls to 0 and stays there: an error, not a busy loop."""
    with pytest.raises(Deadlock):
        ends({"p": Pipe(RATE, [(0.5, 0.0)])}, (0.0, MB, Route(["p"])))


@settings(max_examples=60, deadline=None)
@given(
    changes=st.lists(st.tuples(st.integers(1, 40), st.integers(0, 9)), max_size=6),
    transfers=st.lists(st.tuples(st.integers(0, 40), st.integers(1, 3000)), min_size=1, max_size=6),
)
def test_changing_rates_are_shared_as_the_integral_says(
    changes: list[tuple[int, int]], transfers: list[tuple[int, int]]
) -> None:
    """One pipe, equal shares: work done by each is the integral of rate / flows, in exact fractions; to 2 ns."""
    steps = [*sorted(dict(changes).items()), (41, 5)]
    pipe = Pipe(8000.0, [(at / 4, 8000.0 * rate) for at, rate in steps])
    found = ends({"p": pipe}, *[(at / 4, size, Route(["p"])) for at, size in transfers])
    expected = processor_sharing([(0, 1), *steps], transfers)
    assert found == pytest.approx([float(end) for end in expected], abs=2e-9)


def processor_sharing(steps: Sequence[tuple[int, int]], transfers: Sequence[tuple[int, int]]) -> list[Fraction]:
    """Return ends; times in quarters of a second, rates in kB/s."""
    left = {i: Fraction(size) for i, (_, size) in enumerate(transfers)}
    now, over = Fraction(0), dict[int, Fraction]()
    moments = sorted({Fraction(at, 4) for at, _ in [*steps, *transfers]})
    while left:
        rate = 1000 * [rate for at, rate in steps if Fraction(at, 4) <= now][-1]
        flowing = [i for i in left if Fraction(transfers[i][0], 4) <= now]
        until = [moment for moment in moments if moment > now]
        until += [now + left[i] * len(flowing) / rate for i in flowing if rate]
        then = min(until)
        for i in flowing:
            left[i] -= Fraction(rate, len(flowing)) * (then - now)
            if left[i] == 0:
                over[i] = then
                del left[i]
        now = then
    return [over[i] for i in range(len(transfers))]


# --- background traffic


def test_a_constant_flow_takes_what_it_asks_for() -> None:
    """2 Mbit/s of 8: 1 MB at 6 Mbit/s = 4/3 s."""
    pipe = Pipe(RATE, (), constant(rate=2e6)(stream(1)))
    assert ends({"p": pipe}, (0.0, MB, Route(["p"]))) == [pytest.approx(4 / 3, abs=1e-9)]


def test_a_flow_that_asks_for_more_gets_what_an_equal_one_does() -> None:
    """It asks for 20 Mbit/s of 8 and gets half beside one transfer, a third beside two: 2 s, and 3 s."""
    for transfers in (1, 2):
        pipe = Pipe(RATE, (), constant(rate=20e6)(stream(1)))
        assert ends({"p": pipe}, *[(0.0, MB, Route(["p"]))] * transfers) == [transfers + 1.0] * transfers


def test_steps_of_traffic_leave_what_is_between_them() -> None:
    """Silence, 6 of 8 Mbit/s, silence, a second each: 1 MB, 0.5 MB (half, as 6 is more than that), 1 MB in 3 s."""
    pipe = Pipe(RATE, (), step(rates=[0.0, 6e6], every=1.0)(stream(1)))
    assert ends({"p": pipe}, (0.0, 2_500_000, Route(["p"]))) == [3.0]


def test_poisson_flows_of_a_given_size_end_and_leave_the_pipe() -> None:
    """Two flows by hand, 0.5 MB at 0 s and at 10 s: half a pipe each for 1 s, and free until the next."""
    demands = [Demand(0.0, 0, math.inf, 500_000), Demand(10.0, 1, math.inf, 500_000)]
    found = ends({"p": Pipe(RATE, (), demands)}, (0.0, MB, Route(["p"])), (9.5, MB, Route(["p"])))
    assert found == [1.5, 11.0]


def test_poisson_traffic_of_half_the_load_doubles_a_long_transfer() -> None:
    """A PS queue of load 0.5 leaves half of the pipe: 500 MB in 1000 s +- 3 %, where 10,000 flows of 50 kB pass."""
    pipe = Pipe(RATE, (), poisson(rate=RATE / 2, size=50_000)(stream(1, "poisson")))
    assert ends({"p": pipe}, (0.0, 500 * MB, Route(["p"]))) == [pytest.approx(1000.0, rel=0.03)]


def test_traffic_flows_where_it_is_and_while_nobody_looks() -> None:
    """A flow of 2 MB from 0 s on has 1 MB to go when the transfer comes at 1 s: half each, 2 s for 1 MB."""
    demands = [Demand(0.0, 0, math.inf, 2 * MB)]
    pipes = {"p": Pipe(RATE, (), demands), "q": Pipe(RATE)}
    assert ends(pipes, (1.0, MB, Route(["p"])), (1.0, MB, Route(["q"]))) == [3.0, 2.0]


# --- recorded links

EVERY_MS = Trace.of_stamps(range(1, 101))
"""1500 bytes a millisecond: 12 Mbit/s."""
FADING = Trace.of_stamps([*range(1, 51), *repeat(1000, 3)])
"""50 packets in 50 ms, then three at the end of the second."""


@pytest.mark.parametrize("trace", [EVERY_MS, FADING], ids=["steady", "fading"])
@pytest.mark.parametrize("start", [0.0, 0.0305, 7.123456789])
@pytest.mark.parametrize("size", [1, 1500, 76_000, 1_000_000])
def test_alone_a_transfer_over_a_recorded_link_ends_when_the_record_says(
    trace: Trace, start: Seconds, size: int
) -> None:
    """To the nanosecond, with nothing else and through wide pipes that are no bottleneck."""
    record = Route([], lambda at, size: trace.finish(at, math.ceil(size)))
    assert ends({}, (start, size, record)) == [trace.finish(start, size)]
    wide = Route(["wide"], record.recorded)
    assert ends({"wide": Pipe(1e12)}, (start, size, wide)) == [trace.finish(start, size)]


def test_a_recorded_link_behind_a_slower_pipe_takes_as_long_as_the_pipe() -> None:
    """12 Mbit/s recorded, 6 Mbit/s of pipe: 150 kB in 0.2 s instead of 0.1 s."""
    route = Route(["p"], lambda at, size: EVERY_MS.finish(at, math.ceil(size)))
    assert ends({"p": Pipe(6e6)}, (0.0, 150_000, route)) == [0.2]


def test_recorded_links_share_a_pipe_with_others() -> None:
    """12 Mbit/s recorded takes 12 of 16, as fair half would be 8: both get 8 Mbit/s; 150 kB in 0.15 s."""
    route = Route(["p"], lambda at, size: EVERY_MS.finish(at, math.ceil(size)))
    first, second = ends({"p": Pipe(16e6)}, (0.0, 150_000, route), (0.0, 150_000, Route(["p"])))
    assert (first, second) == (0.15, 0.15)
    # of 40 Mbit/s it asks for no more than 12, and the other has 28
    first, second = ends({"p": Pipe(40e6)}, (0.0, 150_000, route), (0.0, 350_000, Route(["p"])))
    assert (first, second) == (0.1, 0.1)


# --- stopping and going on


def cut_at(
    moments: Sequence[Seconds], pauses: Seconds, bursts: Sequence[Burst], route: Route, pipes: Mapping[str, Pipe]
) -> tuple[list[float], Seconds]:
    """Run one transfer that is cut at those times and goes on after a pause; return its shares then, and its end."""

    async def main(network: Network, clock: VirtualClock) -> tuple[list[float], Seconds]:
        transfer, shares, start = Transfer(network, bursts, route), list[float](), 0.0
        for moment in moments:
            with contextlib.suppress(TimeoutError):
                async with clock.timeout_at(moment):
                    await transfer.run(clock, start)
            shares.append(transfer.share)
            start = moment + pauses
            await clock.sleep_until(start)
        return shares, await transfer.run(clock, start)

    return play(pipes, main)


def test_a_transfer_that_is_cut_goes_on_where_it_was() -> None:
    """1 MB at 1 MB/s, cut at 0.25 s and 10.5 s for 10 s each: shares of 1/4 and 1/2, and the end at 21 s."""
    shares, end = cut_at([0.25, 10.5], 10.0, whole(MB), Route(["p"]), {"p": Pipe(RATE)})
    assert (shares, end) == ([0.25, 0.5], 21.0)


def test_a_cut_between_bursts_waits_again_for_no_more_than_its_turnaround() -> None:
    """Two bursts of 0.1 s whose second starts 1 s after the first; cut at 0.5 s, while nothing flows."""
    bursts = [Burst(100_000, 1.0), Burst(100_000, 0.0)]
    shares, end = cut_at([0.5], 2.0, bursts, Route(["p"]), {"p": Pipe(RATE)})
    assert shares == [0.5]
    assert end == 2.6


def test_what_was_cut_leaves_its_share_to_the_others() -> None:
    """Two of 1 MB; one is cut after 1 s and has 0.5 MB: the other is through 0.5 s later, not 1 s."""

    async def main(network: Network, clock: VirtualClock) -> tuple[float, Seconds, float]:
        one, two = (Transfer(network, whole(MB), Route(["p"])) for _ in range(2))
        task, other = asyncio.create_task(one.run(clock, 0.0)), asyncio.create_task(two.run(clock, 0.0))
        await clock.sleep_until(1.0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        return one.share, await other, two.share

    assert play({"p": Pipe(RATE)}, main) == (0.5, 1.5, 1.0)


def test_a_cut_at_the_very_end_counts_all_of_it() -> None:
    """Cancelled at 1 s, when the last byte has left: a share of 1."""

    async def main(network: Network, clock: VirtualClock) -> float:
        transfer = Transfer(network, whole(MB), Route(["p"]))
        task = asyncio.create_task(transfer.run(clock, 0.0))
        await clock.sleep_until(1.0)
        task.cancel()
        await asyncio.wait([task])
        return transfer.share

    assert play({"p": Pipe(RATE)}, main) == 1.0


def test_what_a_recorded_link_has_passed_until_a_cut_is_counted_at_its_mean() -> None:
    """150 kB in 100 ms recorded: cut at 40 ms, 40 % of it."""
    route = Route([], lambda at, size: EVERY_MS.finish(at, math.ceil(size)))
    shares, end = cut_at([0.04], 1.0, whole(150_000), route, {})
    assert shares == [pytest.approx(0.4, abs=1e-12)]
    assert end == pytest.approx(1.04 + 0.06, abs=1e-9)


@pytest.mark.parametrize("pause", [0.0, 0.1])
def test_a_pause_while_nothing_flows_makes_no_transfer_faster(pause: Seconds) -> None:
    """The second burst starts at 1 s whatever happens between 0.5 and 0.6 s: 1.1 s, as without a cut."""
    bursts = [Burst(100_000, 1.0), Burst(100_000, 0.0)]
    _, end = cut_at([0.5], pause, bursts, Route(["p"]), {"p": Pipe(RATE)})
    assert end == 1.1


@settings(max_examples=60, deadline=None)
@given(
    moments=st.lists(st.integers(1, 39), max_size=4, unique=True),
    pause=st.integers(0, 3),
    bursts=st.lists(st.tuples(st.integers(0, 300), st.sampled_from([0, 8, 32])), min_size=1, max_size=4),
)
def test_however_often_it_is_cut_no_byte_is_served_twice_or_lost(
    moments: list[int], pause: int, bursts: list[tuple[int, int]]
) -> None:
    """At 1 kB/s: the end is no earlier than uncut; and a single burst's is later by the pauses before it, exactly."""
    planned = [Burst(size, turnaround / 16) for size, turnaround in bursts]
    pipes, times = {"p": Pipe(8000.0)}, [moment / 16 for moment in sorted(moments)]
    _, uncut = cut_at([], 0.0, planned, Route(["p"]), pipes)
    shares, end = cut_at(times, pause / 64, planned, Route(["p"]), pipes)
    assert shares == sorted(shares)
    size = sum(burst.size for burst in planned)
    if end > max(times, default=0.0) + pause / 64:
        assert end >= uncut - 2e-9
        assert len(planned) > 1 or end == pytest.approx(size / 1000 + len(times) * pause / 64, abs=5e-9)


# --- how long it takes alone


@settings(max_examples=100, deadline=None)
@given(
    bursts=st.lists(st.tuples(st.integers(0, 100_000), st.sampled_from([0.0, 0.01, 0.25])), min_size=1, max_size=5),
    start=st.sampled_from([0.0, 0.1234, 12.5]),
    is_recorded=st.booleans(),
)
def test_with_nothing_beside_it_a_transfer_takes_what_alone_says(
    bursts: list[tuple[int, float]], start: Seconds, is_recorded: bool
) -> None:
    """One formula for the plan, another for the clock: to 1 ns a burst."""
    planned = [Burst(size, turnaround) for size, turnaround in bursts]
    recorded = (lambda at, size: FADING.finish(at, math.ceil(size))) if is_recorded else None
    route = Route(["p"], recorded)

    async def main(network: Network, clock: VirtualClock) -> Seconds:
        await clock.sleep_until(start)
        return await Transfer(network, planned, route).run(clock, clock.now())

    end = play({"p": Pipe(3.3e6)}, main)
    assert end - start == pytest.approx(alone(planned, route, 3.3e6, start), abs=1e-9 * (len(planned) + 1))
