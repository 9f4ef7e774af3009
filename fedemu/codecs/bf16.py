"""Brain floating point: the upper half of a float32, two bytes for each number.

Seven bits after the leading one and float32's own exponent (Kalamkar et al., "A Study of BFLOAT16 for Deep Learning
Training", 2019): a relative error of at most 2^-8 wherever float32 is normal, and half the smallest number, 2^-134,
below. The few numbers beyond 3.39e38 that would round to infinity become the largest finite one.
"""

import numpy as np
import torch

from fedemu.codecs._base import Codec, Cost
from fedemu.codecs._bytes import expect, finite
from fedemu.types import Bytes, Rng, Vector

LARGEST = torch.finfo(torch.bfloat16).max
HALF = np.dtype("<u2")


def bf16() -> Codec:
    """Round every number to the sixteen bits of bfloat16, to the nearest and of two to the even one."""

    def length(size: int) -> Bytes:
        return 2 * size

    def encode(vector: Vector, rng: Rng) -> bytes:
        halves = vector.clamp(-LARGEST, LARGEST).bfloat16().view(torch.uint16)
        return halves.numpy().astype(HALF, copy=False).tobytes()

    def decode(data: memoryview, size: int) -> Vector:
        expect(data, length(size), size)
        words = np.frombuffer(data, HALF).astype(np.uint32)
        words <<= 16
        return finite(torch.from_numpy(words.view(np.float32)))

    return Codec(encode, decode, length, Cost(encode=3.3e-10, decode=3.0e-10))
