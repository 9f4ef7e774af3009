"""A scenario's clients behind their links and devices: everything in its place, not yet moving."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from functools import partial

from fedemu.availabilities._base import Member, Spans
from fedemu.client import Participant
from fedemu.clock import Clock
from fedemu.compute._base import Job, Learned
from fedemu.devices._base import Equipment, Work, memory_to_train
from fedemu.devices.constant import constant
from fedemu.events import DelayMeasured, EnergySpent, Observer
from fedemu.learning import Learning
from fedemu.links._base import Retry
from fedemu.net._pb import federation_pb2 as pb
from fedemu.net.channel import Conversation
from fedemu.net.delivery import Apart, Delivery, Exchange, Measure
from fedemu.net.emulated import EmulatedChannel
from fedemu.net.messages import Header, Message
from fedemu.net.network import Network
from fedemu.net.path import Carried, Outcome, transfer_ended
from fedemu.rng import stream
from fedemu.scenario import Scenario
from fedemu.scenario.device import equipment
from fedemu.scenario.link import DIRECTIONS, Direction
from fedemu.scenario.sections import ConditionKeys
from fedemu.sessions import Seat
from fedemu.types import ClientId, ClientView, Interval, Rng, Seconds
from fedemu.wiring import Wiring


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
        self._wiring = Wiring(scenario, learning.shards, apart=exchange is None)
        self._network = Network(clock, self._wiring.pipes)
        self._equipment = {
            name: Equipment() if group.device is None else equipment(group.device.house)
            for name, group in scenario.clients.items()
        }
        self._codings = {
            (name, direction): learning.coding(name, direction) for name in scenario.clients for direction in DIRECTIONS
        }
        self.views = {
            client: ClientView(client, client.partition("/")[0], len(shard))
            for client, shard in learning.shards.items()
        }
        self._spans = {name: self._spans_in(name) for name in scenario.clients}

    @property
    def seats(self) -> list[Seat]:
        """The clients as the server sees them."""
        return [self._seat(view) for view in self.views.values()]

    def _seat(self, view: ClientView, *, kernel: bool = False) -> Seat:
        down = self._scenario.codec_in(view.group).down
        return Seat(
            view,
            self._retry(view, kernel=kernel),
            partial(self.behind, view, "down", kernel=kernel),
            up=self._codings[view.group, "up"],
            down=self._codings[view.group, "down"],
            by_difference=down is not None and down.house["delta"],
            conditions=partial(self._conditions, view),
            kernel=None if kernel or self._exchange is not None else self._seat(view, kernel=True),
        )

    def online(self) -> Iterator[tuple[ClientView, Iterator[Interval]]]:
        """Yield every client, in the order of the scenario, and when it is online."""
        scenario = self._scenario
        populations: dict[str | None, list[ClientView]] = {}
        for view in self.views.values():
            populations.setdefault(view.group if scenario.clients[view.group].availability else None, []).append(view)
        found: dict[ClientId, Iterator[Interval]] = {}
        for group, views in populations.items():
            kind = scenario.availability if group is None else scenario.clients[group].availability
            assert kind is not None
            times = kind.build()(self._members(views), lambda client: stream(scenario.seed, "availability", client))
            found.update(zip((view.client for view in views), times, strict=True))
        for client, view in self.views.items():
            yield view, found[client]

    def _members(self, views: Sequence[ClientView]) -> Sequence[Member]:
        return [Member(view.client, self._learning.label_counts(view.client)) for view in views]

    def _conditions(self, view: ClientView, now: Seconds) -> frozenset[str]:
        """Return what is true of a client's device; times do not go back."""
        spans = self._spans[view.group]
        return frozenset(
            name for name in ConditionKeys.model_fields if name not in spans or spans[name][view.client].cover(now)
        )

    def _spans_in(self, group: str) -> Mapping[str, Mapping[ClientId, Spans]]:
        """Return when each condition that changes holds for each client of a group."""
        found = {}
        views = [view for view in self.views.values() if view.group == group]
        for name in ConditionKeys.model_fields:
            kind = getattr(self._scenario.clients[group].conditions, name)
            if kind is not None:
                times = kind.build()(self._members(views), partial(stream, self._scenario.seed, "condition", name))
                found[name] = {view.client: Spans(each) for view, each in zip(views, times, strict=True)}
        return found

    def participant(
        self, view: ClientView, train: Callable[[Job], "Future[Learned]"], *, kernel: bool = False
    ) -> Participant:
        """Return the client itself.

        Args:
            view: What the server knows of it.
            train: Does its work.
            kernel: Its kernel shapes its own link.
        """
        group, learning = self._scenario.clients[view.group], self._learning
        training, codec = self._scenario.training_in(view.group), self._scenario.codec_in(view.group)
        return Participant(
            view=view,
            work=partial(self._work, view),
            device=constant(per_example=0.0) if group.device is None else group.device.build(),
            equipment=self._equipment[view.group],
            needs=memory_to_train(learning.layout.size, training.in_round(1)),
            retry=self._retry(view, kernel=kernel),
            seed=self._scenario.seed,
            train=train,
            clock=self._clock,
            emit=self._emit,
            budget=math.inf if training.budget is None else training.budget,
            coding_time=self._coding_time(view.group),
            down=self._codings[view.group, "down"],
            by_difference=codec.down is not None and codec.down.house["delta"],
        )

    def _work(self, view: ClientView, round: int) -> Work:
        epochs = self._scenario.training_in(view.group).in_round(round).epochs
        return Work(view.num_examples, epochs, lambda: self._learning.arithmetic)

    def _coding_time(self, group: str) -> Seconds:
        """Return how long a client decodes a model and encodes an update."""
        codec, size = self._scenario.codec_in(group), self._learning.layout.size
        time = 0.0
        if (up := self._codings[group, "up"]) is not None and codec.up is not None:
            time += codec.up.house["slowdown"] * up.encode_time(size)
        if (down := self._codings[group, "down"]) is not None and codec.down is not None:
            time += codec.down.house["slowdown"] * down.decode_time(size)
        return time

    def behind(
        self, view: ClientView, direction: Direction, conversation: Conversation, *, kernel: bool = False
    ) -> EmulatedChannel:
        """Put an end of a client's connection behind the direction of the client's link in which that end sends.

        Args:
            view: The client.
            direction: up at the client's end, down at the server's.
            conversation: The connection.
            kernel: The client's kernel shapes that link; only what it shares with others is emulated.
        """
        client = view.client

        def draw(stage: str, message: Message) -> Rng:
            return stream(self._scenario.seed, "link", client, direction, stage, *_name(message.header))

        return EmulatedChannel(
            Apart(conversation, self._clock) if kernel else self._delivery(view, direction, conversation),
            self._wiring.path(client, direction, kernel=kernel),
            self._network,
            self._clock,
            draw,
            inbound=self._wiring.crossed(client, "up") if self._exchange is None and direction == "down" else (),
            tell=partial(self._hand if kernel else self._tell, view, direction),
        )

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

    def _tell(self, view: ClientView, direction: Direction, message: Message, carried: Carried) -> None:
        event = transfer_ended(self._clock.now(), view, direction, message, carried)
        self._emit(event)
        if (energy := self._equipment[view.group].energy) is not None:
            joules = energy.joules(**{direction: carried.left - carried.began})
            about = {key: getattr(event, key) for key in ("at", "client", "group", "round", "attempt")}
            self._emit(EnergySpent(**about, phase=direction, joules=joules))

    def _hand(self, view: ClientView, direction: Direction, message: Message, carried: Carried) -> None:
        """Tell of a transfer what is known where a kernel has the rest of its way."""
        outcome: Outcome = "handed" if carried.outcome == "delivered" else carried.outcome
        known = carried._replace(outcome=outcome, delay=None)
        self._emit(transfer_ended(self._clock.now(), view, direction, message, known))

    def _retry(self, view: ClientView, *, kernel: bool = False) -> Retry:
        if kernel:  # what TCP has on its way arrives, or the connection breaks
            return Retry(attempts=1, timeout=math.inf)
        return self._scenario.clients[view.group].link.retries or Retry(attempts=1)


def _name(header: Header) -> tuple[str | int, ...]:
    """Return what tells a message from all others of its client and direction."""
    if isinstance(header, pb.Hello | pb.Enrolled | pb.Welcome | pb.Ready | pb.Goodbye):
        return (type(header).__name__,)
    assignment = header.assignment
    return type(header).__name__, assignment.round, assignment.turn, assignment.attempt
