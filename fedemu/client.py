"""A client: it waits for tasks, trains, and answers, over a connection that takes its time."""

import asyncio
import math
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import torch

from fedemu.clock import Clock, finish
from fedemu.codecs._base import Coding
from fedemu.compute._base import Job, Learned
from fedemu.devices._base import Device, Equipment, Work
from fedemu.errors import NetworkError, PeerError
from fedemu.events import (
    CallRetried,
    EnergySpent,
    MemoryExceeded,
    Observer,
    TaskReceived,
    TrainingFinished,
    TrainingStarted,
    UpdateSent,
)
from fedemu.links._base import Retry
from fedemu.loop import standstill
from fedemu.net._pb import federation_pb2 as pb
from fedemu.net.calls import call
from fedemu.net.channel import Conversation
from fedemu.net.emulated import EmulatedChannel, Meter
from fedemu.net.messages import PROTOCOL, Message
from fedemu.rng import stream
from fedemu.types import Bytes, ClientView, Encoded, Payload, Seconds, State, Vector


async def join(
    conversation: Conversation,
    group: str,
    slot: int | None,
    token: str | None = None,
    host: str = "",
    enrolled: Callable[[], None] = lambda: None,
    *,
    kernel: bool = False,
) -> pb.Welcome:
    """Say who wants to take part; return the server's welcome. This takes no emulated time.

    Args:
        conversation: To the server.
        group: Of the scenario.
        slot: Which client of the group; None takes one that is free.
        token: What the server asks for, if it does.
        host: Where this client runs; empty for one in the server's own process.
        enrolled: Told that the run has not begun; the connection ends when it does.
        kernel: The kernel here shapes this client's link, in both directions.

    Raises:
        PeerError: The server will not have this client.
        NetworkError: The connection is gone, or the enrolment is over.
    """
    hello = pb.Hello(protocol=PROTOCOL, group=group, slot=slot, token=token, host=host, kernel=kernel)

    async def ask() -> Message:
        await conversation.send(Message(hello))
        answer = await conversation.receive()
        while isinstance(answer.header, pb.Enrolled):
            enrolled()
            answer = await conversation.receive()
        return answer

    welcome = (await standstill(ask(), f"join as {group}/{slot}")).header
    if not isinstance(welcome, pb.Welcome):
        raise PeerError("INVALID_ARGUMENT", f"{type(welcome).__name__} where Welcome was expected")
    return welcome


@dataclass(slots=True, eq=False)
class Memory:
    """What an algorithm remembers on a client, also from connection to connection."""

    state: State = field(default_factory=dict)
    learned: tuple[tuple[int, int], State] | None = None
    """Round and turn of the last task that was trained, and what to remember if its update is accepted."""
    task: tuple[int, int] | None = None
    """Round and turn of the task in which `state` was learned."""
    keep: "Callable[[Memory], None]" = lambda _: None
    """Called when something was learned, before anybody else hears of it."""
    doubt: Callable[[str], None] = lambda _: None
    """Told, for people, if what is remembered is not what the server thinks."""

    def learn(self, task: tuple[int, int], state: State) -> None:
        """Take what was learned in a task, which is remembered once its update is accepted."""
        self.learned = task, state
        self.keep(self)

    def commit(self, task: tuple[int, int]) -> None:
        """Remember what was learned in a task; nothing happens if that is not the last one, or is done."""
        if self.learned is not None and self.learned[0] == task:
            self.state, self.task, self.learned = self.learned[1], task, None

    def agree(self, accepted: tuple[int, int] | None) -> None:
        """Remember what the server thinks.

        Args:
            accepted: The last task of which it has accepted an update; None, there is none.
        """
        if accepted is None:
            if self.state:
                self.doubt("the server begins anew, and so does this client: what it remembered is forgotten")
            self.state, self.task, self.learned = {}, None, None
            return
        self.commit(accepted)
        if self.state and self.task != accepted:
            known, last = (f"round {task[0]}, turn {task[1]}" for task in (self.task or (0, 0), accepted))
            self.doubt(f"this client remembers {known}, but the server has an update of {last} from another one")


@dataclass(frozen=True, slots=True)
class Participant:
    """A client that has joined.

    Args:
        view: Who it is.
        work: What a local training asks of its device, by the round.
        device: How long that takes.
        equipment: What stands around the device.
        needs: Bytes of memory that training needs.
        retry: How often and how soon an update is sent again.
        seed: Of the run.
        train: Really trains.
        clock: Tells the time of events, and waits.
        emit: Takes the events.
        memory: What the algorithm remembers here.
        budget: Time for a training: whole epochs that do not fit, except the first, are left out.
        coding_time: Time that it takes to decode a model and to encode an update.
        down: How models to it are encoded; None, they are not.
        by_difference: It gets the difference to a model that it has acknowledged.
    """

    view: ClientView
    work: Callable[[int], Work]
    device: Device
    equipment: Equipment
    needs: Bytes
    retry: Retry
    seed: int
    train: Callable[[Job], "Future[Learned]"]
    clock: Clock
    emit: Observer
    memory: Memory = field(default_factory=Memory)
    budget: Seconds = math.inf
    coding_time: Seconds = 0.0
    down: Coding | None = None
    by_difference: bool = False

    async def run(self, channel: EmulatedChannel) -> None:
        """Take part until the server says goodbye.

        Raises:
            NetworkError: The connection is gone.
            PeerError: The server ended the connection and said why.
        """
        failure: NetworkError | PeerError | None = None
        async with channel:
            channel.announce(Message(pb.Ready()))
            async with asyncio.TaskGroup() as tasks:
                desk = _Desk(self, channel, tasks)
                try:
                    while desk.take(*await channel.receive()):
                        pass
                except (NetworkError, PeerError) as error:
                    failure = error
                except asyncio.CancelledError:
                    desk.has_left = True
                    raise
                desk.clear()
            if failure is None:
                await channel.drain()
        if failure is not None:
            raise failure


@dataclass(slots=True, eq=False)
class _Assignment:
    """The task in hand, or the last one."""

    round: int
    turn: int
    attempt: int = 1
    up: Meter = field(default_factory=Meter)
    answer: "asyncio.Future[Any]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    job: Job | None = None
    """What is to be trained, until it is."""
    task: asyncio.Task[None] | None = None

    @property
    def name(self) -> pb.Assignment:
        return pb.Assignment(round=self.round, turn=self.turn, attempt=self.attempt)


class _Desk:
    """What a client does with what comes, one task at a time."""

    def __init__(self, client: Participant, channel: EmulatedChannel, tasks: asyncio.TaskGroup) -> None:
        self._client, self._channel, self._tasks = client, channel, tasks
        self._current: _Assignment | None = None
        self._models: dict[tuple[int, int], Vector] = {}
        """By round and turn: those that a difference may be to."""
        self.has_left = False
        """It says nothing more, not even that it gives up."""

    def take(self, message: Message, moment: Seconds) -> bool:
        """Do what a message asks for that has arrived at that moment; return False if the run is over."""
        match message.header:
            case pb.Task() as task if "model" in message.vectors:
                self._begin(task, message, moment)
            case pb.Answer() as answer:
                self._conclude(answer)
            case pb.Goodbye():
                return False
            case pb.Cancel() as cancel:
                if self._is_current(cancel.assignment):
                    self.clear()
                else:  # it overtook its task, which was lost
                    self._channel.post(Message(pb.Abandoned(assignment=cancel.assignment, reason="cancelled")))
            case other:
                with_ = f" with {', '.join(message.vectors) or 'no vectors'}"
                raise PeerError("INVALID_ARGUMENT", f"{type(other).__name__}{with_} to a client that has joined")
        return True

    def clear(self) -> None:
        """Stop what is being done."""
        if self._current is not None and self._current.task is not None:
            self._current.task.cancel()

    def _conclude(self, answer: pb.Answer) -> None:
        current = self._current
        if current is None or not self._is_current(answer.assignment) or current.answer.done():
            return
        current.answer.set_result(answer)
        # at once: the next task may stand right behind the answer
        if answer.verdict == pb.Answer.VERDICT_ACCEPTED:
            self._client.memory.commit((current.round, current.turn))

    def _is_current(self, name: pb.Assignment) -> bool:
        return self._current is not None and (name.round, name.turn) == (self._current.round, self._current.turn)

    def _begin(self, task: pb.Task, message: Message, moment: Seconds) -> None:
        self._channel.post(Message(pb.Receipt(assignment=task.assignment)))
        if self._is_current(task.assignment):  # it comes again, since the receipt was lost
            return
        self.clear()
        accepted = (task.accepted.round, task.accepted.turn) if task.HasField("accepted") else None
        self._client.memory.agree(accepted)  # the answer may have been lost
        weights, extras = self._unpacked(task, message.vectors)
        assignment = self._current = _Assignment(task.assignment.round, task.assignment.turn)
        event = TaskReceived(
            **self._about(assignment) | {"attempt": task.assignment.attempt},
            bytes=message.size,
            version=task.version,
        )
        self._client.emit(event)
        holds = self._client.equipment.memory
        if holds is not None and self._client.needs > holds.size:
            self._client.emit(MemoryExceeded(**self._about(assignment), needed=self._client.needs, memory=holds.size))
            self._abandon(assignment, "out of memory")
            return
        memory = self._client.memory.state
        assignment.job = Job(self._client.view.client, assignment.round, assignment.turn, weights, extras, memory, 0)
        assignment.task = self._tasks.create_task(self._work(assignment, task.version, moment))
        assignment.task.add_done_callback(lambda work: self._stopped(assignment, work))

    def _unpacked(self, task: pb.Task, vectors: Mapping[str, Payload]) -> tuple[Vector, dict[str, Vector]]:
        """Return the model of a task, and what stands beside it.

        Raises:
            PeerError: They cannot be decoded.
        """
        client, extras = self._client, dict[str, Vector]()
        weights = torch.empty(0)
        for name, vector in vectors.items():
            if not isinstance(vector, Encoded):
                decoded = vector
            elif name != "model" or client.down is None:
                raise PeerError("INVALID_ARGUMENT", f"{name} is encoded, and this client has no codec for it")
            else:
                try:
                    decoded = client.down.decode(vector.data, vector.size)
                except ValueError as error:
                    raise PeerError("INVALID_ARGUMENT", f"the model cannot be decoded: {error}") from error
            if name == "model":
                weights = decoded
            else:
                extras[name] = decoded
        if task.HasField("reference"):
            reference = task.reference.round, task.reference.turn
            if reference not in self._models:
                raise PeerError("INVALID_ARGUMENT", "a difference to a model that this client does not have")
            if weights.shape != self._models[reference].shape:
                text = f"a difference of {len(weights)} numbers to a model of {len(self._models[reference])}"
                raise PeerError("INVALID_ARGUMENT", text)
            weights = self._models[reference] + weights
            self._models = {key: model for key, model in self._models.items() if key >= reference}
        if client.by_difference:
            self._models[task.assignment.round, task.assignment.turn] = weights
        return weights, extras

    async def _work(self, assignment: _Assignment, version: int, moment: Seconds) -> None:
        try:
            learned, moment = await self._train(assignment, moment)
            self._client.memory.learn((assignment.round, assignment.turn), learned.state)
            await self._deliver(assignment, version, learned, moment)
        except NetworkError as error:
            self._abandon(assignment, f"undelivered: update {error}")

    def _stopped(self, assignment: _Assignment, work: asyncio.Task[None]) -> None:
        assignment.task = None  # a task that was cancelled holds its frames, and with them the update
        # not in `_work`: one that is cancelled before it began never runs
        if work.cancelled() and not assignment.answer.done() and not self.has_left:
            self._abandon(assignment, "cancelled")

    async def _train(self, assignment: _Assignment, moment: Seconds) -> tuple[Learned, Seconds]:
        """Return what was learned, and the moment when the device was done."""
        client, clock, turn = self._client, self._client.clock, (assignment.round, assignment.turn)
        work = client.work(assignment.round)
        per = turn if client.device.draw == "round" else ()
        duration = client.device.training_time(work, stream(client.seed, "device", client.view.client, *per))
        if (straggler := client.equipment.straggler) is not None:
            duration *= straggler.slowdown(stream(client.seed, "straggler", client.view.client, *turn))
        epochs = work.epochs
        if duration > client.budget:
            epochs = max(1, int(work.epochs * client.budget / duration + 1e-9))
            duration *= epochs / work.epochs
        client.emit(TrainingStarted(**self._about(assignment), examples=client.view.num_examples))
        started = clock.now()
        job, assignment.job = assignment.job, None  # a large model should not lie here while its update travels
        assert job is not None
        training = client.train(job._replace(epochs=epochs))
        del job
        key = (client.view.client, "train", *turn)
        learned, moment = await finish(training, clock, moment + duration + client.coding_time, key)
        del training
        trained = learned.trained
        client.emit(
            TrainingFinished(
                **self._about(assignment),
                steps=trained.num_steps,
                loss=trained.train_loss,
                duration=clock.now() - started,
            )
        )
        if (energy := client.equipment.energy) is not None:
            joules = energy.joules(compute=clock.now() - started)
            client.emit(EnergySpent(**self._about(assignment), phase="compute", joules=joules))
        return learned, moment

    async def _deliver(self, assignment: _Assignment, version: int, learned: Learned, moment: Seconds) -> None:
        client, trained = self._client, learned.trained

        def attempt(number: int) -> Message:
            assignment.attempt = number
            update = pb.Update(
                assignment=assignment.name,
                version=version,
                num_examples=trained.num_examples,
                num_steps=trained.num_steps,
                train_loss=trained.train_loss,
                squared_loss=trained.squared_loss,
            )
            message = Message(update, {"delta": learned.encoded or trained.delta, **trained.extras})
            client.emit(UpdateSent(**self._about(assignment), bytes=message.size))
            return message

        def retried(_: int, reason: str, wait: Seconds) -> None:
            client.emit(CallRetried(**self._about(assignment), direction="up", reason=reason, wait=wait))

        who = (client.view.client, "up", assignment.round, assignment.turn)
        await call(
            self._channel,
            attempt,
            assignment.answer,
            start=moment,
            retry=client.retry,
            clock=client.clock,
            meter=assignment.up,
            draw=lambda number: stream(client.seed, "retry", *who, number),
            retried=retried,
        )

    def _abandon(self, assignment: _Assignment, reason: str) -> None:
        abandoned = pb.Abandoned(assignment=assignment.name, reason=reason, sent=assignment.up.sent)
        self._channel.post(Message(abandoned))

    def _about(self, assignment: _Assignment) -> dict[str, Any]:
        view = self._client.view
        return {
            "at": self._client.clock.now(),
            "client": view.client,
            "group": view.group,
            "round": assignment.round,
            "attempt": assignment.attempt,
        }
