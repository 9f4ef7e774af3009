"""Scaled signs: one bit for each number, and their mean magnitude.

Karimireddy et al., "Error Feedback Fixes SignSGD and other Gradient Compression Schemes", ICML 2019, Algorithm 1
(EF-SignSGD): v becomes (‖v‖₁ / d) sign(v), for the whole vector at once. A zero counts as plus, as one bit has no third
value.

A message: the mean magnitude as float32, then a bit for each number, 1 where it is below 0.
"""

import numpy as np
import torch

from fedemu.codecs._base import Codec, Cost
from fedemu.codecs._bits import pack, packed, unpack
from fedemu.codecs._bytes import FLOAT, expect, scales
from fedemu.types import Bytes, Rng, Vector

SCALE = FLOAT.itemsize


def sign() -> Codec:
    """Send the sign of every number, and the mean of all magnitudes for them to stand for."""

    def length(size: int) -> Bytes:
        return SCALE + packed(size)

    def encode(vector: Vector, rng: Rng) -> bytes:
        numbers = vector.numpy()
        magnitude = np.abs(numbers).mean(dtype=np.float64)
        return FLOAT.type(magnitude).tobytes() + pack(numbers < 0)

    def decode(data: memoryview, size: int) -> Vector:
        expect(data, length(size), size)
        [magnitude] = scales(data[:SCALE])
        numbers = unpack(data[SCALE:], size).astype(np.float32)
        numbers *= -2
        numbers += 1
        numbers *= magnitude
        return torch.from_numpy(numbers)

    return Codec(encode, decode, length, Cost(encode=6.4e-10, decode=4.2e-10), sparse=True)
