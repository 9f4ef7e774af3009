"""A toy federation: 3 parameters, clients that train at once and take the time they are told to; all else is real."""

import asyncio
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from fedemu import events as kinds
from fedemu.client import Memory, Participant, join
from fedemu.clock import VirtualClock, run
from fedemu.codecs._base import Coding
from fedemu.compute._base import Learned
from fedemu.devices._base import Device, Equipment, Work
from fedemu.errors import NetworkError, PeerError, RunError
from fedemu.events import TaskSent, UpdateLost, UpdateReceived, UpdateRejected
from fedemu.links._base import Retry, Way
from fedemu.links._spells import Spells
from fedemu.links.delay import delay as delay_stage
from fedemu.links.tcp.none import none
from fedemu.loop import standstill
from fedemu.net._pb import federation_pb2 as pb
from fedemu.net.channel import Conversation
from fedemu.net.delivery import Apart, Exchange
from fedemu.net.emulated import EmulatedChannel
from fedemu.net.memory import MemoryTransport
from fedemu.net.messages import Message
from fedemu.net.network import Network, Pipe, Route
from fedemu.net.path import Path, transfer_ended
from fedemu.rng import stream
from fedemu.rounds import RoundPolicy, Rounds, Score, Stop
from fedemu.server import Server
from fedemu.sessions import Seat
from fedemu.strategies.fedavg import fedavg
from fedemu.types import ClientView, Interval, Trained, Training

PARAMETERS = 3


def way(*, delay=0.0, jitter=0.0, rate=math.inf, before=(), after=()) -> Way:
    """One direction of a link, without TCP."""
    arrival = (("delay", delay_stage(delay=delay, jitter=jitter)),) if delay else ()
    return Way(tuple(before), (*arrival, *after), rate=rate, delay=delay)


@dataclass
class Toy:
    """A client.

    Attributes:
        delta: What it always answers.
        examples: Its weight in the mean.
        takes: Seconds that its trainings take, one after the other; the last for all that follow.
        script: What it does with its connection instead of being a proper client.
        down_times: When its link is down, in both directions.
        refuses: It tells so.
        equipment: What stands around its device; training needs 12 bytes.
        epochs: Of the round's training.
        budget: Time for a training.
        coding: Seconds that it takes to decode and encode.
        encodes: How its updates travel; `train` encodes them.
        decodes: How models to it travel.
        keeps: It gets the difference to a model that it has acknowledged.
        conditions: What is true of it at a time.
        memory: Makes what the algorithm remembers there, for each connection.
    """

    delta: tuple[float, ...] = (1.0, 0.0, 0.0)
    examples: int = 1
    takes: tuple[float, ...] = (1.0,)
    up: Way = field(default_factory=way)
    down: Way = field(default_factory=way)
    retry: Retry = field(default_factory=lambda: Retry(attempts=1, timeout=1000.0))
    draw: str = "round"
    train: Callable | None = None
    script: Callable | None = None
    down_times: tuple[Interval, ...] = ()
    refuses: bool = False
    equipment: Equipment = field(default_factory=Equipment)
    epochs: Callable = lambda _: 1
    budget: float = math.inf
    coding: float = 0.0
    encodes: Coding | None = None
    decodes: Coding | None = None
    keeps: bool = False
    conditions: Callable = lambda now: frozenset()
    memory: Callable = Memory


class Federation:
    """Clients and a server on a clock, and the log of what happened.

    Attributes:
        events: All of them, in order.
        jobs: What was really trained.
        models: The global models that were evaluated.
    """

    def __init__(self, clients, clock, *, seed=1, tokens=None):
        self.clients, self.clock, self.seed = clients, clock, seed
        self.events, self.jobs, self.models = [], [], []
        self.conversations, self.tasks = {}, {}
        self.views = {name: ClientView(name, name.partition("/")[0], toy.examples) for name, toy in clients.items()}
        self.pipes = {
            f"{name} {direction}": Pipe(getattr(toy, direction).rate)
            for name, toy in clients.items()
            for direction in ("up", "down")
            if math.isfinite(getattr(toy, direction).rate)
        }
        self.network = Network(clock, self.pipes)
        self.exchange, self.hosted = Exchange(clock), False
        self.server = Server(
            [self._seat(name) for name in self.views],
            scenario="{}",
            parameters=PARAMETERS,
            clock=clock,
            emit=self.events.append,
            seed=seed,
            tokens=tokens,
        )

    def _seat(self, name):
        toy = self.clients[name]
        return Seat(
            self.views[name],
            toy.retry,
            partial(self._behind, name, "down"),
            up=toy.encodes,
            down=toy.decodes,
            by_difference=toy.keeps,
            conditions=toy.conditions,
        )

    def _behind(self, name, direction, conversation):
        pipe = f"{name} {direction}"
        toy = self.clients[name]
        path = Path(
            pipe,
            [(0.0, getattr(toy, direction))],
            none,
            Route([pipe] if pipe in self.pipes else []),
            spells=Spells([(toy.down_times, toy.refuses)]) if toy.down_times else None,
        )

        def draw(stage, message):
            header = message.header
            about = getattr(header, "assignment", None)
            number = (about.round, about.turn, about.attempt) if about else ()
            return stream(self.seed, "link", name, direction, stage, type(header).__name__, *number)

        if self.hosted or self.clients[name].script:  # what comes is not announced to this process
            delivery = Apart(conversation, self.clock)
        elif direction == "down":
            delivery = self.exchange.servers_end(name, conversation)
        else:
            delivery = self.exchange.clients_end(name, conversation)

        def tell(message, carried):
            self.events.append(transfer_ended(self.clock.now(), self.views[name], direction, message, carried))

        return EmulatedChannel(delivery, path, self.network, self.clock, draw, tell=tell)

    def _train(self, toy, job):
        self.jobs.append(job)
        done = Future()
        delta = torch.tensor(toy.delta)
        done.set_result(
            Learned(*toy.train(job))
            if toy.train
            else Learned(Trained(delta, toy.examples, num_steps=1, train_loss=0.5), job.state)
        )
        return done

    def participant(self, name):
        toy = self.clients[name]
        durations = iter(toy.takes)

        def training_time(work, rng):
            return next(durations, toy.takes[-1])

        return Participant(
            view=self.views[name],
            work=lambda number: Work(toy.examples, toy.epochs(number), lambda: 0.0),
            device=toy.takes if isinstance(toy.takes, Device) else Device(training_time, toy.draw),
            equipment=toy.equipment,
            needs=12,
            retry=toy.retry,
            seed=self.seed,
            train=partial(self._train, toy),
            clock=self.clock,
            emit=self.events.append,
            budget=toy.budget,
            coding_time=toy.coding,
            down=toy.decodes,
            by_difference=toy.keeps,
            memory=toy.memory(),
        )

    async def take_part(self, name, transport, address):
        """Be that client until the run is over or the connection breaks."""
        group, slot = name.split("/")
        conversation = self.conversations[name] = Conversation(await transport.connect(address), limit=0)
        await join(conversation, group, int(slot))
        conversation.limit = 4 * PARAMETERS
        script = self.clients[name].script
        try:
            if script:
                await conversation.send(Message(pb.Ready()))
                await script(conversation)
            else:
                await self.participant(name).run(self._behind(name, "up", conversation))
        except (NetworkError, PeerError) as error:
            return error
        finally:
            await standstill(conversation.aclose(), f"close {name}")

    def of(self, kind, **fields):
        """Return the events of that kind and with those fields."""
        chosen = [e for e in self.events if type(e) is getattr(kinds, kind)]
        return [e for e in chosen if all(getattr(e, name) == value for name, value in fields.items())]

    def the(self, kind, **fields):
        """Return the only such event."""
        [event] = self.of(kind, **fields)
        return event

    def at(self, kind, **fields):
        """Return when such events happened."""
        return [e.at for e in self.of(kind, **fields)]

    @property
    def lines(self):
        return [kinds.as_line(event) for event in self.events]


def first(views, count, rng):
    """Select those who come first in the scenario: by hand is by hand."""
    return [view.client for view in views[:count]]


def play(clients, *, transport=MemoryTransport, **how):
    """Run a federation to its end on the virtual clock; `perform` says how."""

    async def main():
        return await perform(clients, VirtualClock(), transport(), **how)

    return run(main(), virtual=True)


async def perform(
    clients,
    clock,
    transport,
    *,
    policy=None,
    stop=None,
    every=None,
    accuracy=lambda w: 0.0,
    seed=1,
    meanwhile=None,
    select=first,
    strategy=None,
):
    """Run a federation to its end.

    Args:
        clients: A Toy for each client, by name.
        clock: Waits.
        transport: Connects.
        policy: Keys of RoundPolicy; all clients take part in every round unless said otherwise.
        stop: Keys of Stop; one round unless said otherwise.
        every: Rounds from one evaluation to the next.
        accuracy: Of a global model.
        seed: Of links and devices.
        meanwhile: Called with the federation and `rejoin(name)`; runs beside the rounds.
        select: The selector.
        strategy: Averages; FedAvg unless said otherwise.
    """
    federation = Federation(clients, clock, seed=seed)

    async def evaluate(weights):
        for _ in range(20):  # others go on meanwhile, as they do while a real one is computed
            await asyncio.sleep(0)
        federation.models.append(weights.tolist())
        return Score(accuracy(weights.tolist()), loss=0.0)

    settings = {"concurrency": len(clients), **(policy or {})}
    rounds = Rounds(
        federation.server,
        strategy=strategy or fedavg(Training()),
        state={},
        weights=torch.zeros(PARAMETERS),
        policy=RoundPolicy(**{"goal": settings["concurrency"], **settings}),
        select=select,
        stop=Stop(**(stop or {"rounds": 1})),
        evaluate=evaluate,
        every=every,
        clock=clock,
        emit=federation.events.append,
        seed=seed,
    )
    serving = transport.serve(federation.server.serve)
    async with serving as address, federation.exchange, asyncio.TaskGroup() as tasks:

        def rejoin(name):
            federation.tasks[name] = tasks.create_task(federation.take_part(name, transport, address), name=name)

        for name in clients:
            rejoin(name)
        await federation.server.wait_for_idle(len(clients))
        clock.start()
        beside = tasks.create_task(meanwhile(federation, rejoin)) if meanwhile else None
        federation.reason, federation.end = await rounds.run()
        await federation.server.finish(federation.reason)
        if beside:
            await beside
    federation.ends = {name: task.result() for name, task in federation.tasks.items()}
    federation.weights = rounds.weights.tolist()
    check(federation)
    return federation


def check(federation):
    """Assert what is true of every run: time goes on, and every task has one outcome."""
    times = [event.at for event in federation.events]
    assert times == sorted(times), "time goes back"
    outcomes = [e for e in federation.events if isinstance(e, UpdateReceived | UpdateLost | UpdateRejected)]
    unused = {(e.client, e.round) for e in outcomes if isinstance(e, UpdateLost) and e.reason == "unused"}
    tasks = [e for e in federation.events if isinstance(e, TaskSent) and e.attempt == 1]
    left = Counter((e.client, e.round) for e in tasks)
    for event, after in zip(outcomes, [*outcomes, None][1:], strict=True):
        key = event.client, event.round
        if isinstance(event, UpdateReceived) and (is_its_loss(after, event) or key in unused):
            continue  # the outcome is the loss
        if not left[key]:  # given out and taken back in the same moment: never sent
            assert (type(event), getattr(event, "wasted", None)) == (UpdateLost, 0), "an outcome without a task"
            continue
        left[key] -= 1
    assert not +left, "a task without its one outcome"


def is_its_loss(event, received):
    """Return whether the event says that what was just received came late."""
    return isinstance(event, UpdateLost) and (event.at, event.client, event.round, event.reason) == (
        received.at,
        received.client,
        received.round,
        "late",
    )


@asynccontextmanager
async def hosted(federation, transport) -> Iterator[Callable]:
    """Serve a federation; inside, call the value for a new connection to it, not yet joined."""
    opened, federation.hosted = [], True

    async def connect():
        opened.append(Conversation(await transport.connect(address), limit=4 * PARAMETERS))
        return opened[-1]

    async with transport.serve(federation.server.serve) as address:
        try:
            yield connect
        finally:
            for conversation in opened:
                await conversation.aclose()


class Failing:
    """The workers of a compute, of whose trainings one fails: that of the given number."""

    def __init__(self, compute, number) -> None:
        self._compute, self._number, self.workers, self._jobs = compute, number, compute.workers, 0
        self.warm, self.evaluate, self.buffer = compute.warm, compute.evaluate, compute.buffer

    def train(self, recipe, job):
        self._jobs += 1
        return self._compute.train(_broken if self._jobs == self._number else recipe, job)


def _broken():
    raise RunError("the graphics card is on fire")


@pytest.fixture
def failing():
    """A compute whose training fails: `failing(compute, number)`."""
    return Failing


@pytest.fixture(scope="session")
def toy():
    """The names of this module: `toy.play({"a/0": toy.Client(...)})`."""
    module = sys.modules[__name__]
    names = ("way", "first", "play", "perform", "hosted", "Federation", "PARAMETERS", "check")
    return SimpleNamespace(**{name: getattr(module, name) for name in names}, Client=Toy, Message=Message, pb=pb)
