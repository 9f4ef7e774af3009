"""Inputs and subsets."""

import numpy as np
import pytest
import torch

from fedemu.datasets._base import Dataset, Examples, subset
from fedemu.rng import stream

TWO_CHANNELS = Dataset(
    name="two-channels",
    train=Examples(torch.arange(10, dtype=torch.uint8).view(5, 2, 1, 1), torch.arange(5)),
    test=Examples(torch.zeros(1, 2, 1, 1, dtype=torch.uint8), torch.tensor([0])),
    shape=(2, 1, 1),
    classes=5,
    scale=10,
    mean=(0.5, 0.1),
    std=(0.25, 0.5),
    verified="official",
)


def test_inputs_are_scaled_then_standardised_by_channel() -> None:
    """Example 1 is (2, 3): (0.2 - 0.5) / 0.25 and (0.3 - 0.1) / 0.5."""
    x = TWO_CHANNELS.train.x
    inputs = TWO_CHANNELS.inputs(x)
    assert inputs.dtype == torch.float32
    assert inputs[1].flatten().tolist() == pytest.approx([-1.2, 0.4], abs=1e-6)
    assert x.flatten().tolist() == list(range(10))


def test_float_examples_are_not_changed_in_place() -> None:
    """Inputs are a new tensor."""
    x = torch.ones(1, 2, 1, 1)
    TWO_CHANNELS.inputs(x)
    assert x.flatten().tolist() == [1, 1]


def test_a_subset_is_distinct_examples_with_their_labels_in_order() -> None:
    """Label i belongs to the input that begins with 2 i."""
    part = subset(TWO_CHANNELS, 3, stream(0, "subset"))
    labels = part.train.y.tolist()
    assert len(labels) == 3
    assert labels == sorted(set(labels))
    assert part.train.x[:, 0, 0, 0].tolist() == [2 * label for label in labels]
    assert part.test is TWO_CHANNELS.test
    assert len(TWO_CHANNELS.train.y) == 5


def test_every_example_is_equally_likely_to_be_kept() -> None:
    """2 of 5 in 2,000 draws: 800 each, with a deviation of sqrt(2000 * 0.4 * 0.6) = 22; 4.5 deviations are 100."""
    rng = stream(0, "subset")
    kept = np.bincount(np.concatenate([subset(TWO_CHANNELS, 2, rng).train.y.numpy() for _ in range(2000)]))
    assert np.abs(kept - 800).max() < 100


def test_a_subset_larger_than_the_set_is_refused() -> None:
    """Six of five."""
    with pytest.raises(ValueError, match="6 examples are more than the 5 that two-channels has to train"):
        subset(TWO_CHANNELS, 6, stream(0, "subset"))
