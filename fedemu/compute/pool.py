"""Training in worker processes with one torch thread each.

Two threads in one small model's step are slower than one; two processes are not. Workers come from a fork server, so
that they are clean of this process's threads (gRPC's among them) and import torch once.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import lru_cache
from multiprocessing import parent_process
from typing import Annotated, Any, TypeAlias, TypeVar

import torch
from pydantic import Field

from fedemu.compute._base import Compute, Job, Learned, Open, Recipe, Workshop
from fedemu.compute._buffer import BUFFER, Buffer
from fedemu.errors import RunError
from fedemu.types import Vector
from fedemu.units import Count, Size

T = TypeVar("T")

Arrays: TypeAlias = Mapping[str, Any]
"""Named NumPy arrays."""

Packed: TypeAlias = tuple[Any, Any, Arrays, Arrays]
"""A job or what came of it, its vectors apart as arrays: weights or delta, extras, and the client's state."""


def pool(*, workers: Count | None = None, buffer: Annotated[Size, Field(ge=0)] = BUFFER) -> Open:
    """Train in a pool of worker processes.

    Args:
        workers: Processes; by default one for each core that this process may use.
        buffer: Bytes of updates that wait in memory for their emulated time.
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
            yield _Processes(executor, count, Buffer(buffer))
        finally:
            processes = list((executor._processes or {}).values())
            executor.shutdown(wait=False, cancel_futures=True)
            for process in processes:  # a job that nobody waits for any more need not finish
                process.terminate()
            for process in processes:
                process.join()

    return open


class _Processes:
    def __init__(self, executor: ProcessPoolExecutor, workers: int, buffer: Buffer) -> None:
        self._executor, self.workers, self.buffer = executor, workers, buffer

    def train(self, recipe: Recipe, job: Job) -> "Future[Learned]":
        # arrays, not tensors: torch would pickle a tensor by moving it to shared memory
        whole: Any = job
        bare, weights = whole._replace(weights=None, extras=None, state=None), whole.weights
        packed = bare, weights.numpy(), _arrays(job.extras), _arrays(job.state)
        return self._submit(self._unpack, _train, recipe, packed)

    def evaluate(self, recipe: Recipe, weights: Vector, part: int) -> "Future[tuple[int, float]]":
        return self._submit(_as_it_is, _evaluate, recipe, weights.numpy(), part)

    def warm(self, recipe: Recipe) -> "Future[None]":
        return self._submit(_as_it_is, _warm, recipe)

    def _unpack(self, packed: Packed) -> Learned:
        return _unpack(packed).kept_in(self.buffer)

    def _submit(self, convert: Callable[[Any], T], work: Callable[..., Any], *arguments: Any) -> "Future[T]":
        try:
            return _then(self._executor.submit(work, *arguments), convert)
        except BrokenProcessPool as error:
            raise _died() from error


def end_with_parent() -> None:
    """See that this process ends when the one that it works for was killed, which can tell nobody."""
    parent = parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _start() -> None:
    end_with_parent()
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


def _train(recipe: Recipe, packed: Packed) -> Packed:
    bare, weights, extras, state = packed
    job = bare._replace(weights=torch.from_numpy(weights), extras=_tensors(extras), state=_tensors(state))
    learned: Any = _workshop(recipe).train(job)
    trained = learned.trained
    without = learned._replace(trained=trained._replace(delta=None, extras=None), state=None)
    return without, trained.delta.numpy(), _arrays(trained.extras), _arrays(learned.state)


def _unpack(packed: Packed) -> Learned:
    bare, delta, extras, state = packed
    trained = bare.trained._replace(delta=torch.from_numpy(delta), extras=_tensors(extras))
    learned: Learned = bare._replace(trained=trained, state=_tensors(state))
    return learned


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
    running = [future]
    """Until it is done: else its result would live as long as the converted one."""

    def done(before: "Future[Any]") -> None:
        running.clear()
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
    # a job that nobody wants any more and that has not begun
    after.add_done_callback(lambda _: [job.cancel() for job in running])
    return after
