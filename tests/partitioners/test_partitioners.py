"""What every partitioner owes, also one that is added later."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

import fedemu.partitioners
from fedemu.rng import stream
from fedemu.types import Annotations, Indices, Partitioner

REQUIRED: Mapping[str, Any] = {"alpha": 0.5, "sigma": 1.0}
"""Values for parameters without a default."""

OVERLAPPING = {"copy"}
"""Kinds whose clients share examples on purpose."""

DRAWING_NOTHING = {"copy", "natural"}
"""Kinds that leave nothing to chance."""


def kinds() -> list[Any]:
    """Return every kind of the room with its name."""
    found = []
    for module in pkgutil.iter_modules(fedemu.partitioners.__path__):
        if not module.name.startswith("_"):
            build = getattr(importlib.import_module(f"fedemu.partitioners.{module.name}"), module.name)
            found.append(pytest.param(build, id=module.name))
    return found


def annotations(count: int, users: int) -> Annotations:
    """Return labels of ten classes, and owners of whom each has some, in random order."""
    rng = stream(0, "annotations")
    return Annotations(rng.integers(10, size=count), rng.permutation(np.arange(count) % users))


def build(kind: Callable[..., Partitioner]) -> Partitioner:
    """Build with the least that the kind asks for."""
    required = [p.name for p in inspect.signature(kind).parameters.values() if p.default is p.empty]
    return kind(**{name: REQUIRED[name] for name in required})


EVERY_KIND = pytest.mark.parametrize("kind", kinds())


@EVERY_KIND
@pytest.mark.parametrize(("count", "clients"), [(1000, 10), (1003, 7), (100, 1), (60, 20)])
def test_every_client_gets_existing_examples_once(kind: Callable[..., Partitioner], count: int, clients: int) -> None:
    """Sorted int64 positions without repetition, at least one for each client."""
    shares = build(kind)(annotations(count, clients), clients, stream(0, "partition"))
    assert len(shares) == clients
    for share in shares:
        assert share.dtype == np.int64
        assert len(share) >= 1
        assert share.min() >= 0
        assert share.max() < count
        assert (np.diff(share) > 0).all()


@EVERY_KIND
@pytest.mark.parametrize(("count", "clients"), [(1000, 10), (1003, 7), (100, 1), (60, 20)])
def test_shares_are_disjoint_and_cover_everything(kind: Callable[..., Partitioner], count: int, clients: int) -> None:
    """Together they are 0..count-1, unless the kind shares examples on purpose; then each has all of them."""
    shares = build(kind)(annotations(count, clients), clients, stream(0, "partition"))
    if kind.__name__ in OVERLAPPING:
        assert all(np.array_equal(share, np.arange(count)) for share in shares)
    else:
        assert np.array_equal(np.sort(np.concatenate(shares)), np.arange(count))


@EVERY_KIND
def test_the_same_stream_gives_the_same_shares_and_leaves_what_it_is_given_alone(
    kind: Callable[..., Partitioner],
) -> None:
    """Twice from one seed; another seed differs, unless nothing is drawn."""
    given = annotations(500, 5)
    kept = [array.copy() for array in given if array is not None]

    def split(name: str) -> list[Indices]:
        return build(kind)(given, 5, stream(0, name))

    first, again, other = split("a"), split("a"), split("b")
    assert all(map(np.array_equal, first, again))
    assert kind.__name__ in DRAWING_NOTHING or not all(map(np.array_equal, first, other))
    assert all(map(np.array_equal, given, kept))


@EVERY_KIND
def test_more_clients_than_examples_are_refused(kind: Callable[..., Partitioner]) -> None:
    """Three examples cannot give four clients one each."""
    if kind.__name__ in OVERLAPPING:
        pytest.skip("copies are never too few")
    with pytest.raises(ValueError, match="3 examples are too few for 4 clients"):
        build(kind)(annotations(3, 3), 4, stream(0, "partition"))
