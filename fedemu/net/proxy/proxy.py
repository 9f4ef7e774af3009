"""The proxy itself: it accepts connections, carries each over the link as it is now, and ends in good order."""

import asyncio
import errno
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, Protocol, TypeAlias, get_args

from fedemu.clock import Clock
from fedemu.errors import NetworkError
from fedemu.net.network import Network, Pipe
from fedemu.net.path import Path
from fedemu.net.proxy.lane import Crossing, Lane, Reset, refuses
from fedemu.net.proxy.sockets import Address, Upstream, connect, hang_up, listen, prompt, reset
from fedemu.types import Bytes, Seconds

Direction: TypeAlias = Literal["up", "down"]
"""Up is from the client to the upstream."""
DIRECTIONS: tuple[Direction, Direction] = ("up", "down")

Outcome: TypeAlias = Literal["closed", "reset", "broken", "cut", "refused", "unreachable"]
"""What became of a connection: both sides closed it, the link reset it, a side broke it, it was cut on demand, the link
refused it, or the upstream did not answer."""

RETRY: Seconds = 0.1
"""Wait before accepting again when there were no descriptors."""


class Measure(Protocol):
    """Told of each chunk that was handed to its receiver, with the delay that it should have had and the one it had."""

    def __call__(self, direction: Direction, size: Bytes, requested: Seconds, achieved: Seconds) -> None: ...


class Link:
    """An emulated link.

    Args:
        path: Builds a direction of it for a connection, by its number: what remembers, each connection has for itself.
        pipes: Those that the paths cross.
        clock: Waits.
        shared: All connections share the pipes, max-min fair; else each has its own.
    """

    def __init__(
        self,
        path: Callable[[Direction, int], Path],
        pipes: Callable[[], Mapping[str, Pipe]],
        clock: Clock,
        *,
        shared: bool,
    ) -> None:
        self._path, self._pipes, self._clock = path, pipes, clock
        self._shared = Network(clock, pipes()) if shared else None

    def crossings(self, connection: int) -> Mapping[Direction, Crossing]:
        """Return what a connection crosses."""
        network = self._shared or Network(self._clock, self._pipes())
        return {direction: Crossing(self._path(direction, connection), network) for direction in DIRECTIONS}


@dataclass(slots=True)
class Connection:
    """A client's connection and the one to the upstream that goes with it."""

    number: int
    """From 1, in order of arrival; it keys the random streams."""
    client: str
    since: Seconds
    lanes: Mapping[Direction, Lane] = field(default_factory=dict)
    """Empty until the upstream has answered."""


class Proxy:
    """Accepts connections and carries what they say.

    Args:
        at: Where it listens; port 0 takes a free one.
        upstream: Where it connects to.
        link: The link, which may be replaced at any time: what is read then goes over the new one.
        seed: Of the random streams.
        clock: Waits.
        measure: Told of each chunk.
        announce: Told what goes wrong, for people.

    Raises:
        NetworkError: It cannot listen there.
    """

    def __init__(
        self,
        at: Address,
        upstream: Upstream,
        link: Link,
        seed: int,
        clock: Clock,
        measure: Measure,
        announce: Callable[[str], None],
    ) -> None:
        self.upstream, self.link = upstream, link
        self._seed, self._clock, self._measure, self._announce = seed, clock, measure, announce
        self.connections: dict[int, Connection] = {}
        """Those that are open."""
        self.outcomes: dict[Outcome, int] = dict.fromkeys(get_args(Outcome), 0)
        """How many connections ended in each way."""
        self._listener: socket.socket | None
        self._listener, self.at = listen(at)
        self._accepting: asyncio.Task[None] | None = None
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None
        self._count = 0
        self._ended = asyncio.Event()

    @property
    def is_enabled(self) -> bool:
        """Whether it takes connections."""
        return self._listener is not None

    async def serve(self, *, drain: Seconds) -> None:
        """Carry connections until `end`; then read no more, and give what is on its way so long to arrive.

        Cancelling resets all connections at once.
        """
        try:
            async with asyncio.TaskGroup() as self._group:
                self._accept()
                await self._ended.wait()
                for lane in self._lanes():
                    lane.close()
                if self._tasks:
                    await asyncio.wait(list(self._tasks.values()), timeout=drain)
                self._cut()
        finally:
            self._refuse()

    def end(self) -> None:
        """Take no more connections, and have `serve` return."""
        self._ended.set()
        self._refuse()

    def enable(self) -> None:
        """Take connections again, at the same address.

        Raises:
            NetworkError: It is taken by now.
        """
        if self._listener is None and not self._ended.is_set():
            self._listener, _ = listen(self.at)
            self._accept()

    def disable(self) -> None:
        """Refuse connections, and reset those that are open."""
        self._refuse()
        self._cut()

    def _accept(self) -> None:
        if self._group is not None and self._listener is not None:
            self._accepting = self._group.create_task(self._take(self._listener))

    def _refuse(self) -> None:
        if self._accepting is not None:
            self._accepting.cancel()
            self._accepting = None
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            hang_up(self._listener)
            self._listener = None

    def _cut(self) -> None:
        for task in self._tasks.values():
            task.cancel()

    def _lanes(self) -> Iterator[Lane]:
        for connection in self.connections.values():
            yield from connection.lanes.values()

    async def _take(self, listener: socket.socket) -> None:
        assert self._group is not None
        while True:
            try:
                client, peer = await asyncio.get_running_loop().sock_accept(listener)
            except OSError as error:
                more = f"; {_MORE}" if error.errno in (errno.EMFILE, errno.ENFILE) else ""
                self._announce(f"cannot accept beside {len(self.connections)} connections: {error.strerror}{more}")
                await self._clock.sleep_until(self._clock.now() + RETRY)
                continue
            self._count += 1
            number, name = self._count, str(Address(*peer[:2])) if isinstance(peer, tuple) else str(self.at)
            connection = self.connections[number] = Connection(number, name, self._clock.now())
            task = self._group.create_task(self._carry(connection, client), name=f"connection {number}")
            self._tasks[number] = task
            task.add_done_callback(partial(self._forget, number))

    def _forget(self, number: int, _: object) -> None:
        del self._tasks[number]

    async def _carry(self, connection: Connection, client: socket.socket) -> None:
        ends, outcome = [client], _CUT
        try:
            prompt(client)
            crossings = _Crossings(self, connection.number)
            if any(refuses(crossings.now(direction).path, connection.since) for direction in DIRECTIONS):
                outcome = "refused"
                return
            ends.append(await connect(self.upstream))
            connection.lanes = {
                "up": self._lane(crossings, "up", *ends),
                "down": self._lane(crossings, "down", *reversed(ends)),
            }
            outcome = await _through(connection.lanes.values())
        except NetworkError as error:
            outcome = "unreachable"
            self._announce(f"connection from {connection.client}: {error}")
        finally:
            self.outcomes[outcome] += 1
            del self.connections[connection.number]
            for end in ends:
                end.close() if outcome == "closed" else reset(end)

    def _lane(self, crossings: "_Crossings", direction: Direction, source: socket.socket, sink: socket.socket) -> Lane:
        return Lane(
            source,
            sink,
            partial(crossings.now, direction),
            ("proxy", crossings.connection, direction),
            self._seed,
            self._clock,
            partial(self._measure, direction),
        )


class _Crossings:
    """What a connection crosses, as the proxy's link is now."""

    def __init__(self, proxy: Proxy, connection: int) -> None:
        self.connection, self._proxy, self._link = connection, proxy, proxy.link
        self._crossings = self._link.crossings(connection)

    def now(self, direction: Direction) -> Crossing:
        if self._proxy.link is not self._link:
            self._link = self._proxy.link
            self._crossings = self._link.crossings(self.connection)
        return self._crossings[direction]


async def _through(lanes: Iterable[Lane]) -> Outcome:
    """Carry both directions to their ends; return how it ended."""
    outcome: Outcome = "closed"
    try:
        async with asyncio.TaskGroup() as tasks:
            for lane in lanes:
                tasks.create_task(lane.run())
    except* Reset:
        outcome = "reset"
    except* OSError:
        outcome = "broken"
    return outcome


_CUT: Outcome = "cut"
_MORE = "raise the limit (ulimit -n), two for each connection"
