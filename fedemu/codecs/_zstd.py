"""Zstandard (RFC 8878) around the bytes of a codec, with a bound on what comes out of it.

What it costs grows with the level, by two orders of magnitude, and depends on the bytes: the figures are those of the
float32 noise that a model looks like, which it finds little in.
"""

from typing import Final

import zstandard

from fedemu.types import Bytes, Seconds

COMPRESS: Final = ((2, 1.2e-9), (10, 1.9e-9), (12, 7.9e-9), (15, 2.1e-8), (22, 1.2e-7))
"""Up to which level, and seconds for a byte of input. Measured as a `Cost` is."""
DECOMPRESS: Seconds = 0.90e-9
"""For a byte of output, whatever the level."""


def compress_cost(level: int) -> Seconds:
    """Return the time that a byte of input takes at that level, 1..22."""
    return next(cost for most, cost in COMPRESS if level <= most)


def compress(data: bytes, level: int) -> bytes:
    """Return a frame that says how long its content is."""
    return zstandard.ZstdCompressor(level=level).compress(data)


def decompress(data: memoryview, most: Bytes) -> bytes:
    """Return the content of a frame, at most that many bytes.

    Raises:
        ValueError: this is not one whole frame that says how long its content is, or that is more than `most`.
            Nothing was allocated for it.
    """
    try:
        length = zstandard.frame_content_size(data)
        if not 0 <= length <= most:
            found = "of unknown length" if length < 0 else f"of {length} bytes"
            raise ValueError(f"a zstd frame {found} came; at most {most} were expected")
        return zstandard.ZstdDecompressor().decompress(data, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise ValueError(f"{len(data)} bytes came that are no zstd frame, as was expected: {error}") from None
