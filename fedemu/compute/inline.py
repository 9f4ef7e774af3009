"""Training in a thread of this process: nothing is copied, and one job runs at a time."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache

import torch

from fedemu.compute._base import Compute, Job, Open, Recipe, Workshop
from fedemu.types import State, Trained, Vector


def inline() -> Open:
    """Train in one thread of this process."""

    @contextmanager
    def open() -> Iterator[Compute]:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        executor = ThreadPoolExecutor(1, thread_name_prefix="train")
        try:
            yield _Thread(executor)
        finally:
            executor.shutdown(cancel_futures=True)
            torch.set_num_threads(threads)

    return open


class _Thread:
    workers = 1

    def __init__(self, executor: ThreadPoolExecutor) -> None:
        self._executor = executor
        self._workshop = lru_cache(1)(_make)

    def train(self, recipe: Recipe, job: Job) -> "Future[tuple[Trained, State]]":
        return self._executor.submit(lambda: self._workshop(recipe).train(job))

    def evaluate(self, recipe: Recipe, weights: Vector, part: int) -> "Future[tuple[int, float]]":
        return self._executor.submit(lambda: self._workshop(recipe).evaluate(weights, part))

    def warm(self, recipe: Recipe) -> "Future[None]":
        def make() -> None:
            self._workshop(recipe)

        return self._executor.submit(make)


def _make(recipe: Recipe) -> Workshop:
    return recipe()
