"""From a scenario to its outcome: puts the parts together, runs them on the clock, writes the run directory.

`run` plays a cell, with the clients in this process or, on the real clock, in others (`guest`).
"""

import asyncio
import gc
import json
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from fedemu import __version__, durable, recovery
from fedemu import clock as clocks
from fedemu.attendance import Crowd
from fedemu.checkpoint import Checkpoint, load, not_resumable
from fedemu.client import Memory
from fedemu.client import join as say_hello
from fedemu.clock import Clock, RealClock, VirtualClock, finish
from fedemu.compute._base import Compute
from fedemu.compute.inline import inline
from fedemu.compute.pool import pool
from fedemu.durable import Saved
from fedemu.errors import first_of
from fedemu.events import Event, Measurement, Observer, RunFinished, RunStarted
from fedemu.journal import Journal
from fedemu.learning import Learning, Recipe
from fedemu.net.channel import Conversation, Transport
from fedemu.net.delivery import Exchange
from fedemu.net.emulated import EmulatedChannel
from fedemu.net.grpc import GrpcTransport
from fedemu.net.memory import MemoryTransport
from fedemu.net.tls import Tls
from fedemu.observers.console import Console
from fedemu.observers.jsonl import EVENTS, JsonLines
from fedemu.observers.result import Outcome
from fedemu.recovery import Past
from fedemu.rounds import BEGINNING, RoundPolicy, Rounds, Score, Stop
from fedemu.scenario import Cell, Scenario, as_yaml
from fedemu.server import Server
from fedemu.tokens import Tokens
from fedemu.types import ClientId, ClientView, Seconds, Selector, Vector
from fedemu.world import World

EVERY: Seconds = 10.0
"""Real seconds from one checkpoint to the next."""

RETURN: Seconds = 60.0
"""So long a server that was started again waits for those who were there before."""


def run(
    cell: Cell,
    compute: Compute,
    *,
    observers: Sequence[Observer] = (),
    out: Path | None = None,
    question: str = "",
    listen: str | None = None,
    tls: Tls | None = None,
    tokens: Tokens | None = None,
    announce: Callable[[str], None] = lambda _: None,
    resume: bool = False,
    every: Seconds = EVERY,
) -> dict[str, Any]:
    """Run one cell to its end and return its outcome, the content of `result.json`.

    Args:
        cell: What to run.
        compute: Where training really runs.
        observers: Take the events beside the run directory's own.
        out: The run directory, made if it is not there; None writes nothing. It is valid whatever ends the run.
        question: First comment line of the scenario that is written there.
        listen: Serve clients that are processes of their own, here (`host:port` or `unix:PATH`); None runs them too.
        tls: Of that server; None talks in the open.
        tokens: What those clients need to join; None lets in whoever comes.
        announce: Told, for people, where the server listens, whom it refused, and the round that is gone on from.
        resume: Go on from what `out` has, if there is something.
        every: Real seconds from one checkpoint to the next at least.

    Raises:
        FedemuError: The run failed.
        KeyboardInterrupt: It was interrupted.
    """
    scenario, started = cell.scenario, time.monotonic()
    recipe = Recipe(json.dumps(cell.resolved))
    learning = recipe()
    outcome = Outcome(target=scenario.stop.accuracy, targets=scenario.targets.accuracy)
    with nullcontext() if out is None else durable.alone_in(out):
        # looked at again: whoever was at it until now may have ended it
        if resume and out is not None and (found := recovery.ended(out)) is not None:
            announce(f"{out}: the run is over")
            return found
        past = saved = None
        if out is not None:
            durable.store_text(out / "scenario.yaml", as_yaml(cell, question))
            if resume and listen is not None:
                past = recovery.recover(out, keeps_late=scenario.rounds.for_the_late == "keep")
            elif resume:
                saved = _checkpoint_in(out, scenario, announce)
            if past is None and saved is None:  # what another run may have left there
                shutil.rmtree(out / "checkpoint", ignore_errors=True)
        kept = 0 if past is None else past.log.kept
        with JsonLines(out and out / EVENTS, kept=kept) as log, _calm(scenario.clock), ExitStack() as stack:
            checkpoint = journal = None
            if out is not None and listen is not None:
                version, count = (0, 0) if past is None else (past.notes.version, len(past.taken))
                journal = stack.enter_context(Journal(out, log, version=version, count=count))
            elif out is not None and not_resumable(scenario) is None:
                checkpoint = Checkpoint(out, compute, learning, lambda: log.digest, saved, _timer(every))
            play = _Play(scenario, learning, recipe, compute, log, (outcome, *observers), checkpoint, journal, past)
            del past
            play.begin()
            try:
                main = play.alone() if listen is None else play.serve(listen, tls, tokens, announce)
                clocks.run(main, virtual=scenario.clock == "virtual")
            except BaseExceptionGroup as group:
                play.end("failed")
                raise first_of(group) from group
            except BaseException as error:
                play.end("interrupted" if isinstance(error, KeyboardInterrupt | asyncio.CancelledError) else "failed")
                raise
            finally:
                result = outcome.as_dict(
                    clock=scenario.clock,
                    transport=scenario.transport,
                    data={"dataset": scenario.dataset.kind, "verified": learning.dataset.verified},
                    wall_seconds=round(time.monotonic() - started, 3),
                    digest=log.digest,
                )
                if out is not None:
                    if play.weights is not None:
                        model = learning.layout.split(play.weights)
                        durable.store(out / "model.safetensors", Saved({"version": __version__}, model))
                    # last: it says that all is there
                    durable.store_text(out / "result.json", json.dumps(result, indent=1) + "\n")
        for written in (checkpoint, journal):
            if written is not None:
                written.remove()
        return result


def _checkpoint_in(out: Path, scenario: Scenario, announce: Callable[[str], None]) -> Saved | None:
    """Return the checkpoint that a run directory has of a run in one process; say from where on the run goes."""
    if not (out / EVENTS).exists():
        return None
    why = not_resumable(scenario)
    saved = load(out) if why is None else None
    if why is not None:
        announce(f"{out}: beginning again: {why}")
    elif saved is not None:
        announce(f"{out}: going on from round {saved.facts['round']}")
    return saved


def workers_for(scenarios: Iterable[Scenario]) -> AbstractContextManager[Compute]:
    """Start workers that are enough for each of the scenarios."""
    return workers(max(scenarios, key=lambda scenario: scenario.cohort))


@contextmanager
def workers(scenario: Scenario) -> Iterator[Compute]:
    """Start the workers that a scenario asks for: by default a process a core where several clients train at once."""
    cores = len(os.sched_getaffinity(0))
    settings = scenario.compute
    alone = settings.kind == "inline" or (settings.kind == "auto" and min(cores, scenario.cohort) == 1)
    several = settings.workers or min(cores, scenario.cohort)
    start = inline(buffer=settings.buffer) if alone else pool(workers=several, buffer=settings.buffer)
    with start() as compute:
        yield compute


def _timer(every: Seconds) -> Callable[[], bool]:
    """Return what tells, when it is asked, whether so much real time has passed since it last said so."""
    last = time.monotonic()

    def is_due() -> bool:
        nonlocal last
        if time.monotonic() < last + every:
            return False
        last = time.monotonic()
        return True

    return is_due


@contextmanager
def _calm(clock: Literal["virtual", "real"]) -> Iterator[None]:
    """Keep the garbage collector off what was there before: to walk through torch takes it 70 ms of a real round."""
    if clock == "virtual":  # where that is no time, and each cell of a grid would pay for the first walk
        yield
        return
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@asynccontextmanager
async def _transport(kind: Literal["memory", "grpc", "grpc-unix"]) -> AsyncIterator[Transport]:
    match kind:
        case "memory":
            yield MemoryTransport()
        case "grpc":
            yield GrpcTransport()
        case "grpc-unix":
            with TemporaryDirectory(prefix="fedemu-") as directory:
                yield GrpcTransport(f"unix:{directory}/socket")


class _Play:
    """One run, from the first event to the last."""

    def __init__(
        self,
        scenario: Scenario,
        learning: Learning,
        recipe: Recipe,
        compute: Compute,
        log: Observer,
        observers: Sequence[Observer],
        checkpoint: Checkpoint | None,
        journal: Journal | None,
        past: Past | None,
    ) -> None:
        self._scenario, self._learning, self._recipe = scenario, learning, recipe
        self._compute = compute if checkpoint is None else checkpoint
        self._log, self._observers = log, observers
        self._checkpoint, self._journal, self._past = checkpoint, journal, past
        self.weights: Vector | None = None
        """The last global model."""
        self._memories: dict[ClientId, Memory] = {}
        self._strategy = learning.strategy(next(iter(scenario.clients)))
        if checkpoint is not None:
            self._strategy = self._strategy._replace(aggregate=checkpoint.aggregation(self._strategy.aggregate))
        self._last = 0.0
        self._ended = False

    async def alone(self) -> None:
        """Run server and clients in this process."""
        clock = VirtualClock() if self._scenario.clock == "virtual" else RealClock()
        exchange = Exchange(clock, self._compute.buffer.keep)
        world = World(self._scenario, self._learning, clock, self._emit, exchange)
        server = self._server(world, clock)
        async with (
            _transport(self._scenario.transport) as transport,
            transport.serve(server.serve) as address,
            exchange,
            asyncio.TaskGroup() as tasks,
        ):
            crowd = Crowd(clock, tasks, needed=0 if self._scenario.stop.time else self._scenario.rounds.quorum)

            async def enter(view: ClientView) -> EmulatedChannel:
                await server.wait_until_gone(view.client)
                async with crowd.door():
                    conversation = Conversation(await transport.connect(address), limit=0)
                    await say_hello(conversation, view.group, int(view.client.partition("/")[2]))
                    conversation.limit = 4 * self._learning.layout.size
                    return world.behind(view, "up", conversation)

            for view, online in world.online():
                participant = world.participant(view, lambda job: self._compute.train(self._recipe, job))
                self._memories[view.client] = participant.memory
                await crowd.add(participant, online, partial(enter, view))
            await self._rounds(world, server, clock, crowd)

    async def serve(self, listen: str, tls: Tls | None, tokens: Tokens | None, announce: Callable[[str], None]) -> None:
        """Run the server alone, and the rounds once all clients have come."""
        clock = RealClock()
        world = World(self._scenario, self._learning, clock, self._emit, None)
        server = self._server(world, clock, tokens)
        if self._past is not None:
            self._go_on(self._past, clock, server, announce)
        async with GrpcTransport(listen, tls=tls, refused=announce).serve(server.serve) as address:
            announce(f"serving {self._scenario.name} at {address}")
            await self._rounds(world, server, clock, None)

    def _go_on(self, past: Past, clock: RealClock, server: Server, announce: Callable[[str], None]) -> None:
        """Have clock and server go on, and say in the log what the stop has ended."""
        clock.go_on(past.zero, past.log.last)
        server.recall(past.notes)
        for event in past.log.ends(clock.now(), past.standing.closed):
            self._emit(event)
        announce(f"going on after round {past.standing.closed}, with {len(past.taken)} updates of the next")

    def begin(self) -> None:
        """Open the log, or tell the observers what it has."""
        if self._past is not None:
            for event in self._past.log.events():
                self._last = event.at
                for observer in self._observers:
                    if isinstance(event, RunStarted) or not isinstance(observer, Console):  # that shows what happens
                        observer(event)
            return
        self._emit(
            RunStarted(
                at=0.0,
                name=self._scenario.name,
                seed=self._scenario.seed,
                version=__version__,
                clients=len(self._learning.shards),
                parameters=self._learning.layout.size,
            )
        )

    def _server(self, world: World, clock: Clock, tokens: Tokens | None = None) -> Server:
        return Server(
            world.seats,
            scenario=self._recipe.resolved,
            parameters=self._learning.layout.size,
            clock=clock,
            emit=self._emit,
            seed=self._scenario.seed,
            check=self._strategy.aggregate.fault,
            keep=None if self._journal is None else self._journal.keep,
            tokens=tokens,
        )

    async def _rounds(self, world: World, server: Server, clock: Clock, crowd: Crowd | None) -> None:
        """Run the rounds, as soon as all are there: the crowd's that are online, or else clients in other processes."""
        scenario, learning = self._scenario, self._learning
        strategy = self._strategy
        cohort, policy = scenario.cohort, scenario.rounds
        select = policy.select.build()
        past, self._past = self._past, None
        if past is None:
            weights = learning.initial()
            state = strategy.init(weights, learning.layout, len(world.views))
        else:
            weights, state = past.weights, past.state
            past.remind(select)
        rounds = Rounds(
            server,
            strategy=strategy,
            state=state,
            weights=weights,
            policy=RoundPolicy(
                concurrency=cohort,
                goal=policy.goal or cohort,
                quorum=policy.quorum,
                deadline=float("inf") if policy.deadline is None else policy.deadline,
                tick=policy.tick,
                barrier=policy.barrier,
                late=policy.for_the_late,
            ),
            select=select,
            stop=Stop(
                scenario.stop.accuracy,
                scenario.stop.rounds,
                scenario.stop.time or float("inf"),
                tuple(scenario.targets.accuracy),
            ),
            evaluate=lambda vector: self._evaluate(vector, clock),
            every=scenario.evaluate.every,
            clock=clock,
            emit=self._emit,
            seed=scenario.seed,
            between=partial(self._write_down, server, select, clock),
            keep=self._checkpoint is not None,
            standing=BEGINNING if past is None else past.standing,
            taken=() if past is None else past.taken,
        )
        there = None if past is None else past.log.there
        del weights, past  # nobody needs the first model when there is a second
        for ready in [self._compute.warm(self._recipe) for _ in range(self._compute.workers)]:
            await finish(ready, clock, clock.now(), ("warm",))
        if there is not None:
            await server.wait_for(there, clock.now() + RETURN)
        else:
            await server.wait_for_idle(len(world.views) if crowd is None else crowd.present)
            clock.start()
            await self._write_down(server, select, clock, rounds, 0)
        if crowd is not None:
            crowd.start()
        reason, end = await rounds.run()
        self.weights = rounds.weights
        if crowd is not None:
            crowd.end()
        await server.finish(reason)
        if crowd is not None:
            crowd.leave()
        self.end(reason, end)

    async def _write_down(self, server: Server, select: Selector, clock: Clock, rounds: Rounds, number: int) -> None:
        if self._checkpoint is not None and number:
            self._checkpoint.close(number, rounds, server, self._memories)
        if self._journal is not None:
            assert isinstance(clock, RealClock)
            await self._journal.close(rounds, server, select, clock)

    async def _evaluate(self, weights: Vector, clock: Clock) -> Score:
        jobs = [self._compute.evaluate(self._recipe, weights, part) for part in range(self._learning.parts)]
        finished = [await finish(job, clock, clock.now(), ("evaluate", part)) for part, job in enumerate(jobs)]
        parts = [score for score, _ in finished]
        count = len(self._learning.dataset.test.y)
        return Score(sum(correct for correct, _ in parts) / count, sum(loss for _, loss in parts) / count)

    def end(self, reason: str, when: float | None = None) -> None:
        """Close the log, if it is not closed yet; a run that ended early ends at the last event."""
        if not self._ended:
            when = self._last if when is None else when
            self._emit(RunFinished(at=max(self._last, when), reason=reason, time=when))
            self._ended = True

    def _emit(self, event: Event) -> None:
        if self._ended:  # a client that did not leave in time is none of the run's
            return
        if not isinstance(event, Measurement):
            self._last = event.at
        for observer in (self._log, *self._observers):
            observer(event)
