"""The flat view of a model."""

from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

from fedemu.models._base import Parameter, bind, flatten, initial, layout_of, release
from fedemu.rng import stream


def small() -> nn.Module:
    """Conv 2x1x1x1 + 2, norm 2 + 2, linear 3x2 + 3: 2 + 2 + 2 + 2 + 6 + 3 = 17 numbers."""
    return nn.Sequential(
        OrderedDict(conv=nn.Conv2d(1, 2, 1), norm=nn.GroupNorm(1, 2), flat=nn.Flatten(), head=nn.Linear(2, 3))
    )


def test_a_layout_names_every_parameter_with_shape_offset_and_role() -> None:
    """Offsets are running sums of 2, 2, 2, 2, 6, 3."""
    layout = layout_of(small())
    assert layout.parameters == (
        Parameter("conv.weight", (2, 1, 1, 1), 0, "weight"),
        Parameter("conv.bias", (2,), 2, "bias"),
        Parameter("norm.weight", (2,), 4, "norm"),
        Parameter("norm.bias", (2,), 6, "norm"),
        Parameter("head.weight", (3, 2), 8, "weight"),
        Parameter("head.bias", (3,), 14, "bias"),
    )
    assert layout.size == 17


def test_biases_of_recurrent_layers_are_biases() -> None:
    """PyTorch calls them bias_ih_l0 and bias_hh_l0."""
    assert [p.role for p in layout_of(nn.GRU(1, 1)).parameters] == ["weight", "weight", "bias", "bias"]


def test_tied_parameters_count_once() -> None:
    """Two 2 x 2 layers that share their weight: 4 + 2 + 2."""
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    second = module[1]
    assert isinstance(second, nn.Linear)
    second.weight = next(module.parameters())
    assert layout_of(module).size == 8
    bind(module, torch.arange(8.0))
    assert second.weight.tolist() == [[0, 1], [2, 3]]


@pytest.mark.parametrize(
    ("module", "fault"),
    [
        (nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), "1.running_mean is a running statistic"),
        (nn.Linear(2, 2).double(), "weight is torch.float64, a model's parameters are torch.float32"),
        (nn.ReLU(), "ReLU has no parameters to learn"),
    ],
)
def test_modules_that_a_vector_cannot_stand_for_are_refused(module: nn.Module, fault: str) -> None:
    """Each message names what it found."""
    with pytest.raises(ValueError, match=fault):
        layout_of(module)


def test_a_bound_module_and_its_vector_share_memory() -> None:
    """Head bias 2 is the last of 17 numbers, 16.0; it changes with the vector and the vector with it."""
    module, weights = small(), torch.arange(17.0)
    bind(module, weights)
    head = module.get_submodule("head")
    assert isinstance(head, nn.Linear)
    assert head.bias[2] == 16
    weights.mul_(2)
    assert head.bias[2] == 32
    assert torch.equal(flatten(module), weights)
    with torch.no_grad():
        head.bias[2] = 5
    assert weights[16] == 5


def test_a_vector_of_the_wrong_length_does_not_fit() -> None:
    """16 numbers for 17."""
    with pytest.raises(ValueError, match=r"shape \(16,\) does not fit a model of 17 parameters"):
        bind(small(), torch.zeros(16))


def test_a_released_module_holds_no_memory_and_can_be_bound_again() -> None:
    """One number of 4 bytes stands for each parameter."""
    module = small()
    release(module)
    assert {p.untyped_storage().nbytes() for p in module.parameters()} == {4}
    assert layout_of(module) == layout_of(small())
    bind(module, torch.arange(17.0))
    assert flatten(module).tolist() == list(range(17))


def test_initial_weights_are_a_function_of_the_stream_alone() -> None:
    """The global generator is set differently before each build, and is found as it was."""
    vectors = []
    for seed, name in ((1, "a"), (2, "a"), (3, "b")):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        vectors.append(initial(small, stream(0, name)))
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(vectors[0], vectors[1])
    assert not torch.equal(vectors[0], vectors[2])
    assert vectors[0].shape == (17,)
    assert vectors[0].dtype == torch.float32


def test_flatten_copies() -> None:
    """A change of the copy must not reach the module."""
    module = small()
    flatten(module).zero_()
    assert np.any(flatten(module).numpy())
