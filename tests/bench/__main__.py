"""Speed as ratios against a floor measured in the same run: machines are shared, so that bare times say nothing.

Each pair is run in turn several times; the ratio is that of the medians. Run by `make bench`.
"""

import asyncio
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import torch
from grpc import aio
from torch.nn import functional

from fedemu import experiment
from fedemu.clock import VirtualClock, run
from fedemu.compute.inline import inline
from fedemu.compute.pool import pool
from fedemu.models._base import Task, flatten
from fedemu.models._objective import LocalObjective
from fedemu.models.lenet import lenet
from fedemu.net._pb import federation_pb2 as pb
from fedemu.net.channel import Conversation
from fedemu.net.grpc import GrpcTransport
from fedemu.net.memory import MemoryTransport
from fedemu.net.messages import Message, encode
from fedemu.rng import stream
from fedemu.scenario import load
from fedemu.strategies._sgd import local_sgd
from fedemu.types import Training

QUICKSTART = Path(__file__).parents[2] / "scenarios" / "quickstart.yaml"
TRIPS = 300
MESSAGE = Message(pb.Update(), {"delta": torch.zeros(250)})
"""1 kB of update."""


def ratio(ours: Callable[[], None], floor: Callable[[], None], times: int = 5) -> tuple[float, float]:
    """Return how much longer ours takes than the floor, and the spread of the single ratios."""
    pairs = []
    for _ in range(times):
        seconds = []
        for task in (ours, floor):
            started = time.perf_counter()
            task()
            seconds.append(time.perf_counter() - started)
        pairs.append(seconds)
    ratios = [a / b for a, b in pairs]
    return statistics.median(a for a, _ in pairs) / statistics.median(b for _, b in pairs), max(ratios) - min(ratios)


def sgd() -> tuple[float, float]:
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

    return ratio(ours, floor)


def workers() -> tuple[float, float]:
    """Compare quickstart's training in a pool of two with training inline."""
    cell = load(QUICKSTART, [("model", "{kind: convnet, depth: 3}"), ("stop", "{rounds: 2}")]).cells[0]
    with pool(workers=2)() as two, inline()() as one:
        return ratio(lambda: experiment.run(cell, two) and None, lambda: experiment.run(cell, one) and None, times=3)


def memory() -> tuple[float, float]:
    """Compare round trips in memory on the virtual clock with a bare pair of queues that carry the same frames."""

    async def echo_floor() -> None:
        there, back = asyncio.Queue[bytes](8), asyncio.Queue[bytes](8)
        frames = list(encode(MESSAGE))

        async def echo() -> None:
            while True:
                await back.put(await there.get())

        task = asyncio.create_task(echo())
        for _ in range(TRIPS):
            for frame in frames:
                await there.put(frame)
            for _ in frames:
                await back.get()
        task.cancel()

    async def ours() -> None:
        VirtualClock()
        await _trips(MemoryTransport())

    return ratio(lambda: run(ours(), virtual=True), lambda: asyncio.run(echo_floor()))


def grpc_() -> tuple[float, float]:
    """Compare round trips over gRPC with a bare grpc.aio unary echo of the same bytes."""

    async def echo_floor() -> None:
        async def echo(request: bytes, _: aio.ServicerContext) -> bytes:
            return request

        server = aio.server()
        method = grpc.unary_unary_rpc_method_handler(echo)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench", {"Echo": method}),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        body = b"".join(encode(MESSAGE))
        async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.unary_unary("/bench/Echo")
            for _ in range(TRIPS):
                await call(body)
        await server.stop(None)

    return ratio(lambda: asyncio.run(_trips(GrpcTransport())), lambda: asyncio.run(echo_floor()))


async def _trips(transport: MemoryTransport | GrpcTransport) -> None:
    async def echo(channel: object) -> None:
        conversation = Conversation(channel, limit=1000)  # type: ignore[arg-type]
        for _ in range(TRIPS):
            await conversation.send(await conversation.receive())

    async with transport.serve(echo) as address:
        channel = await transport.connect(address)
        conversation = Conversation(channel, limit=1000)
        for _ in range(TRIPS):
            await conversation.send(MESSAGE)
            await conversation.receive()
        await channel.aclose()


def quickstart() -> str:
    """Tell how much faster than the real world quickstart runs."""
    with inline()() as compute:
        result = experiment.run(load(QUICKSTART).cells[0], compute)
    return f"{result['emulated_seconds'] / result['wall_seconds']:8.1f} emulated seconds in a real second"


def main() -> None:
    torch.manual_seed(1)
    for name, against, measure in [
        ("local SGD, lenet", "a torch.optim.SGD loop", sgd),
        ("quickstart, convnet, pool of 2", "inline", workers),
        ("round trip in memory", "bare asyncio queues", memory),
        ("round trip over gRPC", "a bare grpc.aio unary echo", grpc_),
    ]:
        times, spread = measure()
        print(f"{name:<32} {times:8.2f} times {against} (spread {spread:.2f})")
    print(f"{'quickstart':<32} {quickstart()}")


if __name__ == "__main__":
    main()
