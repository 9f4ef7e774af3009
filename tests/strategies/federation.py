"""A federation without a network: clients train in turn, the server aggregates, memories are kept."""

import importlib
import pkgutil
from collections.abc import Callable, Sequence

import numpy as np
import torch

import fedemu.strategies
from fedemu.rng import stream
from fedemu.strategies._base import Strategy
from fedemu.types import BatchLoss, ClientView, Indices, Objective, State, Training, Update, Vector


def kinds() -> list[str]:
    """Return every kind of the room."""
    names = (module.name for module in pkgutil.iter_modules(fedemu.strategies.__path__))
    return sorted(name for name in names if not name.startswith("_"))


def builder(kind: str) -> Callable[..., Strategy]:
    """Return the builder of a kind."""
    found: Callable[..., Strategy] = getattr(importlib.import_module(f"fedemu.strategies.{kind}"), kind)
    return found


class LeastSquares:
    """The mean of (x_i w - y_i)^2 / 2 over a client's examples."""

    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        self.x, self.y = torch.tensor(x, dtype=torch.float32), torch.tensor(y, dtype=torch.float32)

    @property
    def num_examples(self) -> int:
        return len(self.y)

    def gradient(self, weights: Vector, batch: Indices) -> tuple[Vector, BatchLoss]:
        x, y = self.x[batch], self.y[batch]
        residual = x @ weights - y
        losses = residual.square() / 2
        return x.T @ residual / len(batch), BatchLoss(losses.mean().item(), losses.square().mean().item())


class Size:
    """A layout of that size."""

    def __init__(self, size: int) -> None:
        self.size = size


class Federation:
    """Runs the rounds of a strategy, which is built anew for every client's training, as the house does."""

    def __init__(
        self,
        build: Callable[[Training], Strategy],
        model: Vector,
        clients: Sequence[Objective],
        training: Training | Sequence[Training],
        lags: Sequence[int] | None = None,
    ) -> None:
        self.build, self.clients = build, clients
        self.trainings = [training] * len(clients) if isinstance(training, Training) else training
        self.lags = lags or [0] * len(clients)
        """How many versions ago each client got its model."""
        self.server = build(self.trainings[0])
        self.models = [model]
        self.states = [self.server.init(model, Size(len(model)), len(clients))]
        self.memories: list[State] = [{} for _ in clients]

    @property
    def model(self) -> Vector:
        return self.models[-1]

    @property
    def state(self) -> State:
        return self.states[-1]

    def update(self, i: int) -> Update:
        """Let a client train from the model of its lag, and remember what it wants to."""
        now = len(self.models) - 1
        version = max(0, now - self.lags[i])
        base, objective = self.models[version], self.clients[i]
        view = ClientView(f"c/{i}", "c", objective.num_examples)
        extras = self.server.broadcast(self.states[version], view, stream(0, "broadcast", i, now))
        train = self.build(self.trainings[i]).train
        trained, self.memories[i] = train(objective, base, extras, self.memories[i], stream(0, i, now))
        return Update(
            client=view.client,
            delta=trained.delta,
            num_examples=trained.num_examples,
            num_steps=trained.num_steps,
            train_loss=trained.train_loss,
            version=version,
            staleness=now - version,
            extras=trained.extras,
            base=base if self.server.aggregate.needs_base else None,
        )

    def aggregate(self, updates: Sequence[Update]) -> None:
        """Make the next version of the model of these updates, in their order."""
        total = self.server.aggregate.start()
        for update in updates:
            total = self.server.aggregate.add(total, update)
        model, state = self.server.aggregate.finish(total, self.model, self.state, stream(0, "server"))
        self.models.append(model)
        self.states.append(state)

    def play(self, rounds: int, cohort: Callable[[int], Sequence[int]] | None = None) -> Vector:
        """Return the model after that many rounds with all clients, or with the round's `cohort`."""
        for number in range(rounds):
            chosen = range(len(self.clients)) if cohort is None else cohort(number)
            self.aggregate([self.update(i) for i in chosen])
        return self.model
