"""Speed as ratios against a floor measured in the same run: machines are shared, so that bare times say nothing.

Each pair is run in turn several times; the ratio is that of the medians. Run by `make bench`.
"""

import asyncio
import heapq
import statistics
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, NoReturn

import grpc
import torch
from grpc import aio
from torch.nn import functional

from fedemu import experiment
from fedemu.client import join
from fedemu.clock import VirtualClock, run
from fedemu.compute.inline import inline
from fedemu.compute.pool import pool
from fedemu.errors import NetworkError
from fedemu.links._base import Way
from fedemu.links._fluid import Fluid
from fedemu.links.delay import delay
from fedemu.links.tcp.none import none
from fedemu.models._base import Task, flatten
from fedemu.models._objective import LocalObjective
from fedemu.models.lenet import lenet
from fedemu.net._pb import federation_pb2 as pb
from fedemu.net.channel import Channel, Conversation
from fedemu.net.delivery import Exchange
from fedemu.net.emulated import EmulatedChannel, Meter
from fedemu.net.grpc import GrpcTransport
from fedemu.net.memory import MemoryTransport
from fedemu.net.messages import Message, encode
from fedemu.net.network import Network, Pipe, Route
from fedemu.net.path import Path as Crossing
from fedemu.rng import stream
from fedemu.scenario import load
from fedemu.strategies._sgd import local_sgd
from fedemu.types import Training

QUICKSTART = Path(__file__).parents[2] / "scenarios" / "quickstart.yaml"
CLIENTS = 50
TRIPS = 100
"""Of each of them."""
ALONE = 300
"""Trips of a client that is alone."""
TIMERS = 100_000
FLOWS = 10_000
"""At once in one pipe."""
FLOW_EVENTS = 40_000
"""Starts and ends among them."""
MESSAGE = Message(pb.Update(), {"delta": torch.zeros(250)})
"""1 kB of update."""
ANSWER = Message(pb.Answer())


class Ratio(NamedTuple):
    """How much longer ours takes than the floor."""

    times: float
    spread: float
    """Of the single ratios."""
    seconds: float
    """Ours alone."""


def ratio(ours: Callable[[], float], floor: Callable[[], float], repeat: int = 5) -> Ratio:
    """Compare two tasks that tell how long they took."""
    pairs = [(ours(), floor()) for _ in range(repeat)]
    ratios = [a / b for a, b in pairs]
    seconds = statistics.median(a for a, _ in pairs)
    return Ratio(seconds / statistics.median(b for _, b in pairs), max(ratios) - min(ratios), seconds)


def timed(task: Callable[[], object]) -> Callable[[], float]:
    """Make a task tell how long it took."""

    def timing() -> float:
        started = time.perf_counter()
        task()
        return time.perf_counter() - started

    return timing


def sgd() -> Ratio:
    """Compare local SGD on a flat vector with torch.optim.SGD on the same model and batches."""
    torch.set_num_threads(1)
    x, y = torch.rand(640, 3, 32, 32), torch.randint(10, (640,))
    module = lenet(Task((3, 32, 32), 10))
    start, objective = flatten(module), LocalObjective(module, x, y)
    plain = lenet(Task((3, 32, 32), 10))

    def ours() -> None:
        local_sgd(objective, start, Training(batch_size=32), stream(1, "bench"))

    def floor() -> None:
        optimiser = torch.optim.SGD(plain.parameters(), lr=0.01)
        for first in range(0, 640, 32):
            optimiser.zero_grad()
            functional.cross_entropy(plain(x[first : first + 32]), y[first : first + 32]).backward()
            optimiser.step()

    return ratio(timed(ours), timed(floor))


def workers() -> Ratio:
    """Compare quickstart's training in a pool of two with training inline."""
    cell = load(QUICKSTART, [("model", "{kind: convnet, depth: 3}"), ("stop", "{rounds: 2}")]).cells[0]
    with pool(workers=2)() as two, inline()() as one:
        return ratio(timed(lambda: experiment.run(cell, two)), timed(lambda: experiment.run(cell, one)), repeat=3)


def memory() -> Ratio:
    """Compare round trips in memory on the virtual clock with a bare pair of queues that carry the same frames."""

    async def echo_floor() -> float:
        there, back = asyncio.Queue[bytes](8), asyncio.Queue[bytes](8)
        frames = list(encode(MESSAGE))

        async def echo() -> None:
            while True:
                await back.put(await there.get())

        task = asyncio.create_task(echo())
        started = time.perf_counter()
        for _ in range(ALONE):
            for frame in frames:
                await there.put(frame)
            for _ in frames:
                await back.get()
        seconds = time.perf_counter() - started
        task.cancel()
        return seconds

    return ratio(lambda: run(_trips(MemoryTransport()), virtual=True), lambda: asyncio.run(echo_floor()))


def grpc_() -> Ratio:
    """Compare round trips over gRPC with a bare grpc.aio unary echo of the same bytes."""
    return ratio(
        lambda: asyncio.run(_trips(GrpcTransport())), lambda: asyncio.run(_echo("127.0.0.1:0", clients=1, trips=ALONE))
    )


async def _trips(transport: MemoryTransport | GrpcTransport) -> float:
    """Return how long one client's trips take."""

    async def echo(channel: Channel) -> None:
        conversation = Conversation(channel, limit=1000)
        for _ in range(ALONE):
            await conversation.send(await conversation.receive())

    async with transport.serve(echo) as address:
        channel = await transport.connect(address)
        conversation = Conversation(channel, limit=1000)
        started = time.perf_counter()
        for _ in range(ALONE):
            await conversation.send(MESSAGE)
            await conversation.receive()
        seconds = time.perf_counter() - started
        await channel.aclose()
    return seconds


async def _echo(listen: str, clients: int, trips: int) -> float:
    """Return how long the clients take for their trips at once, each over a bare grpc.aio channel of its own."""

    async def echo(request: bytes, _: aio.ServicerContext) -> bytes:
        return request

    async def travel(call: Callable[[bytes], Awaitable[bytes]]) -> None:
        for _ in range(trips):
            await call(body)

    server, body = aio.server(), b"".join(encode(MESSAGE))
    method = grpc.unary_unary_rpc_method_handler(echo)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench", {"Echo": method}),))
    port = server.add_insecure_port(listen)
    await server.start()
    address = listen if listen.startswith("unix:") else f"127.0.0.1:{port}"
    async with AsyncExitStack() as stack:
        options = [("grpc.use_local_subchannel_pool", 1)]
        channels = [await stack.enter_async_context(aio.insecure_channel(address, options)) for _ in range(clients)]
        for channel in channels:
            await channel.channel_ready()
        started = time.perf_counter()
        await asyncio.gather(*[travel(channel.unary_unary("/bench/Echo")) for channel in channels])
        seconds = time.perf_counter() - started
    await server.stop(None)
    return seconds


def emulated(transport: Callable[[str], MemoryTransport | GrpcTransport], listen: str) -> Ratio:
    """Compare round trips of 50 clients behind emulated links with as many at once in a bare grpc.aio unary echo."""
    with TemporaryDirectory() as directory:
        where = listen.format(directory)
        return ratio(
            lambda: run(_emulated_trips(transport(where)), virtual=True),
            lambda: asyncio.run(_echo(where, CLIENTS, TRIPS)),
            repeat=3,
        )


async def _emulated_trips(transport: MemoryTransport | GrpcTransport) -> float:
    """Return the real time that the clients take for their trips at once: an update there, an answer back."""
    clock = VirtualClock()
    names = [f"phones/{i}" for i in range(CLIENTS)]
    network, exchange = Network(clock, {f"{name} up": Pipe(10e6) for name in names}), Exchange(clock)
    link = (("delay", delay(delay=0.01)),)

    def up(name: str, conversation: Conversation) -> EmulatedChannel:
        path = Crossing(
            f"{name} up", [(0.0, Way((), link, rate=10e6, delay=0.01, rtt=0.02))], none, Route([f"{name} up"])
        )
        return EmulatedChannel(exchange.clients_end(name, conversation), path, network, clock, _no_draw)

    def down(name: str, conversation: Conversation) -> EmulatedChannel:
        path = Crossing(f"{name} down", [(0.0, Way((), link, delay=0.01, rtt=0.02))], none)
        return EmulatedChannel(exchange.servers_end(name, conversation), path, network, clock, _no_draw)

    async def serve(channel: Channel) -> None:
        conversation = Conversation(channel, limit=1000)
        hello = (await conversation.receive()).header
        assert isinstance(hello, pb.Hello)
        async with down(hello.group, conversation) as end:
            await conversation.send(Message(pb.Welcome()))
            with suppress(NetworkError):
                while True:
                    await end.receive()
                    end.post(ANSWER)

    async def trips(end: EmulatedChannel) -> None:
        for _ in range(TRIPS):
            await end.send(MESSAGE, Meter())
            await end.receive()

    async with transport.serve(serve) as address, exchange, AsyncExitStack() as stack:
        ends = []
        for name in names:
            conversation = Conversation(await transport.connect(address), limit=1000)
            await join(conversation, name, None)
            ends.append(await stack.enter_async_context(up(name, conversation)))
        started = time.perf_counter()
        await asyncio.gather(*[trips(end) for end in ends])
        return time.perf_counter() - started


def _no_draw(*_: object) -> NoReturn:
    raise AssertionError("a constant delay draws nothing")


def timers() -> Ratio:
    """Compare a virtual loop's timers, 100 at a time, with as many callbacks on a plain loop."""

    async def chains(again: Callable[[asyncio.AbstractEventLoop, Callable[[], None]], object]) -> None:
        loop, left = asyncio.get_running_loop(), TIMERS
        done = loop.create_future()

        def fire() -> None:
            nonlocal left
            left -= 1
            if left == 0:
                done.set_result(None)
            elif left > 0:
                again(loop, fire)

        for _ in range(100):
            again(loop, fire)
        await done

    return ratio(
        timed(lambda: run(chains(lambda loop, fire: loop.call_later(1.0, fire)), virtual=True)),
        timed(lambda: asyncio.run(chains(lambda loop, fire: loop.call_soon(fire)))),
    )


def flows() -> Ratio:
    """Compare flows that share one pipe, each new one started when one ends, with a bare heap of as many numbers."""
    # a prime's multiples: no two sizes are the same, and no two ends
    sizes = [100_000 + 7919 * number % 1_000_003 for number in range(FLOWS + FLOW_EVENTS // 2)]

    def ours() -> float:
        fluid = Fluid({"server": 1e9})
        for flow, size in enumerate(sizes[:FLOWS]):
            fluid.start(flow, size, ["server"], 0.0)
        started = time.perf_counter()
        for flow, size in enumerate(sizes[FLOWS:], FLOWS):
            end = fluid.next_end()
            assert end is not None
            assert fluid.ended(end)
            fluid.start(flow, size, ["server"], end)
        return time.perf_counter() - started

    def floor() -> float:
        heap = [(float(size), number) for number, size in enumerate(sizes[:FLOWS])]
        heapq.heapify(heap)
        started = time.perf_counter()
        for number, size in enumerate(sizes[FLOWS:], FLOWS):
            now, _ = heapq.heappop(heap)
            heapq.heappush(heap, (now + size, number))
        return time.perf_counter() - started

    return ratio(ours, floor)


def quickstart(transport: str) -> str:
    """Tell how much faster than the real world quickstart runs."""
    with inline()() as compute:
        result = experiment.run(load(QUICKSTART, [("transport", transport)]).cells[0], compute)
    return f"{result['emulated_seconds'] / result['wall_seconds']:8.1f} emulated seconds in a real second"


def main() -> None:
    torch.manual_seed(1)
    echo, trips = "a bare grpc.aio unary echo", CLIENTS * TRIPS
    for name, against, count, measure in [
        ("local SGD, lenet", "a torch.optim.SGD loop", None, sgd),
        ("quickstart, convnet, pool of 2", "inline", None, workers),
        ("timers of the virtual loop", "call_soon on asyncio's", TIMERS, timers),
        ("10,000 flows in one pipe", "a bare heapq", FLOW_EVENTS, flows),
        ("round trip in memory", "bare asyncio queues", ALONE, memory),
        ("round trip over gRPC", echo, ALONE, grpc_),
        ("emulated, in memory", echo, trips, lambda: emulated(lambda _: MemoryTransport(), "127.0.0.1:0")),
        ("emulated, over gRPC, TCP", echo, trips, lambda: emulated(GrpcTransport, "127.0.0.1:0")),
        ("emulated, over gRPC, Unix", f"{echo}, Unix", trips, lambda: emulated(GrpcTransport, "unix:{}/socket")),
    ]:
        times, spread, seconds = measure()
        speed = "" if count is None else f"; {count / seconds:,.0f}/s"
        print(f"{name:<32} {times:8.2f} times {against} (spread {spread:.2f}){speed}")
    for transport in ("memory", "grpc"):
        print(f"{f'quickstart, {transport}':<32} {quickstart(transport)}")


if __name__ == "__main__":
    main()
