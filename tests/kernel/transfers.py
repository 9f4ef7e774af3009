"""Plain TCP transfers: `transfers serve` receives, `transfers send` sends as many at once as a line has pairs.

A pair is `size:priority`: bytes, and the class of traffic control that they are sent in (0 for none), as `tc` counts
classes in hexadecimal: 10010 is 1:10. The answer has the seconds from the first byte written, at one time for all, to
the one byte by which the other end says that it has all of it; connections were made before.
"""

import asyncio
import socket
import sys
import time

from tests.kernel.lab import ADDRESSES
from tests.kernel.questions import questions

PORT = 5000
REST = 0.2
"""Seconds from the handshakes to the transfers: a token bucket is full again, and queues are empty."""


async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take all that comes, and say so."""
    while await reader.read(1 << 18):
        pass
    writer.write(b"k")
    writer.close()


async def serve() -> None:
    """Receive until the input ends."""
    async with await asyncio.start_server(receive, ADDRESSES["far"], PORT):
        async for _ in questions():
            pass


async def connect(priority: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Make a connection whose packets are in that class."""
    sock = socket.socket()
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, int(priority, 16))
    await asyncio.get_running_loop().sock_connect(sock, (ADDRESSES["far"], PORT))
    return await asyncio.open_connection(sock=sock)


async def transfer(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: memoryview, start: asyncio.Event
) -> float:
    """Send bytes; return when they are acknowledged."""
    await start.wait()
    writer.write(data)
    writer.write_eof()
    await reader.readexactly(1)
    end = time.perf_counter()
    writer.close()
    return end


async def send() -> None:
    """Answer each line of transfers with their seconds."""
    async for pairs in questions():
        start = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            running = []
            for size, priority in (pair.split(":") for pair in pairs.split()):
                connection = await connect(priority)
                running.append(tasks.create_task(transfer(*connection, memoryview(bytes(int(size))), start)))
            await asyncio.sleep(REST)
            began = time.perf_counter()
            start.set()
        print(*(task.result() - began for task in running), flush=True)


if __name__ == "__main__":
    asyncio.run({"serve": serve, "send": send}[sys.argv[1]]())
