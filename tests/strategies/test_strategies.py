"""What every strategy owes, also one that is added later."""

import gc
import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from fedemu.rng import stream
from fedemu.types import Objective, Training, Update, Vector
from tests.strategies.federation import Federation, LeastSquares, builder, kinds

REQUIRED: Mapping[str, Any] = {"mu": 0.1}
"""Values for parameters without a default."""

OTHERWISE = {
    "fedadagrad": "the step's size is the server's own",
    "fedadam": "the step's size is the server's own",
    "fedyogi": "the step's size is the server's own",
    "fedasync": "the client's model is mixed with the server's",
    "feddyn": "h / alpha carries on in the same direction",
}
"""Kinds that do not take the model of clients that agree, and why."""

D = 101
X = stream(0, "x").standard_normal((9, D)) / D**0.5
Y = stream(0, "y").standard_normal(9)
SHARES = (slice(0, 2), slice(2, 5), slice(5, 9))
CLIENTS = [LeastSquares(X[share], Y[share]) for share in SHARES]
EMPTY = LeastSquares(np.empty((0, D)), np.empty(0))
TRAINING = Training(epochs=1, batch_size=2, lr=0.1)
EVERY_KIND = pytest.mark.parametrize("kind", kinds())


def start() -> Vector:
    """Return a model."""
    return torch.from_numpy(stream(0, "start").standard_normal(D)).float()


def federation(kind: str, clients: Sequence[Objective] = CLIENTS) -> Federation:
    """Return clients under a strategy that is built with the least that the kind asks for."""
    build = builder(kind)
    required = [
        p.name
        for p in inspect.signature(build).parameters.values()
        if p.kind is p.KEYWORD_ONLY and p.default is p.empty
    ]
    return Federation(partial(build, **{name: REQUIRED[name] for name in required}), start(), clients, TRAINING)


def vectors(*groups: Mapping[str, Vector] | Update | Vector) -> Iterator[Vector]:
    """Yield every vector of models, states and updates."""
    for group in groups:
        if isinstance(group, Update):
            yield from (group.delta, *group.extras.values())
        elif isinstance(group, torch.Tensor):
            yield group
        else:
            yield from group.values()


def equal(ours: Iterable[Vector], theirs: Iterable[Vector]) -> bool:
    """Tell whether all vectors are the same bit for bit."""
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@EVERY_KIND
def test_training_and_aggregating_write_to_nothing_that_they_are_given(kind: str) -> None:
    """In the third round, where memories and states are not zero: all vectors are kept as they were."""
    run = federation(kind)
    run.play(2)
    given = [run.model, run.state, *run.memories]
    kept = [vector.clone() for vector in vectors(*given)]
    updates = [run.update(i) for i in range(3)]
    assert equal(vectors(*given), kept)
    given += updates
    kept = [vector.clone() for vector in vectors(*given)]
    before = run.model
    run.aggregate(updates)
    assert equal(vectors(*given), kept)
    assert run.model.data_ptr() != before.data_ptr()


@EVERY_KIND
def test_the_next_model_is_like_the_last(kind: str) -> None:
    """Shape and type are kept, by three clients as by one, and something was learned."""
    for clients in (CLIENTS, CLIENTS[:1]):
        model = federation(kind, clients).play(3)
        assert (model.shape, model.dtype) == ((D,), torch.float32)
        assert model.isfinite().all()
        assert not torch.equal(model, start())


@EVERY_KIND
def test_what_is_remembered_and_sent_are_vectors_of_single_precision(kind: str) -> None:
    """So that a checkpoint and a link know what they carry."""
    run = federation(kind)
    run.play(2)
    update = run.update(0)
    for vector in vectors(run.state, *run.memories, update):
        assert (vector.dim(), vector.dtype) == (1, torch.float32)


@EVERY_KIND
def test_the_order_of_the_answers_does_not_matter(kind: str) -> None:
    """Three rounds in turn and reversed: sums differ by less than what float32 keeps."""
    ours, theirs = federation(kind), federation(kind)
    torch.testing.assert_close(
        ours.play(3), theirs.play(3, lambda number: [2, 1, 0] if number else [1, 2, 0]), rtol=1e-6, atol=1e-7
    )


@EVERY_KIND
@pytest.mark.parametrize("count", [1, 2, 5])
def test_clients_that_agree_are_believed(kind: str, count: int) -> None:
    """Fresh updates, all alike, and a server without history: the model is the clients' own."""
    run = federation(kind, [CLIENTS[2]] * count)
    update = run.update(0)
    run.aggregate([replace(update, client=f"c/{i}") for i in range(count)])
    agrees = torch.allclose(run.model, start() + update.delta, rtol=1e-6, atol=1e-7)
    assert agrees is (kind not in OTHERWISE), OTHERWISE.get(kind)


@EVERY_KIND
def test_clients_without_examples_leave_everything_alone(kind: str) -> None:
    """Alone: model and state stay, and so do memories, with nothing but finite numbers on the wire."""
    run = federation(kind, [*CLIENTS, EMPTY, EMPTY])
    run.play(2, lambda number: [0, 1, 2])
    before, state = run.model, run.state
    updates = [run.update(3), run.update(4)]
    assert all(vector.isfinite().all() for vector in vectors(*updates))
    run.aggregate(updates)
    assert torch.equal(run.model, before)
    assert equal(vectors(run.state), vectors(state))
    assert run.memories[3:] == [{}, {}]
    assert run.play(1, lambda number: [0, 1, 2]).isfinite().all()


@EVERY_KIND
def test_a_client_without_examples_counts_for_nothing_beside_others(kind: str) -> None:
    """Among the answers or not: the same bits, wherever it stands."""
    run, without = (federation(kind, [EMPTY, *CLIENTS, EMPTY]) for _ in range(2))
    assert torch.equal(run.play(3, lambda number: [0, 1, 2, 3, 4]), without.play(3, lambda number: [1, 2, 3]))
    assert equal(vectors(run.state), vectors(without.state))


@EVERY_KIND
def test_the_same_streams_give_the_same_federation(kind: str) -> None:
    """Twice from nothing; nothing is kept between two runs."""
    ours, theirs = federation(kind), federation(kind)
    assert torch.equal(ours.play(3), theirs.play(3))
    assert equal(vectors(ours.state, *ours.memories), vectors(theirs.state, *theirs.memories))


@EVERY_KIND
def test_a_run_goes_on_from_a_checkpoint(kind: str) -> None:
    """State and memories as safetensors bytes after two rounds; two more rounds give the same bits as four at once."""
    whole, first, second = (federation(kind) for _ in range(3))
    whole.play(4)
    first.play(2)
    second.models = [*first.models[:-1], load(save({"model": first.model}))["model"]]
    second.states = [*first.states[:-1], load(save(dict(first.state)))]
    second.memories = [load(save(dict(memory))) for memory in first.memories]
    assert torch.equal(second.play(2), whole.model)
    assert equal(
        vectors(*map(sort, (second.state, *second.memories))), vectors(*map(sort, (whole.state, *whole.memories)))
    )


def sort(state: Mapping[str, Vector]) -> Mapping[str, Vector]:
    """Return the state by name, as bytes may have another order."""
    return dict(sorted(state.items()))


@EVERY_KIND
def test_aggregation_takes_the_memory_of_one_sum_whatever_the_cohort(kind: str) -> None:
    """Vectors of the model's size that are alive after 3 and after 40 updates are as many; updates go with the adding.

    Beside what was there, no more than a sum for each vector that a client sends.
    """
    run = federation(kind)
    update = run.update(0)
    sent = sum(len(vector) == D for vector in vectors(update))
    total, before, counts = run.server.aggregate.start(), alive(), []
    for number in range(1, 41):
        fresh = {name: vector.clone() for name, vector in update.extras.items()}
        total = run.server.aggregate.add(total, replace(update, delta=update.delta.clone(), extras=fresh))
        del fresh
        if number in (3, 40):
            counts.append(alive() - before)
    assert counts[0] == counts[1] <= sent


def alive() -> int:
    """Count the vectors of the model's size."""
    return sum(type(found) is torch.Tensor and len(found.shape) == 1 and len(found) == D for found in gc.get_objects())
