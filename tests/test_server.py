"""The server's end: whom it lets in, what it refuses, and that one bad client spoils nothing for the others."""

import asyncio
import math
from contextlib import suppress

import pytest
import torch

from fedemu.client import join
from fedemu.clock import RealClock
from fedemu.errors import NetworkError, PeerError
from fedemu.net.grpc import GrpcTransport
from fedemu.net.memory import MemoryTransport
from fedemu.net.messages import PROTOCOL


@pytest.fixture(params=[MemoryTransport, GrpcTransport], ids=["memory", "grpc"])
def transport(request):
    return request.param()


async def refusal(awaitable):
    """Return the status and text with which the server ends a connection."""
    with pytest.raises(PeerError) as caught:
        await awaitable
    return caught.value.status, caught.value.text


def house(toy):
    """Two phones and a laptop."""
    return toy.Federation({name: toy.Client() for name in ("phone/0", "phone/1", "laptop/0")}, RealClock())


# --- hello


async def test_clients_get_the_slot_that_they_ask_for_or_the_next_free_one(toy, transport):
    """Slot 1 is asked for; without a wish slot 0 is the first that is free."""
    federation = house(toy)
    async with toy.hosted(federation, transport) as connect:
        assert (await join(await connect(), "phone", 1)).client == "phone/1"
        welcome = await join(await connect(), "phone", None)
        assert (welcome.client, welcome.scenario) == ("phone/0", "{}")
    assert [e.client for e in federation.of("ClientJoined")] == ["phone/1", "phone/0"]


async def test_another_protocol_is_refused(toy, transport):
    async with toy.hosted(house(toy), transport) as connect:
        conversation = await connect()
        await conversation.send(toy.Message(toy.pb.Hello(protocol=PROTOCOL + 1, group="phone")))
        assert await refusal(conversation.receive()) == (
            "FAILED_PRECONDITION",
            f"protocol {PROTOCOL + 1}; this server speaks {PROTOCOL}",
        )


@pytest.mark.parametrize(
    ("group", "slot", "expected"),
    [
        ("tablet", None, ("NOT_FOUND", "no group 'tablet'; there are phone, laptop")),
        ("phone", 2, ("NOT_FOUND", "no slot 2 in phone; it has 0..1")),
        ("laptop", 0, ("ALREADY_EXISTS", "slot 0 of laptop is in use")),
        ("laptop", None, ("RESOURCE_EXHAUSTED", "all 1 slots of laptop are in use")),
    ],
)
async def test_a_hello_that_finds_no_place_is_refused(toy, transport, group, slot, expected):
    """The only laptop is there already; the server goes on and takes the next phone."""
    federation = house(toy)
    async with toy.hosted(federation, transport) as connect:
        await join(await connect(), "laptop", None)
        assert await refusal(join(await connect(), group, slot)) == expected
        assert (await join(await connect(), "phone", None)).client == "phone/0"
    assert len(federation.of("ClientJoined")) == 2  # who was refused never was there


async def test_a_kernel_cannot_shape_links_within_a_process(toy, transport):
    """All clients of this server could be in its own process, where no device is between them."""
    async with toy.hosted(house(toy), transport) as connect:
        expected = "FAILED_PRECONDITION", "links of clients in the server's own process are emulated"
        assert await refusal(join(await connect(), "phone", None, kernel=True)) == expected
        assert (await join(await connect(), "phone", None)).client == "phone/0"


async def test_who_does_not_say_hello_is_refused(toy, transport):
    async with toy.hosted(house(toy), transport) as connect:
        conversation = await connect()
        await conversation.send(toy.Message(toy.pb.Goodbye(reason="first")))
        assert await refusal(conversation.receive()) == ("INVALID_ARGUMENT", "Goodbye where Hello was expected")


async def test_who_leaves_without_a_word_leaves_no_trace(toy, transport):
    federation = house(toy)
    async with toy.hosted(federation, transport) as connect:
        await (await connect()).aclose()
        await join(await connect(), "laptop", 0)
    assert [e.client for e in federation.of("ClientJoined")] == ["laptop/0"]


async def test_who_comes_back_gets_its_slot(toy, transport):
    federation = house(toy)
    async with toy.hosted(federation, transport) as connect:
        conversation = await connect()
        await join(conversation, "laptop", 0)
        await conversation.aclose()
        while not federation.of("ClientLeft"):  # noqa: ASYNC110  the log has no bell
            await asyncio.sleep(0.001)
        assert (await join(await connect(), "laptop", 0)).client == "laptop/0"
    assert [type(e).__name__ for e in federation.events][:3] == ["ClientJoined", "ClientLeft", "ClientJoined"]


async def test_a_host_gets_the_slot_back_that_it_had(toy, transport):
    """One had phone/1, which is free again: it is its own, although phone/0 would come first.

    Two hosts that never were here get, of phone/0 (which nobody has had) and phone/2 (which the other left), first the
    one and then the other. Who says no host takes a lease from nobody.
    """
    federation = toy.Federation({f"phone/{slot}": toy.Client() for slot in range(3)}, RealClock())
    leases = federation.server.leases

    async def leave(conversation, count):
        await conversation.aclose()
        while len(federation.of("ClientLeft")) < count:  # noqa: ASYNC110  the log has no bell
            await asyncio.sleep(0.001)

    async with toy.hosted(federation, transport) as connect:

        async def come(host, slot=None):
            conversation = await connect()
            return conversation, (await join(conversation, "phone", slot, None, host)).client

        other, one = await come("other", 2), await come("one", 1)
        assert list(leases.items()) == [("phone/2", "other"), ("phone/1", "one")]
        await leave(other[0], 1)
        await leave(one[0], 2)
        one = await come("one")
        assert one[1] == "phone/1"
        third, fourth = await come("third"), await come("fourth")
        assert [third[1], fourth[1]] == ["phone/0", "phone/2"]
        await leave(fourth[0], 3)
        assert list(leases) == ["phone/2", "phone/1", "phone/0"]
        nameless = await come("", 2)
        await leave(nameless[0], 4)
        assert leases == {"phone/2": "fourth", "phone/1": "one", "phone/0": "third"}
    assert not any("fourth" in line for line in federation.lines)


async def test_the_slot_whose_holder_is_away_for_longest_goes_first(toy, transport):
    """They left in the order 1, 0, 2; a server that was told so by another one gives them out in that order."""
    federation = toy.Federation({f"phone/{slot}": toy.Client() for slot in range(3)}, RealClock())
    federation.server.leases |= {"phone/1": "a", "phone/0": "b", "phone/2": "c"}
    async with toy.hosted(federation, transport) as connect:
        given = [(await join(await connect(), "phone", None, None, host)).client for host in ("d", "c", "e")]
    assert given == ["phone/1", "phone/2", "phone/0"]


async def test_several_clients_of_a_host_share_what_it_had(toy, transport):
    """Two of three slots were its own: its clients get both before that of the other host."""
    federation = toy.Federation({f"phone/{slot}": toy.Client() for slot in range(3)}, RealClock())
    federation.server.leases |= {"phone/0": "other", "phone/1": "ours", "phone/2": "ours"}
    async with toy.hosted(federation, transport) as connect:
        given = [(await join(await connect(), "phone", None, None, "ours")).client for _ in range(3)]
    assert given == ["phone/1", "phone/2", "phone/0"]


# --- what the protocol does not allow


def never_asked(toy):
    name = toy.pb.Assignment(round=7, turn=1, attempt=1)
    return toy.Message(toy.pb.Update(assignment=name), {"delta": torch.zeros(3)})


def forbidden(toy):
    """By name: what is sent (a message, or bytes), and how the stream ends."""
    return {
        "garbage": (b"\xff\xff\xff", ("INVALID_ARGUMENT", "3 bytes that are not a fedemu.v1.Frame")),
        "hello again": (
            toy.Message(toy.pb.Hello(protocol=PROTOCOL, group="phone")),
            ("INVALID_ARGUMENT", "Hello from a client that has joined"),
        ),
        "never asked": (
            never_asked(toy),
            ("INVALID_ARGUMENT", "Update for round 7, turn 1, which this client was not given"),
        ),
        "too large": (
            toy.pb.Frame(update=toy.pb.Update(), vectors=[toy.pb.Vector(name="delta", size=2**40)]).SerializeToString(),
            ("RESOURCE_EXHAUSTED", f"vectors of {2**40} numbers; at most 12 are expected here"),
        ),
    }


FORBIDDEN = ["garbage", "hello again", "never asked", "too large"]


async def say(conversation, what):
    with suppress(NetworkError):
        await (conversation._channel.send(what) if isinstance(what, bytes) else conversation.send(what))


@pytest.mark.parametrize("what", FORBIDDEN)
async def test_what_the_protocol_does_not_allow_ends_the_stream_and_says_why(toy, transport, what):
    """The others' streams stay, and the slot is free again."""
    sent, expected = forbidden(toy)[what]
    federation = house(toy)
    async with toy.hosted(federation, transport) as connect:
        conversation = await connect()
        await join(conversation, "phone", 0)
        await say(conversation, sent)
        assert await refusal(conversation.receive()) == expected
        await join(await connect(), "phone", 0)
    assert federation.of("ClientLeft")[0].reason == ": ".join(expected)


# --- in a run


@pytest.mark.parametrize("bad", [False, True], ids=["all well", "one sends garbage"])
async def test_a_run_on_the_real_clock_comes_to_the_same_model_over_both_transports(toy, transport, bad):
    """3 rounds of (1 + 3) / 2; where the second client sends garbage, 3 rounds of the first one's 1."""
    other = scripted(toy, b"garbage") if bad else toy.Client((3.0, 0.0, 0.0), takes=(0.0,))
    clients = {"c/0": toy.Client(takes=(0.0,)), "c/1": other}
    played = await toy.perform(clients, RealClock(), transport, stop={"rounds": 3})
    assert played.weights == [3.0 if bad else 6.0, 0.0, 0.0]
    assert [e.aggregated for e in played.of("RoundClosed")] == ([1, 1, 1] if bad else [2, 2, 2])
    assert [getattr(end, "status", None) for end in played.ends.values()] == [None, "INVALID_ARGUMENT" if bad else None]


def scripted(toy, *replies):
    """A client that answers its first task with those messages, and is silent from then on until it is sent away."""

    async def script(conversation):
        answered = False
        while not isinstance((message := await conversation.receive()).header, toy.pb.Goodbye):
            if isinstance(message.header, toy.pb.Task) and not answered:
                answered = True
                for reply in replies:
                    await say(conversation, reply)

    return toy.Client(script=script)


@pytest.mark.parametrize("what", FORBIDDEN)
def test_a_client_that_breaks_the_protocol_is_lost_and_the_run_goes_on(toy, what):
    """At 0 s, with the task in hand; the round closes at 1 s with the other's update, and so does the next."""
    sent, (status, text) = forbidden(toy)[what]
    played = toy.play({"c/0": toy.Client(), "c/1": scripted(toy, sent)}, stop={"rounds": 2})
    assert [(e.at, e.aggregated, e.lost) for e in played.of("RoundClosed")] == [(1.0, 1, 1), (2.0, 1, 0)]
    assert played.the("UpdateLost").reason == f"client left: {status}: {text}"
    assert (played.ends["c/1"].status, played.ends["c/0"]) == (status, None)


def update(toy, *, version=0, train_loss=0.5, squared_loss=0.25, **vectors):
    name = toy.pb.Assignment(round=1, turn=1, attempt=1)
    losses = {"train_loss": train_loss, "squared_loss": squared_loss}
    message = toy.pb.Update(assignment=name, version=version, num_examples=1, num_steps=1, **losses)
    return toy.Message(message, {k: torch.tensor(v) for k, v in vectors.items()})


REFUSED = {
    "wrong shape": ({"delta": [1.0, 2.0]}, "delta of 2 numbers; the model has 3"),
    "nan": ({"delta": [1.0, math.nan, 0.0]}, "delta has numbers that are not finite"),
    "inf": ({"delta": [1.0, 0.0, math.inf]}, "delta has numbers that are not finite"),
    "-inf": ({"delta": [1.0, 0.0, -math.inf]}, "delta has numbers that are not finite"),
    "nan beside": ({"delta": [1.0, 0.0, 0.0], "control": [math.nan]}, "control has numbers that are not finite"),
    "wrong version": ({"delta": [1.0, 0.0, 0.0], "version": 9}, "version 9; the task was version 0"),
    "no loss": ({"delta": [1.0, 0.0, 0.0], "train_loss": math.nan}, "train_loss nan; expected a finite number"),
    "endless loss": (
        {"delta": [1.0, 0.0, 0.0], "squared_loss": math.inf},
        "squared_loss inf; expected a finite number",
    ),
    "no delta": ({"gradient": [1.0, 0.0, 0.0]}, "no vector 'delta'"),
    "nothing": ({}, "no vector 'delta'"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_an_update_that_is_not_valid_is_refused_and_the_run_goes_on(toy, what):
    """Refused at 0 s; the round closes at 1 s with the other's update alone, which is the model. The client stays."""
    said, reason = REFUSED[what]
    played = toy.play({"c/0": toy.Client((3.0, 2.0, 1.0)), "c/1": scripted(toy, update(toy, **said))})
    rejected = played.the("UpdateRejected")
    assert (rejected.at, rejected.client, rejected.round, rejected.reason) == (0.0, "c/1", 1, reason)
    closed = played.the("RoundClosed")
    assert (closed.at, closed.aggregated, closed.lost, closed.late) == (1.0, 1, 1, 0)
    assert played.weights == [3.0, 2.0, 1.0]
    assert [e.reason for e in played.of("ClientLeft")] == ["the run is over"] * 2


def test_who_is_refused_is_told_so_again_when_it_asks_again(toy):
    """Two updates, two answers of the same verdict, one rejection; a good one after a bad one comes too late."""
    answers = []

    async def script(conversation):
        for said in ({"delta": [1.0]}, {"delta": [1.0, 1.0, 1.0]}):
            while not isinstance((await conversation.receive()).header, toy.pb.Task | toy.pb.Answer):
                pass
            await conversation.send(update(toy, **said))
        answers.append((await conversation.receive()).header.verdict)
        while not isinstance((await conversation.receive()).header, toy.pb.Goodbye):
            pass

    played = toy.play({"c/0": toy.Client((3.0, 3.0, 3.0)), "c/1": toy.Client(script=script)})
    assert answers == [toy.pb.Answer.VERDICT_REFUSED]
    assert len(played.of("UpdateRejected")) == 1
    assert played.weights == [3.0, 3.0, 3.0]


def leaving(at, *, back=None, client="c/1"):
    """Break a client's connection at that time, and make a new one later."""

    async def meanwhile(federation, rejoin):
        await federation.clock.sleep_until(at)
        await federation.conversations[client].aclose()
        if back is not None:
            await federation.clock.sleep_until(back)
            rejoin(client)

    return meanwhile


def test_a_client_that_leaves_in_mid_round_is_a_loss(toy):
    """It leaves at 0.5 s, in training; the round closes with the other at 1 s."""
    played = toy.play({"c/0": toy.Client(), "c/1": toy.Client()}, meanwhile=leaving(0.5))
    lost, left = played.the("UpdateLost"), played.the("ClientLeft", client="c/1")
    reason = "the other end closed the connection"
    assert (lost.at, lost.reason, lost.wasted) == (0.5, f"client left: {reason}", played.of("TaskSent")[1].bytes)
    assert (left.at, left.reason) == (0.5, reason)
    closed = played.the("RoundClosed")
    assert (closed.at, closed.aggregated, closed.lost) == (1.0, 1, 1)


def test_a_download_that_a_leaving_client_breaks_off_wastes_what_had_crossed(toy):
    """10 bytes a second until 2 s: 20 bytes; the rest of the task was never sent."""
    clients = {"c/0": toy.Client(takes=(5.0,)), "c/1": toy.Client(down=toy.way(rate=80.0))}
    played = toy.play(clients, meanwhile=leaving(2.0))
    lost, ended = played.the("UpdateLost"), played.the("TransferEnded", client="c/1")
    assert (lost.at, lost.wasted) == (2.0, 20)
    assert (ended.at, ended.outcome, ended.bytes) == (2.0, "cut", 20)


def test_a_client_that_comes_back_takes_part_in_the_next_round(toy):
    """Away from 0.5 s to 0.75 s, in round 1; in round 2 there are two updates again."""
    played = toy.play({"c/0": toy.Client(), "c/1": toy.Client()}, stop={"rounds": 2}, meanwhile=leaving(0.5, back=0.75))
    assert [(e.aggregated, e.lost) for e in played.of("RoundClosed")] == [(1, 1), (2, 0)]
    assert played.at("ClientJoined", client="c/1") == [0.0, 0.75]


def test_an_update_whose_client_has_left_counts(toy):
    """It came at 1 s, its client leaves at 1.5 s, the round closes at 2 s with both."""
    clients = {"c/0": toy.Client((1.0, 0.0, 0.0), takes=(2.0,)), "c/1": toy.Client((3.0, 0.0, 0.0))}
    played = toy.play(clients, meanwhile=leaving(1.5))
    assert played.the("RoundClosed").aggregated == 2
    assert played.weights == [2.0, 0.0, 0.0]
    assert not played.of("UpdateLost")


def test_a_client_that_is_cancelled_and_leaves_was_late(toy):
    """Cancelled at 2 s; before it hears of that, at 5 s, it leaves, at 3 s. One loss, and nothing left open."""
    clients = {"c/0": toy.Client(), "c/1": toy.Client(takes=(9.0,), down=toy.way(delay=3.0))}
    played = toy.play(clients, policy={"deadline": 2.0}, stop={"rounds": 4}, meanwhile=leaving(3.0))
    assert next((e.round, e.reason) for e in played.of("UpdateLost")) == (1, "late")


def test_the_server_does_not_wait_for_ever_for_clients_to_leave(toy):
    """c/1 does not heed the goodbye of 1 s: 60 s later the run ends all the same, and the server hangs up."""

    async def deaf(conversation):
        for _ in range(100):
            await conversation.receive()

    async def main(federation, rejoin):
        await federation.clock.sleep_until(70.0)
        await federation.conversations["c/1"].aclose()

    played = toy.play({"c/0": toy.Client(), "c/1": toy.Client(script=deaf)}, policy={"goal": 1}, meanwhile=main)
    assert played.the("ClientLeft", client="c/1").at == 61.0
    assert played.end == 1.0


def test_who_joins_when_the_run_is_over_is_sent_away(toy):
    """c/1 is away from 0.5 s to 1.25 s; the run ends at 1 s, and waits until c/0 has heard of it at 1.5 s."""
    clients = {"c/0": toy.Client(takes=(0.0,), up=toy.way(delay=0.5), down=toy.way(delay=0.5)), "c/1": toy.Client()}
    played = toy.play(clients, meanwhile=leaving(0.5, back=1.25))
    assert (played.end, played.ends) == (1.0, {"c/0": None, "c/1": None})
    assert played.at("ClientLeft", client="c/0") == [1.5]
    assert played.at("ClientLeft", client="c/1") == [0.5, 1.25]
