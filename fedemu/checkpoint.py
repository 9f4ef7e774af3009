"""Checkpoints of a run on the virtual clock: what `--resume` goes on from, to the very log that the whole run has.

What is on its way in an emulated network cannot be written down, but it can be made again: whoever resumes runs all
again from the start, without training. Up to the checkpoint trainings and evaluations have the outcomes that the
checkpoint tells, vectors are zeros of the right length, and so time, links, sessions and selectors become what they
were. Then the vectors that were there take their places, and the log must be the same so far.
"""

import math
import shutil
import weakref
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import torch

from fedemu import __version__, durable
from fedemu.client import Memory
from fedemu.compute._base import Compute, Job, Learned, Recipe
from fedemu.durable import Saved, named
from fedemu.errors import RunError
from fedemu.learning import Learning
from fedemu.rng import stream
from fedemu.rounds import Rounds
from fedemu.scenario import Scenario
from fedemu.server import Server
from fedemu.strategies._base import Aggregation
from fedemu.types import ClientId, Encoded, Rng, State, Trained, Update, Vector

FILE = "checkpoint/last.safetensors"
"""Below the run directory: vectors by name, and all else as JSON in the file's metadata."""

SMALL = 64
"""Numbers of a vector beside the delta that are told as they are: checks may look at them."""

Key: TypeAlias = tuple[ClientId, int, int]
"""A training: client, round and turn."""


def not_resumable(scenario: Scenario) -> str | None:
    """Return why a run cannot be gone on with from a checkpoint; None if it can."""
    if scenario.clock == "real":
        return "the real clock cannot be wound back"
    for group in scenario.clients:
        for kind in scenario.codec_in(group).up, scenario.codec_in(group).down:
            if kind is not None and kind.house["zstd"] is not None:
                return "codec.zstd makes messages whose length depends on what they say"
            if kind is not None and kind.house.get("delta"):
                return "codec.down.delta makes models that depend on earlier ones"
    return None


def load(folder: Path) -> Saved | None:
    """Return the checkpoint of a run directory; None if there is none, or it is another version's."""
    try:
        saved = durable.load(folder / FILE)
    except ValueError:
        return None
    return saved if saved is not None and saved.facts["version"] == __version__ else None


class Checkpoint:
    """Compute that remembers what it has computed; between rounds it writes that down, or takes it back.

    Args:
        folder: The run directory.
        compute: Where training really runs.
        learning: Of the scenario.
        digest: Tells the digest of the log so far.
        saved: What to go on from; None begins.
        is_due: Tells whether one should be written now, when a round has closed.
    """

    def __init__(
        self,
        folder: Path,
        compute: Compute,
        learning: Learning,
        digest: Callable[[], str],
        saved: Saved | None,
        is_due: Callable[[], bool],
    ) -> None:
        self.workers, self.buffer, self.warm = compute.workers, compute.buffer, compute.warm
        self._folder, self._compute, self._learning, self._digest = folder, compute, learning, digest
        self._is_due = is_due
        self._trained: dict[Key, list[Any]] = {}
        """What is told of every training so far."""
        self._scores: list[tuple[int, float]] = []
        """Of every part of every evaluation so far."""
        self._running: dict[Key, Future[Learned]] = {}
        self._last: dict[ClientId, _Traces] = {}
        """What came of each client's last training, as long as somebody has it."""
        self._given: dict[Key, dict[str, Vector]] = {}
        """Tasks that were on their way at the checkpoint: the model and what came beside it."""
        self._past = None if saved is None else _Past(saved, learning)

    # --- as Compute

    def train(self, recipe: Recipe, job: Job) -> "Future[Learned]":
        """Train, or tell what came of it before the checkpoint."""
        key = job.client, job.round, job.turn
        future: Future[Learned] = Future()
        if self._past is not None:
            future.set_result(self._past.learned(key))
        else:
            given = self._given.pop(key, None)
            if given is not None:
                job = job._replace(weights=given.pop("model"), extras=given)
            future = self._running[key] = self._compute.train(recipe, job)
        future.add_done_callback(partial(self._note, key))
        return future

    def evaluate(self, recipe: Recipe, weights: Vector, part: int) -> "Future[tuple[int, float]]":
        """Evaluate, or tell what came of it before the checkpoint."""
        future: Future[tuple[int, float]] = Future()
        if self._past is not None:
            future.set_result(self._past.score(len(self._scores)))
        else:
            future = self._compute.evaluate(recipe, weights, part)
        place = len(self._scores)
        self._scores.append((0, math.nan))

        def note(done: "Future[tuple[int, float]]") -> None:
            if not done.cancelled() and done.exception() is None:
                self._scores[place] = done.result()

        future.add_done_callback(note)
        return future

    def _note(self, key: Key, future: "Future[Learned]") -> None:
        self._running.pop(key, None)
        if future.cancelled() or future.exception() is not None:
            return
        learned = future.result()
        self._trained[key] = _told(learned)
        self._last[key[0]] = _Traces(key, learned)

    # --- between rounds

    def close(self, number: int, rounds: Rounds, server: Server, memories: Mapping[ClientId, Memory]) -> None:
        """Write a checkpoint if one is due; in a run that is resumed, take back what was there when it was written.

        Nothing is awaited, so that a run with checkpoints goes no other way than one without.

        Args:
            number: Of the round that has closed.
            rounds: The model and the strategy's state.
            server: The tasks that are open.
            memories: Of all clients.

        Raises:
            RunError: The run has come another way than the one that wrote the checkpoint, or none can be written.
        """
        if self._past is not None:
            if number == self._past.facts["round"]:
                self._take_back(rounds, server, memories)
        elif self._is_due() and (saved := self._snapshot(number, rounds, server, memories)) is not None:
            durable.store(self._folder / FILE, saved)

    def aggregation(self, usual: Aggregation) -> Aggregation:
        """Return the aggregation that leaves the model alone before the checkpoint, and then does as usual."""

        def add(total: Any, update: Update) -> Any:
            return total if self._past is not None else usual.add(total, update)

        def finish(total: Any, weights: Vector, state: State, rng: Rng) -> tuple[Vector, State]:
            return (weights, state) if self._past is not None else usual.finish(total, weights, state, rng)

        return usual._replace(add=add, finish=finish)

    def remove(self) -> None:
        """Remove the file: the run has come to its end."""
        shutil.rmtree((self._folder / FILE).parent, ignore_errors=True)

    def _take_back(self, rounds: Rounds, server: Server, memories: Mapping[ClientId, Memory]) -> None:
        past, self._past = self._past, None
        assert past is not None
        if past.facts["digest"] != self._digest():
            raise RunError(
                f"the run has come another way to round {past.facts['round']} than the one that wrote "
                f"{self._folder / FILE}; remove that to begin again"
            )
        rounds.weights, rounds.state = past.vectors("weights")[""], past.vectors("strategy")
        for client, memory in memories.items():
            memory.state = past.vectors("memory", client)
            task = past.facts["learned"].get(client)
            memory.learned = None if task is None else ((task[0], task[1]), past.vectors("learned", client))
        for assignment in server.open_work:
            key = assignment.view.client, assignment.round, assignment.turn
            assignment.model = past.vectors("model", str(assignment.version)).get("")
            if assignment.model is not None and key not in self._trained:
                self._given[key] = {"model": assignment.model, **past.vectors("beside", *map(str, key))}

    def _snapshot(
        self, number: int, rounds: Rounds, server: Server, memories: Mapping[ClientId, Memory]
    ) -> Saved | None:
        running = dict(self._running)
        wait(running.values())
        for key, future in running.items():  # whoever waits for a future is told before its callbacks are
            self._note(key, future)
        vectors: dict[str, Vector | None] = {"weights/": rounds.weights, **named("strategy", rounds.state)}
        for client, memory in memories.items():
            vectors |= named(f"memory/{client}", memory.state)
            if memory.learned is not None:
                vectors |= named(f"learned/{client}", memory.learned[1])
        opened = list[Key]()
        for assignment in server.open_work:
            key = assignment.view.client, assignment.round, assignment.turn
            last = self._last.get(key[0])
            is_trained = last is not None and last.key == key
            if assignment.late and is_trained:
                continue  # what it says does not matter any more
            vectors[f"model/{assignment.version}/"] = assignment.model
            if last is not None and is_trained:
                opened.append(key)
                vectors |= named("/".join(map(str, ("open", *key))), last.vectors)
            else:
                vectors |= named("/".join(map(str, ("beside", *key))), assignment.extras)
        facts = {
            "version": __version__,
            "round": number,
            "digest": self._digest(),
            "trained": [[*key, told] for key, told in self._trained.items()],
            "scores": self._scores,
            "learned": {client: memory.learned[0] for client, memory in memories.items() if memory.learned is not None},
            "open": opened,
        }
        found = {name: vector for name, vector in vectors.items() if vector is not None}
        return Saved(facts, found) if len(found) == len(vectors) else None


class _Past:
    """What was before the checkpoint."""

    def __init__(self, saved: Saved, learning: Learning) -> None:
        self.facts, self._learning = saved.facts, learning
        self._told = {(client, round, turn): told for client, round, turn, told in saved.facts["trained"]}
        self._open = {(client, round, turn) for client, round, turn in saved.facts["open"]}
        self._vectors: dict[str, dict[str, Vector]] = {}
        for name, vector in saved.vectors.items():
            place, _, last = name.rpartition("/")
            self._vectors.setdefault(place, {})[last] = vector
        self._zeros = torch.zeros(learning.layout.size)
        self._blanks: dict[str, Encoded] = {}

    def vectors(self, *place: str) -> dict[str, Vector]:
        """Return the vectors of a place by name; none where there are none."""
        return self._vectors.get("/".join(place), {})

    def score(self, number: int) -> tuple[int, float]:
        correct, loss = self.facts["scores"][number]
        return correct, loss

    def learned(self, key: Key) -> Learned:
        """Return what came of a training: itself if it still matters, or else something as long as it was."""
        told = self._told.get(key)
        if told is None:  # it was given up, and nobody looks at it
            return Learned(Trained(self._zeros, 0, 0, 0.0), {})
        (examples, steps, loss, squared), extras, encoded = told
        if key in self._open:
            place = "open", *map(str, key)
            delta, code = (self.vectors(*place).get(name) for name in ("delta", "encoded"))
            assert delta is not None
            trained = Trained(delta, examples, steps, loss, self.vectors(*place, "extras"), squared)
            whole = None if code is None else Encoded(code.numpy().tobytes(), len(self._zeros))
            return Learned(trained, self.vectors(*place, "state"), whole)
        blanks = {name: torch.zeros(v) if isinstance(v, int) else torch.tensor(v) for name, v in extras.items()}
        delta = torch.empty(0) if encoded else self._zeros
        trained = Trained(delta, examples, steps, loss, blanks, squared)
        return Learned(trained, {}, self._blank(key[0].partition("/")[0]) if encoded else None)

    def _blank(self, group: str) -> Encoded:
        if group not in self._blanks:
            coding = self._learning.coding(group, "up")
            assert coding is not None
            self._blanks[group] = Encoded(coding.encode(self._zeros, None, stream(0))[0], len(self._zeros))
        return self._blanks[group]


class _Traces:
    """What came of a training, as long as anybody else has it."""

    def __init__(self, key: Key, learned: Learned) -> None:
        self.key = key
        self._encoded = learned.encoded
        parts = {"delta": learned.trained.delta}
        parts |= {f"extras/{name}": vector for name, vector in learned.trained.extras.items()}
        parts |= {f"state/{name}": vector for name, vector in learned.state.items()}
        self._parts = {name: weakref.ref(vector) for name, vector in parts.items()}

    @property
    def vectors(self) -> dict[str, Vector | None]:
        """What it consists of by name; None is what nobody has any more."""
        found: dict[str, Vector | None] = {name: part() for name, part in self._parts.items()}
        if self._encoded is not None:
            found["encoded"] = torch.frombuffer(bytearray(self._encoded.data), dtype=torch.uint8)
        return found


def _told(learned: Learned) -> list[Any]:
    """Return what must be known of a training to do as if: its numbers, and how long its vectors are."""
    trained = learned.trained
    numbers = [trained.num_examples, trained.num_steps, trained.train_loss, trained.squared_loss]
    extras = {name: len(vector) if len(vector) > SMALL else vector.tolist() for name, vector in trained.extras.items()}
    return [numbers, extras, learned.encoded is not None]
