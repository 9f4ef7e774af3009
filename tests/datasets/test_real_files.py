"""The real files, where FEDEMU_DATA has them."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fedemu.datasets._base import Dataset
from fedemu.datasets.cifar10 import cifar10
from fedemu.datasets.fashion_mnist import fashion_mnist
from fedemu.datasets.mnist import mnist

FOLDER = Path(os.environ.get("FEDEMU_DATA", "/nowhere"))


@pytest.mark.parametrize(
    ("kind", "file", "train", "shape", "least", "most"),
    [
        (mnist, "MNIST/raw/train-images-idx3-ubyte.gz", 60_000, (1, 28, 28), 5421, 6742),
        (fashion_mnist, "FashionMNIST/raw/train-images-idx3-ubyte.gz", 60_000, (1, 28, 28), 6000, 6000),
        (cifar10, "cifar-10-batches-bin/test_batch.bin", 50_000, (3, 32, 32), 5000, 5000),
    ],
)
def test_the_published_files_have_the_published_classes(
    kind: Callable[[Path], Dataset], file: str, train: int, shape: tuple[int, ...], least: int, most: int
) -> None:
    """MNIST has 5,421 fives and 6,742 ones; the others are balanced."""
    if not (FOLDER / file).exists():
        pytest.skip(f"FEDEMU_DATA has no {file}")
    dataset = kind(FOLDER)
    assert dataset.train.x.shape == (train, *shape)
    assert dataset.test.x.shape == (10_000, *shape)
    counts = dataset.train.y.bincount().tolist()
    assert (len(counts), min(counts), max(counts)) == (10, least, most)
    # 10,000 pictures are a fair sample of pixels that should have mean 0; CIFAR-10's 0.5 is only roughly its mean
    assert abs(float(dataset.inputs(dataset.train.x[:10_000]).mean())) < (0.1 if kind is cifar10 else 0.02)
