"""A scenario's clients behind their links and devices: everything in its place, not yet moving.

Directions are named from the node that they are written under: what a client sends goes through its own `up` and the
server's `down`.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial

from fedemu.client import Participant
from fedemu.clock import Clock
from fedemu.compute._base import Job
from fedemu.devices._base import Work
from fedemu.devices.constant import constant
from fedemu.events import DelayMeasured, Observer
from fedemu.learning import Learning
from fedemu.links._base import Retry, Stage, Way
from fedemu.links.delay import delay
from fedemu.links.tcp.none import none
from fedemu.links.tcp.slow_start import slow_start
from fedemu.net._pb import federation_pb2 as pb
from fedemu.net.channel import Conversation
from fedemu.net.delivery import Apart, Delivery, Exchange, Measure
from fedemu.net.emulated import EmulatedChannel, Path
from fedemu.net.messages import Header, Message
from fedemu.net.network import Network
from fedemu.rng import stream
from fedemu.scenario import Scenario
from fedemu.scenario.link import DIRECTIONS, Direction
from fedemu.scenario.link import Way as WayKeys
from fedemu.sessions import Seat
from fedemu.types import ClientId, ClientView, Rng, Seconds, State, Trained


class World:
    """The clients of a scenario.

    Args:
        scenario: Who there is, and behind what.
        learning: What they learn.
        clock: Waits.
        emit: Takes the events.
        exchange: Brings the ends of connections together. None: clients are processes of their own. A client then
            cannot know who else uses the server's pipe, so that what it sends crosses that pipe where it arrives.
    """

    def __init__(
        self, scenario: Scenario, learning: Learning, clock: Clock, emit: Observer, exchange: Exchange | None
    ) -> None:
        self._scenario, self._learning, self._clock, self._emit = scenario, learning, clock, emit
        self._exchange = exchange
        self._server = scenario.server.link
        self._rates = {
            name: rate
            for name, rate in [
                *((f"server {direction}", self._server.rate_of(direction)) for direction in DIRECTIONS),
                *(
                    (f"{client} {way}", self._keys(client, way).rate)
                    for client in learning.shards
                    for way in DIRECTIONS
                ),
            ]
            if rate is not None
        }
        self._network = Network(clock, self._rates)
        self.views = {
            client: ClientView(client, client.partition("/")[0], len(shard))
            for client, shard in learning.shards.items()
        }

    @property
    def seats(self) -> list[Seat]:
        """The clients as the server sees them."""
        return [Seat(view, self._retry(view), partial(self.behind, view, "down")) for view in self.views.values()]

    def participant(self, view: ClientView, train: Callable[[Job], "Future[tuple[Trained, State]]"]) -> Participant:
        """Return the client itself."""
        group, learning = self._scenario.clients[view.group], self._learning
        return Participant(
            view=view,
            work=Work(view.num_examples, self._scenario.training_in(view.group).epochs, lambda: learning.arithmetic),
            device=constant(per_example=0.0) if group.device is None else group.device.build(),
            retry=self._retry(view),
            seed=self._scenario.seed,
            train=train,
            clock=self._clock,
            emit=self._emit,
        )

    def behind(self, view: ClientView, direction: Direction, conversation: Conversation) -> EmulatedChannel:
        """Put an end of a client's connection behind the direction of the client's link in which that end sends.

        Args:
            view: The client.
            direction: up at the client's end, down at the server's.
            conversation: The connection.
        """
        client, shared = view.client, "server down" if direction == "up" else "server up"
        apart = self._exchange is None
        pipes = self._known(f"{client} {direction}", *([] if apart and direction == "up" else [shared]))
        path = Path(
            name=f"{client} {direction}",
            way=self._way(view, direction),
            pipes=pipes,
            rtt=sum((self._keys(client, way).delay or 0.0) + self._server.delay for way in DIRECTIONS),
            rate=min((self._rates[pipe] for pipe in pipes), default=0.0),
        )

        def draw(stage: str, message: Message) -> Rng:
            return stream(self._scenario.seed, "link", client, direction, stage, *_name(message.header))

        inbound = self._known("server down") if apart and direction == "down" else ()
        delivery = self._delivery(view, direction, conversation)
        return EmulatedChannel(delivery, path, self._network, self._clock, draw, inbound=inbound)

    def _delivery(self, view: ClientView, direction: Direction, conversation: Conversation) -> Delivery:
        if self._exchange is None:
            return Apart(conversation, self._clock, self._measure(view, direction))
        if direction == "up":
            return self._exchange.clients_end(view.client, conversation)
        down, up = self._measure(view, "down"), self._measure(view, "up")
        return self._exchange.servers_end(view.client, conversation, down=down, up=up)

    def _measure(self, view: ClientView, direction: Direction) -> Measure | None:
        """Return what tells how late messages are; nothing is on the virtual clock."""
        if self._scenario.clock == "virtual":
            return None

        def measure(requested: Seconds, achieved: Seconds) -> None:
            at, group = self._clock.now(), view.group
            self._emit(DelayMeasured(at=at, group=group, direction=direction, requested=requested, achieved=achieved))

        return measure

    def _known(self, *pipes: str) -> Sequence[str]:
        return [pipe for pipe in pipes if pipe in self._rates]

    def _keys(self, client: ClientId, direction: Direction) -> WayKeys:
        return self._scenario.clients[client.partition("/")[0]].link.way(direction)

    def _retry(self, view: ClientView) -> Retry:
        return self._scenario.clients[view.group].link.retries or Retry(attempts=1)

    def _way(self, view: ClientView, direction: Direction) -> Way:
        keys, link = self._keys(view.client, direction), self._scenario.clients[view.group].link
        departure: list[tuple[str, Stage]] = []
        arrival: list[tuple[str, Stage]] = []
        if direction == "up" and link.stall is not None:
            departure.append(("stall", link.stall.build()))
        if keys.held_up is not None:
            arrival.append(("delay", keys.held_up.build()))
        if self._server.delay:
            arrival.append(("server delay", delay(delay=self._server.delay)))
        if keys.drop is not None:
            arrival.append(("drop", keys.drop.build()))
        tcp = slow_start() if keys.tcp is None else keys.tcp.build()
        # a link without a rate of its own has no TCP, even where the server's pipe limits it
        return Way(tuple(departure), tuple(arrival), keys.rate, none() if keys.rate is None else tcp, keys.delay or 0.0)


def _name(header: Header) -> tuple[str | int, ...]:
    """Return what tells a message from all others of its client and direction."""
    if isinstance(header, pb.Hello | pb.Welcome | pb.Ready | pb.Goodbye):
        return (type(header).__name__,)
    assignment = header.assignment
    return type(header).__name__, assignment.round, assignment.turn, assignment.attempt
