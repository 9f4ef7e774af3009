"""QSGD against section 3.1 of the paper."""

import numpy as np
import pytest
import torch

from fedemu.codecs.qsgd import qsgd
from fedemu.rng import stream

CASES = pytest.mark.parametrize(
    ("levels", "size"), [(1, 1), (1, 64), (2, 7), (7, 64), (7, 500), (127, 64), (200, 30)], ids=str
)
DRAWS = 4000


def normal(size: int) -> torch.Tensor:
    return torch.from_numpy(stream(1, size).standard_normal(size, dtype=np.float32))


def samples(levels: int, size: int) -> np.ndarray:
    """Return many decoded vectors of one, shape (draws, size), float64."""
    codec, rng, vector = qsgd(levels=levels, bucket=512), stream(2, "qsgd"), normal(size)
    decoded = [codec.decode(memoryview(codec.encode(vector, rng)), size) for _ in range(DRAWS)]
    return torch.stack(decoded).numpy().astype(np.float64)


def parts(levels: int, size: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Return of each number the lower level l and the probability of the upper one; and ‖v‖."""
    vector = normal(size).numpy().astype(np.float64)
    norm = float(np.sqrt((vector**2).sum()))
    scaled = np.abs(vector) / norm * levels
    lower = np.minimum(np.floor(scaled), levels - 1)
    return lower, scaled - lower, norm


@CASES
def test_numbers_are_rounded_to_a_neighbour_and_right_in_the_mean(levels: int, size: int) -> None:
    """E[Q(v)] = v (Lemma 3.1 i): within four standard errors, from the two-point distribution's own variance."""
    found, vector = samples(levels, size), normal(size).numpy().astype(np.float64)
    lower, upper, norm = parts(levels, size)
    level = np.abs(found) / norm * levels
    assert (np.isclose(level, lower, atol=1e-3) | np.isclose(level, lower + 1, atol=1e-3)).all()
    assert (np.sign(found) * np.sign(vector) >= 0).all()
    error = norm / levels * np.sqrt(np.maximum(upper * (1 - upper), 0) / DRAWS)
    assert (np.abs(found.mean(axis=0) - vector) <= 4 * error + 1e-5 * norm).all()


@CASES
def test_the_variance_is_that_of_the_paper_and_below_its_bound(levels: int, size: int) -> None:
    """Lemma 3.1 ii: at most min(d/s², √d/s) ‖v‖²; and 10 % around the sum of p (1 - p) (‖v‖/s)²."""
    found, vector = samples(levels, size), normal(size).numpy().astype(np.float64)
    _, upper, norm = parts(levels, size)
    variance = ((found - vector) ** 2).sum(axis=1).mean()
    assert variance <= min(size / levels**2, np.sqrt(size) / levels) * norm**2
    assert variance == pytest.approx((upper * (1 - upper)).sum() * (norm / levels) ** 2, rel=0.1, abs=1e-9)


def test_a_bucket_has_a_norm_of_its_own() -> None:
    """(3, 4) and (0, 0) and (12): norms 5, 0 and 12; 12 of 12 is the highest level, whatever is drawn."""
    codec = qsgd(levels=5, bucket=2)
    data = codec.encode(torch.tensor([3.0, -4.0, 0.0, 0.0, 12.0]), stream(0))
    assert np.frombuffer(data[:12], "<f4").tolist() == [5.0, 0.0, 12.0]
    assert codec.decode(memoryview(data), 5).tolist() == pytest.approx([3.0, -4.0, 0.0, 0.0, 12.0], rel=1e-6)


def test_planes_hold_the_bits_of_the_levels() -> None:
    """Levels 1, -1, 0 of s = 1 are written as 2, 0, 1: low bits 0, 0, 1 and high bits 1, 0, 0, the first lowest."""
    codec = qsgd(levels=1, bucket=1)
    data = codec.encode(torch.tensor([2.0, -3.0, 0.0]), stream(0))
    assert data == np.array([2, 3, 0], "<f4").tobytes() + bytes([0b100, 0b001])


def test_draws_are_one_for_each_number_whatever_the_levels() -> None:
    """Runs that differ in the levels stay coupled: the stream is left at the same place."""
    after = []
    for levels in (1, 7, 1000):
        rng = stream(3)
        qsgd(levels=levels, bucket=10 * levels).encode(normal(1000), rng)
        after.append(rng.random())
    assert after[0] == after[1] == after[2]


def test_a_level_beyond_s_is_refused() -> None:
    """Two bits can say 3, which would be level 2 of 1."""
    with pytest.raises(ValueError, match=r"a level of 2 came; -1..1 was expected"):
        qsgd(levels=1).decode(memoryview(np.array([1.0], "<f4").tobytes() + b"\x01\x01"), 1)
