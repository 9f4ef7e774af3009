"""MNIST and Fashion-MNIST from small files of the same format, vouched for by the directory."""

import gzip
import hashlib
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from fedemu.datasets._base import Dataset
from fedemu.datasets.fashion_mnist import fashion_mnist
from fedemu.datasets.mnist import mnist
from fedemu.errors import DataError

KINDS = pytest.mark.parametrize(("kind", "directory"), [(mnist, "MNIST/raw"), (fashion_mnist, "FashionMNIST/raw")])
Kind = Callable[[Path], Dataset]


def idx(shape: tuple[int, ...], values: bytes) -> bytes:
    """Return an IDX file of unsigned bytes."""
    return gzip.compress(struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape) + values)


def fill(folder: Path, directory: str, **files: bytes) -> None:
    """Write three training images full of 1, 2, 3 and one test image full of 9, or the files given instead."""
    contents = {
        "train-images-idx3-ubyte.gz": idx((3, 28, 28), b"\x01" * 784 + b"\x02" * 784 + b"\x03" * 784),
        "train-labels-idx1-ubyte.gz": idx((3,), bytes([7, 0, 9])),
        "t10k-images-idx3-ubyte.gz": idx((1, 28, 28), b"\x09" * 784),
        "t10k-labels-idx1-ubyte.gz": idx((1,), bytes([4])),
    } | {name.replace("_", "-") + "-ubyte.gz": content for name, content in files.items()}
    raw = folder / directory
    raw.mkdir(parents=True)
    lines = []
    for name, content in contents.items():
        (raw / name).write_bytes(content)
        lines.append(f"{hashlib.sha256(content).hexdigest()}  {directory}/{name}\n")
    (folder / "SHA256SUMS").write_text("".join(lines))


@KINDS
def test_images_and_labels_are_read_in_order(kind: Kind, directory: str, tmp_path: Path) -> None:
    """Sums of 784 pixels: 784, 1568, 2352 and 7056."""
    fill(tmp_path, directory)
    dataset = kind(tmp_path)
    assert dataset.train.x.shape == (3, 1, 28, 28)
    assert dataset.train.x.sum((1, 2, 3)).tolist() == [784, 1568, 2352]
    assert dataset.train.y.tolist() == [7, 0, 9]
    assert dataset.test.x.sum().item() == 7056
    assert dataset.test.y.tolist() == [4]
    assert (dataset.shape, dataset.classes, dataset.verified) == ((1, 28, 28), 10, "SHA256SUMS")


@KINDS
def test_files_that_nobody_vouches_for_are_refused(kind: Kind, directory: str, tmp_path: Path) -> None:
    """Without the directory's list, the small files are not the official ones."""
    fill(tmp_path, directory)
    (tmp_path / "SHA256SUMS").unlink()
    with pytest.raises(DataError, match=f"{directory}/train-images-idx3-ubyte.gz has sha256"):
        kind(tmp_path)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"plain", "is not a gzipped IDX file"),
        (idx((3,), b"\x00\x00\x00")[:-9], "is not a gzipped IDX file"),
        (gzip.compress(b"\x00"), "is not a gzipped IDX file"),
        (idx((3,), b"\x00\x00"), "header 0000080100000003, 10 bytes"),
        (gzip.compress(b"\x00\x00\x0d\x01\x00\x00\x00\x01\x00"), "header 00000d0100000001, 9 bytes"),
    ],
)
def test_a_malformed_file_is_an_error_that_names_it(content: bytes, fault: str, tmp_path: Path) -> None:
    """No gzip, cut off, no header, too few values, floats in place of bytes."""
    fill(tmp_path, "MNIST/raw", train_labels_idx1=content)
    with pytest.raises(DataError, match=rf"MNIST/raw/train-labels-idx1-ubyte.gz .*{fault}"):
        mnist(tmp_path)
