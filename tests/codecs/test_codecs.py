"""What every codec owes, also one that is added later, and how near each comes to the vector."""

import importlib
import pkgutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fedemu.codecs
from fedemu.codecs._base import Codec
from fedemu.rng import stream

SIZES = [1, 2, 7, 1000, 100_003]
LARGEST = float(np.finfo(np.float32).max)
SMALLEST = float(np.finfo(np.float32).smallest_subnormal)

PARAMETERS: dict[str, list[dict[str, Any]]] = {
    "int8": [{}, {"block": 1}, {"block": 3}, {"block": 10**12}],
    "qsgd": [{}, {"levels": 1}, {"levels": 127, "bucket": 10**12}, {"levels": 128}, {"levels": 32767, "bucket": 3}],
    "topk": [{}, {"ratio": 0.0}, {"ratio": 0.3}, {"ratio": 1.0}],
    "randk": [{}, {"ratio": 0.0}, {"ratio": 0.3}, {"ratio": 1.0}],
}
"""Beside the defaults, for kinds that have parameters; blocks of more than the vector are blocks of the vector."""

VALUES: dict[str, Callable[[int], torch.Tensor]] = {
    "normal": lambda size: torch.from_numpy(stream(size, "v").standard_normal(size, dtype=np.float32)),
    "zeros": torch.zeros,
    "huge": lambda size: torch.from_numpy(stream(size, "h").choice([-LARGEST, LARGEST, 1.0], size).astype(np.float32)),
    "tiny": lambda size: torch.from_numpy(
        stream(size, "t").choice([-SMALLEST, SMALLEST, 0.0], size).astype(np.float32)
    ),
    "mixed": lambda size: torch.from_numpy(
        (10.0 ** stream(size, "m").uniform(-44, 38, size) * stream(size, "s").choice([-1, 1], size)).astype(np.float32)
    ),
}


def kinds() -> list[Any]:
    """Return every codec of the room, with each of its parameter sets."""
    found = []
    for module in pkgutil.iter_modules(fedemu.codecs.__path__):
        if not module.name.startswith("_"):
            build = getattr(importlib.import_module(f"fedemu.codecs.{module.name}"), module.name)
            for keys in PARAMETERS.get(module.name, [{}]):
                name = " ".join([module.name, *(f"{key}={value}" for key, value in keys.items())])
                found.append(pytest.param(build(**keys), id=name))
    return found


EVERY_KIND = pytest.mark.parametrize("codec", kinds())


def through(codec: Codec, vector: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """Encode and decode."""
    return codec.decode(memoryview(codec.encode(vector, stream(seed, "codec"))), len(vector))


@EVERY_KIND
@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("size", SIZES)
def test_a_vector_comes_back_finite_and_as_long_and_takes_what_was_announced(
    codec: Codec, size: int, values: str
) -> None:
    """Shape, type and length of the bytes are contracts; the input is not written to, and nor is the bytes' memory."""
    vector = VALUES[values](size)
    kept = vector.clone()
    data = codec.encode(vector, stream(0, "codec"))
    assert len(data) == codec.length(size)
    result = codec.decode(memoryview(data), size)
    assert (result.shape, result.dtype) == ((size,), torch.float32)
    assert result.isfinite().all()
    assert torch.equal(vector, kept)
    result += 1  # memory of its own
    assert codec.encode(vector, stream(0, "codec")) == data


@EVERY_KIND
@pytest.mark.parametrize("values", VALUES)
def test_no_number_changes_its_sign(codec: Codec, values: str) -> None:
    """It may become 0; and only a 0 may get a sign."""
    vector = VALUES[values](1000)
    assert (through(codec, vector) * vector.sign() * (vector != 0) >= 0).all()


@EVERY_KIND
def test_a_vector_that_is_part_of_another_is_no_different(codec: Codec) -> None:
    """Every second number of 2000: the same bytes as its copy has."""
    part = VALUES["normal"](2000)[::2]
    assert codec.encode(part, stream(0, "codec")) == codec.encode(part.contiguous(), stream(0, "codec"))


@EVERY_KIND
@pytest.mark.parametrize("by", [-1, 1, 4, 1000])
def test_bytes_that_are_too_few_or_too_many_are_refused(codec: Codec, by: int) -> None:
    """The length follows from the size; one byte more or less is somebody else's message."""
    data = codec.encode(VALUES["normal"](1000), stream(0, "codec"))
    wrong = data[:by] if by < 0 else data + bytes(by)
    with pytest.raises(ValueError, match=f"{len(wrong)} bytes came for 1000 numbers; {len(data)} were expected"):
        codec.decode(memoryview(wrong), 1000)
    with pytest.raises(ValueError, match=r"^0 bytes came for 1000 numbers"):
        codec.decode(memoryview(b""), 1000)


@EVERY_KIND
@settings(deadline=None)
@given(data=st.data(), size=st.integers(1, 70))
def test_junk_is_refused_or_a_vector(codec: Codec, data: st.DataObject, size: int) -> None:
    """Whatever the bytes are: ValueError, or a finite vector of that length."""
    exact = st.binary(min_size=codec.length(size), max_size=codec.length(size))
    junk = data.draw(st.one_of(exact, st.binary(max_size=600)))
    try:
        result = codec.decode(memoryview(junk), size)
    except ValueError:
        return
    assert (result.shape, result.dtype) == ((size,), torch.float32)
    assert result.isfinite().all()


@EVERY_KIND
def test_costs_are_nanoseconds(codec: Codec) -> None:
    """A core streams about 10^10 bytes a second, and none of these works longer than 100 ns on a number."""
    assert 1e-10 < codec.cost.encode < 1e-7
    assert 1e-10 < codec.cost.decode < 1e-7


LENGTHS = {
    "none": [({}, 7, 28), ({}, 1000, 4000)],
    "fp16": [({}, 7, 14), ({}, 1000, 2000)],
    "bf16": [({}, 7, 14), ({}, 1000, 2000)],
    "int8": [({}, 7, 4 + 7), ({}, 2049, 8 + 2049), ({"block": 3}, 7, 12 + 7)],
    "qsgd": [
        ({}, 7, 4 + 4),
        ({}, 1000, 8 + 4 * 125),
        ({"levels": 1}, 1001, 8 + 2 * 126),
        ({"levels": 3}, 512, 4 + 3 * 64),
        ({"levels": 4}, 512, 4 + 4 * 64),
        ({"levels": 127}, 512, 4 + 8 * 64),
        ({"levels": 128}, 512, 4 + 9 * 64),
        ({"levels": 32767}, 512, 4 + 16 * 64),
    ],
    "topk": [({}, 7, 8), ({}, 1000, 80), ({"ratio": 0.25}, 10, 16), ({"ratio": 0.0}, 10, 8)],
    "randk": [({}, 7, 12), ({}, 1000, 48), ({"ratio": 0.25}, 10, 16), ({"ratio": 0.0}, 10, 12)],
    "sign": [({}, 7, 5), ({}, 8, 5), ({}, 9, 6), ({}, 1000, 129)],
}
"""By hand: parameters, size, bytes. 25 % of 10 are 2.5, which is rounded to the even 2."""


@pytest.mark.parametrize(
    ("kind", "keys", "size", "length"), [(kind, *case) for kind, cases in LENGTHS.items() for case in cases]
)
def test_bytes_are_as_many_as_counted_by_hand(kind: str, keys: dict[str, Any], size: int, length: int) -> None:
    """Scales and norms are 4 bytes a block, levels the fewest whole bits, places and numbers 4 bytes each."""
    codec = getattr(importlib.import_module(f"fedemu.codecs.{kind}"), kind)(**keys)
    assert codec.length(size) == length
    assert len(codec.encode(VALUES["normal"](size), stream(0, "codec"))) == length


def halved(bits: int, smallest: float) -> Callable[[np.ndarray], np.ndarray]:
    """Return the error bound of rounding to that many bits: relative, and absolute near 0."""
    return lambda v: np.maximum(np.abs(v) * 2.0**-bits, smallest / 2)


def of_blocks(length: int, share: float) -> Callable[[np.ndarray], np.ndarray]:
    """Return the bound of that share of each block's largest magnitude, and of float32's own rounding."""

    def bound(v: np.ndarray) -> np.ndarray:
        blocks = [np.full_like(v[i : i + length], np.abs(v[i : i + length]).max()) for i in range(0, len(v), length)]
        return np.concatenate(blocks) * (share + 2.0**-22) + SMALLEST

    return bound


BOUNDS = {
    "none": np.zeros_like,
    "fp16": halved(11, 2.0**-24),
    "bf16": halved(8, 2.0**-133),
    "int8": of_blocks(2048, 1 / 254),
}


@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", BOUNDS)
def test_rounding_stays_within_half_a_step(kind: str, size: int, values: str) -> None:
    """fp16 has 11 bits and bf16 8, the leading one counted; int8's step is 1/127 of its block's largest magnitude."""
    codec = getattr(importlib.import_module(f"fedemu.codecs.{kind}"), kind)()
    vector = VALUES[values](size)
    if kind == "fp16":
        vector = vector.clamp(-65504, 65504)
    exact = vector.numpy().astype(np.float64)
    assert (np.abs(through(codec, vector).numpy() - exact) <= BOUNDS[kind](exact)).all()


@pytest.mark.parametrize(
    ("kind", "limit"), [("fp16", 65504.0), ("bf16", float.fromhex("0x1.fep127")), ("none", LARGEST)]
)
def test_what_is_too_large_becomes_the_largest_and_not_infinite(kind: str, limit: float) -> None:
    """65504 and (2 - 2^-7) 2^127 are the largest numbers of binary16 and bfloat16."""
    codec = getattr(importlib.import_module(f"fedemu.codecs.{kind}"), kind)()
    assert through(codec, torch.tensor([LARGEST, -LARGEST])).tolist() == [limit, -limit]


WRITTEN: dict[str, Callable[[float], bytes]] = {
    "none": lambda number: np.array(number, "<f4").tobytes(),
    "fp16": lambda number: np.array(number, "<f2").tobytes(),
    "bf16": lambda number: np.array(number, "<f4").tobytes()[2:],
    "topk": lambda number: np.array(number, "<f4").tobytes(),
    "randk": lambda number: np.array(number, "<f4").tobytes(),
}


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", WRITTEN)
def test_numbers_that_are_not_finite_are_refused(kind: str, wrong: float) -> None:
    """The last number of the message is replaced: in all of them it is a number and no place."""
    codec = getattr(importlib.import_module(f"fedemu.codecs.{kind}"), kind)()
    data = codec.encode(VALUES["normal"](1000), stream(0, "codec"))
    bad = WRITTEN[kind](wrong)
    with pytest.raises(ValueError, match="a number came that is not finite; finite ones were expected"):
        codec.decode(memoryview(data[: -len(bad)] + bad), 1000)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -1.0])
@pytest.mark.parametrize("kind", ["int8", "qsgd", "sign"])
def test_scales_that_are_not_finite_or_negative_are_refused(kind: str, wrong: float) -> None:
    """The first four bytes are a scale in all three."""
    codec = getattr(importlib.import_module(f"fedemu.codecs.{kind}"), kind)()
    data = codec.encode(VALUES["normal"](1000), stream(0, "codec"))
    with pytest.raises(ValueError, match=f"a scale of {wrong} came; a finite one of at least 0 was expected"):
        codec.decode(memoryview(np.array([wrong], "<f4").tobytes() + data[4:]), 1000)
