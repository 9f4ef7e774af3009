"""Training in worker processes with one torch thread each.

Two threads in one small model's step are slower than one; two processes are not. Workers come from a fork server, so
that they are clean of this process's threads (gRPC's among them) and import torch once.
"""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import lru_cache
from typing import Annotated, Any, TypeAlias, TypeVar

import torch
from pydantic import Field

from fedemu.compute._base import Compute, Job, Open, Recipe, Workshop
from fedemu.errors import RunError
from fedemu.types import ClientId, State, Trained, Vector

T = TypeVar("T")

Arrays: TypeAlias = Mapping[str, Any]
"""Named NumPy arrays."""

Packed: TypeAlias = tuple[Trained, Any, Arrays, Arrays]
"""What was trained, its vectors apart as arrays: delta, extras, and the client's state."""


def pool(*, workers: Annotated[int, Field(ge=1)] | None = None) -> Open:
    """Train in a pool of worker processes.

    Args:
        workers: Processes; by default one for each core that this process may use.
    """
    count = workers or len(os.sched_getaffinity(0))

    @contextmanager
    def open() -> Iterator[Compute]:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["fedemu.compute.pool"])
        executor = ProcessPoolExecutor(count, context, initializer=_start)
        try:
            for started in [executor.submit(_nothing) for _ in range(count)]:
                started.result()
            yield _Processes(executor, count)
        finally:
            processes = list((executor._processes or {}).values())
            executor.shutdown(wait=False, cancel_futures=True)
            for process in processes:  # a job that nobody waits for any more need not finish
                process.terminate()
            for process in processes:
                process.join()

    return open


class _Processes:
    def __init__(self, executor: ProcessPoolExecutor, workers: int) -> None:
        self._executor, self.workers = executor, workers

    def train(self, recipe: Recipe, job: Job) -> "Future[tuple[Trained, State]]":
        # arrays, not tensors: torch would pickle a tensor by moving it to shared memory
        packed = (_arrays({"weights": job.weights})["weights"], _arrays(job.extras), _arrays(job.state))
        return self._submit(_unpack, _train, recipe, job.client, job.round, job.turn, *packed)

    def evaluate(self, recipe: Recipe, weights: Vector, part: int) -> "Future[tuple[int, float]]":
        return self._submit(_as_it_is, _evaluate, recipe, weights.numpy(), part)

    def warm(self, recipe: Recipe) -> "Future[None]":
        return self._submit(_as_it_is, _warm, recipe)

    def _submit(self, convert: Callable[[Any], T], work: Callable[..., Any], *arguments: Any) -> "Future[T]":
        try:
            return _then(self._executor.submit(work, *arguments), convert)
        except BrokenProcessPool as error:
            raise _died() from error


def _start() -> None:
    torch.set_num_threads(1)
    # Ctrl-C reaches all processes of a terminal; what becomes of the workers, their parent decides
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _nothing() -> None:
    pass


@lru_cache(1)
def _workshop(recipe: Recipe) -> Workshop:
    return recipe()


def _warm(recipe: Recipe) -> None:
    _workshop(recipe)


def _train(
    recipe: Recipe, client: ClientId, round: int, turn: int, weights: Any, extras: Arrays, state: Arrays
) -> Packed:
    job = Job(client, round, turn, torch.from_numpy(weights), _tensors(extras), _tensors(state))
    trained, after = _workshop(recipe).train(job)
    bare: Any = trained._replace(extras={})
    return bare._replace(delta=None), trained.delta.numpy(), _arrays(trained.extras), _arrays(after)


def _unpack(packed: Packed) -> tuple[Trained, State]:
    trained, delta, extras, state = packed
    return trained._replace(delta=torch.from_numpy(delta), extras=_tensors(extras)), _tensors(state)


def _evaluate(recipe: Recipe, weights: Any, part: int) -> tuple[int, float]:
    return _workshop(recipe).evaluate(torch.from_numpy(weights), part)


def _arrays(vectors: Mapping[str, Vector]) -> Arrays:
    return {name: vector.numpy() for name, vector in vectors.items()}


def _tensors(arrays: Arrays) -> dict[str, Vector]:
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _as_it_is(value: Any) -> Any:
    return value


def _died() -> RunError:
    return RunError("a worker process died; if it ran out of memory, set compute.workers lower")


def _then(future: "Future[Any]", convert: Callable[[Any], T]) -> "Future[T]":
    after: Future[T] = Future()

    def done(before: "Future[Any]") -> None:
        if before.cancelled():
            after.cancel()
        if not after.set_running_or_notify_cancel():
            return
        error = before.exception()
        if error is not None:
            after.set_exception(_died() if isinstance(error, BrokenProcessPool) else error)
        else:
            try:
                after.set_result(convert(before.result()))
            except Exception as fault:
                after.set_exception(fault)

    future.add_done_callback(done)
    after.add_done_callback(lambda _: future.cancel())  # a job that nobody wants any more and that has not begun
    return after
