"""Lognormal sizes."""

import numpy as np
import pytest
from scipy import stats

from fedemu.partitioners.quantity import quantity
from fedemu.rng import stream
from fedemu.types import Annotations


def test_sigma_zero_divides_evenly() -> None:
    """100 = 3 x 33 + 1: one for everybody, 97 / 3 = 32.33 up to rounding."""
    sizes = [len(share) for share in quantity(sigma=0.0)(Annotations(np.zeros(100, dtype=np.int64)), 3, stream(0, "p"))]
    assert sizes == [33, 34, 33]


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0])
def test_log_sizes_are_normal_with_deviation_sigma(sigma: float) -> None:
    """With 10^6 examples among 200 clients rounding matters little: KS at 0.1 % on log sizes about their median."""
    shares = quantity(sigma=sigma)(Annotations(np.zeros(10**6, dtype=np.int64)), 200, stream(0, "p"))
    logs = np.log([len(share) for share in shares])
    assert stats.kstest((logs - np.median(logs)) / sigma, "norm").pvalue > 0.001


def test_everybody_has_one_example_even_where_one_client_takes_all() -> None:
    """With sigma 100 one of five has practically everything: 96 and four times 1."""
    sizes = [
        len(share) for share in quantity(sigma=100.0)(Annotations(np.zeros(100, dtype=np.int64)), 5, stream(0, "p"))
    ]
    assert sorted(sizes) == [1, 1, 1, 1, 96]


def test_classes_do_not_depend_on_the_size() -> None:
    """A chi-square test of 2 classes by 5 clients does not reject at 0.1 %."""
    labels = np.arange(10_000) // 5000
    shares = quantity(sigma=1.0)(Annotations(labels), 5, stream(0, "p"))
    table = np.array([np.bincount(labels[share], minlength=2) for share in shares])
    assert stats.chi2_contingency(table).pvalue > 0.001
