"""What codecs cost on this machine, beside what their files say: `python -m tests.codecs.timing`.

One thread, standard normal numbers, the median of several runs; nanoseconds for a number, and for a byte with zstd.
"""

import statistics
import time
from collections.abc import Callable

import torch

from fedemu.codecs import _base, _zstd
from fedemu.codecs._base import Codec
from fedemu.codecs.bf16 import bf16
from fedemu.codecs.fp16 import fp16
from fedemu.codecs.int8 import int8
from fedemu.codecs.none import none
from fedemu.codecs.qsgd import qsgd
from fedemu.codecs.randk import randk
from fedemu.codecs.sign import sign
from fedemu.codecs.topk import topk
from fedemu.rng import stream

RUNS = 9
SIZES = (10**6, 10**7)
CODECS = {
    "none": none(),
    "fp16": fp16(),
    "bf16": bf16(),
    "int8": int8(),
    "qsgd levels=1": qsgd(levels=1),
    "qsgd levels=7": qsgd(levels=7),
    "qsgd levels=127": qsgd(levels=127),
    "topk ratio=1%": topk(ratio=0.01),
    "topk ratio=10%": topk(ratio=0.1),
    "topk ratio=50%": topk(ratio=0.5),
    "randk ratio=1%": randk(ratio=0.01),
    "randk ratio=10%": randk(ratio=0.1),
    "randk ratio=50%": randk(ratio=0.5),
    "sign": sign(),
}


def normal(size: int) -> torch.Tensor:
    """Return the same random vector every time."""
    return torch.from_numpy(stream(0, "timing").standard_normal(size, dtype="float32"))


def seconds(call: Callable[[], object], runs: int = RUNS) -> float:
    """Return the median time of a call, after one that does not count."""
    call()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def line(name: str, measured: float, written: float) -> None:
    """Print a figure for a number or a byte."""
    print(f"{name:34} {measured * 1e9:8.2f} ns measured {written * 1e9:8.2f} ns written {measured / written:6.2f}")


def of_codec(name: str, codec: Codec, size: int) -> None:
    """Print what a codec costs and saves."""
    vector, rng = normal(size), stream(1, "timing")
    data = codec.encode(vector, rng)
    line(f"{name} encode", seconds(lambda: codec.encode(vector, rng)) / size, codec.cost.encode)
    line(f"{name} decode", seconds(lambda: codec.decode(memoryview(data), size)) / size, codec.cost.decode)
    print(f"{'':34} {4 * size / len(data):8.1f} times smaller")


def of_zstd(level: int, data: bytes) -> None:
    """Print what zstd costs at that level."""
    frame, runs = _zstd.compress(data, level), 1 if level > 12 else RUNS
    taken = seconds(lambda: _zstd.compress(data, level), runs) / len(data)
    line(f"zstd {level} compress", taken, _zstd.compress_cost(level))
    taken = seconds(lambda: _zstd.decompress(memoryview(frame), len(data))) / len(data)
    line(f"zstd {level} decompress", taken, _zstd.DECOMPRESS)


def main() -> None:
    torch.set_num_threads(1)
    for size in SIZES:
        print(f"d = {size}")
        for name, codec in CODECS.items():
            of_codec(name, codec, size)
        vector = normal(size)
        line("sum of two", seconds(lambda v=vector: v + v) / size, _base.ADD)
    data = none().encode(normal(10**6), stream(1, "timing"))
    for level in (1, 3, 6, 9, 10, 12, 15, 19, 22):
        of_zstd(level, data)


if __name__ == "__main__":
    main()
