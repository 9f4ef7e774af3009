"""The running weighted mean."""

import itertools

import numpy as np
import pytest
import torch

from fedemu.rng import stream
from fedemu.strategies import _mean
from fedemu.strategies._mean import Mean, weighted_mean
from fedemu.types import Update, Vector


def update(delta: Vector, examples: int) -> Update:
    """Return an update of that many examples."""
    return Update(client="c", delta=delta, num_examples=examples, num_steps=1, train_loss=0.0, version=0)


def fold(deltas: list[Vector], weights: list[float]) -> Mean:
    """Add them in order."""
    mean = Mean()
    for delta, weight in zip(deltas, weights, strict=True):
        mean.add(delta, weight)
    return mean


def test_two_clients_are_averaged_by_hand() -> None:
    """(1 x (4, 0, -8) + 3 x (0, 4, 8)) / 4 = (1, 3, 4), added to (10, 20, 30)."""
    aggregation = weighted_mean(lambda update: float(update.num_examples))
    mean = aggregation.start()
    mean = aggregation.add(mean, update(torch.tensor([4.0, 0, -8]), 1))
    mean = aggregation.add(mean, update(torch.tensor([0.0, 4, 8]), 3))
    model, state = aggregation.finish(mean, torch.tensor([10.0, 20, 30]), {"s": torch.zeros(1)}, stream(0, "a"))
    assert model.tolist() == [11, 23, 34]
    assert list(state) == ["s"]


def test_the_mean_agrees_with_numpy_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """1,000 elements in blocks of 64, the last one of 40; exact up to the rounding to float32."""
    monkeypatch.setattr(_mean, "_BLOCK", 64)
    rng = stream(0, "m")
    deltas = rng.standard_normal((7, 1000)).astype(np.float32)
    weights = rng.integers(1, 1000, 7)
    start = rng.standard_normal(1000).astype(np.float32)
    result = fold([torch.from_numpy(d) for d in deltas], weights.astype(float).tolist()).added_to(
        torch.from_numpy(start)
    )
    oracle = start.astype(np.float64) + np.average(deltas.astype(np.float64), axis=0, weights=weights)
    np.testing.assert_allclose(result.numpy(), oracle.astype(np.float32), rtol=1.2e-7)
    assert result.dtype == torch.float32


def test_the_order_of_arrival_does_not_matter() -> None:
    """All 120 orders of 5 updates with weights of very different size: sums equal to 1e-12 of the terms."""
    rng = stream(0, "m")
    pairs = [(torch.from_numpy(rng.standard_normal(9).astype(np.float32)), 10.0**i) for i in range(-2, 3)]
    totals = []
    for order in itertools.permutations(pairs):
        total = fold([delta for delta, _ in order], [weight for _, weight in order]).total
        assert total is not None
        totals.append(total)
    size = sum(delta.abs().double() * weight for delta, weight in pairs)
    assert all(((total - totals[0]).abs() <= 1e-12 * size).all() for total in totals)


def test_identical_clients_are_their_own_mean() -> None:
    """Thirds and sevenths of the same vector add up to it, within one rounding."""
    delta = torch.tensor([0.1, -0.3, 1e-3])
    assert torch.equal(fold([delta] * 5, [1.0, 3, 7, 1, 1]).added_to(torch.zeros(3)), delta)


def test_one_update_is_kept_as_it_came_and_needs_no_sum() -> None:
    """No float64 vector is made, and the result is the float32 sum."""
    delta, start = torch.tensor([0.1, 0.2]), torch.tensor([1.0, 2.0])
    mean = fold([delta], [17.0])
    assert mean.only is delta
    assert mean.total is None
    assert torch.equal(mean.added_to(start), start + delta)


@pytest.mark.parametrize("weights", [[], [0.0], [0.0, 0.0]])
def test_without_weight_the_model_stays_as_a_copy(weights: list[float]) -> None:
    """Clients without examples, or nobody at all; a vector without weight may even be nan."""
    start = torch.tensor([1.0, 2.0])
    result = fold([torch.full((2,), torch.nan)] * len(weights), weights).added_to(start)
    assert torch.equal(result, start)
    assert result.data_ptr() != start.data_ptr()


def test_an_update_without_weight_changes_nothing() -> None:
    """Before, between and after two that count: (2 + 4) / 2."""
    nan = torch.tensor([torch.nan])
    mean = fold([nan, torch.tensor([2.0]), nan, torch.tensor([4.0]), nan], [0, 1, 0, 1, 0])
    assert mean.added_to(torch.zeros(1)).tolist() == [3]


def test_neither_the_updates_nor_the_model_are_written_to() -> None:
    """The sum is a vector of its own."""
    deltas, start = [torch.tensor([1.0]), torch.tensor([2.0])], torch.tensor([5.0])
    fold(deltas, [1, 1]).added_to(start)
    assert [d.item() for d in deltas] == [1, 2]
    assert start.item() == 5


def test_the_mean_is_scaled_and_mixed() -> None:
    """The mean of 2 and 6 by 1 and 3 is 5; on 1 it makes 1 + 5/2, and a share of 1/4 makes 3/4 + 5/4."""
    mean = fold([torch.tensor([2.0]), torch.tensor([6.0])], [1, 3])
    assert (mean.weight, mean.count) == (4, 2)
    assert mean.added_to(torch.ones(1), 0.5).tolist() == [3.5]
    assert mean.mixed_into(torch.ones(1), 0.25).tolist() == [2]
    assert Mean().mixed_into(torch.ones(1), 0.25).tolist() == [1]


def test_a_whole_share_is_the_mean_bit_for_bit() -> None:
    """Nothing of the old model is left, however large it was."""
    delta = torch.tensor([0.1, -0.3, 1e-30])
    assert torch.equal(fold([delta], [0.7]).mixed_into(torch.tensor([1e9, 3.0, 1.0]), 1.0), delta)


@pytest.mark.parametrize("count", [1, 3])
def test_a_factor_of_one_changes_no_bit_of_the_sum_in_single_precision(count: int) -> None:
    """A float64 sum of two float32 numbers rounds to what float32 adds up to, as 53 bits are over twice 24."""
    rng = stream(0, "m")
    start, delta = (torch.from_numpy(rng.standard_normal(100_000).astype(np.float32)) for _ in range(2))
    delta *= torch.from_numpy(10.0 ** rng.integers(-8, 8, 100_000)).float()
    assert torch.equal(fold([delta] * count, [1.0] * count).added_to(start, 1.0), start + delta)
