"""Rounds: without loss slow start; with it each loss is sent again, known when TCP would know it."""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedemu.links._base import Burst, Sending
from fedemu.links.tcp._congestion import Control, response
from fedemu.links.tcp.rounds import LONGEST, rounds
from fedemu.links.tcp.slow_start import slow_start
from fedemu.types import Rng

FULL, ENDLESS = 1514, 10**9


def never() -> Rng:
    raise AssertionError("nothing is to be drawn")


def seeded(seed: int = 1) -> Callable[[], Rng]:
    rng = np.random.default_rng(seed)
    return lambda: rng


def scripted(*losses: int) -> Callable[[int, float], int]:
    """Lose that many segments of each round, and none after the last."""
    left: Iterator[int] = iter(losses)
    return lambda count, at: next(left, 0)


def independent(share: float, seed: int = 1) -> Callable[[int, float], int]:
    rng = np.random.default_rng(seed)
    return lambda count, at: int(rng.binomial(count, share))


def on_an_idle_path(bursts: Sequence[Burst], rate: float) -> float:
    start = end = 0.0
    for burst in bursts:
        end = start + 8 * burst.size / rate
        start = max(end, start + burst.turnaround)
    return end


def segments(bursts: Sequence[Burst]) -> list[int]:
    return [math.ceil(burst.size / FULL) for burst in bursts]


@given(size=st.integers(0, 3_000_000), rate=st.floats(1e4, 1e10), rtt=st.floats(0, 2), iw=st.integers(1, 40))
def test_without_loss_it_takes_the_time_of_slow_start(size: int, rate: float, rtt: float, iw: int) -> None:
    """With a queue that holds what comes, to the last bit but rounding; and draws nothing."""
    sending = Sending(size, 0.0, rate, rtt)
    took = on_an_idle_path(rounds(iw=iw, limit=ENDLESS).bursts(sending, never), rate)
    assert took == pytest.approx(on_an_idle_path(slow_start(iw=iw).bursts(sending, never), rate), rel=1e-9)


@given(
    size=st.integers(0, 2_000_000),
    rate=st.sampled_from([1e5, 1e7, 1e9, math.inf]),
    rtt=st.floats(0.001, 1),
    share=st.floats(0, 0.3),
    seed=st.integers(0, 2**32),
    cc=st.sampled_from(["cubic", "reno"]),
)
def test_every_lost_segment_is_on_the_wire_again(
    size: int, rate: float, rtt: float, share: float, seed: int, cc: str
) -> None:
    """S + 66 n bytes and 1514 for each loss that the link counted; the last burst loses none and waits for none.

    A lost segment that was a short one is sent again as a full one: TCP has more to fill it with, but for the last.
    """
    counted = 0
    lose = independent(share, seed)

    def lost(count: int, at: float) -> int:
        nonlocal counted
        number = lose(count, at)
        counted += number
        return number

    tcp = rounds(cc=cc, limit=ENDLESS)  # type: ignore[arg-type]
    bursts = tcp.bursts(Sending(size, 0.0, rate, rtt, lost=lost), seeded(seed))
    if len(bursts) <= LONGEST:
        assert sum(burst.lost for burst in bursts) == counted
        assert sum(burst.size for burst in bursts) == size + 66 * (math.ceil(size / 1448) + 1) + FULL * counted
        assert (bursts[-1].lost, bursts[-1].turnaround) == (0, 0.0)
    assert all(burst.turnaround >= rtt for burst in bursts[: min(len(bursts) - 1, LONGEST)])


def test_a_loss_in_mid_flow_is_known_after_a_round_trip_and_shrinks_the_window_once() -> None:
    """Infinite rate, so that RTT is all: 10, 20 with a loss; then 0.7 of what the window had grown to by then."""
    bursts = rounds().bursts(Sending(500_000, 0.0, math.inf, 0.1, lost=scripted(0, 1)), seeded())
    assert segments(bursts)[:2] == [10, 20]
    assert [burst.turnaround for burst in bursts[:2]] == [0.1, 0.1]
    assert 14 <= segments(bursts)[2] <= 40
    later = segments(bursts)[3:-1]
    assert 14 <= later[0] <= 28  # 0.7 of 20 to 40
    assert all(0 <= after - before <= 1 for before, after in pairwise(later))


def test_a_whole_lost_flight_is_probed_by_one_segment_after_two_round_trips() -> None:
    """RACK-TLP: 10 of 10 lost; the probe's acknowledgement tells of the other 9."""
    bursts = rounds().bursts(Sending(9 * 1448, 0.0, math.inf, 0.1, lost=scripted(10)), seeded())
    assert segments(bursts) == [10, 1, 7, 2]
    assert [burst.turnaround for burst in bursts] == [0.2, 0.1, 0.1, 0.0]


def test_a_lost_flight_of_one_segment_waits_for_timeouts_that_double() -> None:
    """RTT + 200 ms, then 2 and 4 times that; 64 times at most."""
    sending = Sending(0, 0.0, math.inf, 0.1, lost=scripted(*[1] * 9))
    bursts = rounds().bursts(sending, seeded())
    assert segments(bursts) == [1] * 10
    assert [burst.turnaround for burst in bursts] == pytest.approx(
        [0.3 * factor for factor in (1, 2, 4, 8, 16, 32, 64, 64, 64, 0)]
    )


def test_a_tail_that_is_lost_takes_three_round_trips_and_a_loss_before_it_less() -> None:
    """8 segments, one lost: in 1 of 8 messages it is the last, probed 2 RTT after the acknowledgement of the others;
    in 2 of 8 one or two are behind it, RTT/4 later; else RTT. Counted over 4,000 messages, 4 deviations.
    """
    waits = [
        rounds().bursts(Sending(7 * 1448, 0.0, math.inf, 0.1, lost=scripted(1)), seeded(seed))[0].turnaround
        for seed in range(4000)
    ]
    for wait, share in ((0.1, 5 / 8), (0.125, 2 / 8), (0.3, 1 / 8)):
        found = sum(math.isclose(w, wait) for w in waits)
        assert found == pytest.approx(4000 * share, abs=4 * math.sqrt(4000 * share * (1 - share)))


def test_losses_that_one_recovery_mends_shrink_the_window_once() -> None:
    """A retransmission that is lost again is no new event: the window stays."""
    one = segments(rounds(cc="reno").bursts(Sending(5_000_000, 0.0, math.inf, 0.1, lost=scripted(0, 0, 1)), seeded()))
    assert one[4] >= 20  # half of 40 to 80
    flight = rounds(cc="reno").bursts(Sending(0, 0.0, math.inf, 0.1, lost=scripted(1, 1)), seeded())
    assert segments(flight) == [1, 1, 1]


def test_a_window_beyond_path_and_queue_loses_what_is_over() -> None:
    """10 Mbit/s and 100 ms hold 82.6 segments, the queue 64: of 160 the last 14 are refused, and do not cross."""
    bursts = rounds(limit=64).bursts(Sending(4_000_000, 0.0, 1e7, 0.1), seeded())
    assert [burst.lost for burst in bursts[:5]] == [0, 0, 0, 0, math.ceil(160 - 0.1 * 1e7 / 8 / FULL - 64)]
    assert segments(bursts)[4] == 160 - bursts[4].lost
    quiet = on_an_idle_path(slow_start().bursts(Sending(4_000_000, 0.0, 1e7, 0.1), never), 1e7)
    assert on_an_idle_path(bursts, 1e7) == pytest.approx(quiet, rel=0.05)  # the path is hardly ever idle for it


def test_time_goes_on_from_round_to_round() -> None:
    """A fading link is asked at the time when each round leaves: at infinite rate, every RTT from the start on."""
    asked = list[float]()

    def lost(count: int, at: float) -> int:
        asked.append(at)
        return 0

    rounds().bursts(Sending(100_000, 7.0, math.inf, 0.1, lost=lost), never)
    assert asked == pytest.approx([7.0, 7.1, 7.2, 7.3])


def test_a_very_long_message_goes_on_at_its_mean_rate() -> None:
    """100 MB at 3 %: 2,000 rounds one by one and then pieces, at the rate of their later half within 1 %."""
    bursts = rounds().bursts(Sending(100_000_000, 0.0, math.inf, 0.05, lost=independent(0.03)), seeded())
    assert LONGEST < len(bursts) <= LONGEST + 101
    later, rest = bursts[LONGEST // 2 : LONGEST], bursts[LONGEST:]
    arrived = sum(burst.size for burst in later) / FULL - sum(burst.lost for burst in later)
    by_rounds = sum(burst.turnaround for burst in later) / arrived
    by_pieces = sum(burst.turnaround for burst in rest) / (sum(burst.size for burst in rest) / FULL)
    assert by_pieces == pytest.approx(by_rounds, rel=0.01)


def test_nearly_everything_lost_still_ends() -> None:
    """99 %: timeouts for hours of emulated time, and 2,100 bursts at most."""
    bursts = rounds().bursts(Sending(100_000, 0.0, 1e6, 0.1, lost=independent(0.99)), seeded())
    assert len(bursts) <= LONGEST + 101
    assert on_an_idle_path(bursts, 1e6) > 3600


def test_more_loss_takes_longer() -> None:
    """1 MB over 10 Mbit/s and 50 ms, means of 30: 0, 1, 3 %."""
    means = [
        np.mean(
            [
                on_an_idle_path(
                    rounds().bursts(Sending(1_000_000, 0.0, 1e7, 0.05, lost=independent(share, seed)), seeded(seed)),
                    1e7,
                )
                for seed in range(30)
            ]
        )
        for share in (0.0, 0.01, 0.03)
    ]
    assert means[0] < means[1] < means[2]


@pytest.mark.parametrize(
    ("cc", "share", "rtt", "bound"),
    [("reno", 0.001, 0.2, 0.05), ("reno", 0.01, 0.05, 0.05), ("cubic", 0.001, 0.2, 0.1)],
)
def test_the_mean_window_is_that_of_the_response_function(cc: Control, share: float, rtt: float, bound: float) -> None:
    """Mathis's 38.7 and 12.2 segments for Reno; RFC 9438's 56.1 for CUBIC, which is for evenly spaced losses."""
    windows = list[float]()
    for seed in range(5):
        sending = Sending(10**9, 0.0, math.inf, rtt, lost=independent(share, seed))
        bursts = rounds(cc=cc).bursts(sending, seeded(seed))[200:LONGEST]
        windows.append(sum(burst.size for burst in bursts) / FULL / (sum(burst.turnaround for burst in bursts) / rtt))
    assert np.mean(windows) == pytest.approx(response(cc, share, rtt), rel=bound)


def test_a_connection_remembers_its_window_and_idle_time_takes_it_away() -> None:
    """71 segments leave 10 + 10 + 20 + 40 = 80, with the last one 80; after 1.5 s at a timeout of 0.3 s it is 10."""
    for idle, first in ((0.0, 80), (0.5, 40), (1.5, 10), (math.inf, 10)):
        tcp = rounds()
        tcp.bursts(Sending(100_000, 0.0, math.inf, 0.1), never)
        again = tcp.bursts(Sending(1_000_000, 10.0, math.inf, 0.1, idle), never)
        assert segments(again)[0] == first
    forgetful = rounds(memory=False)
    for _ in range(2):
        assert segments(forgetful.bursts(Sending(100_000, 0.0, math.inf, 0.1, 0.0), never))[0] == 10


def test_it_takes_loss() -> None:
    """It is what stands beside `loss` unless another is named."""
    assert rounds().takes_loss
