"""A client in a process of its own: it finds the server, builds its world from the scenario it gets, and stays."""

import json
import os
from collections.abc import Callable, Sequence

from fedemu import clock as clocks
from fedemu.client import join as say_hello
from fedemu.clock import RealClock, finish
from fedemu.compute._base import Compute
from fedemu.compute.inline import inline
from fedemu.errors import NetworkError, PeerError, RunError, first_of
from fedemu.events import Event, Observer
from fedemu.learning import Recipe
from fedemu.links._base import Retry
from fedemu.net.channel import Conversation
from fedemu.net.grpc import GrpcTransport
from fedemu.net.tls import Tls
from fedemu.rng import stream
from fedemu.scenario import Scenario, foreign
from fedemu.world import World

PATIENCE = 300.0
"""Real seconds for which a client looks for a server that does not answer."""


def join(
    address: str,
    group: str,
    slot: int | None,
    *,
    tls: Tls | None = None,
    token: str | None = None,
    allow: Sequence[str] = (),
    observe: Callable[[Scenario], Sequence[Observer]] = lambda _: (),
    announce: Callable[[str], None] = lambda _: None,
) -> None:
    """Take part in a run that is served elsewhere, as one client, until it is over.

    A connection that breaks is made again, with the slot that the server gave.

    Args:
        address: `host:port` or `unix:PATH`.
        group: Of the scenario.
        slot: Which client of the group, from 0; None takes the next free one.
        tls: Authorities that the server's certificate may come from, and this client's own; None talks in the open.
        token: What the server asks for, if it does.
        allow: Packages whose code the scenario may name.
        observe: Makes observers, once the scenario is known.
        announce: Told what happens to the connection, for people.

    Raises:
        PeerError: The server will not have this client.
        NetworkError: Nobody answered for 5 minutes.
        RunError: The scenario names code that is not allowed here.
    """
    with inline()() as compute:
        try:
            guest = _Guest(address, GrpcTransport(tls=tls), group, slot, token, allow, observe, announce, compute)
            clocks.run(guest.stay(), virtual=False)
        except BaseExceptionGroup as error:
            raise first_of(error) from error


class _Guest:
    """A client in a process of its own."""

    def __init__(
        self,
        address: str,
        transport: GrpcTransport,
        group: str,
        slot: int | None,
        token: str | None,
        allow: Sequence[str],
        observe: Callable[[Scenario], Sequence[Observer]],
        announce: Callable[[str], None],
        compute: Compute,
    ) -> None:
        self._address, self._transport, self._allow = address, transport, allow
        self._group, self._slot, self._token = group, slot, token
        self._observe, self._announce, self._compute = observe, announce, compute
        self._held = False
        self._observers: Sequence[Observer] | None = None
        self._waits = stream(os.getpid(), "reconnect")  # not part of any result

    async def stay(self) -> None:
        """Join, and join again where the connection breaks."""
        clock = RealClock()
        clock.start()
        tries, lost = 0, clock.now()
        while True:
            try:
                conversation = Conversation(await self._transport.connect(self._address), limit=0)
                try:
                    welcome = await say_hello(conversation, self._group, self._slot, self._token)
                    tries = 0
                    await self._take_part(conversation, welcome.client, welcome.scenario)
                finally:
                    await conversation.aclose()
                return
            except (NetworkError, PeerError) as error:
                # the server may not have noticed yet that the connection broke, and think the slot in use
                if isinstance(error, PeerError) and not (self._held and error.status == "ALREADY_EXISTS"):
                    raise
                tries, lost = tries + 1, clock.now() if tries == 0 else lost
                wait = Retry().wait(tries, self._waits)
                if clock.now() + wait > lost + PATIENCE:
                    raise
                self._announce(f"{error}; trying again in {wait:.1f} s")
                await clock.sleep_until(clock.now() + wait)

    async def _take_part(self, conversation: Conversation, client: str, resolved: str) -> None:
        mapping = json.loads(resolved)
        refused = sorted(m for m in foreign(mapping) if m.partition(".")[0] not in self._allow)
        if refused:
            raise RunError(
                f"the scenario names code of {', '.join(refused)}, which is not allowed here; "
                f"join with --allow {refused[0].partition('.')[0]} if you trust it"
            )
        self._slot, self._held = int(client.partition("/")[2]), True
        recipe = Recipe(resolved)
        learning, clock = recipe(), RealClock()
        if self._observers is None:
            self._observers = self._observe(learning.scenario)
        observers = self._observers

        def emit(event: Event) -> None:
            for observer in observers:
                observer(event)

        world = World(learning.scenario, learning, clock, emit, None)
        view = world.views[client]
        await finish(self._compute.warm(recipe), clock, 0.0, ("warm",))
        clock.start()
        conversation.limit = 4 * learning.layout.size
        self._announce(f"joined as {client}: {view.num_examples} examples")
        participant = world.participant(view, lambda job: self._compute.train(recipe, job))
        await participant.run(world.behind(view, "up", conversation))
        self._announce("the run is over")
