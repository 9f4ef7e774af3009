"""Training in a thread of this process: nothing is copied, and one job runs at a time."""

import ctypes
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from typing import Annotated, TypeVar

import torch
from pydantic import Field

from fedemu.compute._base import Compute, Job, Learned, Open, Recipe, Workshop
from fedemu.compute._buffer import BUFFER, Buffer
from fedemu.types import Vector
from fedemu.units import Size

T = TypeVar("T")


def inline(*, buffer: Annotated[Size, Field(ge=0)] = BUFFER) -> Open:
    """Train in one thread of this process.

    Args:
        buffer: Bytes of updates that wait in memory for their emulated time.
    """

    @contextmanager
    def open() -> Iterator[Compute]:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        thread = _Thread(Buffer(buffer))
        try:
            yield thread
        finally:
            thread.stop()
            torch.set_num_threads(threads)

    return open


class _Stopped(BaseException):
    """Raised in a job that nobody waits for any more."""


class _Thread:
    workers = 1

    def __init__(self, buffer: Buffer) -> None:
        self.buffer = buffer
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="train")
        self._workshop = lru_cache(1)(_make)
        self._ident = self._executor.submit(threading.get_ident).result()
        self._busy = self._stopped = False
        self._turning = threading.Lock()
        """Held by who changes one of the two."""

    def train(self, recipe: Recipe, job: Job) -> "Future[Learned]":
        return self._submit(lambda: self._workshop(recipe).train(job).kept_in(self.buffer))

    def evaluate(self, recipe: Recipe, weights: Vector, part: int) -> "Future[tuple[int, float]]":
        return self._submit(lambda: self._workshop(recipe).evaluate(weights, part))

    def warm(self, recipe: Recipe) -> "Future[None]":
        def make() -> None:
            self._workshop(recipe)

        return self._submit(make)

    def stop(self) -> None:
        """Cancel the jobs that wait, and end the one that runs at its next line of Python."""
        self._executor.shutdown(wait=False, cancel_futures=True)
        with self._turning:
            self._stopped = True
            if self._busy:
                self._raise_there(ctypes.py_object(_Stopped))
        self._executor.shutdown()

    def _raise_there(self, error: "ctypes.py_object[type[BaseException]] | None") -> None:
        """Raise it in the thread at its next line of Python: a thread cannot be killed. None takes that back."""
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self._ident), error)

    def _submit(self, work: Callable[[], T]) -> "Future[T]":
        def job() -> T:
            with self._turning:
                if self._stopped:
                    raise _Stopped
                self._busy = True
            try:
                return work()
            finally:
                with self._turning:
                    self._busy = False
                    self._raise_there(None)  # what comes behind the job is the executor's, which would log it

        return self._executor.submit(job)


def _make(recipe: Recipe) -> Workshop:
    return recipe()
