"""The flat view of a model: what stands where in the vector w in R^d, and modules whose parameters lie in one.

Only this room folds a vector into layers; everybody else computes with shape (d,).
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from fedemu.types import Rng, Vector

_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)


class Task(NamedTuple):
    """What a model is for: inputs of `shape` (without the batch dimension) and `classes` logits."""

    shape: tuple[int, ...]
    classes: int


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter tensor and its place in the vector."""

    name: str
    shape: tuple[int, ...]
    offset: int
    """Index of its first element in the vector."""
    role: Literal["weight", "bias", "norm"]
    """`norm` is the scale or shift of a normalisation layer."""

    @property
    def size(self) -> int:
        """Number of its elements."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Layout:
    """Where each parameter of a model stands in its vector, in order and without gaps."""

    parameters: tuple[Parameter, ...]

    @property
    def size(self) -> int:
        """Length d of the vector."""
        return sum(parameter.size for parameter in self.parameters)

    def split(self, vector: Vector) -> dict[str, Tensor]:
        """Return each parameter's place in a vector of shape (d,), as a view in the parameter's shape, by name."""
        return {p.name: vector[p.offset : p.offset + p.size].view(p.shape) for p in self.parameters}


def layout_of(module: nn.Module) -> Layout:
    """Return the layout of a module's vector: its parameters in the order of `named_parameters`, tied ones once.

    Raises:
        ValueError: The module has running statistics, no parameters, or some that are not float32.
    """
    for name, _ in module.named_buffers():
        if name.rpartition(".")[2] in {"running_mean", "running_var"}:
            raise ValueError(
                f"{name} is a running statistic, which no round would average; "
                "build the layer with track_running_stats=False or take a GroupNorm"
            )
    norms = {id(p) for layer in module.modules() if isinstance(layer, _NORMS) for p in layer.parameters()}
    parameters: list[Parameter] = []
    offset = 0
    for name, tensor in module.named_parameters():
        if tensor.dtype != torch.float32:
            raise ValueError(f"{name} is {tensor.dtype}, a model's parameters are torch.float32; convert the module")
        role: Literal["weight", "bias", "norm"] = "bias" if name.rpartition(".")[2].startswith("bias") else "weight"
        parameters.append(Parameter(name, tuple(tensor.shape), offset, "norm" if id(tensor) in norms else role))
        offset += tensor.numel()
    if not parameters:
        raise ValueError(f"{type(module).__name__} has no parameters to learn; give the model a layer that has")
    return Layout(tuple(parameters))


def views(module: nn.Module, vector: Vector) -> Iterator[tuple[nn.Parameter, Tensor]]:
    """Pair each parameter of `module` with its place in `vector`, as a view in the parameter's shape.

    Raises:
        ValueError: The vector's length is not the module's number of parameters.
    """
    parameters = list(module.parameters())
    size = sum(parameter.numel() for parameter in parameters)
    if vector.shape != (size,):
        raise ValueError(f"a vector of shape {tuple(vector.shape)} does not fit a model of {size} parameters")
    offset = 0
    for parameter in parameters:
        yield parameter, vector[offset : offset + parameter.numel()].view(parameter.shape)
        offset += parameter.numel()


def flatten(module: nn.Module) -> Vector:
    """Copy a module's parameters into a new vector of shape (d,)."""
    parameters = list(module.parameters())
    vector = torch.empty(sum(p.numel() for p in parameters), device=parameters[0].device)
    for parameter, view in views(module, vector):
        view.copy_(parameter.detach())
    return vector


def bind(module: nn.Module, weights: Vector) -> None:
    """Make the module's parameters views into `weights`, so that in-place changes of either are seen by both.

    Nothing happens where they are so already: a bound module keeps the storage alive, so that an equal address is the
    same memory.
    """
    first = next(module.parameters())
    if (
        first.data_ptr() == weights.data_ptr()
        and first.untyped_storage().nbytes() == weights.untyped_storage().nbytes()
    ):
        return
    for parameter, view in views(module, weights):
        parameter.data = view


def release(module: nn.Module) -> None:
    """Let go of the memory of a module's parameters and gradients and keep their shapes, until the next `bind`."""
    for parameter in module.parameters():
        parameter.grad = None
        parameter.data = parameter.data.new_zeros(()).expand(parameter.shape)


def initial(build: Callable[[], nn.Module], rng: Rng) -> Vector:
    """Return the initial weights of a model, a function of `rng` alone, shape (d,).

    PyTorch's initialisers draw from its global generator, which is seeded from `rng` and put back afterwards.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(rng.integers(2**63)))
        return flatten(build())
