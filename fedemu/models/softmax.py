"""Softmax regression: one linear layer, a convex objective."""

import math

from torch import nn

from fedemu.models._base import Task


def softmax(task: Task, /) -> nn.Module:
    """Softmax regression: one linear layer."""
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(task.shape), task.classes))
