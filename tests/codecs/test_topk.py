"""Top-k against sorting."""

import numpy as np
import pytest
import torch

from fedemu.codecs.topk import topk
from fedemu.rng import stream


@pytest.mark.parametrize("values", ["normal", "few"])
@pytest.mark.parametrize(("size", "ratio"), [(1, 1.0), (7, 0.5), (1000, 0.01), (1000, 0.37), (1000, 1.0), (10007, 0.1)])
def test_the_largest_stay_and_of_equal_ones_the_first(size: int, ratio: float, values: str) -> None:
    """A stable sort by falling magnitude takes the same; of five distinct values nearly all are tied."""
    rng = stream(size, values)
    numbers = rng.standard_normal(size) if values == "normal" else rng.integers(-2, 3, size)
    vector = torch.from_numpy(numbers.astype(np.float32))
    count = max(1, round(ratio * size))
    first = np.argsort(-np.abs(vector.numpy()), kind="stable")[:count]
    expected = np.zeros(size, np.float32)
    expected[first] = vector.numpy()[first]
    codec = topk(ratio=ratio)
    data = codec.encode(vector, rng)
    assert np.frombuffer(data[: 4 * count], "<u4").tolist() == sorted(first)
    assert np.array_equal(codec.decode(memoryview(data), size).numpy(), expected)


@pytest.mark.parametrize("places", [[1, 0], [1, 1], [0, 4], [2**32 - 1, 0]], ids=str)
def test_places_out_of_order_or_out_of_range_are_refused(places: list[int]) -> None:
    """Two of four numbers: places ascend and stay below 4."""
    data = np.array(places, "<u4").tobytes() + np.array([1, 2], "<f4").tobytes()
    with pytest.raises(ValueError, match="do not ascend from 0 to at most 3"):
        topk(ratio=0.5).decode(memoryview(data), 4)
