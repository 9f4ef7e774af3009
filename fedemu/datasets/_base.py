"""What a data set is: examples to divide among clients, examples to test with, and how a model takes them."""

from functools import lru_cache
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from fedemu.types import Indices, Rng

Verified: TypeAlias = Literal["official", "SHA256SUMS", "generated"]
"""Who vouched for the files: their publisher's hash, or only the data directory's own list; or there are none, as the
examples are made by the code itself."""


class Examples(NamedTuple):
    """Inputs and their labels."""

    x: Tensor
    """Shape (n, *shape), uint8 or float32."""
    y: Tensor
    """Class labels, shape (n,), int64, 0..classes-1."""


class Dataset(NamedTuple):
    """A data set in memory; pixels stay uint8, and a model takes them through `inputs`."""

    name: str
    train: Examples
    test: Examples
    shape: tuple[int, ...]
    """Of one example."""
    classes: int
    scale: float
    """What x is divided by first: the largest value of a pixel; 1 for features."""
    mean: tuple[float, ...]
    """Of x / scale, for each channel, the first dimension of `shape`."""
    std: tuple[float, ...]
    """As `mean`."""
    verified: Verified
    owners: Indices | None = None
    """Whom each training example is from, 0..users-1, shape (n,), int64; None where the data set does not say."""

    def inputs(self, x: Tensor) -> Tensor:
        """Return (x / scale - mean) / std of a batch of shape (n, *shape), as a new float32 tensor."""
        scale, shift = (
            _per_channel(numbers, self.scale, len(self.shape), x.device) for numbers in (self.std, self.mean)
        )
        return (x - shift).div_(scale)


@lru_cache
def _per_channel(numbers: tuple[float, ...], scale: float, dimensions: int, device: torch.device) -> Tensor:
    return torch.tensor(numbers, device=device).view(-1, *[1] * (dimensions - 1)) * scale


def subset(dataset: Dataset, examples: int, rng: Rng) -> Dataset:
    """Keep that many training examples, drawn without replacement and left in order; all the test examples stay.

    Raises:
        ValueError: There are fewer.
    """
    count = len(dataset.train.y)
    if examples > count:
        raise ValueError(
            f"{examples} examples are more than the {count} that {dataset.name} has to train; ask for less"
        )
    kept = torch.from_numpy(rng.permutation(count)[:examples]).sort().values
    return dataset._replace(
        train=Examples(dataset.train.x[kept], dataset.train.y[kept]),
        owners=None if dataset.owners is None else dataset.owners[kept.numpy()],
    )
