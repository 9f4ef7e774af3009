"""Unary gRPC calls: `calls serve` takes them, `calls call` makes one for each line, which has its size in bytes.

Each call has a connection of its own, which is ready before it begins; the answer is the seconds that it takes.
"""

import asyncio
import sys
import time

import grpc

from tests.kernel.lab import ADDRESSES
from tests.kernel.questions import questions

ADDRESS = f"{ADDRESSES['far']}:6000"
UNLIMITED = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]


async def take(request: bytes, _: object) -> bytes:
    """Take an update."""
    return b"k"


async def serve() -> None:
    """Take calls until the input ends."""
    server = grpc.aio.server(options=UNLIMITED)
    handlers = {"Take": grpc.unary_unary_rpc_method_handler(take)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("Kernel", handlers),))
    server.add_insecure_port(ADDRESS)
    await server.start()
    async for _ in questions():
        pass


async def call(size: int) -> float:
    """Return the seconds of one call."""
    # channels of one process share connections unless told not to
    async with grpc.aio.insecure_channel(ADDRESS, [*UNLIMITED, ("grpc.use_local_subchannel_pool", 1)]) as channel:
        await channel.channel_ready()
        method, request = channel.unary_unary("/Kernel/Take"), bytes(size)
        start = time.perf_counter()
        await method(request)
        return time.perf_counter() - start


async def calls() -> None:
    """Answer each size with the seconds of a call."""
    async for size in questions():
        print(await call(int(size)), flush=True)


if __name__ == "__main__":
    asyncio.run({"serve": serve, "call": calls}[sys.argv[1]]())
