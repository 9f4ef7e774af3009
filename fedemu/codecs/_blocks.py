"""A vector in blocks of one length, each with a scale of its own."""

import numpy as np

from fedemu.codecs._bytes import Floats
from fedemu.types import Bytes, Vector


def count(size: int, length: int) -> int:
    """Return the number of blocks of that many numbers; the last may be shorter."""
    return -(-size // length)


def scales_length(size: int, length: int) -> Bytes:
    """Return what the blocks' scales take, float32 each."""
    return 4 * count(size, length)


def split(vector: Vector, length: int) -> Floats:
    """Return the blocks of a vector, shape (blocks, at most length), the last one filled up with zeros.

    They may share the vector's memory: not to be written to.
    """
    length = min(length, len(vector))
    missing = -len(vector) % length
    numbers = vector.numpy()
    return (np.pad(numbers, (0, missing)) if missing else numbers).reshape(-1, length)


def divide(blocks: Floats, scales: Floats) -> Floats:
    """Return each block divided by its scale; a block with a scale of 0, which is all zeros, stays so."""
    return np.divide(blocks, np.where(scales > 0, scales, 1)[:, np.newaxis], dtype=np.float32)


def spread(scales: Floats, length: int, size: int) -> Floats:
    """Return the scale of each number, shape (size,)."""
    return np.repeat(scales, min(length, size))[:size]
