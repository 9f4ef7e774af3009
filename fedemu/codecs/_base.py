"""What a codec is: a vector to bytes and back, what that costs, and what may stand around it.

Error feedback (Seide et al., "1-Bit Stochastic Gradient Descent", Interspeech 2014; Karimireddy et al., "Error Feedback
Fixes SignSGD", ICML 2019) and the compression of the bytes are the same around every kind, and so no kinds themselves.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch

from fedemu.codecs import _zstd
from fedemu.errors import RunError
from fedemu.types import Bytes, Rng, Seconds, Vector


class Cost(NamedTuple):
    """What a codec takes of a client's processor.

    The kinds' own figures were measured on the machine that fedemu was written on: one thread on a core of an AMD EPYC,
    a vector of 10^6 standard normal numbers, the median of nine runs. For 10^7 numbers, which fit no cache, most are
    two to four times as large. `python -m tests.codecs.timing` measures them again.
    """

    encode: Seconds
    """For each number of the vector."""
    decode: Seconds


class Codec(NamedTuple):
    """A vector to bytes and back; keeps nothing from one to the next."""

    encode: Callable[[Vector, Rng], bytes]
    """Of shape (d,), finite. Writes to nothing that it is given."""
    decode: Callable[[memoryview, int], Vector]
    """Of what `encode` made of a vector of that many numbers: a new vector. Raises ValueError for anything else."""
    length: Callable[[int], Bytes]
    """What a vector of that many numbers takes at most; exactly that, for the kinds that are here."""
    cost: Cost
    sparse: bool = False
    """Leaves most of a vector out, or all but the signs: good for a difference with error feedback, not for a model."""


def is_finite(vector: Vector) -> bool:
    """Return whether all numbers are finite; takes no memory.

    The sum sees every nan and infinity, and so do the least and the largest, which cannot overflow.
    """
    return math.isfinite(vector.sum()) or bool(vector.min().isfinite() and vector.max().isfinite())


LARGEST = torch.finfo(torch.float32).max
"""The largest float32."""

ADD: Seconds = 1.3e-10
"""For a number of the sum of two vectors, measured as a `Cost`."""


class Coding(NamedTuple):
    """A codec and what stands around it."""

    codec: Codec
    feedback: bool = False
    """What was left out of a vector is added to the next one."""
    level: int | None = None
    """Of zstd around the bytes, 1..22; None leaves them as they are."""

    def encode(self, vector: Vector, error: Vector | None, rng: Rng) -> tuple[bytes, Vector | None]:
        """Return the bytes of `vector + error`, and what they leave out of it.

        Args:
            vector: Shape (d,), without NaN; infinities, as of a difference that overflowed, become the largest float32.
            error: What was left out last time, shape (d,); None is nothing.
            rng: Of the codec.

        Returns:
            What is left out has shape (d,), and is None without feedback.

        Raises:
            ValueError: The codec returned no bytes, or more than it says.
        """
        whole = vector if error is None else vector + error
        if not is_finite(whole):  # the sum was too large
            whole = whole.clamp(-LARGEST, LARGEST)
        data = self.codec.encode(whole, rng)
        if not isinstance(data, bytes) or len(data) > self.codec.length(len(whole)):
            found = f"{len(data)} bytes" if isinstance(data, bytes) else f"a {type(data).__name__}"
            raise ValueError(f"encode returned {found}; expected bytes, at most length({len(whole)}) of them")
        left = whole - self._decoded(memoryview(data), len(whole)) if self.feedback else None
        return (data if self.level is None else _zstd.compress(data, self.level)), left

    def decode(self, data: memoryview | bytes, size: int) -> Vector:
        """Return the vector of that many numbers, shape (size,), that the bytes stand for.

        Memory is bounded by `size`, whatever the bytes say.

        Raises:
            ValueError: `encode` cannot have made these bytes of such a vector.
            RunError: The codec failed.
        """
        if size < 1:
            raise ValueError(f"an encoded vector of {size} numbers; expected at least one")
        inner = memoryview(data)
        if self.level is not None:
            inner = memoryview(_zstd.decompress(inner, self.codec.length(size)))
        return self._decoded(inner, size)

    def _decoded(self, data: memoryview, size: int) -> Vector:
        try:
            vector = self.codec.decode(data, size)
        except ValueError:
            raise
        except Exception as error:
            raise RunError(f"decoding failed: {type(error).__name__}: {error}") from error
        if not isinstance(vector, torch.Tensor) or vector.shape != (size,) or vector.dtype != torch.float32:
            about = f" {tuple(vector.shape)} of {vector.dtype}" if isinstance(vector, torch.Tensor) else ""
            expected = f"a float32 tensor of shape ({size},)"
            raise RunError(f"decode returned a {type(vector).__name__}{about}; expected {expected}")
        return vector

    def encode_time(self, size: int) -> Seconds:
        """Return what `encode` takes of a processor for a vector of that many numbers.

        Feedback decodes what was encoded, and adds and subtracts once.
        """
        number = self.codec.cost.encode + (self.codec.cost.decode + 2 * ADD if self.feedback else 0)
        byte = 0 if self.level is None else _zstd.compress_cost(self.level)
        return number * size + byte * self.codec.length(size)

    def decode_time(self, size: int) -> Seconds:
        """Return what `decode` takes of a processor for a vector of that many numbers."""
        byte = 0 if self.level is None else _zstd.DECOMPRESS
        return self.codec.cost.decode * size + byte * self.codec.length(size)
