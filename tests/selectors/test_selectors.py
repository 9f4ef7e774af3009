"""What every selector owes, also one that is added later."""

import dataclasses
import importlib
import inspect
import json
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any

import pytest

import fedemu.selectors
from fedemu.rng import stream
from fedemu.types import Selector

REQUIRED: Mapping[str, Any] = {"candidates": 5}
"""Values for parameters without a default."""

READY = {"conditions": frozenset({"charging", "unmetered", "idle"})}

EXPLORING = {"oort", "power_of_choice", "round_robin", "tifl"}
"""Kinds that see to it that everybody is heard of."""


def kinds() -> list[Any]:
    """Return every kind of the room with its name."""
    found = []
    for module in pkgutil.iter_modules(fedemu.selectors.__path__):
        if not module.name.startswith("_"):
            build = getattr(importlib.import_module(f"fedemu.selectors.{module.name}"), module.name)
            found.append(pytest.param(build, id=module.name))
    return found


def build(kind: Callable[..., Selector]) -> Selector:
    """Build with the least that the kind asks for."""
    required = [p.name for p in inspect.signature(kind).parameters.values() if p.default is p.empty]
    return kind(**{name: REQUIRED[name] for name in required})


EVERY_KIND = pytest.mark.parametrize("kind", kinds())


@pytest.fixture
def ready(federation):
    """Makes a federation of 12 eligible clients; every fourth has no examples, and they differ in time and loss."""

    def make():
        facts = {i: READY | {"num_examples": (i % 4) * 10} for i in range(12)}
        return federation(
            12, durations=[1.0 + i for i in range(12)], losses=[2.0 + i % 5 for i in range(12)], known=facts
        )

    return make


@EVERY_KIND
@pytest.mark.parametrize("count", [0, 1, 5, 12, 20])
@pytest.mark.parametrize("history", [0, 3, 30])
def test_as_many_distinct_clients_as_asked_for_are_chosen_in_the_order_given(kind, count, history, ready) -> None:
    """All are eligible, so that fewer are chosen only where fewer are there; before, during and after exploration."""
    clients = ready()
    select = build(kind)
    clients.play(select, history, 4, wait=3)
    chosen = [clients.place(client) for client in select(clients.views, count, stream(0, "select"))]
    assert len(chosen) == min(count, 12)
    assert chosen == sorted(set(chosen))
    assert all(0 <= i < 12 for i in chosen)


@EVERY_KIND
def test_nobody_is_chosen_of_nobody(kind) -> None:
    """Everybody is at work or away."""
    assert list(build(kind)([], 3, stream(0, "select"))) == []


@EVERY_KIND
def test_only_those_given_are_chosen(kind, ready) -> None:
    """Clients that a selector knows of may be at work: of 12, only 1, 5 and 9 are given."""
    clients = ready()
    select = build(kind)
    clients.play(select, 10, 4)
    given = clients.views[1::4]
    assert list(select(given, 9, stream(0, "select"))) == [view.client for view in given]


@EVERY_KIND
def test_the_same_history_and_stream_give_the_same_choice_and_leave_the_views_alone(kind, ready) -> None:
    """Twice 15 rounds, by two selectors; views are what they were, as far as the selector goes."""
    first, again = ready(), ready()
    assert first.play(build(kind), 15, 4, wait=3) == again.play(build(kind), 15, 4, wait=3)
    kept = list(first.views)
    build(kind)(first.views, 4, stream(0, "select"))
    assert first.views == kept


@EVERY_KIND
@pytest.mark.parametrize("rounds", [1, 7, 45])
def test_a_state_that_went_through_a_checkpoint_chooses_as_before(kind, rounds, ready) -> None:
    """Selectors with a memory are dataclasses whose fields JSON can hold; those without one need none."""
    clients, copies = ready(), ready()
    select, restored = build(kind), build(kind)
    clients.play(select, rounds, 4, wait=3)
    copies.play(restored, rounds, 4, wait=3)
    if dataclasses.is_dataclass(restored):
        restored = type(restored)(**json.loads(json.dumps(dataclasses.asdict(restored), allow_nan=False)))
        assert restored == select
    else:
        restored = build(kind)
    assert copies.play(restored, 30, 4, wait=3) == clients.play(select, 30, 4, wait=3)


@EVERY_KIND
def test_two_selectors_share_no_memory(kind, ready) -> None:
    """A builder's second selector begins at the beginning, whatever the first has seen."""
    alone = ready().play(build(kind), 5, 4)
    ready().play(build(kind), 20, 4)
    assert ready().play(build(kind), 5, 4) == alone


@EVERY_KIND
@pytest.mark.parametrize("known", [0, 6, 12])
def test_as_much_is_drawn_whatever_is_known(kind, known, ready) -> None:
    """After a choice the stream is where it is after one that knew nothing, so that runs stay coupled."""
    ignorant, informed = stream(0, "select"), stream(0, "select")
    build(kind)(ready().views, 4, ignorant)
    facts = {"asked": 1, "last_asked": 1, "answered": 1, "loss": 1.0, "squared_loss": 1.0, "duration": 2.0}
    views = [dataclasses.replace(view, **facts) if i < known else view for i, view in enumerate(ready().views)]
    build(kind)(views, 4, informed)
    assert ignorant.random() == informed.random()


@EVERY_KIND
def test_who_was_never_heard_of_is_not_starved_where_the_paper_explores(kind, ready) -> None:
    """Kinds that explore ask all 9 clients with examples in 40 rounds of 4 for 12, though only 3 are waited for."""
    if kind.__name__ not in EXPLORING:
        pytest.skip("does not explore on purpose")
    clients = ready()
    clients.play(build(kind), 40, 4, wait=3)
    assert [view.client for view in clients.views if view.num_examples and not view.asked] == []
