"""The MNIST CNN of the FedAvg paper: 1,663,370 parameters on MNIST.

McMahan, Moore, Ramage, Hampson, Agüera y Arcas, "Communication-Efficient Learning of Deep Networks from Decentralized
Data", AISTATS 2017, section 3.
"""

from collections import OrderedDict

from torch import nn

from fedemu.models._base import Task
from fedemu.models._image import image_shape


def mnist_cnn(task: Task, /) -> nn.Module:
    """Two 5x5 convolutions and a layer of 512 units, the FedAvg paper's MNIST CNN."""
    channels, height, width = image_shape(task, least=4)
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(channels, 32, 5, padding=2),
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(32, 64, 5, padding=2),
            relu2=nn.ReLU(),
            pool2=nn.MaxPool2d(2),
            flat=nn.Flatten(),
            fc1=nn.Linear(64 * (height // 4) * (width // 4), 512),
            relu3=nn.ReLU(),
            fc2=nn.Linear(512, task.classes),
        )
    )
