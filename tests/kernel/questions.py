"""What a program of the lab is asked, a line each."""

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator


async def questions() -> AsyncIterator[str]:
    """Say that the program is ready, and yield the lines of its input. Where that ends, so does the program, at once.

    Who asks has then gone, and perhaps the box too, through which what is under way would never come to its end.
    """
    loop, lines = asyncio.get_running_loop(), asyncio.Queue[str]()

    def read() -> None:
        for line in sys.stdin:
            loop.call_soon_threadsafe(lines.put_nowait, line.strip())
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    print("ready", flush=True)
    while True:
        yield await lines.get()
