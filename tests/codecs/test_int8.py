"""int8 by hand."""

import numpy as np
import pytest
import torch

from fedemu.codecs.int8 import int8
from fedemu.rng import stream


def test_a_block_is_its_largest_magnitude_and_a_code_for_each_number() -> None:
    """Of 254 the step is 2: 5 is nearest to 2 x 2.5, of 2 and 3 the even one; a block of zeros is zeros."""
    vector = torch.tensor([254.0, 5.0, -7.5, 0.0, 0.0, 0.0, -127.0])
    data = int8(block=3).encode(vector, stream(0))
    assert data == np.array([254, 0, 127], "<f4").tobytes() + np.array([127, 2, -4, 0, 0, 0, -127], np.int8).tobytes()
    assert int8(block=3).decode(memoryview(data), 7).tolist() == [254.0, 4.0, -8.0, 0.0, 0.0, 0.0, -127.0]


def test_an_outlier_costs_only_its_own_block_precision() -> None:
    """With 1e6 beside them, ones are rounded to 0; in a block of their own they are exact."""
    vector = torch.tensor([1e6, 1.0, 1.0, 1.0])
    decoded = {n: int8(block=n).decode(memoryview(int8(block=n).encode(vector, stream(0))), 4) for n in (2, 4)}
    assert decoded[4].tolist() == [1e6, 0.0, 0.0, 0.0]
    assert decoded[2].tolist() == [1e6, 0.0, 1.0, 1.0]


def test_the_code_that_has_no_opposite_is_refused() -> None:
    """-128 is never written."""
    with pytest.raises(ValueError, match=r"a code of -128 came; -127..127 was expected"):
        int8().decode(memoryview(np.array([1.0], "<f4").tobytes() + b"\x7f\x80"), 2)
