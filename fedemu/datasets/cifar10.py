"""CIFAR-10: 60,000 colour pictures of 32 x 32, in the official binary version.

Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009. An example is a label byte and 3072 pixel
bytes, channel by channel. The hashes are those of the files in cifar-10-binary.tar.gz, as independent sources (among
them ankane/torchvision-ruby) state them.
"""

from pathlib import Path

import torch

from fedemu.datasets._base import Dataset, Examples
from fedemu.datasets._files import read_verified, weakest
from fedemu.errors import DataError

_FOLDER = "cifar-10-batches-bin"
_SHA256 = {
    "data_batch_1.bin": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
    "data_batch_2.bin": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
    "data_batch_3.bin": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
    "data_batch_4.bin": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
    "data_batch_5.bin": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
    "test_batch.bin": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
}
_SHAPE = (3, 32, 32)
_RECORD = 1 + 3 * 32 * 32


def cifar10(folder: Path, /) -> Dataset:
    """Colour pictures of 32x32: 50,000 to train, 10,000 to test, 10 classes."""
    batches, verified = [], []
    for name, sha256 in _SHA256.items():
        content, by = read_verified(folder, f"{_FOLDER}/{name}", sha256, archive="cifar-10-binary.tar.gz")
        batches.append(_parse(folder / _FOLDER / name, content))
        verified.append(by)
    *train, test = batches
    whole = Examples(torch.cat([batch.x for batch in train]), torch.cat([batch.y for batch in train]))
    # pixels to -1..1, as in Flower's quickstart
    half = (0.5, 0.5, 0.5)
    return Dataset("cifar10", whole, test, _SHAPE, 10, 255, half, half, weakest(*verified))


def _parse(path: Path, content: bytes) -> Examples:
    if len(content) % _RECORD:
        raise DataError(f"{path} has {len(content)} bytes, not a multiple of {_RECORD}; get it anew")
    records = torch.frombuffer(bytearray(content), dtype=torch.uint8).view(-1, _RECORD)
    return Examples(records[:, 1:].reshape(-1, *_SHAPE), records[:, 0].long())
