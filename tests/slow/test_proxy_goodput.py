"""Goodput through a proxy: 1, 10 and 100 Mbit/s within 1 %, while the machine does nothing else."""

import asyncio
import time
from collections.abc import Awaitable
from pathlib import Path

import pytest

from fedemu.net.proxy.selector import prompt_loop
from fedemu.net.proxy.sockets import Address
from fedemu.proxying.link import load
from fedemu.proxying.service import Service

pytestmark = pytest.mark.slow

SECONDS = 5


@pytest.mark.parametrize("link", ["rate: {}Mbit/s", "delay: 20ms\nrate: {}Mbit/s"])
@pytest.mark.parametrize("direction", ["up", "down"])
@pytest.mark.parametrize("rate", [1, 10, 100])
def test_goodput_is_within_one_percent_of_the_rate(tmp_path: Path, rate: int, direction: str, link: str) -> None:
    """What arrives in 5 s from the first byte to the last, in either direction, with and without a delay."""
    size = rate * 125_000 * SECONDS
    (tmp_path / "link.yaml").write_text(link.format(rate))
    took: list[float] = []

    async def send(writer: asyncio.StreamWriter) -> None:
        for start in range(0, size, 62_500):  # one large write would keep the loop from the first bytes for 60 ms
            writer.write(bytes(min(62_500, size - start)))
            await writer.drain()
        writer.write_eof()

    async def receive(reader: asyncio.StreamReader) -> None:
        first = await reader.read(65_536)
        start, left = time.perf_counter(), size - len(first)
        while data := await reader.read(65_536):
            left -= len(data)
        took.append((time.perf_counter() - start) * size / (size - len(first)))
        assert left == 0

    async def end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, sends: bool) -> None:
        work: Awaitable[None] = send(writer) if sends else receive(reader)
        await work
        if sends:
            await reader.read()
        writer.close()

    async def push() -> None:
        server = await asyncio.start_server(lambda r, w: end(r, w, direction == "down"), "127.0.0.1", 0)
        upstream = Address("127.0.0.1", server.sockets[0].getsockname()[1])
        service = Service(
            listen=Address("127.0.0.1", 0),
            upstream=upstream,
            link=load(tmp_path / "link.yaml"),
            seed=1,
            shared=False,
            control=None,
            metrics_port=None,
            announce=lambda _: None,
        )
        async with server, service.serving() as proxy:
            await end(*await asyncio.open_connection(*proxy.at), direction == "up")

    with asyncio.Runner(loop_factory=prompt_loop) as runner:
        runner.run(push())
    goodput = size * 8 / took[0] / 1e6
    print(f"{rate} Mbit/s {direction}, {link!r}: {goodput:.4f} Mbit/s")
    assert goodput == pytest.approx(rate, rel=0.01)
