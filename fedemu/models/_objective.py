"""The cross-entropy of a module on a client's examples: its gradient, its accuracy, and what it costs to compute."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from fedemu.models._base import Task, bind, views
from fedemu.types import BatchLoss, Indices, Vector


def _as_it_is(x: Tensor) -> Tensor:
    return x


class LocalObjective:
    """A client's `types.Objective`: mean cross-entropy of `module` on (x, y).

    Parameters are views into the weights that are asked about and gradients are views into one flat buffer: apart
    from the weights there is one more vector, and one layer's gradient at a time. Objectives may share a module, and
    use it in turn.

    Args:
        module: Its parameters' values do not matter and are replaced.
        x: Inputs, shape (n, *shape), on the device of the weights.
        y: Labels, shape (n,), int64.
        inputs: Makes what the module takes of a batch of `x`, e.g. `Dataset.inputs` where `x` is uint8; by default
            `x` is float32 and taken as it is.
    """

    def __init__(
        self, module: nn.Module, x: Tensor, y: Tensor, *, inputs: Callable[[Tensor], Tensor] = _as_it_is
    ) -> None:
        self._module, self._x, self._y, self._inputs = module, x, y, inputs
        self._gradient: Vector | None = None
        module.train()  # also where a part of it is not: that would be so only until the first evaluation

    @property
    def num_examples(self) -> int:
        return len(self._y)

    def gradient(self, weights: Vector, batch: Indices) -> tuple[Vector, BatchLoss]:
        """Return the gradient of the mean loss over `batch`, and the losses; the next call overwrites it."""
        bind(self._module, weights)
        gradient = self._zeroed(weights)
        chosen = torch.from_numpy(batch).to(self._x.device)
        logits = self._module(self._inputs(self._x[chosen]))
        losses = functional.cross_entropy(logits, self._y[chosen], reduction="none")
        loss = losses.mean()
        loss.backward()  # type: ignore[no-untyped-call]
        values = losses.detach()
        return gradient, BatchLoss(loss.item(), torch.dot(values, values).item() / len(values))

    def _zeroed(self, weights: Vector) -> Vector:
        if self._gradient is None:
            self._gradient = torch.empty_like(weights)
        gradient = self._gradient.zero_()
        first = next(self._module.parameters()).grad
        # another objective may have taken the module meanwhile
        if first is None or first.data_ptr() != gradient.data_ptr():
            for parameter, view in views(self._module, gradient):
                parameter.grad = view
        return gradient


def evaluate(
    module: nn.Module,
    weights: Vector,
    x: Tensor,
    y: Tensor,
    batch: int = 1000,
    *,
    inputs: Callable[[Tensor], Tensor] = _as_it_is,
) -> tuple[int, float]:
    """Return how many examples the model gets right, and the sum of their cross-entropies, added up in float64.

    Args:
        module: Gets bound to `weights`; its mode (train or eval) is put back.
        weights: Shape (d,).
        x: Inputs, shape (n, *shape).
        y: Labels, shape (n,), int64.
        batch: Examples at a time; matters to the result only for layers that normalise over the batch.
        inputs: As in `LocalObjective`.
    """
    bind(module, weights)
    training = module.training
    module.eval()
    correct, loss = 0, 0.0
    with torch.no_grad():
        for images, labels in zip(torch.split(x, batch), torch.split(y, batch), strict=True):
            logits = module(inputs(images))
            correct += int((logits.argmax(1) == labels).sum())
            loss += float(functional.cross_entropy(logits, labels, reduction="none").double().sum())
    module.train(training)
    return correct, loss


def training_arithmetic(module: nn.Module, task: Task) -> float:
    """Return the floating-point operations of one forward and backward pass for one example.

    A multiplication and its addition are two. Counts matrix products and convolutions, as PyTorch's flop counter
    does; activations, pooling and normalisation are left out.
    """
    x = torch.zeros(1, *task.shape)
    with FlopCounterMode(display=False) as counter:
        loss = functional.cross_entropy(module(x), torch.zeros(1, dtype=torch.int64))
        torch.autograd.grad(loss, list(module.parameters()))
    return float(counter.get_total_flops())
