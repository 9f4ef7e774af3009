"""Data sets in the IDX format of MNIST: a big-endian header and bytes, under gzip.

The header is 0, 0, the type (8: unsigned byte), the number of dimensions, and each dimension in 4 bytes.
"""

import gzip
import math
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from fedemu.datasets._base import Examples, Verified
from fedemu.datasets._files import read_verified, weakest
from fedemu.errors import DataError


def read_idx_pairs(
    folder: Path, directory: str, sha256: Mapping[str, str], *, archive: str
) -> tuple[Examples, Examples, Verified]:
    """Return the training and the test examples of an MNIST-like data set, x of shape (n, 1, 28, 28), uint8.

    Args:
        folder: The data directory.
        directory: Where the four files stand in it, with `/`.
        sha256: The official hash of each file, by name.
        archive: Where the files come from.

    Raises:
        DataError: A file is missing, not vouched for, or not in the format.
    """
    contents = {name: read_verified(folder, f"{directory}/{name}", sha256[name], archive=archive) for name in sha256}
    arrays = {name: _parse(folder / directory / name, content) for name, (content, _) in contents.items()}
    train, test = (
        Examples(arrays[f"{part}-images-idx3-ubyte.gz"][:, None], arrays[f"{part}-labels-idx1-ubyte.gz"].long())
        for part in ("train", "t10k")
    )
    return train, test, weakest(*(verified for _, verified in contents.values()))


def _parse(path: Path, content: bytes) -> Tensor:
    try:
        raw = gzip.decompress(content)
        zeros, kind, rank = struct.unpack_from(">HBB", raw)
        shape = struct.unpack_from(f">{rank}I", raw, 4)
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise DataError(f"{path} is not a gzipped IDX file ({error}); get it anew") from error
    start = 4 + 4 * rank
    if (zeros, kind) != (0, 8) or len(raw) != start + math.prod(shape):
        raise DataError(
            f"{path} is not an IDX file of bytes: header {raw[:start].hex()}, {len(raw)} bytes; get it anew"
        )
    return torch.frombuffer(bytearray(raw[start:]), dtype=torch.uint8).view(shape)
