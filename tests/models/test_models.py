"""Every kind of model: its size, its shapes, its refusals."""

import importlib
import pkgutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import fedemu.models
from fedemu.models._base import Task, flatten, layout_of
from fedemu.models.convnet import convnet
from fedemu.models.lenet import lenet
from fedemu.models.mnist_cnn import mnist_cnn
from fedemu.models.softmax import softmax
from fedemu.models.twonn import twonn

CIFAR, MNIST, DIGITS = Task((3, 32, 32), 10), Task((1, 28, 28), 10), Task((1, 8, 8), 10)

KINDS = [m.name for m in pkgutil.iter_modules(fedemu.models.__path__) if not m.name.startswith("_")]


@pytest.mark.parametrize(
    ("model", "size"),
    [
        (softmax(MNIST), 7_850),  # 784 * 10 + 10
        (twonn(MNIST), 199_210),  # McMahan et al. 2017, section 3
        (twonn(DIGITS, hidden=10), 870),  # 650 + 110 + 110
        (mnist_cnn(MNIST), 1_663_370),  # McMahan et al. 2017, section 3
        (mnist_cnn(DIGITS), 188_810),  # 832 + 51,264 + (256 + 1) * 512 + 5,130
        (lenet(CIFAR), 62_006),  # Flower's quickstart
        (lenet(MNIST), 44_426),  # 156 + 2,416 + (256 + 1) * 120 + 10,164 + 850
        (convnet(CIFAR), 115_658),  # FedBABU's CNNCifar
        (convnet(CIFAR, depth=3), 86_282),  # 115,658 - 37,056 for a block + (1,024 - 256) * 10 for a larger head
        (convnet(CIFAR, depth=7), 226_826),  # 115,658 + 3 * 37,056: the head stays at 2 x 2
        (convnet(Task((3, 64, 64), 10), width=2, depth=5), 558),  # 60 + 4 * 42 + 330: four pools of five, 64 -> 4
        (convnet(DIGITS, width=8, depth=2), 1_026),  # (72 + 8 + 16) + (576 + 8 + 16) + 32 * 10 + 10
    ],
)
def test_models_have_the_published_number_of_parameters(model: nn.Module, size: int) -> None:
    """Each number with its source beside it."""
    assert layout_of(model).size == size


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("task", [CIFAR, MNIST, DIGITS, Task((1, 20, 36), 3)])
def test_models_map_a_batch_to_logits_or_refuse_the_shape(kind: str, task: Task) -> None:
    """Only LeNet is too large for 8 x 8 pixels."""
    build: Callable[..., nn.Module] = getattr(importlib.import_module(f"fedemu.models.{kind}"), kind)
    if kind == "lenet" and task == DIGITS:
        with pytest.raises(
            ValueError, match=r"shape \(1, 8, 8\), this model takes images .* at least 16 pixels a side"
        ):
            build(task)
    else:
        logits = build(task)(torch.zeros(2, *task.shape))
        assert logits.shape == (2, task.classes)


def test_convolutions_refuse_what_is_no_image() -> None:
    """A series of 9 channels and 128 values has no height and width."""
    with pytest.raises(ValueError, match=r"shape \(9, 128\)"):
        convnet(Task((9, 128), 6))


def test_activations_change_the_function_and_not_the_parameters() -> None:
    """The same seed gives the same weights, and the five activations give five different answers."""
    x = torch.linspace(-3, 3, 2 * 64).view(2, 1, 8, 8)
    names: Any = ("identity", "tanh", "hardtanh", "relu", "leaky-relu")
    weights, logits = [], []
    for name in names:
        torch.manual_seed(0)
        model = convnet(DIGITS, width=4, activation=name)
        weights.append(flatten(model))
        logits.append(model(x))
    assert all(torch.equal(weights[0], other) for other in weights)
    assert len({tuple(y.flatten().tolist()) for y in logits}) == 5


def test_lenet_is_flowers_quickstart_net() -> None:
    """Conv 5x5 - pool - conv 5x5 - pool - 400 - 120 - 84 - 10, all three linear layers used."""
    shapes = [tuple(p.shape) for p in lenet(CIFAR).parameters() if p.dim() > 1]
    assert shapes == [(6, 3, 5, 5), (16, 6, 5, 5), (120, 400), (84, 120), (10, 84)]


def test_convnet_has_a_trainable_norm_and_no_running_statistics() -> None:
    """4 norm layers with scale and shift of 64: 512 numbers of 115,658."""
    norms = [p for p in layout_of(convnet(CIFAR)).parameters if p.role == "norm"]
    assert sum(p.size for p in norms) == 512
    assert not list(convnet(CIFAR).buffers())
