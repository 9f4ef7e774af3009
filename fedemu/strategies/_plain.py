"""The parts of an algorithm that need nothing special: train by SGD, remember nothing, send the model alone."""

from collections.abc import Callable

import torch

from fedemu.strategies._base import Layout
from fedemu.strategies._sgd import local_sgd, proximal
from fedemu.types import ClientView, Extras, Objective, Rng, State, Trained, Training, Vector


def by_sgd(
    training: Training, *, mu: float = 0.0
) -> Callable[[Objective, Vector, Extras, State, Rng], tuple[Trained, State]]:
    """Train by SGD, with the proximal term mu / 2 |w - w^t|^2 added to the loss, and leave the memory as it is."""

    def train(objective: Objective, start: Vector, extras: Extras, memory: State, rng: Rng) -> tuple[Trained, State]:
        return local_sgd(objective, start, training, rng, correct=proximal(start, mu)), memory

    return train


def no_state(weights: Vector, layout: Layout, clients: int) -> State:
    """Remember nothing on the server."""
    return {}


def zeros(*names: str) -> Callable[[Vector, Layout, int], State]:
    """Remember vectors of the model's shape on the server, which are zero before the first round."""

    def init(weights: Vector, layout: Layout, clients: int) -> State:
        return {name: torch.zeros_like(weights) for name in names}

    return init


def no_extras(state: State, client: ClientView, rng: Rng) -> Extras:
    """Send nothing beside the model."""
    return {}
