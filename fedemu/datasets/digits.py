"""Digits: 1,797 handwritten digits of 8 x 8, small enough to ship with the package.

Alpaydin, Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository 1998, CC BY 4.0; the
test part of the original, as scikit-learn distributes it. A line is 64 pixels of 0..16 and the label.

The split is fixed and stratified, without a random draw: of the rows in the order of their labels, every fifth is for
testing.
"""

import gzip
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import torch

from fedemu.datasets._base import Dataset, Examples
from fedemu.datasets._files import read_verified

_SHA256 = "09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22"


def digits(folder: Path, /) -> Dataset:
    """Handwritten digits, 8x8 in grey, part of the package: 1,437 to train, 360 to test, 10 classes."""
    with as_file(files("fedemu.datasets") / "digits.csv.gz") as path:
        content, verified = read_verified(path.parent, path.name, _SHA256, archive="the fedemu package")
    rows = np.loadtxt(gzip.decompress(content).decode().splitlines(), delimiter=",", dtype=np.uint8)
    x = torch.from_numpy(rows[:, :64].reshape(-1, 1, 8, 8).copy())
    y = torch.from_numpy(rows[:, 64].astype(np.int64))
    test = np.zeros(len(rows), dtype=bool)
    test[np.argsort(rows[:, 64], kind="stable")[::5]] = True
    train, held_out = (Examples(x[kept], y[kept]) for kept in (torch.from_numpy(~test), torch.from_numpy(test)))
    # mean and deviation of the training pixels
    return Dataset("digits", train, held_out, (1, 8, 8), 10, 16, (0.3058,), (0.3762,), verified)
