"""Uniform symmetric quantisation to eight bits, with a scale for each block.

The blocks are those of Dettmers et al., "8-bit Optimizers via Block-wise Quantization", ICLR 2022: a block's largest
magnitude travels as a float32, and each number as the nearest of 255 evenly spaced ones from minus to plus that, so
that an outlier costs only its own block precision. Their codes are spaced unevenly (dynamic tree quantisation); these
are the plain ones. Rounding is to the nearest, of two to the even one: deterministic and biased. The unbiased quantiser
of FedPAQ (Reisizadeh et al., AISTATS 2020, Example 1) is `qsgd`.

The error of a number is at most half a step: its block's largest magnitude / 254.
"""

import numpy as np
import torch

from fedemu.codecs import _blocks
from fedemu.codecs._base import Codec, Cost
from fedemu.codecs._bytes import FLOAT, Floats, expect, scales
from fedemu.types import Bytes, Rng, Vector
from fedemu.units import Count

LEVELS = 127
"""On each side of 0."""


def int8(*, block: Count = 2048) -> Codec:
    """Round every number to one of 255 evenly spaced ones up to the largest magnitude of its block.

    Args:
        block: Numbers that share a scale; the last block of a vector may be shorter.
    """

    def length(size: int) -> Bytes:
        return _blocks.scales_length(size, block) + size

    def encode(vector: Vector, rng: Rng) -> bytes:
        blocks = _blocks.split(vector, block)
        largest: Floats = np.abs(blocks).max(axis=1)
        steps = _blocks.divide(blocks, largest)
        steps *= LEVELS
        np.rint(steps, out=steps)
        codes = steps.astype(np.int8).reshape(-1)[: len(vector)]
        return largest.astype(FLOAT, copy=False).tobytes() + codes.tobytes()

    def decode(data: memoryview, size: int) -> Vector:
        expect(data, length(size), size)
        start = _blocks.scales_length(size, block)
        largest, codes = scales(data[:start]), np.frombuffer(data[start:], np.int8)
        if codes.min() < -LEVELS:
            raise ValueError(f"a code of {codes.min()} came; -{LEVELS}..{LEVELS} was expected")
        numbers = codes.astype(np.float32)
        numbers /= LEVELS
        numbers *= _blocks.spread(largest, block, size)
        return torch.from_numpy(numbers)

    return Codec(encode, decode, length, Cost(encode=9.6e-10, decode=4.5e-10))
