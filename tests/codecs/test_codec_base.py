"""What stands around a codec: error feedback, zstd, and what they cost."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from fedemu.codecs import _base, _zstd
from fedemu.codecs._base import Codec, Coding, Cost
from fedemu.codecs.bf16 import bf16
from fedemu.codecs.fp16 import fp16
from fedemu.codecs.int8 import int8
from fedemu.codecs.none import none
from fedemu.codecs.qsgd import qsgd
from fedemu.codecs.randk import randk
from fedemu.codecs.sign import sign
from fedemu.codecs.topk import topk
from fedemu.errors import RunError
from fedemu.rng import stream

BUILDERS = [none, fp16, bf16, int8, qsgd, topk, randk, sign]
CONTRACTIONS = {
    "fp16": fp16(),
    "bf16": bf16(),
    "int8": int8(),
    "qsgd": qsgd(levels=127),
    "topk": topk(ratio=0.1),
    "randk": randk(ratio=0.1),
    "sign": sign(),
}


def normal(size: int, name: int = 0) -> torch.Tensor:
    return torch.from_numpy(stream(1, name).standard_normal(size, dtype=np.float32))


@pytest.mark.parametrize("level", [None, 3])
@pytest.mark.parametrize("kind", CONTRACTIONS)
def test_what_is_left_out_comes_later(kind: str, level: int | None) -> None:
    """All that was decoded and the last error are all that was put in, but for float32's rounding."""
    coding, error, rng = Coding(CONTRACTIONS[kind], feedback=True, level=level), None, stream(2)
    inputs, outputs = torch.zeros(1000, dtype=torch.float64), torch.zeros(1000, dtype=torch.float64)
    for round in range(50):
        vector = normal(1000, round)
        data, error = coding.encode(vector, error, rng)
        inputs += vector
        outputs += coding.decode(data, 1000)
    assert error is not None
    assert error.norm() > 0
    assert (outputs + error - inputs).norm() <= 1e-5 * inputs.norm()


def test_without_feedback_nothing_is_left() -> None:
    """None, as there is nothing to remember."""
    assert Coding(topk()).encode(normal(100), None, stream(0))[1] is None


def test_the_error_is_added_and_neither_is_written_to() -> None:
    """Top-1 of (1, 0) + (1, 3) is (0, 3); (2, 0) is left."""
    vector, error = torch.tensor([1.0, 0.0]), torch.tensor([1.0, 3.0])
    coding = Coding(topk(ratio=0.5), feedback=True)
    data, left = coding.encode(vector, error, stream(0))
    assert coding.decode(data, 2).tolist() == [0.0, 3.0]
    assert left is not None
    assert left.tolist() == [2.0, 0.0]
    assert (vector.tolist(), error.tolist()) == ([1.0, 0.0], [1.0, 3.0])


def descend(
    gradients: list[Callable[[torch.Tensor], torch.Tensor]],
    codec: Codec,
    start: torch.Tensor,
    lr: Callable[[int], float],
    *,
    feedback: bool,
    steps: int,
) -> torch.Tensor:
    """Return where gradient descent ends whose clients send lr * gradient through the codec."""
    x, errors = start, [None for _ in gradients]
    coding = Coding(codec, feedback=feedback)
    for step in range(steps):
        total = torch.zeros_like(x)
        for client, gradient in enumerate(gradients):
            data, errors[client] = coding.encode(lr(step) * gradient(x), errors[client], stream(0))
            total += coding.decode(data, len(x))
        x = x - total / len(gradients)
    return x


def test_signs_do_not_converge_without_feedback_and_do_with_it() -> None:
    """Counterexample 2 of Karimireddy et al.: e |x1 + x2| + |x1 - x2| from (1, 1). Every sign vector is (1, -1) or its
    opposite, so that x1 + x2 stays 2; with feedback the iterates reach 0 as the steps get smaller."""

    def gradient(x: torch.Tensor) -> torch.Tensor:
        plus, minus = (1.0 if float(x[0] + sign * x[1]) >= 0 else -1.0 for sign in (1, -1))
        return torch.tensor([0.5 * plus + minus, 0.5 * plus - minus])

    def run(*, feedback: bool) -> torch.Tensor:
        return descend([gradient], sign(), torch.ones(2), lambda t: 0.1 / (t + 1) ** 0.5, feedback=feedback, steps=2000)

    assert float(run(feedback=False).sum()) == pytest.approx(2, abs=1e-4)
    assert run(feedback=True).abs().max() < 0.02


def test_top_1_diverges_without_feedback_and_converges_with_it() -> None:
    """Beznosikov et al., "On Biased Compression for Distributed Learning", Example 1: f_i = <a_i, x>² + ‖x‖²/4 of three
    clients. From t (1, 1, 1) each sends its -11 t / 2 alone, so that every step multiplies x by 1 + 11 lr / 6."""
    directions = [torch.tensor(a) for a in ([-3.0, 2.0, 2.0], [2.0, -3.0, 2.0], [2.0, 2.0, -3.0])]
    gradients = [lambda x, a=a: 2 * (a @ x) * a + x / 2 for a in directions]

    def run(*, feedback: bool, steps: int) -> torch.Tensor:
        return descend(gradients, topk(ratio=1 / 3), torch.ones(3), lambda t: 0.01, feedback=feedback, steps=steps)

    assert run(feedback=False, steps=100).tolist() == pytest.approx([(1 + 0.11 / 6) ** 100] * 3, rel=1e-4)
    assert run(feedback=True, steps=3000).abs().max() < 1e-4


@pytest.mark.parametrize("level", [1, 3, 22])
@pytest.mark.parametrize("build", BUILDERS)
def test_zstd_changes_nothing_but_the_length(build: Callable[[], Codec], level: int) -> None:
    """The same vector comes out of both; zeros become next to nothing."""
    for vector in (normal(1000), torch.zeros(1000), normal(1)):
        plain, _ = Coding(build()).encode(vector, None, stream(3))
        data, _ = Coding(build(), level=level).encode(vector, None, stream(3))
        expected = Coding(build()).decode(plain, len(vector))
        assert torch.equal(Coding(build(), level=level).decode(data, len(vector)), expected)
    zeros, _ = Coding(none(), level=level).encode(torch.zeros(100_000), None, stream(3))
    assert len(zeros) < 100


def frame(content: bytes, *, says_length: bool = True) -> bytes:
    return zstandard.ZstdCompressor(write_content_size=says_length).compress(content)


BAD_FRAMES = {
    "bomb": (frame(bytes(10**8)), "a zstd frame of 100000000 bytes came; at most 40 were expected"),
    "one too many": (frame(bytes(41)), "a zstd frame of 41 bytes came; at most 40 were expected"),
    "one too few": (frame(bytes(39)), "39 bytes came for 10 numbers; 40 were expected"),
    "unknown": (frame(bytes(40), says_length=False), "a zstd frame of unknown length came; at most 40 were expected"),
    "more than it says": (
        frame(bytes(10**8)).replace((10**8).to_bytes(4, "little"), (40).to_bytes(4, "little")),
        "no zstd frame",
    ),
    "something after it": (frame(bytes(40)) + b"x", "no zstd frame"),
    "half of it": (frame(normal(10).numpy().tobytes())[:20], "no zstd frame"),
    "not zstd": (bytes(40), "40 bytes came that are no zstd frame, as was expected"),
    "nothing": (b"", "0 bytes came that are no zstd frame"),
}
"""Bytes that came for ten numbers as they are, 40 bytes."""


@pytest.mark.parametrize("case", BAD_FRAMES)
def test_frames_that_are_not_as_long_as_the_codec_says_are_refused(case: str) -> None:
    """Before memory is taken for them: the length stands in the frame's head, and zstd keeps to it."""
    data, text = BAD_FRAMES[case]
    with pytest.raises(ValueError, match=text):
        Coding(none(), level=3).decode(data, 10)


@settings(deadline=None)
@given(junk=st.one_of(st.binary(max_size=200), st.binary(min_size=38, max_size=42).map(frame)))
def test_junk_is_refused_with_zstd_too(junk: bytes) -> None:
    """ValueError, or a finite vector."""
    try:
        result = Coding(none(), level=3).decode(junk, 10)
    except ValueError:
        return
    assert result.shape == (10,)
    assert result.isfinite().all()


def test_times_are_those_of_all_that_is_done() -> None:
    """Ten numbers of 40 bytes, 2 s to encode one and 3 s to decode it; feedback decodes, adds and subtracts too."""
    codec = none()._replace(cost=Cost(encode=2.0, decode=3.0))
    plain, full = Coding(codec), Coding(codec, feedback=True, level=3)
    assert (plain.encode_time(10), plain.decode_time(10)) == (20.0, 30.0)
    assert full.encode_time(10) == pytest.approx(50 + 20 * _base.ADD + 40 * _zstd.compress_cost(3), rel=1e-12)
    assert full.decode_time(10) == pytest.approx(30 + 40 * _zstd.DECOMPRESS, rel=1e-12)


def test_a_higher_level_is_never_cheaper() -> None:
    """All 22 levels have a cost, from about 1 ns to about 100 ns for a byte."""
    costs = [_zstd.compress_cost(level) for level in range(1, 23)]
    assert costs == sorted(costs)
    assert 1e-9 <= costs[0] < costs[-1] <= 2e-7


@pytest.mark.parametrize(("data", "found"), [(3, "a int;"), (b"x" * 401, "401 bytes;"), (bytearray(4), "a bytearray;")])
def test_a_codec_that_goes_wrong_says_what_it_returned(data: object, found: str) -> None:
    """Somebody's own, which no test has seen before."""
    broken = Coding(none()._replace(encode=lambda vector, rng: data))  # type: ignore[arg-type, return-value]
    with pytest.raises(ValueError, match=r"expected bytes, at most length\(100\) of them") as caught:
        broken.encode(torch.ones(100), None, stream(1))
    assert str(caught.value).startswith(f"encode returned {found}")


def test_a_difference_that_overflowed_travels_as_the_largest_number() -> None:
    """3e38 and an error of 3e38 are more than float32 has; what is left out is still a number."""
    coding = Coding(none(), feedback=True)
    data, left = coding.encode(torch.tensor([3e38, -3e38, 1.0]), torch.tensor([3e38, -3e38, 0.5]), stream(1))
    assert coding.decode(data, 3).tolist() == [_base.LARGEST, -_base.LARGEST, 1.5]
    assert left is not None
    assert left.tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("vector", "text"),
    [
        (3, "decode returned a int; expected a float32 tensor of shape (4,)"),
        (np.ones(4, np.float32), "decode returned a ndarray; expected a float32 tensor of shape (4,)"),
        (torch.ones(3), "decode returned a Tensor (3,) of torch.float32; expected a float32 tensor of shape (4,)"),
        (torch.ones(4).double(), "decode returned a Tensor (4,) of torch.float64; expected a float32 tensor of shape"),
        (None, "decoding failed: ZeroDivisionError: division by zero"),
    ],
)
def test_a_codec_whose_decode_goes_wrong_ends_the_run(vector: object, text: str) -> None:
    """Other than bytes that stand for nothing, a ValueError, which is the sender's fault."""

    def decode(data: memoryview, size: int) -> object:
        return 1 / 0 if vector is None else vector

    broken = Coding(none()._replace(decode=decode))  # type: ignore[arg-type]
    with pytest.raises(RunError) as caught:
        broken.decode(b"", 4)
    assert str(caught.value).startswith(text)
