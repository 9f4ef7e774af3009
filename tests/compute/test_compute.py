"""The contract of the room: every kind of compute trains the same, says what failed, and leaves nothing behind."""

import importlib
import pkgutil
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

import fedemu.compute
from fedemu.compute._base import Job
from fedemu.errors import RunError

sys.path.append(str(Path(__file__).parent))  # workers import it too
from workshops import Recipe, Workshop

KINDS = [m.name for m in pkgutil.iter_modules(fedemu.compute.__path__) if not m.name.startswith("_")]


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    """Opens that kind; a pool has two workers, so that there is something to share."""
    builder = getattr(importlib.import_module(f"fedemu.compute.{request.param}"), request.param)
    return builder(workers=2) if request.param == "pool" else builder()


@pytest.fixture(scope="module")
def compute(kind):
    with kind() as workers:
        yield workers


def job(client="toy", round=1, state=None, **extras):
    return Job(client, round, 1, torch.linspace(-1, 1, 1000), {"c": torch.ones(1000), **extras}, state or {}, 1)


def shared_memory():
    return sorted(path.name for path in Path("/dev/shm").iterdir() if path.name.startswith(("torch_", "psm_", "sem.")))


def test_every_kind_trains_bit_for_bit_as_the_workshop_itself(compute) -> None:
    """Delta, extras, counts and memory come back as they were made, in the order in which they were asked for."""
    jobs = [job(round=round, state={"seen": torch.full((1,), round)}) for round in range(1, 9)]
    futures = [compute.train(Recipe(), j) for j in jobs]
    for j, future in zip(jobs, futures, strict=True):
        trained, state, _ = future.result(30)
        wanted, after, _ = Workshop("toy").train(j)
        assert torch.equal(trained.delta, wanted.delta)
        assert trained.delta.dtype == torch.float32
        assert torch.equal(trained.extras["control"], wanted.extras["control"])
        assert trained[1:4] == wanted[1:4]
        assert {name: v.tolist() for name, v in state.items()} == {name: v.tolist() for name, v in after.items()}


def test_training_leaves_the_job_as_it_was(compute) -> None:
    """The model of a task belongs to the server's round, not to a worker."""
    given = job()
    before = given.weights.clone()
    compute.train(Recipe(), given).result(30)[0].delta.zero_()
    assert torch.equal(given.weights, before)


def test_evaluation_comes_back_by_part(compute) -> None:
    """Each future is its own part's: (part, sum of the weights)."""
    weights = torch.ones(10)
    assert [compute.evaluate(Recipe(), weights, part).result(30) for part in range(4)] == [(p, 10.0) for p in range(4)]


def test_an_error_in_training_comes_with_its_message_and_the_worker_lives_on(compute) -> None:
    """The same type and text as in the workshop."""
    with pytest.raises(ValueError, match=r"^the loss is not a number$"):
        compute.train(Recipe(), job("fails")).result(30)
    with pytest.raises(RuntimeError, match=r"^no such data$"):
        compute.warm(Recipe("broken")).result(30)
    assert compute.train(Recipe(), job()).result(30)[0].num_steps == 2


def test_a_worker_keeps_its_workshop_and_has_one_torch_thread(compute) -> None:
    """An equal recipe makes no new one; another recipe does."""

    def facts(recipe):
        jobs = [compute.train(recipe, job("facts")) for _ in range(8)]
        return [tuple(future.result(30)[0].delta.tolist()) for future in jobs]

    for made in (facts(Recipe()), facts(Recipe())):
        assert {threads for threads, _, _ in made} == {1}
        assert len({(pid, when) for _, pid, when in made}) <= compute.workers
    assert {when for _, _, when in facts(Recipe())} & {when for _, _, when in facts(Recipe("other"))} == set()


def test_leaving_ends_workers_that_are_busy(kind, tmp_path: Path) -> None:
    """Each worker is in a training that never ends, and more wait: all is over within 3 s of leaving."""
    threads, segments = threading.active_count(), shared_memory()
    with kind() as compute:
        paths = [tmp_path / str(number) for number in range(compute.workers)]
        as_tensor = [torch.frombuffer(bytearray(str(path).encode()), dtype=torch.uint8) for path in paths]
        busy = [compute.train(Recipe(), job("busy", path=path)) for path in as_tensor]
        waiting = [compute.train(Recipe(), job()) for _ in range(8)]
        end = time.monotonic() + 30
        while not all(path.exists() for path in paths):
            assert time.monotonic() < end
            time.sleep(0.01)
        left = time.monotonic()
    assert time.monotonic() - left < 3
    assert not any(future.done() and not future.cancelled() and not future.exception() for future in [*busy, *waiting])
    end = time.monotonic() + 3
    while threading.active_count() > threads:
        assert time.monotonic() < end, threading.enumerate()
        time.sleep(0.01)
    assert shared_memory() == segments


def test_an_error_inside_the_context_passes_through_and_ends_the_workers(kind) -> None:
    """What the run raises is what its caller sees."""
    with pytest.raises(ValueError, match="loss"), kind() as compute:
        compute.train(Recipe(), job("fails")).result(30)
    with pytest.raises(RuntimeError):
        compute.train(Recipe(), job())


def test_a_worker_that_dies_ends_the_run_with_an_error_that_says_so() -> None:
    """The kernel kills it when memory is short: no hang, and not the library's own words."""
    pool = importlib.import_module("fedemu.compute.pool").pool
    with pool(workers=1)() as compute:
        for _ in range(2):  # on its way, and asked for after it
            with pytest.raises(RunError, match="a worker process died"):
                compute.train(Recipe(), job("dies")).result(30)


def test_inline_puts_the_number_of_torch_threads_back() -> None:
    """It is the process's own setting."""
    inline = importlib.import_module("fedemu.compute.inline").inline
    before = torch.get_num_threads()
    with inline()():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
