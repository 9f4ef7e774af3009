"""Messages are at the other end at their time, over every transport and on both clocks, and so is the end of it all."""

import asyncio
from contextlib import asynccontextmanager, suppress
from functools import partial

import pytest

from fedemu.clock import RealClock, VirtualClock, run
from fedemu.errors import NetworkError, PeerError
from fedemu.loop import aside, standstill
from fedemu.net._pb import federation_pb2 as pb
from fedemu.net.channel import Conversation
from fedemu.net.delivery import Apart, Exchange
from fedemu.net.memory import MemoryTransport
from fedemu.net.messages import Message

CLIENT = "phones/0"
LATE = 1.0
"""Seconds by which a message may be late on the real clock: this machine has other things to do."""


@pytest.fixture(params=["virtual", "real"])
def virtual(request):
    return request.param == "virtual"


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """A flight that stays behind is Stalled after 5 s, well within a test's time."""
    monkeypatch.setattr("fedemu.clock.VirtualClock.flight.__kwdefaults__", {"patience": 5.0})


def note(number: int) -> Message:
    return Message(pb.Cancel(assignment=pb.Assignment(attempt=number)))


def number_of(message: Message) -> int:
    return message.header.assignment.attempt


class Party:
    """An exchange whose server plays `server(end)` with each client, from when the client is ready."""

    def __init__(self, transport, clock, server, **measures):
        self.transport, self.clock, self.server, self.measures = transport, clock, server, measures
        self.exchange, self.ready = Exchange(clock), asyncio.Event()

    @asynccontextmanager
    async def open(self):
        """Serve; inside, call the value to have a client join."""
        async with self.transport.serve(self._serve) as address, self.exchange:
            yield partial(self._join, address)

    async def _serve(self, channel):
        conversation = Conversation(channel, limit=0)
        await conversation.receive()
        async with self.exchange.servers_end(CLIENT, conversation, **self.measures) as end:
            # as the server does: the client has it, and goes on, maybe before gRPC says that it is sent
            await standstill(conversation.send(Message(pb.Welcome())), "welcome")
            await end.receive()
            self.ready.set()
            await self.server(end)

    @asynccontextmanager
    async def _join(self, address, kind=Conversation):
        async def knock():
            conversation = kind(await self.transport.connect(address), limit=0)
            await conversation.send(Message(pb.Hello()))
            await conversation.receive()
            return conversation

        conversation = await standstill(knock(), "join")
        async with self.exchange.clients_end(CLIENT, conversation) as end:
            end.carry(Message(pb.Ready()), None, 0.0)
            await self.ready.wait()
            self.ready.clear()
            if self.clock.now() == 0:
                self.clock.start()
            yield end, conversation


def play(transport, virtual, server, client, *, kind=Conversation, **measures):
    """Play `server(end, clock)` and `client(end, clock, conversation)` to their ends; return what they return."""

    async def main():
        clock, results = VirtualClock() if virtual else RealClock(), {}

        async def serve(end):
            results["server"] = await server(end, clock)

        async with Party(transport, clock, serve, **measures).open() as join, join(kind) as (end, conversation):
            results["client"] = await client(end, clock, conversation)
        return results.get("server"), results["client"]

    return run(main(), virtual=virtual)


async def receive(end, clock, count):
    """Return so many messages, each as its number and when it came; the real clock is a little past that."""
    got = []
    for _ in range(count):
        message, moment = await end.receive()
        assert moment <= clock.now() + 1e-6
        got.append((number_of(message), moment))
    return got


async def receive_all(end, clock):
    """Return all messages until the end, which is (the error, when it came)."""
    got = []
    try:
        while True:
            got += await receive(end, clock, 1)
    except (NetworkError, PeerError) as error:
        return [*got, (error, clock.now())]


def send(end, clock, whens):
    for number, when in enumerate(whens):
        end.carry(note(number), clock.now(), when)


def check(got, expected, virtual):
    """Assert that all came, in order, at their times: exactly so, or not before and little later."""
    assert [what for what, _ in got] == [what for what, _ in expected]
    for (_, at), (_, when) in zip(got, expected, strict=True):
        assert at == when if virtual else when - 1e-6 <= at < when + LATE


def test_messages_are_there_in_order_and_at_their_times_in_both_directions(transport, virtual):
    """One that would be at 0.01 s is sent after one for 0.03 s, and is there with it."""
    whens = [0.03, 0.01, 0.05, 0.05]

    async def either(end, clock, *_):
        send(end, clock, whens)
        return await receive(end, clock, 4)

    expected = [(0, 0.03), (1, 0.03), (2, 0.05), (3, 0.05)]
    for got in play(transport, virtual, either, either):
        check(got, expected, virtual)


def test_many_messages_that_nobody_receives_yet_fill_no_transport(transport, virtual):
    """100 are more than the 8 frames for which memory has room; all came at 0 s, and are received at 0.1 s."""

    async def server(end, clock):
        await clock.sleep_until(0.1)
        got = await receive(end, clock, 100)
        assert clock.now() == 0.1 or not virtual
        return got

    async def client(end, clock, _):
        send(end, clock, [0.0] * 100)
        await clock.sleep_until(0.2)

    got, _ = play(transport, virtual, server, client)
    check(got, [(i, 0.0) for i in range(100)], virtual)


class _Held(Conversation):
    """A conversation whose messages are held up, until they are let go."""

    let_go: asyncio.Event

    async def send(self, message):
        if hasattr(self, "let_go"):
            await self.let_go.wait()
        await super().send(message)


def test_a_message_that_is_due_later_stops_no_earlier_event(transport, virtual):
    """It leaves for real only when the clock has been at 0.05 s, and is due at 0.1 s."""

    async def server(end, clock):
        return await receive(end, clock, 1)

    async def client(end, clock, conversation):
        conversation.let_go = asyncio.Event()
        clock.call_at(0.05, conversation.let_go.set)
        send(end, clock, [0.1])
        await clock.sleep_until(0.2)

    got, _ = play(transport, virtual, server, client, kind=_Held)
    check(got, [(0, 0.1)], virtual)


def test_the_end_comes_after_the_messages_before_it(transport, virtual):
    """The client leaves at time 0, with messages under way for another 0.1 s."""

    async def client(end, clock, _):
        send(end, clock, [0.05, 0.1])

    (*messages, (error, at)), _ = play(transport, virtual, receive_all, client)
    check([*messages, ("end", at)], [(0, 0.05), (1, 0.1), ("end", 0.1)], virtual)
    assert isinstance(error, NetworkError)


def test_what_a_server_has_sent_before_it_ended_the_connection_arrives(transport, virtual):
    """A server's stream ends with its handler; it has sent 500 kB by then, for real or not yet."""
    large = Message(pb.Welcome(scenario="x" * 500_000))

    async def server(end, clock):
        end.carry(large, clock.now(), 0.1)

    async def client(end, clock, _):
        message, moment = await end.receive()
        same = message.header.scenario == large.header.scenario
        return [(same, moment), *await receive_all(end, clock)]

    _, (*messages, (error, at)) = play(transport, virtual, server, client)
    check([*messages, ("end", at)], [(True, 0.1), ("end", 0.1)], virtual)
    assert isinstance(error, NetworkError)


def test_a_servers_refusal_reaches_the_client_and_is_the_last_word(transport, virtual):
    """It refuses what came at 0.02 s; whoever asks the end again is told again."""

    async def server(end, clock):
        await end.receive()
        raise PeerError("INVALID_ARGUMENT", "no, thank you")

    async def client(end, clock, _):
        send(end, clock, [0.02])
        told = await receive_all(end, clock) + await receive_all(end, clock)
        return [(str(error), at) for error, at in told]

    _, got = play(transport, virtual, server, client)
    check(got, [("INVALID_ARGUMENT: no, thank you", 0.02)] * 2, virtual)


@pytest.mark.parametrize("under_way", [0, 1, 3])
def test_a_connection_that_breaks_is_told_to_both_ends_and_leaves_nothing_under_way(transport, virtual, under_way):
    """It is cut at 0.05 s, when what was sent either way is due at 0.1 s; time goes on to 0.3 s."""

    async def server(end, clock):
        send(end, clock, [0.1] * under_way)
        *_, (error, _) = await receive_all(end, clock)
        send(end, clock, [0.2])
        await clock.sleep_until(0.3)
        return error

    async def client(end, clock, conversation):
        send(end, clock, [0.1] * under_way)
        await clock.sleep_until(0.05)
        await standstill(conversation.aclose(), "break")
        *_, (error, _) = await receive_all(end, clock)
        send(end, clock, [0.2])
        await clock.sleep_until(0.3)
        return error

    for error in play(transport, virtual, server, client):
        assert isinstance(error, NetworkError)


def test_what_is_sent_to_a_client_that_has_left_vanishes(transport, virtual):
    """Half of it is sent before the server can know."""

    async def server(end, clock):
        send(end, clock, [0.05] * 3)
        await receive_all(end, clock)
        send(end, clock, [0.05] * 3)
        await end.drain()
        await clock.sleep_until(0.2)
        return "went on"

    async def client(end, clock, _):
        return "left"

    assert play(transport, virtual, server, client) == ("went on", "left")


def test_what_is_sent_to_a_server_that_has_left_vanishes(transport, virtual):
    async def server(end, clock):
        return "left"

    async def client(end, clock, _):
        send(end, clock, [0.05] * 3)
        await receive_all(end, clock)
        send(end, clock, [0.05] * 3)
        await end.drain()
        await clock.sleep_until(0.2)
        return "went on"

    assert play(transport, virtual, server, client) == ("left", "went on")


def test_an_end_that_is_closed_tells_its_own_receiver(transport, virtual):
    async def main():
        clock = VirtualClock() if virtual else RealClock()

        async with Party(transport, clock, lambda end: receive_all(end, clock)).open() as join:
            async with join() as (end, _):
                waiting = asyncio.create_task(receive_all(end, clock))
                await clock.sleep_until(0.05)
            return [(str(error), at) for error, at in await waiting]

    check(run(main(), virtual=virtual), [("this end is closed", 0.05)], virtual)


def test_drained_is_an_end_when_all_that_it_sent_is_there(transport, virtual):
    """The one that receives has it before the one that sent it goes on."""
    seen = []

    async def server(end, clock):
        seen.extend(await receive(end, clock, 1))

    async def client(end, clock, _):
        send(end, clock, [0.05])
        await end.drain()
        if not virtual:  # real sockets take real time
            await clock.sleep_until(clock.now() + 0.1)
        return list(seen)

    _, got = play(transport, virtual, server, client)
    check(got, [(0, 0.05)], virtual)


def test_a_client_that_comes_again_has_a_connection_of_its_own(transport, virtual):
    """What is under way on the first for 0.3 s does not hold up the second, opened at 0.1 s, whose takes 0.1 s."""
    got = []

    async def main():
        clock = VirtualClock() if virtual else RealClock()

        async def serve(end):
            got.append(await receive_all(end, clock))

        async with Party(transport, clock, serve).open() as join:
            async with join() as (end, _):
                send(end, clock, [0.3, 0.3])
            await clock.sleep_until(0.1)
            async with join() as (end, _):
                send(end, clock, [0.2, 0.2])

    run(main(), virtual=virtual)
    for (*messages, (error, _)), when in zip(got, (0.2, 0.3), strict=True):
        check(messages, [(0, when), (1, when)], virtual)
        assert isinstance(error, NetworkError)


def test_the_delays_are_measured_in_both_directions(transport, virtual):
    """Asked for 50 ms down and 20 ms up, counted from 10 ms before: it is the receiver who knows what came of it."""
    measured = {"down": [], "up": []}

    async def server(end, clock):
        await clock.sleep_until(0.01)
        end.carry(note(0), 0.0, 0.05)
        return await receive(end, clock, 2)

    async def client(end, clock, _):
        await clock.sleep_until(0.01)
        end.carry(note(0), 0.0, 0.02)
        end.carry(note(1), 0.0, 0.02)
        return await receive(end, clock, 1)

    measures = {way: (lambda *delays, way=way: measured[way].append(delays)) for way in measured}
    play(transport, virtual, server, client, **measures)
    assert [requested for requested, _ in measured["down"]] == [0.05]
    assert [requested for requested, _ in measured["up"]] == [0.02, 0.02]  # not that the client is ready
    for requested, achieved in measured["down"] + measured["up"]:
        assert achieved == requested if virtual else requested - 1e-6 <= achieved < requested + LATE


class _Slow(MemoryTransport):
    """A transport whose server is told 10 ms of real time after a frame is there that it is sent, as gRPC may do."""

    def serve(self, handler):
        return super().serve(lambda channel: handler(_SlowChannel(channel)))


class _SlowChannel:
    def __init__(self, channel):
        self._channel = channel
        self.receive, self.aclose = channel.receive, channel.aclose

    async def send(self, frame):
        await self._channel.send(frame)
        await aside(asyncio.sleep(0.01), "sent")


def test_a_client_that_has_its_welcome_before_the_server_knows_that_it_is_sent_is_served(toy):
    """The client is ready while the server still waits for the transport: the real world, and no deadlock."""
    slow, fast = (toy.play({"c/0": toy.Client()}, transport=transport) for transport in (_Slow, MemoryTransport))
    assert slow.lines == fast.lines


def test_what_the_transport_takes_to_say_that_a_message_is_sent_is_no_emulated_time():
    """The message is due at 0.005 s, and the server is told of it 10 ms after it is there."""

    async def server(end, clock):
        send(end, clock, [0.005])

    async def client(end, clock, _):
        return await receive(end, clock, 1)

    _, got = play(_Slow(), True, server, client)
    check(got, [(0, 0.005)], True)


async def test_to_another_process_a_message_leaves_at_its_time(transport):
    """On the real clock it waits at the sender; the delay is measured when it is handed to the connection."""
    clock, measured, got = RealClock(), [], []

    async def serve(channel):
        conversation = Conversation(channel, limit=0)
        with suppress(NetworkError):
            while True:
                got.append((number_of(await conversation.receive()), clock.now()))

    async with transport.serve(serve) as address:
        end = Apart(Conversation(await transport.connect(address), limit=0), clock, lambda *d: measured.append(d))
        clock.start()
        async with end:
            for number, when in enumerate([0.05, 0.03, 0.1]):
                end.carry(note(number), 0.0, when)
            await end.drain()
            assert clock.now() >= 0.1 - 1e-6
    check(got, [(0, 0.05), (1, 0.05), (2, 0.1)], False)
    assert [requested for requested, _ in measured] == [0.05, 0.03, 0.1]
    for requested, achieved in measured:
        assert requested - 1e-6 <= achieved < requested + LATE


async def test_to_another_process_that_has_left_nothing_is_sent_and_the_receiver_is_told(transport):
    clock = RealClock()

    async def leave(channel):
        await channel.receive()

    async with (
        transport.serve(leave) as address,
        Apart(Conversation(await transport.connect(address), limit=0), clock) as end,
    ):
        send(end, clock, [0.0])
        with pytest.raises(NetworkError):
            await end.receive()
        send(end, clock, [0.0] * 3)
        await asyncio.wait_for(end.drain(), 10)
