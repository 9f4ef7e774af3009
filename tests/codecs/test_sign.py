"""Scaled signs by hand."""

import numpy as np
import pytest
import torch

from fedemu.codecs.sign import sign
from fedemu.rng import stream


def test_every_number_becomes_its_sign_times_the_mean_magnitude() -> None:
    """(1 + 2 + 0 + 5 + 0) / 5 = 1.6; zeros, of either sign, count as plus: bits 1 and 3 are set."""
    data = sign().encode(torch.tensor([1.0, -2.0, 0.0, -5.0, -0.0]), stream(0))
    assert data == np.array([1.6], "<f4").tobytes() + bytes([0b01010])
    mean = float(np.float32(1.6))
    assert sign().decode(memoryview(data), 5).tolist() == [mean, -mean, mean, -mean, mean]


@pytest.mark.parametrize("size", [1, 8, 9, 1000])
def test_it_is_the_contraction_of_the_paper(size: int) -> None:
    """‖C(v) - v‖² = (1 - ‖v‖₁² / (d ‖v‖²)) ‖v‖²: Lemma 8 of Karimireddy et al., with equality."""
    vector = torch.from_numpy(stream(1, size).standard_normal(size, dtype=np.float32))
    decoded = sign().decode(memoryview(sign().encode(vector, stream(0))), size)
    v = vector.numpy().astype(np.float64)
    expected = (v**2).sum() - np.abs(v).sum() ** 2 / size
    assert ((decoded.numpy() - v) ** 2).sum() == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_bits_after_the_last_number_are_refused() -> None:
    """Five numbers leave three bits of the byte, which are zeros."""
    with pytest.raises(ValueError, match="bits came after the first 5; zeros were expected"):
        sign().decode(memoryview(np.array([1.0], "<f4").tobytes() + bytes([0b100000])), 5)
