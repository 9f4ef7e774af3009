"""A scenario's learning problem: what one process makes of it, any other does."""

import dataclasses

import torch
from torch import nn

from fedemu.compute._base import Job
from fedemu.learning import Learning
from fedemu.scenario import parse

SCENARIO = {
    "name": "small",
    "dataset": {"kind": "digits", "examples": 64},
    "partition": {"kind": "iid"},
    "model": {"kind": "softmax"},
    "strategy": {"kind": "fedavg"},
    "clients": {"phones": {"count": 2}},
    "stop": {"rounds": 1},
}


def test_layers_that_draw_are_seeded_by_client_and_round() -> None:
    """Dropout takes PyTorch's global generator: the same job gives the same delta whatever was drawn before."""
    module = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 10))
    learning = dataclasses.replace(Learning.of(parse(SCENARIO)), module=module)
    weights = torch.zeros(650)

    def delta(round: int) -> torch.Tensor:
        torch.rand(round)  # somebody else draws
        return learning.train(Job("phones/0", round, 1, weights, {}, {}, 1)).trained.delta

    first, again, later = delta(1), delta(1), delta(2)
    assert torch.equal(first, again)
    assert not torch.equal(first, later)


def test_training_leaves_the_global_generator_as_it_was() -> None:
    """Users' own code in this process may draw from it."""
    learning = Learning.of(parse(SCENARIO))
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    learning.train(Job("phones/0", 1, 1, torch.zeros(650), {}, {}, 1))
    assert torch.equal(torch.rand(1), expected)
