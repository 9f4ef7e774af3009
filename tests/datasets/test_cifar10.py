"""CIFAR-10 from small files of the same format, vouched for by the directory."""

import hashlib
from pathlib import Path

import pytest

from fedemu.datasets.cifar10 import cifar10
from fedemu.errors import DataError

NAMES = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]


def fill(folder: Path, contents: list[bytes]) -> None:
    """Write the six files, and the list that vouches for them."""
    (folder / "cifar-10-batches-bin").mkdir()
    lines = []
    for name, content in zip(NAMES, contents, strict=True):
        (folder / "cifar-10-batches-bin" / name).write_bytes(content)
        lines.append(f"{hashlib.sha256(content).hexdigest()}  cifar-10-batches-bin/{name}\n")
    (folder / "SHA256SUMS").write_text("".join(lines))


def record(label: int) -> bytes:
    """Return a picture whose red, green and blue are 10, 20 and 30 more than its label."""
    return bytes([label]) + b"".join(bytes([label + colour]) * 1024 for colour in (10, 20, 30))


def test_records_are_a_label_and_three_channels(tmp_path: Path) -> None:
    """Batch i holds one picture of label i - 1, the test batch two."""
    fill(tmp_path, [*(record(i) for i in range(5)), record(8) + record(9)])
    dataset = cifar10(tmp_path)
    assert dataset.train.y.tolist() == [0, 1, 2, 3, 4]
    assert dataset.test.y.tolist() == [8, 9]
    assert dataset.train.x.shape == (5, 3, 32, 32)
    assert set(dataset.train.x[3].flatten().tolist()) == {13, 23, 33}
    assert dataset.train.x[3, :, 0, 0].tolist() == [13, 23, 33]
    assert dataset.verified == "SHA256SUMS"


def test_pixels_become_inputs_between_minus_one_and_one(tmp_path: Path) -> None:
    """Red 10 of label 0: (10 / 255 - 0.5) / 0.5."""
    fill(tmp_path, [record(0)] * 6)
    dataset = cifar10(tmp_path)
    assert dataset.inputs(dataset.test.x)[0, 0, 5, 5].item() == pytest.approx(20 / 255 - 1, abs=1e-6)


def test_a_file_of_broken_records_is_an_error_that_names_it(tmp_path: Path) -> None:
    """A record has 3,073 bytes; this file has one more."""
    fill(tmp_path, [*[record(0)] * 5, record(0) + b"\x00"])
    with pytest.raises(DataError, match=r"test_batch.bin has 3074 bytes, not a multiple of 3073"):
        cifar10(tmp_path)
