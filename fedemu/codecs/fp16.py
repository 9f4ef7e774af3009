"""Half precision: IEEE 754 binary16, two bytes for each number.

Ten bits after the leading one and five of exponent: a relative error of at most 2^-11 between 2^-14 and 65504, an
absolute one of at most 2^-25 below. What is larger becomes ±65504, and not the infinity that the standard's rounding
makes of it; a difference of two models does not come near.
"""

import numpy as np
import torch

from fedemu.codecs._base import Codec, Cost
from fedemu.codecs._bytes import expect, finite
from fedemu.types import Bytes, Rng, Vector

LARGEST = torch.finfo(torch.float16).max
HALF = np.dtype("<f2")


def fp16() -> Codec:
    """Round every number to half precision; those beyond 65504 become the largest of it."""

    def length(size: int) -> Bytes:
        return 2 * size

    def encode(vector: Vector, rng: Rng) -> bytes:
        return vector.clamp(-LARGEST, LARGEST).half().numpy().astype(HALF, copy=False).tobytes()

    def decode(data: memoryview, size: int) -> Vector:
        expect(data, length(size), size)
        return finite(torch.from_numpy(np.frombuffer(data, HALF).astype(np.float16)).float())

    return Codec(encode, decode, length, Cost(encode=3.3e-10, decode=2.8e-10))
