"""Staleness functions by hand."""

import pytest

from fedemu.strategies._staleness import Staleness, constant, hinge, polynomial
from fedemu.strategies.fedasync import fedasync
from fedemu.types import Training


@pytest.mark.parametrize(
    ("factor", "expected"),
    [
        (constant(), [1, 1, 1, 1]),
        (polynomial(0.5), [1, 1 / 2**0.5, 1 / 2, 1 / 3]),
        (polynomial(1.0), [1, 1 / 2, 1 / 4, 1 / 9]),
        (hinge(10.0, 1.0), [1, 1, 1 / 21, 1 / 71]),
    ],
)
def test_the_factor_is_the_papers_at_0_1_3_and_8_versions(factor: Staleness, expected: list[float]) -> None:
    """For instance hinge with a 10 and b 1: 1 / (10 (3 - 1) + 1) = 1/21."""
    assert [factor(staleness) for staleness in (0, 1, 3, 8)] == pytest.approx(expected)


def test_a_and_b_are_refused_where_nothing_reads_them() -> None:
    """Constant has neither, polynomial no b."""
    with pytest.raises(ValueError, match=r"a 0.5 for constant staleness; expected none, or polynomial or hinge"):
        fedasync(Training(), staleness="constant", a=0.5)
    with pytest.raises(ValueError, match=r"b 4.0 for polynomial staleness; expected none, or hinge"):
        fedasync(Training(), b=4.0)
