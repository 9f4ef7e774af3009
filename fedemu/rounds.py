"""The round loop: when clients start, when a round closes, and what becomes of those who are not done.

One loop serves every policy. A round begins by giving tasks to `concurrency` clients and closes when `goal` updates
have come, or at the deadline with at least `quorum` of them, or when nobody is left to wait for; or else at a tick.
With a barrier all clients of a round start together; without, each that finishes makes room for another at once
(FedBuff: goal 10; FedAsync: goal 1).
"""

import math
from collections.abc import Awaitable, Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, NamedTuple

from fedemu.clock import Clock
from fedemu.errors import RunError, failure_of
from fedemu.events import Evaluated, Observer, RoundClosed, RoundFailed, RoundStarted, TargetReached
from fedemu.rng import stream
from fedemu.server import Server
from fedemu.sessions import Arrival, Assignment, Loss, Taken, Told
from fedemu.strategies._base import Strategy
from fedemu.types import ClientId, Seconds, Selector, State, Update, Vector

PAUSE: Seconds = 1.0
"""From the start of a failed round to the next one at least: clients that can do nothing would fail for ever."""
TIMELESS = 10_000
"""Rounds in a row that may take no time where nothing but time ends a run."""
GLANCE: Seconds = 10.0
"""From one look to the next for clients that the selector will have."""
NOBODY: Seconds = 30 * 86400.0
"""So long may it find none."""
AT_ONCE: Seconds = 0.01
"""Whoever loses a task so soon gets no other in the same round."""


@dataclass(frozen=True, slots=True)
class RoundPolicy:
    """When clients start and a round closes."""

    concurrency: int
    """Clients at work at once."""
    goal: int
    """Updates that close a round."""
    quorum: int = 1
    """Updates without which a round does not close at its deadline."""
    deadline: Seconds = math.inf
    """Counted from the start of the round."""
    tick: Seconds | None = None
    """So long a round takes, whatever comes, and a tick more without a quorum; instead of goal and deadline."""
    barrier: bool = True
    """All clients of a round start together."""
    late: Literal["cancel", "drop", "keep"] = "cancel"
    """Those still at work when a round closes: stop them, ignore what they bring, or use it in a later round."""

    def __post_init__(self) -> None:
        reachable = self.tick is not None or self.quorum <= self.goal
        assert reachable, "a round that closes at its goal would fail for want of its quorum, for ever"


@dataclass(frozen=True, slots=True)
class Stop:
    """What ends a run, whichever comes first."""

    accuracy: float | None = None
    """The target, 0..1."""
    rounds: int | None = None
    time: Seconds = math.inf
    targets: tuple[float, ...] = ()
    """Accuracies of which it is told that they were reached, and that end nothing."""


class Score(NamedTuple):
    """How good the global model is on the test set."""

    accuracy: float
    loss: float


class Standing(NamedTuple):
    """How far a run's rounds are."""

    round: int = 0
    """The last one that closed or failed."""
    closed: int = 0
    """The last one that made a model."""
    evaluated: int = -1
    """The one whose model was evaluated last."""
    asked: int = 0
    """Selections so far."""
    time: Seconds = 0.0
    """When the last one that made a model closed."""
    best: float = -1.0
    """Highest accuracy so far."""


BEGINNING = Standing()


class Rounds:
    """A run's rounds.

    Args:
        server: Gives out tasks and brings in updates.
        strategy: Averages.
        state: The strategy's state before the first round.
        weights: The model before the first round.
        policy: When to wait.
        select: Whom to ask.
        stop: When to end.
        evaluate: Scores a model.
        every: Rounds from one evaluation to the next; None evaluates only at the end.
        clock: Waits.
        emit: Takes the events.
        seed: Of the run.
        between: Called after each round that has made a model, with its number; may set `weights` and `state`.
        keep: Remember what tasks start from, for `between`.
        standing: Where to go on.
        taken: What has come for the round that goes on.
    """

    def __init__(
        self,
        server: Server,
        *,
        strategy: Strategy,
        state: State,
        weights: Vector,
        policy: RoundPolicy,
        select: Selector,
        stop: Stop,
        evaluate: Callable[[Vector], Awaitable[Score]],
        every: int | None,
        clock: Clock,
        emit: Observer,
        seed: int,
        between: Callable[["Rounds", int], Awaitable[None]] | None = None,
        keep: bool = False,
        standing: Standing = BEGINNING,
        taken: Sequence[tuple[Taken, Update]] = (),
    ) -> None:
        self.weights, self.state = weights, state
        self._server, self._strategy, self._between = server, strategy, between
        self._keeps = keep or strategy.aggregate.needs_base
        self._policy, self._select, self._stop = policy, select, stop
        self._evaluate, self._every = evaluate, every
        self._clock, self._emit, self._seed = clock, emit, seed
        self._round = standing.round
        self._timeless = 0
        """Rounds in a row that took no time."""
        self._end = standing.time
        """When the last round that made a model closed, before the next one does."""
        self._asked = standing.asked
        """Selections so far."""
        self._asking = (0, 0)
        """Round of the last selection, and its number in that round."""
        self._closed = standing.closed
        """The last round that made a model."""
        targets = {*stop.targets, *([] if stop.accuracy is None else [stop.accuracy])}
        self._ahead = sorted(target for target in targets if target > standing.best)
        """Targets that are not reached yet."""
        self._evaluated = standing.evaluated
        """The round whose model was evaluated last."""
        self._open: dict[Assignment, Seconds] = {}
        """At work, and since when, in the order in which they were asked; what comes of them matters."""
        self._total = strategy.aggregate.start()
        self._taken: list[Taken] = []
        """What is in the total. A failed round leaves it to the next."""
        for task, update in taken:
            self._take(task, update)

    async def run(self) -> tuple[str, Seconds]:
        """Run to the end; return what ended it (accuracy, rounds or time), and when."""
        reason, end, pause = "rounds", self._end, 0.0
        if self._stop.accuracy is not None and self._stop.accuracy not in self._ahead:
            return "accuracy", end  # its server stopped before it could say so
        limit = self._clock.timeout_at(self._stop.time)
        try:
            async with limit:
                if self._closed == self._round > 0 and self._is_due and await self._reaches_target():
                    return "accuracy", end
                while self._stop.rounds is None or self._round < self._stop.rounds:
                    self._round += 1
                    await self._clock.sleep_until(pause)
                    started = self._clock.now()
                    closed = await self._one_round()
                    end = self._clock.now()
                    pause = end if closed else started + PAUSE
                    self._see_that_time_passes(started, end)
                    if closed and self._between is not None:
                        await self._between(self, self._round)
                    if closed and self._is_due and await self._reaches_target():
                        return "accuracy", end
        except TimeoutError:
            if not limit.expired():
                raise
            reason, end = "time", self._stop.time
        for task in self._taken:
            self._server.discard(task)
        if self._evaluated != self._closed and await self._reaches_target():
            reason = "accuracy"
        return reason, end

    @property
    def standing(self) -> Standing:
        """How far they are, between two rounds; which targets were reached is in the log."""
        return Standing(self._round, self._closed, self._evaluated, self._asked)

    @property
    def _is_due(self) -> bool:
        return self._every is not None and self._round - max(self._evaluated, 0) >= self._every

    def _see_that_time_passes(self, started: Seconds, end: Seconds) -> None:
        self._timeless = self._timeless + 1 if end == started and self._stop.rounds is None else 0
        if self._timeless >= TIMELESS:
            raise RunError(
                f"{TIMELESS} rounds have taken no emulated time, and only time is sure to end this run; "
                "give clients a device or a link, or set stop.rounds"
            )

    async def _one_round(self) -> bool:
        """Return whether it closed with a new model."""
        policy, lost = self._policy, 0
        useless: dict[ClientId, None] = {}
        """Clients that lost a task at once: they would do so again, for ever."""
        if not self._open:
            await self._server.wait_for_idle(policy.quorum)
        started = self._clock.now()
        cohort = self._ask()
        if not self._open and not self._done:
            started, cohort = await self._wait_for_some(started)
        self._emit(RoundStarted(at=started, round=self._round, cohort=cohort))
        overdue, limit = False, started + (policy.deadline if policy.tick is None else policy.tick)
        while self._goes_on(overdue):
            outcome = await self._next(limit)
            if outcome is None:
                overdue, limit = True, math.inf if policy.tick is None else limit + policy.tick
            elif policy.tick is not None:
                overdue = False
            if outcome is None or not (isinstance(outcome, Told) or outcome.assignment in self._open):
                continue
            began = self._open.pop(outcome.assignment, 0.0)
            if isinstance(outcome, Arrival):
                self._take(outcome.assignment.taken, self._server.answer(outcome, late=False))
            elif isinstance(outcome, Loss):
                lost += 1
                if self._clock.now() - began < AT_ONCE:
                    useless[outcome.assignment.view.client] = None
            if not policy.barrier and not self._has_enough(overdue):
                self._ask(useless)
        late, gone = self._close()
        now, count = self._clock.now(), len(self._taken)
        if count < policy.quorum:
            reason = f"{count} updates, and nobody left to wait for"
            self._emit(RoundFailed(at=now, round=self._round, reason=reason))
            return False
        took = now - started
        self._emit(RoundClosed(at=now, round=self._round, aggregated=count, late=late, lost=lost + gone, duration=took))
        self._aggregate()
        return True

    def _take(self, task: Taken, update: Update) -> None:
        self._total = self._strategy.aggregate.add(self._total, update)
        self._taken.append(task)

    @property
    def _done(self) -> Container[ClientId]:
        """Those whose update is taken already: in a round that goes on after its server stopped, also at its start."""
        return {task.client for task in self._taken if task.round == self._round}

    def _goes_on(self, overdue: bool) -> bool:
        waits = bool(self._open) or (self._policy.tick is not None and not overdue)
        return waits and not self._has_enough(overdue)

    def _has_enough(self, overdue: bool) -> bool:
        if self._policy.tick is not None:
            return overdue and len(self._taken) >= self._policy.quorum
        return len(self._taken) >= (self._policy.quorum if overdue else self._policy.goal)

    async def _wait_for_some(self, since: Seconds) -> tuple[Seconds, tuple[ClientId, ...]]:
        """Ask again and again until the selector will have somebody; return when that was, and whom it chose."""
        while not self._open:
            now = self._clock.now() + GLANCE
            if now - since > NOBODY:
                raise RunError(
                    f"rounds.select has found no client for {NOBODY / 86400:g} days; look at the clients' conditions"
                )
            await self._clock.sleep_until(now)
            cohort = self._ask()
        return now, cohort

    def _ask(self, but: Mapping[ClientId, None] = MappingProxyType({})) -> tuple[ClientId, ...]:
        """Give tasks to as many idle clients as there is room for, but not to these; return whom."""
        idle = {view.client: view for view in self._server.idle if view.client not in but}
        room = self._policy.concurrency - len(self._open)
        if not idle or room < 1:
            return ()
        self._asked += 1
        key = self._selection_key()
        with failure_of("rounds.select"):
            chosen = tuple(self._select(list(idle.values()), room, stream(self._seed, "select", *key)))
            if not all(isinstance(client, str) for client in chosen):
                raise TypeError(f"it chose a {type(chosen[0]).__name__}; expected names, ClientView.client")
            if len(chosen) > room or len({*chosen} & idle.keys()) < len(chosen):
                raise ValueError(f"it chose {chosen}; expected at most {room} of {len(idle)} idle clients, each once")
        done = self._done if self._policy.barrier else ()
        for client in (client for client in chosen if client not in done):
            extras = self._strategy.broadcast(self.state, idle[client], stream(self._seed, "broadcast", client, *key))
            assignment = self._server.assign(
                idle[client],
                self._round,
                self.weights,
                extras,
                selection=self._asked,
                keep=self._keeps,
            )
            self._open[assignment] = self._clock.now()
        return chosen

    def _selection_key(self) -> tuple[int, ...]:
        """Count a selection; return what its draws depend on: the round, and its number if it is not the first.

        It does not depend on how many there were in earlier rounds, so that these move no cohort after them.
        """
        last, number = self._asking
        self._asking = self._round, number + 1 if last == self._round else 1
        return self._asking if self._asking[1] > 1 else self._asking[:1]

    async def _next(self, deadline: Seconds) -> Arrival | Loss | Told | None:
        try:
            async with self._clock.timeout_at(deadline):
                return await self._server.inbox.get()
        except TimeoutError:
            return None

    def _close(self) -> tuple[int, int]:
        """Settle with those who are not done; return how many are late, and how many were lost just now."""
        if self._policy.late == "keep":
            return 0, 0
        late = lost = 0
        # what lies in the inbox has come too late, and must not leak into the next round
        while not self._server.inbox.empty():
            outcome = self._server.inbox.get_nowait()
            if outcome.assignment in self._open:
                del self._open[outcome.assignment]
                if isinstance(outcome, Arrival):
                    self._server.answer(outcome, late=True)
                    late += 1
                else:
                    lost += 1
        for assignment in self._open:
            self._server.give_up(assignment, cancel=self._policy.late == "cancel")
        late += len(self._open)
        self._open.clear()
        return late, lost

    def _aggregate(self) -> None:
        rng = stream(self._seed, "aggregate", self._round)
        aggregate = self._strategy.aggregate
        self.weights, self.state = aggregate.finish(self._total, self.weights, self.state, rng)
        self._total, self._taken = aggregate.start(), []
        self._server.version += 1
        self._closed = self._round

    async def _reaches_target(self) -> bool:
        score = await self._evaluate(self.weights)
        self._evaluated = self._closed
        now, target = self._clock.now(), self._stop.accuracy
        self._emit(Evaluated(at=now, round=self._closed, accuracy=score.accuracy, loss=score.loss))
        for accuracy in [target for target in self._ahead if score.accuracy >= target]:
            self._ahead.remove(accuracy)
            self._emit(TargetReached(at=now, accuracy=accuracy, round=self._closed))
        return target is not None and score.accuracy >= target
