"""Bits, eight in a byte, the first in the lowest place; and small whole numbers as planes of bits."""

from typing import Any, TypeAlias

import numpy as np

from fedemu.types import Bytes

Whole: TypeAlias = np.ndarray[Any, Any]
"""Of an unsigned type, shape (d,)."""

Bits: TypeAlias = np.ndarray[Any, np.dtype[np.uint8]]
"""Zeros and ones, shape (d,)."""


def packed(size: int) -> Bytes:
    """Return what that many bits take."""
    return (size + 7) // 8


def pack(flags: Whole) -> bytes:
    """Make a bit of each entry, shape (d,): 1 where it is not 0. The last byte is filled with zeros."""
    return np.packbits(flags, bitorder="little").tobytes()


def unpack(data: memoryview, size: int) -> Bits:
    """Read that many bits from exactly the bytes that they take.

    Raises:
        ValueError: the last byte is not filled with zeros.
    """
    bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
    if bits[size:].any():
        raise ValueError(f"bits came after the first {size}; zeros were expected")
    return bits[:size]


def pack_planes(numbers: Whole, bits: int) -> bytes:
    """Make a plane of each of the lowest bits of the numbers, the lowest first."""
    return b"".join(pack(numbers & (1 << bit)) for bit in range(bits))


def unpack_planes(data: memoryview, size: int, bits: int) -> Whole:
    """Read that many numbers of that many bits, at most 16, from exactly the bytes that they take.

    Raises:
        ValueError: the last byte of a plane is not filled with zeros.
    """
    numbers: Whole = np.zeros(size, np.uint8 if bits <= 8 else np.uint16)
    step = packed(size)
    for bit in range(bits):
        plane = unpack(data[bit * step : (bit + 1) * step], size)
        numbers |= plane.astype(numbers.dtype, copy=False) << bit
    return numbers
