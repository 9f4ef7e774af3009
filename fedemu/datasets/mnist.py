"""MNIST: 70,000 handwritten digits, 28 x 28 in grey (LeCun, Cortes, Burges).

LeCun, Bottou, Bengio, Haffner, "Gradient-Based Learning Applied to Document Recognition", Proc. IEEE 1998.
"""

from pathlib import Path

from fedemu.datasets._base import Dataset
from fedemu.datasets._idx import read_idx_pairs

_SHA256 = {
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}


def mnist(folder: Path, /) -> Dataset:
    """Handwritten digits, 28x28 in grey: 60,000 to train, 10,000 to test, 10 classes."""
    train, test, verified = read_idx_pairs(folder, "MNIST/raw", _SHA256, archive="the four MNIST files in IDX format")
    # mean and deviation of the training pixels
    return Dataset("mnist", train, test, (1, 28, 28), 10, 255, (0.1307,), (0.3081,), verified)
