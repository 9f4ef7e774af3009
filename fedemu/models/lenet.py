"""The small CNN of Flower's PyTorch quickstart, after LeNet-5: 62,006 parameters on CIFAR-10.

Layers as in adap/flower v0.18.0, examples/quickstart_pytorch; LeCun, Bottou, Bengio, Haffner, "Gradient-Based Learning
Applied to Document Recognition", Proc. IEEE 1998.
"""

from collections import OrderedDict

from torch import nn

from fedemu.models._base import Task
from fedemu.models._image import image_shape


def lenet(task: Task, /) -> nn.Module:
    """Two 5x5 convolutions and three linear layers, Flower's quickstart CNN."""
    channels, height, width = image_shape(task, least=16)
    # each block takes 4 pixels off a side, then halves it: 32 -> 14 -> 5 on CIFAR-10, 28 -> 12 -> 4 on MNIST
    rows, columns = (((side - 4) // 2 - 4) // 2 for side in (height, width))
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(channels, 6, 5),
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(6, 16, 5),
            relu2=nn.ReLU(),
            pool2=nn.MaxPool2d(2),
            flat=nn.Flatten(),
            fc1=nn.Linear(16 * rows * columns, 120),
            relu3=nn.ReLU(),
            fc2=nn.Linear(120, 84),
            relu4=nn.ReLU(),
            fc3=nn.Linear(84, task.classes),
        )
    )
