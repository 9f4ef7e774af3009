"""Enrolment: before a served run begins, the clients that have come say how many there are of each group.

Then a scenario need not know how many containers somebody starts. Clients keep their connections open meanwhile; when
the enrolment ends, so do these, and the clients come again by themselves, to the run.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fedemu import clock as clocks
from fedemu.clock import Clock, RealClock
from fedemu.errors import NetworkError, PeerError, RunError, first_of
from fedemu.hello import Caller, admitted
from fedemu.net._pb import federation_pb2 as pb
from fedemu.net.channel import Channel, Conversation
from fedemu.net.grpc import GrpcTransport
from fedemu.net.messages import Message
from fedemu.net.tls import Tls
from fedemu.scenario import load
from fedemu.tokens import Tokens
from fedemu.types import ClientId, Seconds


def enrol(
    listen: str,
    groups: Sequence[str],
    *,
    quiet: Seconds,
    tls: Tls | None = None,
    tokens: Tokens | None = None,
    announce: Callable[[str], None] = lambda _: None,
) -> tuple[str, dict[str, int]]:
    """Wait until every group has somebody and nobody comes or goes any more; return where that was, and the counts.

    Args:
        listen: Where clients come to (`host:port` or `unix:PATH`); with port 0, what is returned has the port.
        groups: Of the scenario.
        quiet: Real seconds for which nobody has come or gone.
        tls: Of the server; None talks in the open.
        tokens: What clients need to join; None lets in whoever comes.
        announce: Told, for people, where the server listens, who is there, and whom it refused.

    Raises:
        NetworkError: The server cannot listen there.
        RunError: Somebody came as a client that there will not be.
        KeyboardInterrupt: It was interrupted.
    """

    async def main() -> tuple[str, dict[str, int]]:
        register, clock = _Register(groups, tokens), RealClock()
        clock.start()
        async with GrpcTransport(listen, tls=tls, refused=announce).serve(register.serve) as address:
            announce(f"enrolling clients at {address}")
            return address, await register.settled(clock, quiet, announce)

    try:
        return clocks.run(main(), virtual=False)
    except BaseExceptionGroup as group:
        raise first_of(group) from group


def settings(counts: Mapping[str, int]) -> list[tuple[str, str]]:
    """Return the keys of a scenario that the counts of its groups replace, and their values, as `--set` takes them."""
    return [(f"clients.{group}.count", str(count)) for group, count in counts.items()]


def counts_of(folder: Path) -> dict[str, int]:
    """Return the counts with which the run of a run directory was begun.

    Raises:
        ScenarioError: What it has is no scenario.
    """
    return {name: group.count for name, group in load(folder / "scenario.yaml").cells[0].scenario.clients.items()}


class _Register:
    """Who has come."""

    def __init__(self, groups: Sequence[str], tokens: Tokens | None) -> None:
        self._groups, self._tokens = groups, tokens
        self._there: list[tuple[str, ClientId | None]] = []
        """Group of each, and the slot where it can only be one."""
        self._changed, self._over = asyncio.Event(), asyncio.Event()

    @property
    def _counts(self) -> dict[str, int]:
        return {group: sum(one == group for one, _ in self._there) for group in self._groups}

    async def settled(self, clock: Clock, quiet: Seconds, announce: Callable[[str], None]) -> dict[str, int]:
        """Return how many there are of each group, once that does not change any more, and send them all away."""
        told = None
        while True:
            self._changed.clear()
            counts = self._counts
            if counts != told:
                announce(f"enrolled: {', '.join(f'{group} {count}' for group, count in counts.items())}")
                told = counts
            end = clock.now() + quiet if all(counts.values()) else float("inf")
            try:
                async with clock.timeout_at(end):
                    await self._changed.wait()
            except TimeoutError:
                self._over.set()
                self._check(counts := self._counts)
                return counts

    def _check(self, counts: Mapping[str, int]) -> None:
        """See that who asked for a slot by its number can have it: else the run would wait for it for ever."""
        for group, client in self._there:
            if client is not None and int(client.partition("/")[2]) >= counts[group]:
                raise RunError(
                    f"somebody came as {client}, and {counts[group]} {group} have come: 0..{counts[group] - 1}; "
                    "leave out --slot, or give the token of the group"
                )

    async def serve(self, channel: Channel) -> None:
        """Serve one connection until the client leaves or the enrolment is over.

        Raises:
            PeerError: The client may not come in, or says what the protocol does not allow.
        """
        conversation = Conversation(channel, limit=0)
        try:
            caller = admitted(await conversation.receive(), self._groups, self._tokens)
            if self._over.is_set():
                return
            place = caller.group, self._slot_for(caller)
            self._there.append(place)
            self._changed.set()
            try:
                await conversation.send(Message(pb.Enrolled()))
                await self._stay(conversation)
            finally:
                self._there.remove(place)
                self._changed.set()
        except NetworkError:
            return  # it has left

    def _slot_for(self, caller: Caller) -> ClientId | None:
        taken = {client for _, client in self._there}
        if caller.slot is not None:
            client = f"{caller.group}/{caller.slot}"
            if client in taken:
                raise caller.is_in_use
            return client
        if caller.group in caller.places:
            return None
        free = sorted(caller.places - taken)
        if not free:
            raise caller.are_in_use(len(caller.places))
        return free[0]

    async def _stay(self, conversation: Conversation) -> None:
        speaking = asyncio.ensure_future(conversation.receive())
        ending = asyncio.ensure_future(self._over.wait())
        try:
            await asyncio.wait([speaking, ending], return_when=asyncio.FIRST_COMPLETED)
            if speaking.done():
                header = speaking.result().header
                raise PeerError("INVALID_ARGUMENT", f"{type(header).__name__} from a client that is enrolled")
        finally:
            for waiting in (speaking, ending):
                waiting.cancel()
            await asyncio.gather(speaking, ending, return_exceptions=True)
