"""The server's end of the wire: who takes part, who works on what, and what came of it.

It knows nothing of averaging or of when a round closes: `rounds` tells it whom to give a task and what to answer, and
takes what comes from its inbox.
"""

import asyncio
import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, cast

from fedemu.clock import Clock
from fedemu.errors import NetworkError, PeerError
from fedemu.events import (
    CallRetried,
    ClientJoined,
    ClientLeft,
    Observer,
    TaskSent,
    UpdateLost,
    UpdateReceived,
    UpdateRejected,
)
from fedemu.hello import Caller, admitted
from fedemu.loop import standstill
from fedemu.net._pb import federation_pb2 as pb
from fedemu.net.calls import call
from fedemu.net.channel import Channel, Conversation
from fedemu.net.messages import Message
from fedemu.packing import Packing
from fedemu.rng import stream
from fedemu.sessions import OVER, STOPPED, Arrival, Assignment, Loss, Notes, Seat, Session, Taken, Told
from fedemu.tokens import Tokens
from fedemu.types import ClientId, ClientView, Extras, Seconds, Update, Vector

REMEMBERED = 4
"""Assignments of a client that are kept after they are concluded, to answer an update that comes again."""

PARTING = 60.0
"""Seconds that the server waits for clients to leave when the run is over."""


class Server:
    """Keeps the sessions of a run.

    Args:
        seats: Every client that there can be, in the order of the scenario.
        scenario: The resolved scenario as JSON, for clients that build their own world from it.
        parameters: Length of the model vector.
        clock: Tells the time of events, and waits.
        emit: Takes the events.
        seed: Of the run; for the waits of retries.
        check: Says what is wrong with an update, in the eyes of the algorithm; None if nothing is.
        keep: Begins to write down an update that is taken; its client is told when that is done.
        tokens: What clients need to join; None lets in whoever comes.
    """

    def __init__(
        self,
        seats: Sequence[Seat],
        *,
        scenario: str,
        parameters: int,
        clock: Clock,
        emit: Observer,
        seed: int,
        check: Callable[[Update], str | None] = lambda _: None,
        keep: "Callable[[Arrival, Update, ClientView], Future[None]] | None" = None,
        tokens: Tokens | None = None,
    ) -> None:
        self.inbox: asyncio.Queue[Arrival | Loss | Told] = asyncio.Queue()
        self.version = 0
        """Of the global model that tasks are given out with."""
        self.leases: dict[ClientId, str] = {}
        """Host that held each slot last: first the slots that are free, those first that have been so for longest."""
        self._seats: Mapping[ClientId, Seat] = {seat.view.client: seat for seat in seats}
        self._views = {client: seat.view for client, seat in self._seats.items()}
        """With what the server has learned of each client."""
        self._packing = Packing(parameters, seed, check)
        self._scenario, self._parameters, self._seed = scenario, parameters, seed
        self._clock, self._emit, self._tokens, self._keep = clock, emit, tokens, keep
        self._sessions: dict[ClientId, Session] = {}
        self._turns: dict[ClientId, tuple[int, int]] = {}
        """Round and turn of each client's last task: they go on if it leaves and comes back."""
        self._accepted: dict[ClientId, pb.Assignment] = {}
        """Each client's last task of which the update was accepted."""
        self._changed = asyncio.Event()
        self._over: str | None = None
        """Why the run is over, once it is: who joins now is sent away."""

    # --- what rounds asks for

    @property
    def idle(self) -> list[ClientView]:
        """Clients that are connected and have nothing to do, in the order of the scenario."""
        sessions = ((seat, self._sessions.get(client)) for client, seat in self._seats.items())
        now = self._clock.now()
        return [
            dataclasses.replace(self._views[seat.view.client], conditions=seat.conditions(now))
            for seat, session in sessions
            if session is not None and session.is_idle
        ]

    async def wait_for_idle(self, count: int) -> None:
        """Return when that many clients are connected and have nothing to do."""
        while sum(session.is_idle for session in self._sessions.values()) < count:
            await self._change()

    async def wait_for(self, clients: Iterable[ClientId], until: Seconds) -> None:
        """Return when these clients are connected and have nothing to do, or when it is too late."""
        wanted = frozenset(clients)
        with contextlib.suppress(TimeoutError):
            async with self._clock.timeout_at(until):
                while not wanted <= {client for client, session in self._sessions.items() if session.is_idle}:
                    await self._change()

    async def wait_until_gone(self, client: ClientId) -> None:
        """Return when the client has no connection: it may be back before the server has heard that it left."""
        while client in self._sessions:
            await self._change()

    @property
    def open_work(self) -> list[Assignment]:
        """Tasks that are not concluded: on their way, worked on, late, or with an update in the inbox."""
        work = (assignment for session in self._sessions.values() for assignment in session.work.values())
        return [assignment for assignment in work if assignment.state != "concluded"]

    def assign(
        self, view: ClientView, round: int, weights: Vector, extras: Extras, *, selection: int = 0, keep: bool = False
    ) -> Assignment:
        """Give an idle client a task; its outcome comes to the inbox.

        Args:
            view: The client.
            round: From 1 on.
            weights: The model.
            extras: What the algorithm sends beside it.
            selection: Number of the selection in which the client was chosen.
            keep: Remember what it starts from, until the task is concluded.
        """
        session = self._sessions[view.client]
        last, turns = self._turns.get(view.client, (round, 0))
        turn = turns + 1 if last == round else 1
        self._turns[view.client] = round, turn
        concluded = [key for key, a in session.work.items() if a.state == "concluded" and a.round != round]
        for key in concluded[:-REMEMBERED]:
            del session.work[key]
        now = self._clock.now()
        self._know(view.client, asked=self._views[view.client].asked + 1, last_asked=selection)
        assignment = session.work[round, turn] = Assignment(view, round, turn, self.version, session.channel, now)
        packed = self._packing.pack(session, assignment, weights)
        if keep or session.seat.by_difference:
            assignment.model, assignment.extras = packed.model, extras
        task = pb.Task(version=self.version, reference=packed.reference, accepted=self._accepted.get(view.client))
        message = Message(task, {"model": packed.payload, **extras})
        sending = self._send(session, assignment, message, now)
        assignment.sending = session.tasks.create_task(sending)
        assignment.sending.add_done_callback(assignment.sent)
        return assignment

    def answer(self, arrival: Arrival, *, late: bool) -> Update:
        """Conclude an arrival: it is taken for the next global model, or came late. Return it with its staleness."""
        assignment = arrival.assignment
        staleness, base = self.version - assignment.version, assignment.model
        update = dataclasses.replace(arrival.update, staleness=staleness, base=base)
        kept = None if self._keep is None or late else self._keep(arrival, update, self._views[assignment.view.client])
        self._emit(UpdateReceived(**assignment.about(self._clock), bytes=arrival.size, staleness=staleness))
        if late:
            self._lose(assignment, "late")
            self._conclude(assignment, pb.Answer.VERDICT_LATE, "the round was closed without it")
        else:
            self._accepted[assignment.view.client] = pb.Assignment(round=assignment.round, turn=assignment.turn)
            if kept is None:
                self._conclude(assignment, pb.Answer.VERDICT_ACCEPTED)
            else:
                loop = asyncio.get_running_loop()
                kept.add_done_callback(
                    lambda kept: loop.is_closed() or loop.call_soon_threadsafe(self._tell, assignment, kept)
                )
        return update

    def _tell(self, assignment: Assignment, kept: "Future[None]") -> None:
        """Conclude a task whose update is on the disk; where it is not, whoever waits for all of them hears why."""
        if not kept.cancelled() and kept.exception() is None:
            self._conclude(assignment, pb.Answer.VERDICT_ACCEPTED)
            self.inbox.put_nowait(Told(assignment))

    def discard(self, task: Taken) -> None:
        """Say of an update that was taken that no global model was made of it: the run ended first."""
        client, group, round, attempt, size = task
        at = self._clock.now()
        lost = UpdateLost(at=at, client=client, group=group, round=round, attempt=attempt, reason="unused", wasted=size)
        self._emit(lost)

    def give_up(self, assignment: Assignment, *, cancel: bool) -> None:
        """Go on without an open assignment: cancel it, or let the client finish and ignore what comes."""
        assignment.late = True
        self._know(assignment.view.client, duration=self._clock.now() - assignment.since)
        if cancel and not assignment.cancelled:
            assignment.cancelled = True
            if assignment.sending is not None:
                assignment.sending.cancel()
            assignment.channel.post(Message(pb.Cancel(assignment=assignment.name)))

    @property
    def notes(self) -> Notes:
        """What it knows of clients that are not there, to be written down when a round has closed."""
        accepted = {client: (task.round, task.turn) for client, task in self._accepted.items()}
        return Notes(self.version, dict(self._views), dict(self._turns), accepted, dict(self.leases))

    def recall(self, notes: Notes) -> None:
        """Know what another server knew that is gone."""
        self.version = notes.version
        self._views |= notes.views
        self._turns |= notes.turns
        self.leases |= notes.leases
        self._accepted |= {
            client: pb.Assignment(round=round, turn=turn) for client, (round, turn) in notes.accepted.items()
        }

    async def finish(self, reason: str) -> None:
        """Cancel all work, tell the clients that the run is over, and wait until they have left, but not for ever."""
        while not self.inbox.empty():  # came, and no round took it
            outcome = self.inbox.get_nowait()
            if isinstance(outcome, Arrival):
                self.answer(outcome, late=True)
        for session in self._sessions.values():
            for assignment in session.work.values():
                if assignment.state == "open":
                    self.give_up(assignment, cancel=True)
            if session.ready:  # else it is told when it is
                self._dismiss(session, reason)
        self._over = reason
        with contextlib.suppress(TimeoutError):
            async with self._clock.timeout_at(self._clock.now() + PARTING):
                while self._sessions:
                    await self._change()
        for session in self._sessions.values():  # their links may be down for hours
            session.serving.cancel()

    def _dismiss(self, session: Session, reason: str) -> None:
        session.goodbye = reason
        session.channel.post(Message(pb.Goodbye(reason=reason)))

    # --- what a connection brings

    async def serve(self, channel: Channel) -> None:
        """Serve one connection to its end.

        Raises:
            PeerError: The client sent what the protocol does not allow.
        """
        conversation = Conversation(channel, limit=0)
        try:
            seat, caller = self._seat_for(await conversation.receive())
        except NetworkError:
            return  # it left before it said who it is
        refusal: PeerError | None = None
        client, group, reason = seat.view.client, seat.view.group, STOPPED
        async with asyncio.TaskGroup() as tasks, seat.behind(conversation) as emulated:
            session = self._sessions[client] = Session(
                seat, emulated, tasks, cast("asyncio.Task[None]", asyncio.current_task())
            )
            try:
                self._lease(client, caller.host)
                # first: as soon as it is welcomed, the next client may join
                self._emit(ClientJoined(at=self._clock.now(), client=client, group=group))
                welcome = Message(pb.Welcome(client=client, scenario=self._scenario))
                await standstill(conversation.send(welcome), f"welcome {client}")
                self._changed.set()
                # no algorithm sends more than three vectors beside the delta
                conversation.limit = 4 * self._parameters
                while True:
                    self._take(session, (await emulated.receive())[0])  # no name here holds a model until the next one
            except NetworkError as error:
                reason = OVER if session.goodbye else str(error)
            except PeerError as error:
                reason, refusal = str(error), error
            finally:
                session.gone = True
                sending = [a.sending for a in session.work.values() if a.sending is not None]
                for task in sending:
                    task.cancel()
                await asyncio.gather(*sending, return_exceptions=True)  # the meters count what had left
                for assignment in session.work.values():
                    if assignment.state == "open":
                        self._lose(assignment, "late" if assignment.late else f"client left: {reason}")
                del self._sessions[client]
                self._end_lease(client)
                self._emit(ClientLeft(at=self._clock.now(), client=client, group=group, reason=reason))
                self._changed.set()
        if refusal is not None:
            raise refusal

    def _seat_for(self, message: Message) -> tuple[Seat, Caller]:
        """Return the seat of who says hello, and who that is."""
        groups = dict.fromkeys(seat.view.group for seat in self._seats.values())
        caller = admitted(message, groups, self._tokens)
        seat = self._free_seat(caller)
        if not caller.kernel:
            return seat, caller
        if seat.kernel is None:
            raise PeerError("FAILED_PRECONDITION", "links of clients in the server's own process are emulated")
        return seat.kernel, caller

    def _free_seat(self, caller: Caller) -> Seat:
        seats = [seat for seat in self._seats.values() if seat.view.group == caller.group]
        if caller.slot is not None:
            if caller.slot >= len(seats):
                raise PeerError("NOT_FOUND", f"no slot {caller.slot} in {caller.group}; it has 0..{len(seats) - 1}")
            if seats[caller.slot].view.client in self._sessions:
                raise caller.is_in_use
            return seats[caller.slot]
        mine = [seat for seat in seats if caller.may_be(seat.view.client)]
        free = [seat for seat in mine if seat.view.client not in self._sessions]
        if not free:
            raise caller.are_in_use(len(mine))
        away = {client: number for number, client in enumerate(self.leases)}

        def order(seat: Seat) -> int:
            client = seat.view.client
            return -2 if self.leases.get(client) == caller.host else away.get(client, -1)

        return min(free, key=order)

    def _lease(self, client: ClientId, host: str) -> None:
        if host:  # who is in this process has none, and asks for its slot
            self.leases.pop(client, None)
            self.leases[client] = host

    def _end_lease(self, client: ClientId) -> None:
        if client in self.leases:
            for last in (client, *self._sessions):
                if last in self.leases:
                    self.leases[last] = self.leases.pop(last)

    def _take(self, session: Session, message: Message) -> None:
        header = message.header
        if isinstance(header, pb.Ready):
            session.ready = True
            if self._over is not None:
                self._dismiss(session, self._over)
            self._changed.set()
            return
        if not isinstance(header, pb.Receipt | pb.Update | pb.Abandoned):
            raise PeerError("INVALID_ARGUMENT", f"{type(header).__name__} from a client that has joined")
        name = header.assignment
        assignment = session.work.get((name.round, name.turn))
        if assignment is None and (name.round, name.turn) > self._turns.get(session.seat.view.client, (0, 0)):
            raise PeerError(
                "INVALID_ARGUMENT",
                f"{type(header).__name__} for round {name.round}, turn {name.turn}, which this client was not given",
            )
        if assignment is None:
            return  # long concluded, and forgotten
        if not assignment.receipt.done():  # whatever the client says of a task, it need not be sent again
            assignment.receipt.set_result(None)
            # who abandons a task may never have seen it: its cancel can overtake it
            if session.seat.by_difference and assignment.model is not None and not isinstance(header, pb.Abandoned):
                session.acknowledge(assignment.name, assignment.model)
        match header:
            case pb.Update():
                assignment.attempt = name.attempt
                assignment.up += message.size
                if assignment.state == "open":
                    self._arrive(assignment, header, message)
                elif assignment.answer is not None:  # it comes again, since the answer was lost, or after all
                    self._reply(assignment)
            case pb.Abandoned() if assignment.state == "open":
                assignment.up += header.sent
                reason = "late" if assignment.late else header.reason
                self._lose(assignment, reason)

    def _arrive(self, assignment: Assignment, header: pb.Update, message: Message) -> None:
        coding = self._seats[assignment.view.client].up
        update = self._packing.unpack(coding, assignment, header, message.vectors)
        if isinstance(update, str):
            self._emit(UpdateRejected(**assignment.about(self._clock), reason=update))
            self._conclude(assignment, pb.Answer.VERDICT_REFUSED, update)
            self.inbox.put_nowait(Loss(assignment))
            return
        now = self._clock.now()
        self._know(
            assignment.view.client,
            answered=self._views[assignment.view.client].answered + 1,
            loss=header.train_loss if header.num_steps else None,
            squared_loss=header.squared_loss if header.num_steps else None,
            duration=now - assignment.since,
        )
        assignment.state = "arrived"
        arrival = Arrival(assignment, update, message.size)
        if assignment.late:
            self.answer(arrival, late=True)
        else:
            self.inbox.put_nowait(arrival)
            self._changed.set()

    # --- an assignment's way

    def _know(self, client: ClientId, **facts: Any) -> None:
        """Remember facts of a client, which selectors will see."""
        self._views[client] = dataclasses.replace(self._views[client], **facts)

    async def _send(self, session: Session, assignment: Assignment, task: Message, start: Seconds) -> None:
        def attempt(number: int) -> Message:
            assignment.attempt = number
            header = pb.Task()
            header.CopyFrom(cast("pb.Task", task.header))
            header.assignment.CopyFrom(assignment.name)
            message = Message(header, task.vectors)
            self._emit(TaskSent(**assignment.about(self._clock), bytes=message.size, version=assignment.version))
            return message

        def retried(number: int, reason: str, wait: Seconds) -> None:
            about = assignment.about(self._clock) | {"attempt": number}  # an update may have told another by now
            self._emit(CallRetried(**about, direction="down", reason=reason, wait=wait))

        client, round, turn = assignment.view.client, assignment.round, assignment.turn
        try:
            await call(
                session.channel,
                attempt,
                assignment.receipt,
                start=start,
                retry=session.seat.retry,
                clock=self._clock,
                meter=assignment.down,
                draw=lambda number: stream(self._seed, "retry", client, "down", round, turn, number),
                retried=retried,
            )
        except NetworkError as error:
            if assignment.state == "open":
                self._lose(assignment, f"undelivered: task {error}")

    def _lose(self, assignment: Assignment, reason: str) -> None:
        wasted = assignment.down.sent + assignment.up
        self._emit(UpdateLost(**assignment.about(self._clock), reason=reason, wasted=wasted))
        assignment.state, assignment.model, assignment.extras = "concluded", None, {}
        assignment.answer = pb.Answer(verdict=pb.Answer.VERDICT_LATE, reason=reason)  # should it come after all
        self.inbox.put_nowait(Loss(assignment))
        self._changed.set()

    def _conclude(self, assignment: Assignment, verdict: "pb.Answer.Verdict", reason: str = "") -> None:
        assignment.state, assignment.model, assignment.extras = "concluded", None, {}
        assignment.answer = pb.Answer(verdict=verdict, reason=reason)
        self._reply(assignment)
        self._changed.set()

    def _reply(self, assignment: Assignment) -> None:
        if assignment.answer is not None:
            answer = pb.Answer()
            answer.CopyFrom(assignment.answer)
            answer.assignment.CopyFrom(assignment.name)
            assignment.channel.post(Message(answer))

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()
