"""Local SGD against definitions."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from fedemu.rng import stream
from fedemu.strategies._sgd import local_sgd, proximal
from fedemu.types import BatchLoss, Indices, Training, Vector


class Quadratic:
    """The loss 1/2 mean |w - a_i|^2 with gradient w - mean(a_i); notes what it was asked."""

    def __init__(self, targets: list[list[float]]) -> None:
        self.targets = torch.tensor(targets)
        self.batches: list[list[int]] = []
        self.weights: list[Vector] = []

    @property
    def num_examples(self) -> int:
        return len(self.targets)

    def gradient(self, weights: Vector, batch: Indices) -> tuple[Vector, BatchLoss]:
        self.batches.append(batch.tolist())
        self.weights.append(weights)
        distance = weights - self.targets[torch.from_numpy(batch)]
        losses = distance.square().sum(1) / 2
        return distance.mean(0), BatchLoss(losses.mean().item(), losses.square().mean().item())


def test_a_full_batch_is_one_gradient_step_an_epoch() -> None:
    """From 0 with lr 0.5 towards the mean (2, 4): half the way, (1, 2), and so on: (1.5, 3), (1.75, 3.5)."""
    objective = Quadratic([[1.0, 3.0], [3.0, 5.0]])
    trained = local_sgd(objective, torch.zeros(2), Training(epochs=3, batch_size=None, lr=0.5), stream(0, "t"))
    assert trained.delta.tolist() == [1.75, 3.5]
    assert (trained.num_examples, trained.num_steps) == (2, 3)
    # squared distances, halved and averaged: (10 + 34) / 4 = 11, then (1 + 13) / 4, then (0.25 + 6.25) / 4
    assert trained.train_loss == pytest.approx((11 + 3.5 + 1.625) / 3)
    # losses of the two: 5 and 17, then 0.5 and 6.5, then 0.125 and 3.125
    assert trained.squared_loss == pytest.approx(((25 + 289) + (0.25 + 42.25) + (0.015625 + 9.765625)) / 6)


@pytest.mark.parametrize(("size", "sizes"), [(1, [1] * 7), (3, [3, 3, 1]), (7, [7]), (32, [7]), (None, [7])])
def test_every_epoch_takes_every_example_once_with_a_short_last_batch(size: int | None, sizes: list[int]) -> None:
    """7 examples, 3 epochs: E ceil(n / B) steps."""
    objective = Quadratic([[float(i)] for i in range(7)])
    trained = local_sgd(objective, torch.zeros(1), Training(epochs=3, batch_size=size), stream(0, "t"))
    assert [len(batch) for batch in objective.batches] == sizes * 3
    assert trained.num_steps == 3 * math.ceil(7 / (size or 7)) == len(objective.batches)
    seen = np.array([i for batch in objective.batches for i in batch]).reshape(3, 7)
    assert (np.sort(seen) == np.arange(7)).all()
    assert len({tuple(epoch) for epoch in seen.tolist()}) == 3


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_steps_are_those_of_pytorchs_sgd(momentum: float) -> None:
    """torch.optim.SGD, fed with the same batches, is the oracle."""
    targets = [[float(i), float(i * i % 7)] for i in range(10)]
    training = Training(epochs=3, batch_size=4, lr=0.1, momentum=momentum)
    start = torch.tensor([1.0, -1.0])
    objective = Quadratic(targets)
    delta = local_sgd(objective, start, training, stream(0, "t")).delta
    parameter = torch.nn.Parameter(start.clone())
    optimiser: Any = torch.optim.SGD([parameter], lr=0.1, momentum=momentum)
    for batch in objective.batches:
        parameter.grad = parameter.detach() - torch.tensor(targets)[batch].mean(0)
        optimiser.step()
    assert torch.allclose(start + delta, parameter.detach(), atol=1e-6)


def test_momentum_starts_anew_in_every_round() -> None:
    """Two rounds from the same model and stream are the same."""
    training = Training(epochs=2, batch_size=1, momentum=0.9)
    deltas = [local_sgd(Quadratic([[1.0], [2.0]]), torch.zeros(1), training, stream(0, "t")).delta for _ in range(2)]
    assert torch.equal(deltas[0], deltas[1])


def test_training_is_on_one_vector_of_its_own() -> None:
    """The server's model stays as it is, and the objective sees the same vector at every step."""
    objective, start = Quadratic([[1.0], [2.0]]), torch.zeros(1)
    local_sgd(objective, start, Training(epochs=2, batch_size=1), stream(0, "t"))
    assert start.tolist() == [0]
    assert len({id(weights) for weights in objective.weights}) == 1
    assert objective.weights[0] is not start


@pytest.mark.parametrize("size", [32, None])
def test_a_client_without_examples_answers_with_nothing(size: int | None) -> None:
    """Zero delta, zero steps, and no loss to speak of."""
    nothing = Quadratic([])
    trained = local_sgd(nothing, torch.ones(3), Training(batch_size=size), stream(0, "t"))
    assert trained.delta.tolist() == [0, 0, 0]
    assert (trained.num_examples, trained.num_steps) == (0, 0)
    assert math.isnan(trained.train_loss)
    assert trained.squared_loss == 0
    assert not nothing.batches


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_a_correction_comes_before_momentum_and_sees_the_local_weights(momentum: float) -> None:
    """From w = 4 towards 0 with lr 1/2, g = w + (w - 4): 4, then 4 - 4/2 = 2; g = 0, and momentum adds 2/2: 2 or 1."""

    def correct(gradient: Vector, weights: Vector) -> None:
        gradient.add_(weights - 4)

    training = Training(epochs=2, batch_size=None, lr=0.5, momentum=momentum)
    trained = local_sgd(Quadratic([[0.0]]), torch.tensor([4.0]), training, stream(0, "t"), correct=correct)
    assert (4 + trained.delta).item() == (1 if momentum else 2)


def test_the_proximal_term_is_the_gradient_of_half_mu_times_the_squared_distance() -> None:
    """1/2 x 0.5 x |(3, -1) - (1, 1)|^2 has the gradient 0.5 x (2, -2); without mu there is nothing to do."""
    correct, gradient = proximal(torch.tensor([1.0, 1.0]), 0.5), torch.tensor([10.0, 20.0])
    assert correct is not None
    correct(gradient, torch.tensor([3.0, -1.0]))
    assert gradient.tolist() == [11, 19]
    assert proximal(torch.zeros(2), 0.0) is None
