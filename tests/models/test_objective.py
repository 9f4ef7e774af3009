"""Gradients, evaluation and arithmetic of modules."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from fedemu.models._base import Task, flatten, initial
from fedemu.models._objective import LocalObjective, evaluate, training_arithmetic
from fedemu.models.convnet import convnet
from fedemu.models.lenet import lenet
from fedemu.models.softmax import softmax
from fedemu.models.twonn import twonn
from fedemu.rng import stream

TASK = Task((1, 1, 2), 2)
"""Two inputs, two classes: four weights, then two biases."""


def objective(module: nn.Module) -> LocalObjective:
    """Return three examples of two inputs."""
    return LocalObjective(
        module, torch.tensor([[[[1.0, 2.0]]], [[[0.0, 1.0]]], [[[9.0, 9.0]]]]), torch.tensor([0, 1, 0])
    )


def test_the_gradient_at_zero_is_that_of_softmax_regression() -> None:
    """At w = 0 both classes have p = 1/2, so d loss / d W_c = mean (1/2 - [y = c]) x over examples 0 and 1."""
    gradient, loss = objective(softmax(TASK)).gradient(torch.zeros(6), np.array([0, 1]))
    # class 0: (-1/2 (1, 2) + 1/2 (0, 1)) / 2 = (-1/4, -1/4); class 1 is its opposite; biases cancel
    assert gradient.tolist() == [-0.25, -0.25, 0.25, 0.25, 0, 0]
    assert loss.mean == pytest.approx(math.log(2), abs=1e-7)


def test_gradients_agree_with_finite_differences() -> None:
    """Central differences in float64 arithmetic on the loss; their error is O(h^2) + float32 rounding / h."""
    module = twonn(TASK, hidden=3)
    local = objective(module)
    weights = initial(lambda: twonn(TASK, hidden=3), stream(0, "w"))
    everything = np.arange(3)
    gradient = local.gradient(weights, everything)[0].clone()
    for i in range(len(weights)):
        up, down = weights.clone(), weights.clone()
        up[i] += 1e-2
        down[i] -= 1e-2
        slope = (local.gradient(up, everything)[1].mean - local.gradient(down, everything)[1].mean) / 2e-2
        assert float(gradient[i]) == pytest.approx(slope, abs=1e-3)


def test_the_next_call_overwrites_the_gradient_and_does_not_add_to_it() -> None:
    """One buffer, zeroed before each pass."""
    local, weights = objective(softmax(TASK)), torch.zeros(6)
    first, _ = local.gradient(weights, np.array([0]))
    expected = first.clone()
    second, _ = local.gradient(weights, np.array([0]))
    assert first is second
    assert torch.equal(second, expected)


def test_parameters_and_gradients_are_views_so_that_steps_in_place_need_no_copy() -> None:
    """After a step in place on the same vector, the module computes with the new weights."""
    module = softmax(TASK)
    local, weights = objective(module), torch.zeros(6)
    gradient, _ = local.gradient(weights, np.array([0]))
    first = next(module.parameters())
    assert first.data_ptr() == weights.data_ptr()
    assert first.grad is not None
    assert first.grad.data_ptr() == gradient.data_ptr()
    weights[0] = 1.0
    # logits (1, 0): loss = log(1 + e^-1)
    assert local.gradient(weights, np.array([0]))[1].mean == pytest.approx(math.log1p(math.exp(-1)), abs=1e-6)


def test_objectives_may_take_turns_on_one_module() -> None:
    """Two clients and an evaluation in between, against each client with a module of its own."""
    shared = softmax(TASK)
    one, two = objective(shared), LocalObjective(shared, torch.ones(1, 1, 1, 2), torch.tensor([1]))
    a, b = torch.arange(6.0), -torch.arange(6.0)
    one.gradient(a, np.array([0, 1]))
    kept = two.gradient(b, np.array([0]))[0]
    assert evaluate(shared, torch.zeros(6), torch.ones(1, 1, 1, 2), torch.tensor([0]))[0] == 1
    again = one.gradient(a, np.array([0, 1]))[0]
    alone = objective(softmax(TASK)).gradient(a, np.array([0, 1]))[0]
    assert torch.equal(again, alone)
    assert torch.equal(
        kept, LocalObjective(softmax(TASK), torch.ones(1, 1, 1, 2), torch.tensor([1])).gradient(b, np.array([0]))[0]
    )


def test_bytes_become_inputs_batch_by_batch() -> None:
    """Bytes 100 and 200 through x / 100 are the floats 1 and 2."""
    as_bytes = LocalObjective(
        softmax(TASK), torch.tensor([[[[100, 200]]]], dtype=torch.uint8), torch.tensor([0]), inputs=lambda x: x / 100
    )
    gradient, _ = as_bytes.gradient(torch.zeros(6), np.array([0]))
    assert gradient.tolist() == [-0.5, -1, 0.5, 1, -0.5, 0.5]


def test_gradients_are_taken_in_training_mode() -> None:
    """Dropout of everything leaves no input to learn from, also after an evaluation; the biases see the labels."""
    module = nn.Sequential(nn.Dropout(1.0), softmax(TASK)).eval()
    gradient, _ = objective(module).gradient(torch.zeros(6), np.array([0]))
    assert gradient.tolist() == [0, 0, 0, 0, -0.5, 0.5]


def test_a_part_that_was_built_for_evaluation_trains_as_all_others() -> None:
    """Else it would depend on whether the module was evaluated before, which differs from process to process."""
    module = nn.Sequential(nn.Dropout(1.0).eval(), softmax(TASK))
    gradient, _ = objective(module).gradient(torch.zeros(6), np.array([0]))
    assert gradient.tolist() == [0, 0, 0, 0, -0.5, 0.5]


@pytest.mark.parametrize("batch", [1, 2, 3, 1000])
def test_evaluation_counts_right_answers_and_adds_losses_up(batch: int) -> None:
    """W = ((1, 0), (0, 1)): logits are the inputs (1, 2), (0, 1), (9, 9); labels 0, 1, 0; the tie goes to class 0."""
    x = torch.tensor([[[[1.0, 2.0]]], [[[0.0, 1.0]]], [[[9.0, 9.0]]]])
    correct, loss = evaluate(softmax(TASK), torch.tensor([1.0, 0, 0, 1, 0, 0]), x, torch.tensor([0, 1, 0]), batch)
    assert correct == 2
    # log(1 + e) + log(1 + e^-1) + log 2
    assert loss == pytest.approx(math.log1p(math.e) + math.log1p(1 / math.e) + math.log(2), abs=1e-6)


def test_evaluation_is_in_eval_mode_and_leaves_the_mode_and_the_weights_alone() -> None:
    """Dropout of everything would make all logits equal to the bias."""
    module = nn.Sequential(nn.Dropout(1.0), softmax(TASK))
    weights = torch.tensor([0.0, 0, 3, 0, 0, 0])
    assert evaluate(module, weights, torch.ones(1, 1, 1, 2), torch.tensor([1]))[0] == 1
    assert module.training
    assert weights.tolist() == [0, 0, 3, 0, 0, 0]
    assert next(module.parameters()).grad is None


def test_the_arithmetic_of_a_linear_layer_is_two_products() -> None:
    """784 x 10 multiply-adds are 15,680 operations forward, as many for the gradient of the weights, none for x."""
    task = Task((1, 28, 28), 10)
    assert training_arithmetic(softmax(task), task) == 2 * 15_680


def test_the_arithmetic_of_a_network_adds_input_gradients_after_the_first_layer() -> None:
    """LeNet on CIFAR-10: a first layer costs 2 products, the others 3, each 2 x outputs x inputs of one output."""
    task = Task((3, 32, 32), 10)
    conv1, conv2 = 2 * 28 * 28 * 6 * 75, 2 * 10 * 10 * 16 * 150
    linear = 2 * (400 * 120 + 120 * 84 + 84 * 10)
    assert training_arithmetic(lenet(task), task) == 2 * conv1 + 3 * conv2 + 3 * linear


def test_counting_arithmetic_leaves_no_gradients_behind() -> None:
    """A fresh module stays fresh."""
    module = softmax(TASK)
    before = flatten(module)
    training_arithmetic(module, TASK)
    assert all(p.grad is None for p in module.parameters())
    assert torch.equal(flatten(module), before)


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (1, 8, 8), (1, 2, 2)])
def test_a_last_batch_of_one_example_does_not_break_batch_norm(shape: tuple[int, ...]) -> None:
    """The stack never pools below 2 x 2, so that a channel always has more than one value."""
    task = Task(shape, 10)
    module = convnet(task, depth=6, width=2)
    gradient, loss = LocalObjective(module, torch.rand(1, *shape), torch.tensor([3])).gradient(
        flatten(module), np.array([0])
    )
    assert math.isfinite(loss.mean)
    assert gradient.isfinite().all()
