"""Fashion-MNIST: 70,000 pictures of clothes, 28 x 28 in grey, in MNIST's format (MIT licence).

Xiao, Rasul, Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms", 2017.
"""

from pathlib import Path

from fedemu.datasets._base import Dataset
from fedemu.datasets._idx import read_idx_pairs

_SHA256 = {
    "train-images-idx3-ubyte.gz": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    "train-labels-idx1-ubyte.gz": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    "t10k-images-idx3-ubyte.gz": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
    "t10k-labels-idx1-ubyte.gz": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
}


def fashion_mnist(folder: Path, /) -> Dataset:
    """Clothes, 28x28 in grey: 60,000 to train, 10,000 to test, 10 classes."""
    archive = "the four Fashion-MNIST files in IDX format (zalandoresearch/fashion-mnist)"
    train, test, verified = read_idx_pairs(folder, "FashionMNIST/raw", _SHA256, archive=archive)
    # mean and deviation of the training pixels
    return Dataset("fashion-mnist", train, test, (1, 28, 28), 10, 255, (0.2860,), (0.3530,), verified)
