"""The 2NN of the FedAvg paper: two hidden layers of ReLU units, 199,210 parameters on MNIST.

McMahan, Moore, Ramage, Hampson, Agüera y Arcas, "Communication-Efficient Learning of Deep Networks from Decentralized
Data", AISTATS 2017, section 3.
"""

import math
from collections import OrderedDict

from torch import nn

from fedemu.models._base import Task
from fedemu.units import Count


def twonn(task: Task, /, *, hidden: Count = 200) -> nn.Module:
    """Multilayer perceptron with two hidden layers, the FedAvg paper's 2NN.

    Args:
        task: Inputs of any shape, and how many classes.
        hidden: Units of each hidden layer.
    """
    return nn.Sequential(
        OrderedDict(
            flat=nn.Flatten(),
            fc1=nn.Linear(math.prod(task.shape), hidden),
            relu1=nn.ReLU(),
            fc2=nn.Linear(hidden, hidden),
            relu2=nn.ReLU(),
            fc3=nn.Linear(hidden, task.classes),
        )
    )
