"""Everybody's own examples."""

import numpy as np
import pytest

from fedemu.partitioners.natural import natural
from fedemu.rng import stream
from fedemu.types import Annotations, Indices


def split(owners: list[int], clients: int) -> list[list[int]]:
    """Divide examples of these owners."""
    numbers: Indices = np.array(owners, dtype=np.int64)
    shares = natural()(Annotations(np.zeros_like(numbers), numbers), clients, stream(0, "p"))
    return [share.tolist() for share in shares]


def test_client_i_has_what_is_of_user_i() -> None:
    """Examples 1 and 4 are of user 0, example 3 of user 1, and so on."""
    assert split([2, 0, 2, 1, 0], 3) == [[1, 4], [3], [0, 2]]


def test_users_are_dealt_out_in_turn_where_they_are_more() -> None:
    """Four users among two clients: 0 and 2, 1 and 3."""
    assert split([0, 1, 2, 3, 3, 0], 2) == [[0, 2, 5], [1, 3, 4]]


def test_users_without_examples_are_not_counted() -> None:
    """A subset that left user 1 out has two users for two clients."""
    assert split([0, 2, 2], 2) == [[0], [1, 2]]


def test_users_that_do_not_divide_are_refused() -> None:
    """30 = 4 * 7 + 2."""
    with pytest.raises(
        ValueError, match=r"30 users cannot be divided among 7 clients; use 30 clients, or a number that"
    ):
        split(list(range(30)), 7)


def test_data_that_say_nothing_of_owners_are_refused() -> None:
    """The fault names a data set that has them."""
    with pytest.raises(ValueError, match=r"does not say whom its examples are from; .* e\.g\. synthetic"):
        natural()(Annotations(np.zeros(4, dtype=np.int64)), 2, stream(0, "p"))
