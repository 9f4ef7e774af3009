"""Calls that fail: who notices, when, and what was on the link. Times are exact to the nanosecond.

link-model.md has the table: what is lost in silence is noticed at the deadline and never earlier, what is reset or
refused is told. A client trains for 1 s; its messages are of about 60 bytes, which links of a few kbit/s make long.
"""

import math
from dataclasses import dataclass, field
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedemu.clock import VirtualClock, run
from fedemu.links._base import Retry
from fedemu.links.drop import drop
from fedemu.links.reset import reset
from fedemu.net.emulated import EmulatedChannel
from fedemu.net.grpc import GrpcTransport
from fedemu.rng import stream
from fedemu.types import Interval

RETRY = Retry(attempts=3, timeout=10.0, backoff=1.0)
ONCE = Retry(attempts=1, timeout=10.0)
EXACT = 1.5e-9
"""Two roundings to the clock's grid of 1 ns."""


def losing(role, *attempts):
    """A stage that loses the messages of a role that belong to those attempts."""
    return ("lost", lambda packet, _: None if packet.role == role and packet.attempt in attempts else packet)


def resetting(share, *attempts):
    """A stage that resets the connection under those attempts, after that share of the bytes."""

    def stage(packet, _):
        hit = packet.role == "request" and packet.attempt in attempts
        return packet._replace(cut=share) if hit else packet

    return ("reset", stage)


def line(toy, *, rtt=0.0, **keys):
    """One direction of a link, with what TCP takes for its round trip."""
    return toy.way(**keys)._replace(rtt=rtt)


def ended(played, direction="up", client="c/0"):
    return played.of("TransferEnded", direction=direction, client=client)


def wait(played, attempt=1, direction="up"):
    """The wait after an attempt of c/0 in round 1, as its stream has it."""
    expected = RETRY.wait(attempt, stream(1, "retry", "c/0", direction, 1, 1, attempt))
    assert played.the("CallRetried", direction=direction, attempt=attempt).wait == expected
    return expected


def near(when):
    return pytest.approx(when, abs=EXACT)


# --- lost in silence


@pytest.mark.parametrize("direction", ["down", "up"])
def test_a_dropped_request_is_noticed_at_the_deadline_and_never_earlier(toy, direction):
    """It left at rate 800 bit/s, and 10 s after that its sender gives the attempt up; the peer knows nothing."""
    lossy = line(toy, rate=800.0, delay=0.25, after=[losing("request", 1)])
    client = toy.Client(**{direction: lossy}, retry=RETRY)
    played = toy.play({"c/0": client})
    first, second = ended(played, direction)
    start = 1.0 if direction == "up" else 0.0
    left = start + 8 * first.bytes / 800
    assert (first.outcome, first.at, first.delay) == ("dropped", near(left), None)
    retried = played.the("CallRetried")
    assert (retried.at, retried.reason) == (near(left + 10.0), "not acknowledged")
    again = left + 10.0 + wait(played, 1, direction)
    assert (second.outcome, second.began, second.attempt) == ("delivered", near(again), 2)
    assert second.delay == near(0.25)
    arrived = played.the("UpdateReceived" if direction == "up" else "TaskReceived")
    assert (arrived.attempt, arrived.at) == (2, near(again + 8 * second.bytes / 800 + 0.25))


def test_of_a_dropped_response_the_request_has_acted_and_its_resend_counts_not_twice(toy):
    """The answer to the update is lost: two updates leave, one is received, one averaged; the model moved by one."""
    silent = line(toy, after=[losing("response", 1)])
    played = toy.play(
        {"c/0": toy.Client(down=silent, retry=RETRY), "c/1": toy.Client(takes=(30.0,), delta=(3.0, 0.0, 0.0))}
    )
    assert [(e.attempt, e.outcome) for e in ended(played)] == [(1, "delivered"), (2, "delivered")]
    assert played.the("UpdateReceived", client="c/0").at == 1.0
    assert played.the("CallRetried").at == 11.0
    assert played.weights == [2.0, 0.0, 0.0]


# --- a link that is down


@pytest.mark.parametrize("direction", ["down", "up"])
def test_a_blackhole_is_noticed_at_the_deadline_and_nothing_has_left(toy, direction):
    """Down from before the start, for 100 s: given up 10 s after the start, no byte on the link."""
    start = 1.0 if direction == "up" else 0.0
    client = toy.Client(down_times=(Interval(start, start + 100.0),), retry=ONCE)
    played = toy.play({"c/0": client, "c/1": toy.Client(takes=(300.0,))})
    (only,) = ended(played, direction)
    assert (only.outcome, only.at, only.began, only.bytes) == ("down", start + 10.0, start, 0)
    lost = played.the("UpdateLost")
    what = "update" if direction == "up" else "task"
    assert lost.reason == f"undelivered: {what} no connection for 10 s after 1 attempts"
    # the server hears of it when the link is up; what it sends itself, it knows at once
    assert lost.at == (101.0 if direction == "up" else 10.0)
    assert lost.wasted == (played.the("TaskSent", client="c/0").bytes if direction == "up" else 0)


def test_a_link_that_is_up_before_the_deadline_takes_what_waits_for_it(toy):
    """Down for 9.5 s from the update's start: it leaves at 10.5 s, in its first attempt."""
    played = toy.play({"c/0": toy.Client(down_times=(Interval(0.5, 10.5),), retry=RETRY)})
    (only,) = ended(played)
    assert (only.outcome, only.began, only.at, only.queued) == ("delivered", 10.5, 10.5, 9.5)
    assert not played.of("CallRetried")
    assert played.the("UpdateReceived").at == 10.5


def test_a_link_that_is_up_at_the_deadline_takes_it(toy):
    """Down for as long as the sender waits, to the nanosecond: it leaves; a nanosecond more is too late."""
    for length, outcome in ((10.0, "delivered"), (10.000000001, "down")):
        played = toy.play({"c/0": toy.Client(down_times=(Interval(1.0, 1.0 + length),), retry=RETRY)})
        assert ended(played)[0].outcome == outcome


def test_each_attempt_at_a_link_that_is_down_waits_as_long_and_then_backs_off(toy):
    """Down from 1 s to 25 s: given up at 11 s, again 10 s after the second start; the third finds it up."""
    played = toy.play({"c/0": toy.Client(down_times=(Interval(1.0, 25.0),), retry=RETRY)})
    second = 11.0 + wait(played, 1)
    third = second + 10.0 + wait(played, 2)
    assert [(e.outcome, e.began, e.at) for e in ended(played)] == [
        ("down", 1.0, 11.0),
        ("down", near(second), near(second + 10)),
        ("delivered", near(max(third, 25.0)), near(max(third, 25.0))),
    ]
    assert played.the("UpdateReceived").at == near(max(third, 25.0))


@pytest.mark.parametrize("direction", ["down", "up"])
def test_a_refusal_is_told_after_one_round_trip(toy, direction):
    """80 ms: there and back. Then gRPC's back-off, and the next attempt finds it down or not."""
    start = 1.0 if direction == "up" else 0.0
    client = toy.Client(
        **{direction: line(toy, rtt=0.08)},
        down_times=(Interval(start, start + 1.0),),
        refuses=True,
        retry=Retry(attempts=9, timeout=10.0, backoff=1.0),
    )
    played = toy.play({"c/0": client})
    first, *_, last = ended(played, direction)
    assert (first.outcome, first.began, first.at, first.bytes) == ("refused", start, near(start + 0.08), 0)
    retried = played.of("CallRetried")[0]
    assert (retried.at, retried.reason) == (near(start + 0.08), "connection refused")
    assert 0.8 <= retried.wait <= 1.2
    assert last.outcome == "delivered"
    assert last.began >= start + 1.0


def test_a_short_outage_in_mid_transfer_costs_its_length_and_queued_says_so(toy):
    """About 0.6 s at 800 bit/s, down for 4 s in the middle: it goes on where it was, in the same attempt."""
    client = toy.Client(up=line(toy, rate=800.0), down_times=(Interval(1.25, 5.25),), retry=RETRY)
    played = toy.play({"c/0": client})
    (only,) = ended(played)
    alone = 8 * only.bytes / 800
    assert alone > 0.25, "it would have left before the outage"
    assert (only.outcome, only.at, only.queued) == ("delivered", near(1.0 + alone + 4.0), near(4.0))
    assert only.bytes == played.the("UpdateSent").bytes
    assert played.the("UpdateReceived").at == only.at


def test_of_two_outages_in_one_transfer_each_has_the_whole_patience(toy):
    """9 s and 9 s with a tenth of a second between them, and a timeout of 10 s: it goes on twice."""
    times = (Interval(1.25, 10.25), Interval(10.35, 19.35))
    played = toy.play({"c/0": toy.Client(up=line(toy, rate=800.0), down_times=times, retry=RETRY)})
    (only,) = ended(played)
    assert (only.outcome, only.queued) == ("delivered", near(18.0))


def test_a_long_outage_in_mid_transfer_fails_the_attempt_after_the_timeout(toy):
    """Down from 1.25 s: 25 of the bytes have left at 800 bit/s; given up at 11.25 s, and sent anew from the start."""
    client = toy.Client(up=line(toy, rate=800.0), down_times=(Interval(1.25, 12.0),), retry=RETRY)
    played = toy.play({"c/0": client})
    first, second = ended(played)
    assert (first.outcome, first.at, first.bytes) == ("down", 11.25, 25)
    retried = played.the("CallRetried")
    assert (retried.at, retried.reason) == (11.25, "no connection for 10 s")
    size = played.of("UpdateSent")[1].bytes
    start = max(12.0, 11.25 + wait(played))
    assert (second.outcome, second.bytes, second.at) == ("delivered", size, near(start + 8 * size / 800))


def test_a_refusal_in_mid_transfer_is_told_after_a_round_trip(toy):
    """From 1.25 s on the server refuses: 25 bytes have left, and 80 ms later the client knows."""
    client = toy.Client(
        up=line(toy, rate=800.0, rtt=0.08), down_times=(Interval(1.25, 1.5),), refuses=True, retry=RETRY
    )
    played = toy.play({"c/0": client})
    first, second = ended(played)
    assert (first.outcome, first.at, first.bytes) == ("refused", near(1.33), 25)
    assert (second.outcome, second.began) == ("delivered", near(1.33 + wait(played)))


def test_an_outage_that_begins_when_the_last_byte_has_left_costs_nothing(toy):
    """It lies behind the transfer; the message is in the air, and arrives."""
    size = toy.play({"c/0": toy.Client()}).the("UpdateSent").bytes
    left = 1.0 + 8 * size / 800
    client = toy.Client(up=line(toy, rate=800.0, delay=0.25), down_times=(Interval(left, left + 50),), retry=RETRY)
    played = toy.play({"c/0": client, "c/1": toy.Client()})
    only, *_ = ended(played)  # its acknowledgement waits for the link, so that it is sent again
    assert (only.outcome, only.at, only.delay) == ("delivered", near(left), near(0.25))
    assert played.the("UpdateReceived", client="c/0").at == near(left + 0.25)


def test_what_is_said_during_an_outage_arrives_when_it_is_over(toy):
    """The receipt of a task that came at 0 s, with the link down from 0.0 s on until 5 s: no resend before 10 s."""
    down = toy.way(delay=0.5)
    client = toy.Client(down=down, up=toy.way(delay=0.5), takes=(60.0,), down_times=(Interval(0.4, 5.0),), retry=RETRY)
    played = toy.play({"c/0": client})
    assert played.the("TaskReceived").at == 0.5  # it had left at 0 s
    assert not played.of("CallRetried")  # the receipt left at 5 s and was there at 5.5 s
    assert len(played.of("TaskSent")) == 1


def test_what_is_said_in_a_longer_outage_comes_too_late_for_the_sender(toy):
    """The same until 12 s: the server has resent at 10 s and waits; the task is trained once."""
    client = toy.Client(takes=(60.0,), down=toy.way(delay=0.5), down_times=(Interval(0.4, 12.0),), retry=RETRY)
    played = toy.play({"c/0": client})
    assert [e.at for e in played.of("CallRetried")] == [10.0]
    assert len(played.jobs) == 1


# --- reset


@pytest.mark.parametrize("direction", ["down", "up"])
def test_a_reset_is_noticed_after_the_one_way_delay(toy, direction):
    """Half of the bytes, 8 S / 2 / R, then 0.25 s until both ends know; then the back-off, and all of it again."""
    start = 1.0 if direction == "up" else 0.0
    broken = line(toy, rate=800.0, delay=0.25, before=[resetting(0.5, 1)])
    played = toy.play({"c/0": toy.Client(**{direction: broken}, retry=RETRY)})
    first, second = ended(played, direction)
    size = second.bytes
    noticed = start + 8 * round(size / 2) / 800 + 0.25
    assert (first.outcome, first.bytes, first.at) == ("reset", pytest.approx(size / 2, abs=1), near(noticed))
    retried = played.the("CallRetried")
    assert (retried.at, retried.reason) == (first.at, "connection reset")
    again = noticed + wait(played, 1, direction)
    assert (second.outcome, second.began) == ("delivered", near(again))
    assert second.at == near(again + 8 * size / 800)


def test_a_reset_before_the_first_byte_costs_the_delay_alone(toy):
    """Share 0: 0 bytes, noticed 0.25 s after the start."""
    broken = line(toy, rate=800.0, delay=0.25, before=[resetting(0.0, 1)])
    first, _ = ended(toy.play({"c/0": toy.Client(up=broken, retry=RETRY)}))
    assert (first.outcome, first.bytes, first.at) == ("reset", 0, 1.25)


def test_a_call_that_is_reset_every_time_is_given_up_and_all_its_bytes_were_wasted(toy):
    """Three attempts of an update, 25 %, 50 % and 75 % of it: with the task, all in UpdateLost.wasted."""
    stages = [("reset", resetting(0.25, 1)[1]), ("again", resetting(0.5, 2)[1]), ("last", resetting(0.75, 3)[1])]
    client = toy.Client(up=line(toy, rate=800.0, before=stages), retry=RETRY)
    played = toy.play({"c/0": client, "c/1": toy.Client(takes=(60.0,))})
    sent = [event.bytes for event in ended(played)]
    size = played.of("UpdateSent")[0].bytes
    assert sent == [pytest.approx(size * share, abs=1) for share in (0.25, 0.5, 0.75)]
    lost = played.the("UpdateLost")
    assert lost.reason == "undelivered: update connection reset after 3 attempts"
    assert lost.wasted == played.the("TaskSent", client="c/0").bytes + sum(sent)


def test_a_message_of_one_attempt_that_is_reset_is_lost_at_once(toy):
    """Without retry nobody waits for the timeout: at 1 s plus half of the transfer and no delay."""
    client = toy.Client(up=line(toy, rate=800.0, before=[resetting(0.5, 1)]), retry=ONCE)
    played = toy.play({"c/0": client, "c/1": toy.Client(takes=(60.0,))})
    (only,) = ended(played)
    assert played.the("UpdateLost").at == only.at < 2.0


# --- the books, whatever fails


@st.composite
def ways(draw, toy):
    """One direction of a link: slow, late, lossy and reset, each or not."""
    before, after = [], []
    if draw(st.booleans()):
        before.append(("reset", reset(probability=draw(st.sampled_from([0.3, 0.7])))))
    if draw(st.booleans()):
        after.append(("drop", drop(request=0.2, response=0.2)))
    rate = draw(st.sampled_from([math.inf, 400.0, 4000.0]))
    delay = draw(st.sampled_from([0.0, 0.1, 0.5]))
    return line(toy, rate=rate, delay=delay, before=before, after=after, rtt=draw(st.sampled_from([0.05, 0.2])))


@st.composite
def down_times(draw, offset):
    """Disjoint times without a link, in the first minute."""
    times = sorted(draw(st.lists(st.integers(0, 240), max_size=6, unique=True)))
    return tuple(Interval(a / 4 + offset, b / 4 + offset) for a, b in zip(times[::2], times[1::2], strict=False))


RETRIES = [
    lambda slot: Retry(1, 5.0 + slot / 256),
    lambda slot: Retry(3, 2.0 + slot / 256, 0.5),
    lambda slot: Retry(2, 0.3 + slot / 256, 0.1),
]


@st.composite
def federations(draw, toy):
    """Clients by name, and how they are played; no two of them do a thing at the same moment."""
    clients = {
        f"c/{slot}": toy.Client(
            takes=(draw(st.sampled_from([0.1, 1.1, 2.6])) + slot / 64,),
            up=draw(ways(toy)),
            down=draw(ways(toy)),
            retry=draw(st.sampled_from([retry(slot) for retry in RETRIES])),
            down_times=draw(down_times(slot / 128)),
            refuses=draw(st.booleans()),
        )
        for slot in range(draw(st.integers(1, 4)))
    }
    policy = {
        "deadline": draw(st.sampled_from([3.0, 20.0])),
        "barrier": draw(st.booleans()),
        "late": draw(st.sampled_from(["cancel", "drop", "keep"])),
    }
    return clients, {"policy": policy, "stop": {"rounds": draw(st.integers(1, 4)), "time": 120.0}}


@dataclass
class Counted:
    """What channels really put on links, from their meters: bytes by direction, and attempts."""

    carried: dict = field(default_factory=lambda: {"up": 0, "down": 0})
    attempts: int = 0

    def sending(self, send):
        async def counting(channel, request, meter, *how):
            before = meter.sent
            self.attempts += 1
            try:
                await send(channel, request, meter, *how)
            finally:
                assert 0 <= meter.sent - before <= request.size
                self.carried[channel._path.name.rpartition(" ")[2]] += meter.sent - before

        return counting


@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_whatever_fails_the_books_are_kept(toy, data):
    """`play` sees that time goes on and every task has one outcome; the events have every byte of every attempt."""
    clients, how = data.draw(federations(toy))
    counted = Counted()
    with patch.object(EmulatedChannel, "send", counted.sending(EmulatedChannel.send)):
        played = toy.play(clients, **how)
    events = played.of("TransferEnded")
    assert len(events) == counted.attempts
    assert counted.carried == {way: sum(e.bytes for e in events if e.direction == way) for way in counted.carried}
    for event in events:
        assert event.began <= event.at
        assert event.queued >= 0
        assert (event.delay is None) == (event.outcome != "delivered")
    asked = [(e.client, e.round, e.attempt, e.at) for e in played.of("CallRetried")]
    told = [(e.client, e.round, e.attempt, e.at) for e in events if e.outcome in ("reset", "refused", "down")]
    last = {name: toy_client.retry.attempts for name, toy_client in clients.items()}
    for failure in told:  # who is told backs off at once, or gives up after the last attempt
        assert failure in asked or failure[2] == last[failure[0]]


FAILING = {
    "resets and drops": {
        "before": [("reset", reset(probability=0.4))],
        "after": [("drop", drop(request=0.2, response=0.2))],
    },
    "blackholes": {"down_times": (Interval(0.6, 3.0), Interval(4.0, 9.0), Interval(9.5, 25.0))},
    "refusals": {"down_times": (Interval(0.0, 0.5), Interval(1.2, 6.0)), "refuses": True},
}


@pytest.mark.parametrize("name", FAILING)
def test_failures_are_the_same_over_sockets(toy, tmp_path, name):
    """Five rounds of three clients, in memory and over gRPC on a Unix socket: line for line, once they have joined."""
    how = dict(FAILING[name])
    stages = {key: how.pop(key) for key in ("before", "after") if key in how}

    def clients():
        way = line(toy, rate=800.0, delay=0.05, rtt=0.1, **stages)
        return {f"c/{i}": toy.Client(takes=(0.3 + i,), up=way, down=way, retry=RETRY, **how) for i in range(3)}

    keys = {"stop": {"rounds": 5}, "policy": {"deadline": 30.0}}

    async def over_sockets():
        return await toy.perform(clients(), VirtualClock(), GrpcTransport(f"unix:{tmp_path}/socket"), **keys)

    played = toy.play(clients(), **keys)
    assert {e.outcome for e in played.of("TransferEnded")} - {"delivered"}
    assert rounds(run(over_sockets(), virtual=True)) == rounds(played)


def rounds(played):
    """The log without the order in which clients joined, which is theirs."""
    return [line for line in played.lines if '"ClientJoined"' not in line]
