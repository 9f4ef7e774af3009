"""A channel behind a link: times are the link's formulas to the nanosecond, on the virtual clock."""

import asyncio
import math
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import NamedTuple

import pytest
import torch

from fedemu.clock import VirtualClock, run
from fedemu.errors import NetworkError
from fedemu.links._base import Packet, Tcp, Way
from fedemu.links.delay import delay
from fedemu.links.drop import drop
from fedemu.links.stall import stall
from fedemu.links.tcp.none import none
from fedemu.links.tcp.slow_start import slow_start
from fedemu.net._pb import federation_pb2 as pb
from fedemu.net.channel import Conversation
from fedemu.net.delivery import Apart, Exchange
from fedemu.net.emulated import EmulatedChannel, Meter
from fedemu.net.memory import MemoryTransport
from fedemu.net.messages import Message
from fedemu.net.network import Network, Pipe, Route
from fedemu.net.path import Path
from fedemu.rng import stream

ASSIGNMENT = pb.Assignment(round=1, turn=1, attempt=1)
CANCEL = Message(pb.Cancel(assignment=ASSIGNMENT))
RECEIPT = Message(pb.Receipt(assignment=ASSIGNMENT))


def update(numbers: int, attempt: int = 1) -> Message:
    return Message(
        pb.Update(assignment=pb.Assignment(round=1, turn=1, attempt=attempt)), {"delta": torch.zeros(numbers)}
    )


class Line(NamedTuple):
    """One direction of a link, and the TCP on it."""

    way: Way
    tcp: Callable[[], Tcp] = none


def way(*, delay_=0.0, jitter=0.0, rate=math.inf, tcp=none, before=(), after=(), rtt=0.0) -> Line:
    arrival = (("delay", delay(delay=delay_, jitter=jitter)),) if delay_ else ()
    return Line(Way(before, (*arrival, *after), rate=rate, delay=delay_, rtt=rtt), tcp)


def play(ways, main, *, pipes=None, rtt=0.0):
    """Run `main(channels, arrivals, clock)` on a virtual loop: a sender for each way, and what arrived when.

    Once as if the receivers were processes apart, and once as flights: the arrivals are the same.
    """
    apart, together = (_play(ways, main, pipes, rtt, is_apart) for is_apart in (True, False))
    assert apart == together
    return together


def _play(ways, main, pipes, rtt, is_apart):
    async def start():
        clock, arrivals = VirtualClock(), []
        rates = {f"{name} pipe": w.way.rate for name, w in ways.items() if w.way.rate < math.inf} | (pipes or {})
        network = Network(clock, {name: Pipe(rate) for name, rate in rates.items()})

        async def listen(channel):
            conversation = Conversation(channel, limit=10**9)
            name = (await conversation.receive()).header.group
            end = Apart(conversation, clock) if is_apart else exchange.servers_end(name, conversation)
            await conversation.send(Message(pb.Welcome()))
            async with end:
                await receive(name, end)

        async def receive(name, end):
            while True:
                message, _ = await end.receive()
                arrivals.append((name, type(message.header).__name__, clock.now()))

        transport, exchange = MemoryTransport(), Exchange(clock)
        serving = transport.serve(lambda channel: swallow(listen(channel)))
        async with serving as address, exchange, AsyncExitStack() as stack:
            channels = {}
            for name, w in ways.items():
                conversation = Conversation(await transport.connect(address), limit=0)
                await conversation.send(Message(pb.Hello(group=name)))
                await conversation.receive()
                crossed = [p for p in (f"{name} pipe", *(pipes or {})) if p in rates]
                narrowest = min((rates[p] for p in crossed), default=math.inf)
                path = Path(name, [(0.0, w.way._replace(rate=narrowest, rtt=rtt))], w.tcp, Route(crossed))
                end = Apart(conversation, clock) if is_apart else exchange.clients_end(name, conversation)
                channel = EmulatedChannel(end, path, network, clock, partial(draw, name))
                channels[name] = await stack.enter_async_context(channel)
            await main(channels, arrivals, clock)
            for channel in channels.values():
                await channel.drain()
        return arrivals

    return run(start(), virtual=True)


async def swallow(listening):
    with suppress(NetworkError):
        await listening


def draw(name, stage, message):
    assignment = message.header.assignment
    return stream(1, name, stage, type(message.header).__name__, assignment.round, assignment.attempt)


def test_a_message_arrives_after_its_delay_and_its_bits():
    """`d + 8 S / r` (contract.md): 40 ms, and 4,000 numbers at 1 Mbit/s; sending ends when the last bit has left."""
    message = update(4000)

    async def main(channels, arrivals, clock):
        await channels["a"].send(message, Meter())
        assert clock.now() == pytest.approx(8 * message.size / 1e6, abs=1e-9)

    [(_, _, at)] = play({"a": way(delay_=0.04, rate=1e6)}, main)
    assert at == pytest.approx(0.04 + 8 * message.size / 1e6, abs=2e-9)


def test_slow_start_costs_what_its_formula_says():
    """10, 20, 40 segments of 1514 bytes; each window waits for RTT + s - w s before the next (link-model.md)."""
    rate, rtt = 50e6, 0.1
    message = update(25_000)
    size = message.size
    segments = -(-size // 1448) + 1
    wire, segment = size + 66 * segments, 8 * 1514 / rate
    expected, window, sent = 8 * wire / rate + 0.05, 10, 10
    while sent < segments:
        expected += max(0.0, rtt + segment - window * segment)
        window *= 2
        sent += window

    async def main(channels, arrivals, clock):
        await channels["a"].send(message, Meter())

    [(_, _, at)] = play({"a": way(delay_=0.05, rate=rate, tcp=slow_start)}, main, rtt=rtt)
    assert at == pytest.approx(expected, abs=1e-7)


def test_two_senders_share_the_servers_pipe_evenly():
    """Two equal updates on a shared 1 Mbit/s take twice as long as one alone; the clients' own pipes do not limit."""
    message = update(4000)

    async def main(channels, arrivals, clock):
        async with asyncio.TaskGroup() as group:
            for channel in channels.values():
                group.create_task(channel.send(message, Meter()))

    arrivals = play({"a": way(rate=1e9), "b": way(rate=1e9)}, main, pipes={"server": 1e6})
    assert [at for _, _, at in arrivals] == pytest.approx([16 * message.size / 1e6] * 2, abs=2e-9)


def test_a_cancelled_transfer_frees_its_share_and_counts_what_left():
    """A is cut off at half time of two equal sharers: it has sent a quarter, and b then has the pipe alone."""
    message = update(4000)
    whole = 8 * message.size / 1e6  # seconds alone

    async def main(channels, arrivals, clock):
        meter = Meter()
        a = asyncio.create_task(channels["a"].send(message, meter))
        b = asyncio.create_task(channels["b"].send(message, Meter()))
        await clock.sleep_until(whole / 2)
        a.cancel()
        await b
        assert meter.sent == pytest.approx(message.size / 4, abs=1)
        assert 0 < meter.sent < message.size
        assert clock.now() == pytest.approx(whole / 2 + 0.75 * whole, abs=1e-8)

    arrivals = play({"a": way(), "b": way()}, main, pipes={"server": 1e6})
    assert [name for name, *_ in arrivals] == ["b"]


def test_control_messages_wait_for_no_model():
    """A cancel that is sent in the middle of a 1 s upload has its delay of 10 ms and nothing else."""
    message = update(31_250)

    async def main(channels, arrivals, clock):
        upload = asyncio.create_task(channels["a"].send(message, Meter()))
        await clock.sleep_until(0.5)
        channels["a"].post(CANCEL)
        await upload

    arrivals = play({"a": way(delay_=0.01, rate=1e6)}, main)
    assert arrivals[0] == ("a", "Cancel", 0.51)
    assert arrivals[1][1] == "Update"


def test_messages_of_one_connection_stay_in_order_whatever_their_jitter():
    """50 messages with 20 +- 20 ms each, sent 1 ms apart: without the rule about half the neighbours would swap."""

    async def main(channels, arrivals, clock):
        for attempt in range(50):
            channels["a"].post(Message(pb.Cancel(assignment=pb.Assignment(round=1, turn=1, attempt=attempt))))
            await clock.sleep_until((attempt + 1) * 0.001)

    times = [at for _, _, at in play({"a": way(delay_=0.02, jitter=0.02)}, main)]
    assert times == sorted(times)
    assert len(set(times)) < len(times)  # some were held back behind the one before


def test_a_dropped_request_has_used_the_link_and_never_arrives():
    message = update(4000)

    async def main(channels, arrivals, clock):
        meter = Meter()
        await channels["a"].send(message, meter)
        assert meter.sent == message.size
        assert clock.now() > 0
        channels["a"].post(RECEIPT)

    lossy = way(rate=1e6, after=(("drop", drop(request=1.0)),))
    assert [what for _, what, _ in play({"a": lossy}, main)] == ["Receipt"]


def test_a_stall_delays_an_update_once_and_no_receipt():
    """Probability 1, 4 s: the first attempt leaves at 4 s; its retry and the receipt leave at once."""

    async def main(channels, arrivals, clock):
        channels["a"].post(RECEIPT)
        await channels["a"].send(update(1), Meter())
        assert clock.now() == 4.0
        await channels["a"].send(update(1, attempt=2), Meter())
        assert clock.now() == 4.0

    stalled = way(before=(("stall", stall(probability=1.0, duration=4.0)),))
    assert [at for _, _, at in play({"a": stalled}, main)] == [0.0, 4.0, 4.0]


def test_a_stage_that_sends_a_message_back_in_time_is_a_bug_that_is_caught():
    def back(packet: Packet, rng):
        return packet._replace(at=packet.at - 1)

    async def main(channels, arrivals, clock):
        with pytest.raises(AssertionError, match="back in time"):
            channels["a"].post(CANCEL)

    assert play({"a": way(after=(("back", back),))}, main) == []
