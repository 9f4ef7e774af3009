"""Shards of sorted examples."""

import numpy as np
import pytest

from fedemu.partitioners.shards import shards
from fedemu.rng import stream
from fedemu.types import Annotations


def test_the_papers_split_gives_two_labels_to_most_clients_and_four_at_most() -> None:
    """The classes of MNIST end within shards, so that 9 of 200 straddle two labels; at most 9 hands hold one."""
    sizes = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    labels = stream(0, "labels").permutation(np.repeat(np.arange(10), sizes))
    hands = shards(per_client=2)(Annotations(labels), 100, stream(0, "p"))
    assert {len(hand) for hand in hands} == {600}
    classes = [len(np.unique(labels[hand])) for hand in hands]
    assert max(classes) <= 4
    assert sum(number <= 2 for number in classes) >= 91


def test_one_shard_each_of_balanced_classes_is_one_class_each() -> None:
    """10 clients, 10 classes of 5: the 1-class split of Zhao et al."""
    labels = np.tile(np.arange(10), 5)
    hands = shards(per_client=1)(Annotations(labels), 10, stream(0, "p"))
    assert sorted(labels[hand].tolist() for hand in hands) == [[label] * 5 for label in range(10)]


def test_shards_are_dealt_at_random() -> None:
    """Shard 0 goes to each of 4 clients a quarter of the time: 100 of 400, deviation 8.7; 4.5 deviations are 39."""
    rng = stream(0, "p")
    labels = np.arange(4)
    owners = [
        next(i for i, hand in enumerate(shards(per_client=1)(Annotations(labels), 4, rng)) if 0 in hand)
        for _ in range(400)
    ]
    assert np.abs(np.bincount(owners, minlength=4) - 100).max() < 39


def test_fewer_examples_than_shards_are_refused() -> None:
    """Two clients with three shards each need six examples."""
    with pytest.raises(ValueError, match="5 examples are too few for 2 clients with at least 3 each"):
        shards(per_client=3)(Annotations(np.arange(5)), 2, stream(0, "p"))
