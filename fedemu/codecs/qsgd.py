"""QSGD: unbiased quantisation by random rounding.

Alistarh et al., "QSGD: Communication-Efficient SGD via Gradient Quantization and Encoding", NeurIPS 2017, section 3.1:
with s levels and the norm ‖v‖ of a bucket, |v_i| becomes ‖v‖ l/s or ‖v‖ (l+1)/s, the neighbours of |v_i|, at random so
that its mean is |v_i|. The variance of a bucket of d numbers is at most min(d/s², √d/s) ‖v‖² (Lemma 3.1). Where that
factor is not below 1, as by default, this is no contraction: error feedback then makes things worse, and is not needed,
as nothing is lost in the mean.

Deviations from the paper: levels are packed in the fewest whole bits each, ceil(log2(2s+1)), rather than in Elias
codes, which are shorter where most levels are 0 (zstd around it has much of that); the paper's experiments divide by
the largest magnitude rather than by the norm.

A message: each bucket's norm as float32, then plane after plane of the bits of `level + s`, the lowest first.
"""

from typing import Annotated

import numpy as np
import torch
from pydantic import Field

from fedemu.codecs import _blocks
from fedemu.codecs._base import LARGEST, Codec, Cost
from fedemu.codecs._bits import pack_planes, packed, unpack_planes
from fedemu.codecs._bytes import FLOAT, Floats, expect, scales
from fedemu.types import Bytes, Rng, Vector
from fedemu.units import Count


def qsgd(*, levels: Annotated[int, Field(ge=1, le=32767)] = 7, bucket: Count = 512) -> Codec:
    """Round every number at random to a neighbouring fraction of its bucket's norm, right in the mean.

    Args:
        levels: s of the paper, steps from 0 to the norm: 1 takes 2 bits for a number, 7 takes 4, 127 takes 8.
        bucket: Numbers that share a norm; the last bucket of a vector may be shorter.
    """
    bits = (2 * levels).bit_length()

    def length(size: int) -> Bytes:
        return _blocks.scales_length(size, bucket) + bits * packed(size)

    def encode(vector: Vector, rng: Rng) -> bytes:
        buckets = _blocks.split(vector, bucket)
        norms = _norms(buckets)
        steps = _blocks.divide(buckets, norms).reshape(-1)[: len(vector)]
        np.abs(steps, out=steps)
        steps *= levels
        rounded = np.floor(steps)
        steps -= rounded
        rounded += rng.random(len(vector), dtype=np.float32) < steps
        np.copysign(rounded, vector.numpy(), out=rounded)
        rounded += levels
        codes = rounded.astype(np.uint8 if bits <= 8 else np.uint16)
        return norms.astype(FLOAT, copy=False).tobytes() + pack_planes(codes, bits)

    def decode(data: memoryview, size: int) -> Vector:
        expect(data, length(size), size)
        start = _blocks.scales_length(size, bucket)
        norms, codes = scales(data[:start]), unpack_planes(data[start:], size, bits)
        if codes.max() > 2 * levels:
            raise ValueError(f"a level of {int(codes.max()) - levels} came; -{levels}..{levels} was expected")
        numbers = codes.astype(np.float32)
        numbers -= levels
        numbers /= levels
        numbers *= _blocks.spread(norms, bucket, size)
        return torch.from_numpy(numbers)

    cost = Cost(encode=4.9e-9 + 5e-11 * bits, decode=5.6e-10 + 3.9e-10 * bits)
    return Codec(encode, decode, length, cost)


def _norms(buckets: Floats) -> Floats:
    """Return the Euclidean norm of each row, never below its largest magnitude.

    One that is too large for float32 becomes float32's largest: any divisor that is not below a bucket's numbers leaves
    the rounding unbiased.
    """
    squares = np.einsum("ij,ij->i", buckets, buckets, dtype=np.float64)
    norms: Floats = np.minimum(np.sqrt(squares), LARGEST).astype(np.float32)
    return norms
