"""A toy workshop for workers in other processes, which cannot import the test itself."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fedemu.compute._base import Learned
from fedemu.types import Trained


@dataclass(frozen=True)
class Recipe:
    """Makes workshops that do what the client's name says."""

    name: str = "toy"

    def __call__(self) -> "Workshop":
        return Workshop(self.name)


class Workshop:
    """Trains without data: one seeded step, or whatever trouble the client's name asks for."""

    def __init__(self, name: str) -> None:
        if name == "broken":
            raise RuntimeError("no such data")
        self.name, self.made = name, time.monotonic_ns()

    def train(self, job):
        if job.client == "fails":
            raise ValueError("the loss is not a number")
        if job.client == "busy":
            Path(job.extras["path"].numpy().tobytes().decode()).touch()
            while True:
                torch.ones(1000).sum()
        if job.client == "dies":
            os._exit(9)
        if job.client == "facts":
            facts = [torch.get_num_threads(), os.getpid(), self.made]
            return Learned(Trained(torch.tensor(facts, dtype=torch.float64), 0, 0, 0.0), {})
        rng = np.random.default_rng([job.round, job.turn])
        step = torch.from_numpy(rng.standard_normal(len(job.weights)).astype(np.float32))
        delta = torch.tanh(job.weights @ step) * step + job.extras["c"]
        memory = {"seen": job.state.get("seen", torch.zeros(1)) + 1}
        return Learned(Trained(delta, 7, 2, 0.25, {"control": delta * 2}), memory)

    def evaluate(self, weights, part):
        return part, float(weights.double().sum())
