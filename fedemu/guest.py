"""A client in a process of its own: it finds the server, builds its world from the scenario it gets, and stays."""

import json
import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from socket import gethostname

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
from fedemu.shaping import Shaping
from fedemu.shelf import Shelf
from fedemu.tc import commands, left_out
from fedemu.world import World

PATIENCE = 300.0
"""Real seconds for which a client looks for a server that does not answer."""

LONGEST = 10.0
"""Real seconds between two looks at most: a server that was started again waits for its clients a minute."""

GRACE = 20.0
"""Real seconds for which a client that has enrolled says nothing while the run's server starts."""

GLANCE = Retry(backoff=0.25)
"""How often it looks for that server."""


def join(
    address: str,
    group: str,
    slot: int | None,
    *,
    tls: Tls | None = None,
    token: str | None = None,
    allow: Sequence[str] = (),
    kernel: str | None = None,
    memory: Path | None = None,
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
        kernel: Network device that the kernel shapes as this client's link says, until the end; None has it emulated.
        memory: Directory where what the algorithm remembers here is kept; None keeps it as long as this process lives.
        observe: Makes observers, once the scenario is known.
        announce: Told what happens to the connection, for people.

    Raises:
        PeerError: The server will not have this client.
        NetworkError: Nobody answered for 5 minutes.
        RunError: The scenario names code that is not allowed here, the kernel cannot shape the device, or what is to be
            remembered cannot be written.
        ScenarioError: The link has what no kernel can do.
    """
    shelf = Shelf(memory, announce)
    shaping = None if kernel is None else Shaping(kernel, address)
    with inline()() as compute, nullcontext() if shaping is None else shaping:
        try:
            transport = GrpcTransport(tls=tls)
            guest = _Guest(address, transport, group, slot, token, allow, shaping, shelf, observe, announce, compute)
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
        shaping: Shaping | None,
        shelf: Shelf,
        observe: Callable[[Scenario], Sequence[Observer]],
        announce: Callable[[str], None],
        compute: Compute,
    ) -> None:
        self._address, self._transport, self._allow = address, transport, allow
        self._group, self._slot, self._asked, self._token = group, slot, slot, token
        self._shaping, self._shelf, self._compute = shaping, shelf, compute
        self._observe, self._announce = observe, announce
        self._held = self._enrolled = False
        self._tries = 0
        """Since the server answered last."""
        self._observers: Sequence[Observer] | None = None
        self._waits = stream(os.getpid(), "reconnect")  # not part of any result

    async def stay(self) -> None:
        """Join, and join again where the connection breaks."""
        clock = RealClock()
        clock.start()
        lost = clock.now()
        while True:
            try:
                conversation = Conversation(await self._transport.connect(self._address), limit=0)
                try:
                    welcome = await say_hello(
                        conversation,
                        self._group,
                        self._slot,
                        self._token,
                        gethostname(),
                        self._enrol,
                        kernel=self._shaping is not None,
                    )
                    self._tries, self._enrolled = 0, False
                    await self._take_part(conversation, welcome.client, welcome.scenario)
                finally:
                    await conversation.aclose()
                return
            except (NetworkError, PeerError) as error:
                # the server may not have noticed yet that the connection broke, and think the slot in use
                if isinstance(error, PeerError) and not (self._held and error.status == "ALREADY_EXISTS"):
                    raise
                self._tries, lost = self._tries + 1, clock.now() if self._tries == 0 else lost
                is_starting = self._enrolled and clock.now() < lost + GRACE
                wait = (GLANCE if is_starting else Retry()).wait(1 if is_starting else self._tries, self._waits)
                wait = min(wait, LONGEST)
                if clock.now() + wait > lost + PATIENCE:
                    raise
                if not is_starting:
                    self._announce(f"{error}; trying again in {wait:.1f} s")
                await clock.sleep_until(clock.now() + wait)

    def _enrol(self) -> None:
        if not self._enrolled:
            self._announce("enrolled; waiting for the run")
        self._tries, self._enrolled, self._slot = 0, True, self._asked  # a slot that it had was another run's

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
        if self._shaping is not None:
            self._shape(self._shaping, learning.scenario)
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
        kernel = self._shaping is not None
        participant = replace(
            world.participant(view, lambda job: self._compute.train(recipe, job), kernel=kernel),
            memory=self._shelf.memory(client, learning),
        )
        await participant.run(world.behind(view, "up", conversation, kernel=kernel))
        self._announce("the run is over")

    def _shape(self, shaping: Shaping, scenario: Scenario) -> None:
        wanted = commands(scenario, self._group, shaping.device)
        shaping.shape(wanted)
        for note in left_out(scenario.clients[self._group].link):
            self._announce(note)
        self._announce(f"the kernel shapes {shaping.device}: {len(wanted)} commands of tc and ip")
