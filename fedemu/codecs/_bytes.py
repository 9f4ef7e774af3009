"""Bytes that came from somebody else: looked at before they are used."""

from typing import Any, TypeAlias

import numpy as np
import torch

from fedemu.types import Bytes, Vector

Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float32]]
"""Any shape."""

FLOAT = np.dtype("<f4")
"""A number as it travels."""


def expect(data: memoryview, length: Bytes, size: int) -> None:
    """Raise ValueError unless there are exactly `length` bytes for a vector of `size` numbers."""
    if data.nbytes != length:
        raise ValueError(f"{data.nbytes} bytes came for {size} numbers; {length} were expected")


def scales(data: memoryview) -> Floats:
    """Read scales.

    Raises:
        ValueError: one is not finite or below 0.
    """
    found = np.frombuffer(data, FLOAT)
    wrong = found[~(np.isfinite(found) & (found >= 0))]
    if len(wrong):
        raise ValueError(f"a scale of {wrong[0]} came; a finite one of at least 0 was expected")
    return found


def finite(vector: Vector) -> Vector:
    """Return the vector as it is.

    Raises:
        ValueError: a number in it is infinite or none.
    """
    if not torch.stack(torch.aminmax(vector)).isfinite().all():
        raise ValueError("a number came that is not finite; finite ones were expected")
    return vector
