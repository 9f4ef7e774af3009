"""FedSGD: every client takes one gradient step over all its examples, and the server takes the mean of the steps.

McMahan, Moore, Ramage, Hampson, Agüera y Arcas, "Communication-Efficient Learning of Deep Networks from Decentralized
Data", AISTATS 2017, section 2: FedAvg with E = 1 and B = infinity, which is large-batch synchronous SGD on the union of
the cohort's examples. `batch_size` is not read, as the batch is always the whole.
"""

from dataclasses import replace

from fedemu.strategies._base import Strategy
from fedemu.strategies._mean import by_examples, weighted_mean
from fedemu.strategies._plain import by_sgd, no_extras, no_state
from fedemu.types import Training


def fedsgd(training: Training, /) -> Strategy:
    """One step of each client with the gradient of its whole loss, averaged by examples.

    Args:
        training: How clients train: one epoch without momentum, at any learning rate; the batch is always full.

    Raises:
        ValueError: The training is more than one step.
    """
    if training.epochs != 1:
        raise ValueError(f"{training.epochs} epochs; fedsgd takes one step, so expected 1 (fedavg takes more)")
    if training.momentum != 0:
        raise ValueError(f"local momentum {training.momentum}; fedsgd takes one step, so expected 0")
    return Strategy(by_sgd(replace(training, batch_size=None)), weighted_mean(by_examples), no_state, no_extras)
