"""A proxy in front of real services, with real sockets and in real time; what takes longer is in tests/slow."""

import asyncio
import json
import random
import re
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import aiohttp
import numpy as np
import pytest

from fedemu.cli import main
from fedemu.errors import NetworkError, ScenarioError
from fedemu.links._trace import Trace
from fedemu.net.proxy.lane import GRAIN, LARGEST, MESSAGE, SEGMENT, SLOWEST, chunk
from fedemu.net.proxy.proxy import Proxy
from fedemu.net.proxy.selector import prompt_loop
from fedemu.net.proxy.sockets import Address, address
from fedemu.proxying.link import Backlog, load, merged
from fedemu.proxying.service import Service
from fedemu.rng import stream

HERE = Address("127.0.0.1", 0)
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say back what comes, then hang up."""
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take all that comes, then say how many bytes it was."""
    size = 0
    try:
        while data := await reader.read(65_536):
            size += len(data)
        writer.write(str(size).encode())
    except ConnectionError:
        pass
    finally:
        writer.close()


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "link.yaml"
        path.write_text(text)
        return path

    return write


@asynccontextmanager
async def proxied(link: Path, service: Talk = echo, **how) -> AsyncIterator[tuple[Proxy, list[str]]]:
    """Put a service behind a link; inside, the value is the proxy and what it has said."""
    said: list[str] = []
    server = await asyncio.start_server(service, "127.0.0.1", 0)
    upstream = Address("127.0.0.1", server.sockets[0].getsockname()[1])
    usual = {"listen": HERE, "upstream": upstream, "seed": 1, "shared": False, "control": None, "metrics_port": None}
    async with server, Service(**{**usual, "link": load(link), "announce": said.append, **how}).serving() as proxy:
        yield proxy, said


async def dial(proxy: Proxy) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(proxy.at.host, proxy.at.port)


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes = b"x") -> float:
    """Return how long an echo takes."""
    start = time.perf_counter()
    writer.write(data)
    assert await reader.readexactly(len(data)) == data
    return time.perf_counter() - start


async def hang_up(writer: asyncio.StreamWriter) -> None:
    writer.close()
    await writer.wait_closed()


async def settled(proxy: Proxy, connections: int = 0) -> None:
    """Wait until so many connections are open."""
    async with asyncio.timeout(5):
        while len(proxy.connections) != connections:  # noqa: ASYNC110  it tells nobody
            await asyncio.sleep(0.005)


def promptly(main: Callable[[], Awaitable]) -> None:
    """Run on the loop that the command has."""
    with asyncio.Runner(loop_factory=prompt_loop) as runner:
        runner.run(main())


# --- what arrives, and when


@pytest.mark.parametrize(
    "link", ["{}", "{delay: 5ms, jitter: 4ms}", "{delay: 2ms, up: {rate: 20Mbit/s}, down: {rate: 40Mbit/s}}"]
)
async def test_every_byte_arrives_unchanged_and_in_order(file, link: str) -> None:
    """Jitter of single chunks cannot reorder a stream."""
    data = random.Random(1).randbytes(400_000)
    async with proxied(file(link)) as (proxy, _):
        reader, writer = await dial(proxy)
        writer.write(data)
        writer.write_eof()
        assert await reader.read() == data
        await hang_up(writer)
        await settled(proxy)
        assert proxy.outcomes["closed"] == 1


@pytest.mark.parametrize(("link", "requested"), [("up: {delay: 20ms}", 0.02), ("delay: 25ms", 0.05)])
def test_the_delay_is_within_a_millisecond_of_the_requested_one(file, link: str, requested: float) -> None:
    """At the median of 40 echoes, each 20 ms up, or 25 ms there and 25 ms back; what no link takes is taken off."""

    async def median(link: str) -> float:
        async with proxied(file(link)) as (proxy, _):
            ends = await dial(proxy)
            times = [await ask(*ends) for _ in range(40)]
            await hang_up(ends[1])
        return statistics.median(times)

    async def compare() -> None:
        added = await median(link) - await median("{}")
        assert abs(added - requested) < 0.001

    promptly(compare)


def test_goodput_is_within_one_percent_of_the_rate(file) -> None:
    """1.25 MB at 10 Mbit/s is 1 s, in chunks of 2.5 kB that each end when they should, however late each wakes up."""

    async def push() -> None:
        async with proxied(file("up: {rate: 10Mbit/s}"), swallow) as (proxy, _):
            reader, writer = await dial(proxy)
            start = time.perf_counter()
            writer.write(bytes(1_250_000))
            writer.write_eof()
            assert await reader.read() == b"1250000"
            assert time.perf_counter() - start == pytest.approx(1.0, rel=0.01)
            await hang_up(writer)

    promptly(push)


@pytest.mark.parametrize(("shared", "takes"), [(False, 0.2), (True, 0.4)])
def test_connections_have_pipes_of_their_own_or_share_one(file, shared: bool, takes: float) -> None:
    """Two uploads of 250 kB at 10 Mbit/s: 0.2 s each beside each other, 0.4 s through one pipe, both the same."""

    async def one(proxy: Proxy) -> float:
        reader, writer = await dial(proxy)
        start = time.perf_counter()
        writer.write(bytes(250_000))
        writer.write_eof()
        assert await reader.read() == b"250000"
        await hang_up(writer)
        return time.perf_counter() - start

    async def push() -> None:
        async with proxied(file("up: {rate: 10Mbit/s}"), swallow, shared=shared) as (proxy, _):
            for time_taken in await asyncio.gather(one(proxy), one(proxy)):
                assert time_taken == pytest.approx(takes, abs=0.02)

    promptly(push)


def test_a_rested_link_passes_its_burst_at_once(file) -> None:
    """150 kB at 8 Mbit/s take 150 ms; 100 kB of tokens leave 50 ms, and the tokens are gone then: 150 ms."""

    async def push() -> None:
        async with proxied(file("up: {rate: 8Mbit/s, burst: 100kB}")) as (proxy, _):
            ends = await dial(proxy)
            assert await ask(*ends, bytes(150_000)) == pytest.approx(0.05, abs=0.01)
            assert await ask(*ends, bytes(150_000)) == pytest.approx(0.15, abs=0.01)
            await hang_up(ends[1])

    promptly(push)


def test_chunks_are_as_small_as_pacing_needs_and_no_smaller() -> None:
    """2 ms of the pipe; a segment at slow rates, but never more than 0.1 s; all there is without a limit."""
    assert chunk(100e6) == 100e6 / 8 * GRAIN
    assert chunk(1e6) == SEGMENT
    assert chunk(8e3) == 1000 * SLOWEST
    assert chunk(1.0) == 1
    assert chunk(float("inf")) == chunk(1e12) == LARGEST


def test_the_sender_feels_the_rate(file) -> None:
    """At 100 kbit/s, what a sender can get rid of in 0.3 s is what kernels buffer, and none of it is in the proxy."""

    async def push() -> None:
        async with proxied(file("up: {rate: 100kbit/s}"), swallow) as (proxy, _):
            _, writer = await dial(proxy)
            writer.write(bytes(20_000_000))
            await asyncio.sleep(0.3)
            [connection] = proxy.connections.values()
            assert connection.lanes["up"].queued <= chunk(100e3)
            assert connection.lanes["up"].carried == pytest.approx(3750, abs=1250)
            writer.transport.abort()
            proxy.disable()

    promptly(push)


# --- messages in a stream of bytes


def test_only_what_is_large_stalls_once_each_time(file) -> None:
    """Certain stalls of 0.2 s: not for 60 kB, once for 200 kB whatever its chunks, again after a pause, never down."""

    async def push() -> None:
        async with proxied(file("stall: {probability: 100%, duration: 200ms}")) as (proxy, _):
            ends = await dial(proxy)
            assert await ask(*ends, bytes(60_000)) < 0.1
            for _ in range(2):
                await asyncio.sleep(0.15)
                assert await ask(*ends, bytes(200_000)) == pytest.approx(0.2, abs=0.05)
            await hang_up(ends[1])

    promptly(push)


def test_who_stalls_is_told_by_the_seed(file) -> None:
    """The draw for the first large burst of connection 1 decides: on either side of it, it stalls or it does not."""
    drawn = float(stream(1, "proxy", 1, "up", "stall", "burst", 1).random())

    async def push() -> None:
        for probability, stalls in ((drawn * 0.9, False), (drawn * 1.1, True)):
            link = f"stall: {{probability: {probability}, duration: 200ms}}"
            async with proxied(file(link)) as (proxy, _):
                ends = await dial(proxy)
                assert (await ask(*ends, bytes(2 * MESSAGE)) > 0.2) is stalls
                await hang_up(ends[1])

    promptly(push)


async def test_a_reset_link_resets_both_sides(file) -> None:
    """With certainty, under the first large burst; the upstream reads a reset, too, and not an end."""
    ends: list[str] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.read(65_536):
                pass
            ends.append("end")
        except ConnectionResetError:
            ends.append("reset")
        writer.close()

    async with proxied(file("up: {reset: 100%}"), listen) as (proxy, _):
        reader, writer = await dial(proxy)
        writer.write(bytes(1_000_000))
        with pytest.raises(ConnectionResetError):
            await reader.read()
        await settled(proxy)
        assert proxy.outcomes["reset"] == 1
        writer.transport.abort()
        await asyncio.sleep(0.05)
    assert ends == ["reset"]


async def test_half_a_connection_closes_after_what_was_said_before(file) -> None:
    """The client ends its side at once; the upstream sees it after 50 ms and all bytes, and still answers."""
    async with proxied(file("delay: 50ms"), swallow) as (proxy, _):
        reader, writer = await dial(proxy)
        start = time.perf_counter()
        writer.write(bytes(1000))
        writer.write_eof()
        assert await reader.read() == b"1000"
        assert time.perf_counter() - start == pytest.approx(0.1, abs=0.02)
        await hang_up(writer)


async def test_what_a_side_breaks_off_is_broken_off_at_the_other(file) -> None:
    """A client that aborts; the upstream reads a reset."""
    broken = asyncio.Event()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read()
        except ConnectionResetError:
            broken.set()
        writer.close()

    async with proxied(file("{}"), listen) as (proxy, _):
        with closing(socket.create_connection((proxy.at.host, proxy.at.port))) as client:
            await settled(proxy, 1)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        async with asyncio.timeout(5):
            await broken.wait()
        await settled(proxy)
        assert proxy.outcomes["broken"] == 1


# --- links that are down


def test_a_schedule_counts_from_when_the_link_was_put_in_place(file) -> None:
    """40 ms more from 0.2 s to 0.5 s."""

    async def push() -> None:
        async with proxied(file("schedule: [{at: 200ms, lasting: 300ms, up: {delay: 40ms}}]")) as (proxy, _):
            ends = await dial(proxy)
            assert await ask(*ends) < 0.02
            await asyncio.sleep(0.3)
            assert await ask(*ends) == pytest.approx(0.04, abs=0.01)
            await asyncio.sleep(0.3)
            assert await ask(*ends) < 0.02
            await hang_up(ends[1])

    promptly(push)


def test_a_black_hole_holds_bytes_back_until_it_is_over(file) -> None:
    """From 0.1 s to 0.4 s: what is sent at 0.2 s arrives at 0.4 s."""

    async def push() -> None:
        async with proxied(file("schedule: [{at: 100ms, lasting: 300ms, cut: {}}]")) as (proxy, _):
            ends = await dial(proxy)
            assert await ask(*ends) < 0.05
            await asyncio.sleep(0.2)
            assert await ask(*ends) == pytest.approx(0.2, abs=0.05)
            await hang_up(ends[1])

    promptly(push)


async def test_a_link_that_refuses_resets_who_connects_and_who_speaks(file) -> None:
    """Cut off from 0.2 s on."""
    link = "schedule: [{at: 200ms, lasting: 1h, cut: {mode: refuse}}]"
    async with proxied(file(link)) as (proxy, _):
        ends = await dial(proxy)
        assert await ask(*ends) < 0.1
        await asyncio.sleep(0.25)
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await ask(*ends)
        other = await dial(proxy)
        with pytest.raises(ConnectionResetError):
            await other[0].read()
        assert (proxy.outcomes["reset"], proxy.outcomes["refused"]) == (1, 1)
        for writer in (ends[1], other[1]):
            writer.transport.abort()


def test_a_recorded_rate_serves_pieces_as_it_serves_the_whole() -> None:
    """Opportunities at 5 ms, four at 7 ms, period 10 ms: 30 kB in pieces of any size end when they end in one piece."""
    trace = Trace.of_stamps([5, 7, 7, 7, 7, 10])
    rng = np.random.default_rng(1)
    for start in (0.0, 0.0031, 0.0071):
        backlog, cuts = Backlog(trace, 0.002, 100.0), np.sort(rng.integers(1, 30_000, 12))
        at = 100.0 + start
        for size in np.diff([0, *cuts, 30_000]):
            at = backlog(at, int(size))
        assert at == pytest.approx(100.0 + trace.finish(start, 30_000, 0.002), abs=1e-9)


# --- many, and none


async def test_a_thousand_connections_at_once(file) -> None:
    """All are open at the same time, and each gets its own bytes back after 50 ms each way."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 5000:
        pytest.skip(f"the limit of {hard} open files is too low for 4,000 sockets in one process")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 5000), hard))
    async with proxied(file("delay: 50ms")) as (proxy, _):
        ends = await asyncio.gather(*(dial(proxy) for _ in range(1000)))
        await settled(proxy, 1000)
        times = await asyncio.gather(*(ask(*pair, str(i).encode()) for i, pair in enumerate(ends)))
        assert min(times) > 0.1
        for _, writer in ends:
            writer.close()
        await settled(proxy)
        assert proxy.outcomes["closed"] == 1000


async def test_without_an_upstream_a_client_is_let_go_at_once_and_people_are_told_why(file) -> None:
    """A port that nobody listens at."""
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        nobody = Address("127.0.0.1", free.getsockname()[1])
    async with proxied(file("delay: 10s"), upstream=nobody) as (proxy, said):
        reader, writer = await dial(proxy)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.transport.abort()
        assert proxy.outcomes["unreachable"] == 1
        assert said[-1].endswith(f"cannot connect to {nobody}: Connect call failed ('127.0.0.1', {nobody.port})")


async def test_an_upstream_that_cannot_be_found_is_told_before_anything_runs(file) -> None:
    """And so is an address that is taken."""
    with pytest.raises(NetworkError, match=r"cannot find 'no-such-host\.invalid'"):
        async with proxied(file("{}"), upstream=Address("no-such-host.invalid", 1)):
            pass
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(NetworkError, match=rf"cannot listen at 127\.0\.0\.1:{port}: .* choose another address"):
            async with proxied(file("{}"), listen=Address("127.0.0.1", port)):
                pass


async def test_unix_sockets_on_either_side(file, tmp_path: Path) -> None:
    """A name that was left behind is taken over, and gone at the end."""
    front, back = tmp_path / "front", tmp_path / "back"
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(front))
    left.close()
    async with (
        await asyncio.start_unix_server(echo, back),
        proxied(file("delay: 5ms"), listen=Address(str(front), None), upstream=Address(str(back), None)) as (_, said),
    ):
        assert f"proxy at unix:{front}, to unix:{back}" in said
        ends = await asyncio.open_unix_connection(front)
        assert await ask(*ends) >= 0.01
        await hang_up(ends[1])
    assert not front.exists()


async def test_what_is_on_its_way_arrives_when_the_proxy_ends(file) -> None:
    """Its end comes 50 ms after 5 kB were sent that take 200 ms; then the stream ends, and no one can connect."""
    arrived: list[int] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.append(len(await reader.read()))
        writer.close()

    async with proxied(file("delay: 200ms"), listen) as (proxy, _):
        reader, writer = await dial(proxy)
        writer.write(bytes(5000))
        await asyncio.sleep(0.05)
        at = proxy.at
    assert arrived == [5000]
    assert await reader.read() == b""
    writer.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(*at)


# --- control


@asynccontextmanager
async def controlled(link: Path) -> AsyncIterator[tuple[Proxy, Callable]]:
    """Inside, call the second value with a method, a path and a body: it gives status and answer."""
    async with proxied(link, control=HERE, metrics_port=0) as (proxy, said), aiohttp.ClientSession() as session:
        url = next(text.split()[-1] for text in said if text.startswith("control"))

        async def call(
            method: str, path: str, body: object = None, text: str | bytes | None = None
        ) -> tuple[int, object]:
            data = text if text is not None else None if body is None else json.dumps(body)
            async with session.request(method, url + path, data=data) as answer:
                return answer.status, await answer.json() if "json" in answer.content_type else await answer.text()

        yield proxy, call


async def test_a_link_that_is_changed_holds_on_open_connections(file) -> None:
    """From no delay to 60 ms each way, to 60 ms down alone, and back; the connection stays the same."""
    async with controlled(file("# A question\nup: {delay: 0ms}")) as (proxy, call):
        ends = await dial(proxy)
        assert await ask(*ends) < 0.05
        assert await call("PATCH", "/link", {"delay": "60ms", "up": None}) == (200, {"delay": "60ms"})
        assert await ask(*ends) == pytest.approx(0.12, abs=0.02)
        assert (await call("PUT", "/link", {"down": {"delay": "60ms"}}))[0] == 200
        assert await ask(*ends) == pytest.approx(0.06, abs=0.02)
        assert (await call("PUT", "/link", {}))[0] == 200
        assert await ask(*ends) < 0.05
        assert await call("GET", "/link") == (200, {})
        await hang_up(ends[1])


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "told"),
    [
        ("PUT", "/link", {"up": {"rate": "1MB"}}, 400, "'1MB' has no unit of bit/s"),
        ("PATCH", "/link", {"dealy": "1ms"}, 400, "did you mean 'delay'?"),
        ("PUT", "/link", {"drop": "1%"}, 400, "a proxy sees bytes, not calls"),
        ("PUT", "/link", [1], 400, "the body is not an object"),
        ("PATCH", "/", {"enabled": "yes"}, 400, "write true or false"),
        ("PATCH", "/", {"upstream": "x"}, 400, "only enabled can be changed here"),
        ("POST", "/link", {}, 405, "allowed: GET"),
        ("GET", "/nothing", None, 404, "GET /nothing: Not Found"),
    ],
)
async def test_a_request_that_is_wrong_says_so_and_changes_nothing(
    file, method: str, path: str, body: object, status: int, told: str
) -> None:
    """JSON in every case; a fault has the key that it is about."""
    async with controlled(file("delay: 1ms")) as (_, call):
        answer = await call(method, path, body)
        assert answer[0] == status
        assert told in json.dumps(answer[1])
        if path == "/link" and isinstance(body, dict) and status == 400:
            key = "up.rate" if "up" in body else next(iter(body))
            assert [fault["key"] for fault in answer[1]["faults"]] == [key]
        assert await call("GET", "/link") == (200, {"delay": "1ms"})


async def test_what_is_not_json_is_told(file) -> None:
    """Not a traceback."""
    async with controlled(file("{}")) as (_, call):
        status, answer = await call("PUT", "/link", text="{delay: 1ms}")
        assert status == 400
        assert answer["error"].startswith("the body is not JSON: Expecting property name enclosed in double quotes")
        status, answer = await call("PUT", "/link", text=b'"\xe9"')
        assert status == 400
        assert answer["error"].startswith("the body is not JSON: 'utf-8")


async def test_a_disabled_proxy_refuses_and_cuts_until_it_is_enabled(file) -> None:
    """The same address before and after."""
    async with controlled(file("{}")) as (proxy, call):
        reader, writer = await dial(proxy)
        await ask(reader, writer)
        status, state = await call("PATCH", "/", {"enabled": False})
        assert (status, state["enabled"], state["listen"]) == (200, False, str(proxy.at))
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.transport.abort()
        with pytest.raises(ConnectionRefusedError):
            await dial(proxy)
        assert (await call("PATCH", "/", {"enabled": True}))[1]["enabled"] is True
        ends = await dial(proxy)
        await ask(*ends)
        await hang_up(ends[1])
        assert proxy.outcomes["cut"] == 1


async def test_connections_and_metrics_tell_what_was_carried(file) -> None:
    """3 kB there and back; one open connection, one that has ended."""
    async with controlled(file("delay: 20ms")) as (proxy, call):
        first, second = await dial(proxy), await dial(proxy)
        for ends in (first, second):
            await ask(*ends, bytes(3000))
        await hang_up(first[1])
        await settled(proxy, 1)
        status, [open_] = await call("GET", "/connections")
        assert status == 200
        assert (open_["number"], open_["up"], open_["down"]) == (2, *[{"bytes": 3000, "queued": 0}] * 2)
        _, text = await call("GET", "/metrics")
        for line in (
            "fedemu_proxy_connections 1.0",
            'fedemu_proxy_connections_ended_total{outcome="closed"} 1.0',
            'fedemu_proxy_bytes_total{direction="up"} 6000.0',
            'fedemu_proxy_bytes_total{direction="down"} 6000.0',
            'fedemu_proxy_queue_bytes{direction="up"} 0.0',
            "fedemu_proxy_enabled 1.0",
        ):
            assert line in text
        requested, achieved = (
            float(re.search(rf'delay_seconds_sum{{direction="up",kind="{kind}"}} (\S+)', text)[1])
            for kind in ("requested", "achieved")
        )
        assert requested == pytest.approx(0.04)
        assert requested <= achieved < 0.06
        await hang_up(second[1])


# --- what is wrong


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("delay: 40", ["1: delay: 40 has no unit of ns, us, ms, s, min, h, d; write e.g. 40ms"]),
        ("delay: 1ms\ndorp: 1%", ["2: dorp: 'dorp' is not a key here; did you mean 'drop'?"]),
        ("up: {\n  drop: 1%}", ["2: up.drop: a proxy sees bytes, not calls: "]),
        ("retry: none\nvia: cell", ["1: retry: a proxy sends nothing again", "2: via: a proxy has no shared pipes"]),
        ("rate: 1Mbit/s\ntcp: slow-start\nloss: 1%", ["2: tcp: the two ends have a real TCP", "3: loss: packets that"]),
        ("jitter: 5ms", ["1: jitter: jitter 0.005s without delay"]),
        ("trace: none.trace", ["1: trace: "]),
        ("- 1", ["1: yaml: found a list, expected a mapping"]),
        ("schedule: [{at: 1s, lasting: 1s, drop: 1%}]", ["1: schedule.0.drop: a proxy sees bytes"]),
    ],
)
def test_faults_of_a_link_file_are_told_with_their_line(file, text: str, faults: list[str]) -> None:
    """All at once, as file:line: key: fault."""
    path = file(text)
    with pytest.raises(ScenarioError) as caught:
        load(path)
    told = str(caught.value).splitlines()
    assert len(told) == len(faults)
    for fault, start in zip(told, faults, strict=True):
        assert fault.startswith(f"{path}:{start}")


def test_a_link_file_may_say_that_there_is_no_tcp(file) -> None:
    """It is what holds anyway; and a preset that says so can be used."""
    assert load(file("# Why\nrate: 1Mbit/s\ntcp: none")).about == "Why"
    assert load(file("preset: lora")).keys.way("up").rate == 5468.75


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    """Before anything runs."""
    with pytest.raises(ScenarioError, match=r"gone\.yaml:1: link: cannot be read: No such file"):
        load(tmp_path / "gone.yaml")


def test_a_patch_replaces_adds_and_takes_away() -> None:
    """RFC 7386: null takes away, mappings are merged, all else is replaced; the original is left alone."""
    tree = {"delay": "1ms", "up": {"rate": "1Mbit/s", "delay": "2ms"}}
    assert merged(tree, {"delay": None, "up": {"delay": "3ms"}, "down": {"rate": "2Mbit/s"}}) == {
        "up": {"rate": "1Mbit/s", "delay": "3ms"},
        "down": {"rate": "2Mbit/s"},
    }
    assert tree == {"delay": "1ms", "up": {"rate": "1Mbit/s", "delay": "2ms"}}


@pytest.mark.parametrize(
    ("text", "expected"),
    [("localhost:80", ("localhost", 80)), ("[::1]:0", ("::1", 0)), ("unix:/a/b", ("/a/b", None))],
)
def test_addresses_are_read_and_written_alike(text: str, expected: tuple) -> None:
    """What is printed can be given."""
    assert address(text) == expected
    assert str(address(text)) == text


@pytest.mark.parametrize("text", ["", "80", ":80", "::1:80", "host:", "host:65536", "host:-1", "unix:"])
def test_what_is_no_address_says_what_is(text: str) -> None:
    """No guessing: an IPv6 address needs its brackets."""
    with pytest.raises(ValueError, match="write host:port"):
        address(text)


# --- the command


def test_faulty_arguments_exit_2(file, capsys: pytest.CaptureFixture[str]) -> None:
    """The link's faults on stdout as those of scenarios; an address's as argparse has them."""
    link = str(file("drop: 1%"))
    assert main(["proxy", "--listen", "127.0.0.1:0", "--upstream", "127.0.0.1:1", "--link", link]) == 2
    assert capsys.readouterr().out.startswith(f"{link}:1: drop: a proxy sees bytes, not calls")
    with pytest.raises(SystemExit, match="2"):
        main(["proxy", "--listen", "here", "--upstream", "127.0.0.1:1", "--link", link])
    assert "'here' is no address; write host:port" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_proxy_that_is_told_to_end_does_so_with_130(file, number: int) -> None:
    """It says where it listens, carries, and ends with what is on its way."""
    link = str(file("delay: 200ms"))
    with closing(socket.create_server(("127.0.0.1", 0))) as upstream:
        port = upstream.getsockname()[1]
        arguments = ["proxy", "--listen", "127.0.0.1:0", "--upstream", f"127.0.0.1:{port}", "--link", link]
        code = f"import sys; from fedemu.cli import main; sys.exit(main({arguments}))"
        with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) as process:
            line = process.stderr.readline()
            at = re.fullmatch(rf"fedemu: proxy at 127.0.0.1:(\d+), to 127.0.0.1:{port}\n", line)
            assert at is not None, line
            with closing(socket.create_connection(("127.0.0.1", int(at[1])))) as client:
                client.sendall(b"last words")
                server, _ = upstream.accept()
                time.sleep(0.05)
                process.send_signal(number)
                with closing(server):
                    server.settimeout(5)
                    assert server.recv(100) == b"last words"
                    assert server.recv(100) == b""
            assert process.wait(60) == 130
            assert process.stderr.read() == "fedemu: closing 1 connections\n"
