"""Random-k: who is chosen, and that a seed is enough to know."""

import numpy as np
import pytest
import torch
from scipy import stats

from fedemu.codecs.randk import randk
from fedemu.rng import stream


@pytest.mark.parametrize(("size", "count", "draws"), [(50, 10, 4000), (20_000, 200, 2000)], ids=str)
def test_every_place_is_chosen_equally_often(size: int, count: int, draws: int) -> None:
    """Chi-square with d - 1 degrees of freedom; the choice is without repetition, so that a count's variance is
    p (1 - p) a draw, and counts sum up exactly."""
    codec, rng, ones = randk(ratio=count / size), stream(1), torch.ones(size)
    chosen = np.zeros(size)
    for _ in range(draws):
        decoded = codec.decode(memoryview(codec.encode(ones, rng)), size).numpy()
        assert decoded.sum() == count
        chosen += decoded
    p = count / size
    statistic = ((chosen - draws * p) ** 2).sum() / (draws * p * (1 - p)) * (size - 1) / size
    assert 0.001 < stats.chi2.cdf(statistic, size - 1) < 0.999


def test_numbers_stay_at_their_places_unscaled() -> None:
    """What is not 0 is the vector's own number."""
    vector = torch.from_numpy(stream(2).standard_normal(1000, dtype=np.float32))
    codec = randk(ratio=0.25)
    decoded = codec.decode(memoryview(codec.encode(vector, stream(3))), 1000)
    assert torch.equal(decoded[decoded != 0], vector[decoded != 0])
    assert decoded.count_nonzero() == 250


def test_choices_differ_from_message_to_message_and_share_a_draw_whatever_the_ratio() -> None:
    """The seed is drawn from the stream, once: runs that differ in the ratio stay coupled."""
    vector, rng, other = torch.ones(1000), stream(4), stream(4)
    first, second = (randk(ratio=0.1).encode(vector, rng) for _ in range(2))
    assert first[:8] != second[:8]
    randk(ratio=0.9).encode(vector, other)
    assert randk(ratio=0.1).encode(vector, other) == second
