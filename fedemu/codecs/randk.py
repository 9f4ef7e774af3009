"""Random-k: numbers of randomly chosen places travel, and the seed of the choice instead of the places.

Konečný et al., "Federated Learning: Strategies for Improving Communication Efficiency", 2016, section 2 (random
mask); Stich et al., "Sparsified SGD with Memory", NeurIPS 2018, for its use with error feedback. The numbers are sent
unscaled, as error feedback wants them: without it the mean is too small by the factor `ratio`.

A message: the seed as uint64, then k numbers as float32, in the order in which their places are drawn from NumPy's
PCG64 with that seed.
"""

import numpy as np
import torch

from fedemu.codecs._base import Codec, Cost
from fedemu.codecs._bytes import FLOAT, expect, finite
from fedemu.codecs._kept import kept
from fedemu.types import Bytes, Indices, Rng, Vector
from fedemu.units import Ratio

SEED = 8
"""Bytes of it."""


def randk(*, ratio: Ratio = 0.01) -> Codec:
    """Send only randomly chosen numbers, and the seed of the choice; the others become 0.

    Args:
        ratio: How many of the numbers travel, at least one.
    """

    def length(size: int) -> Bytes:
        return SEED + 4 * kept(size, ratio)

    def encode(vector: Vector, rng: Rng) -> bytes:
        seed = rng.bytes(SEED)
        chosen = vector.numpy()[_places(seed, len(vector), kept(len(vector), ratio))]
        return seed + chosen.astype(FLOAT, copy=False).tobytes()

    def decode(data: memoryview, size: int) -> Vector:
        expect(data, length(size), size)
        numbers = np.zeros(size, np.float32)
        numbers[_places(bytes(data[:SEED]), size, kept(size, ratio))] = np.frombuffer(data[SEED:], FLOAT)
        return finite(torch.from_numpy(numbers))

    cost = Cost(encode=2.0e-10 + 1.2e-8 * ratio, decode=3.5e-10 + 1.1e-8 * ratio)
    return Codec(encode, decode, length, cost, sparse=True)


def _places(seed: bytes, size: int, count: int) -> Indices:
    """Return that many distinct places in a vector, all choices equally likely, drawn from nothing but the seed."""
    rng = np.random.Generator(np.random.PCG64(int.from_bytes(seed, "little")))
    return rng.choice(size, count, replace=False, shuffle=False)
