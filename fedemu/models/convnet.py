"""A plain stack of convolutions whose activation can be swapped: 115,658 parameters at depth 4 on CIFAR-10.

For "Revisiting the Activation Function for Federated Image Classification" (KAIST, ICLR 2023 submission hf6JLVbAog),
which states neither widths nor normalisation. Both are inferred from the same group's FedBABU code (jhoon-oh/FedBABU,
CNNCifar): 64 channels, BatchNorm on the statistics of the batch at hand, in evaluation too, so that there is nothing
but parameters to average. Initial weights are PyTorch's defaults, the same for every activation.
"""

from collections import OrderedDict
from typing import Literal

from torch import nn

from fedemu.models._base import Task
from fedemu.models._image import image_shape
from fedemu.units import Count

_ACTIVATIONS = {
    "identity": nn.Identity,
    "tanh": nn.Tanh,
    "hardtanh": nn.Hardtanh,
    "relu": nn.ReLU,
    "leaky-relu": nn.LeakyReLU,
}


def convnet(
    task: Task,
    /,
    *,
    depth: Count = 4,
    width: Count = 64,
    activation: Literal["identity", "tanh", "hardtanh", "relu", "leaky-relu"] = "relu",
) -> nn.Module:
    """Stack of 3x3 convolutions with batch norm, a choice of activation, and a linear head.

    Args:
        task: Images, and how many classes.
        depth: Number of convolutions.
        width: Channels of each convolution.
        activation: Stands after every convolution; leaky-relu has slope 0.01.
    """
    channels, height, width_in = image_shape(task, least=2)
    blocks: OrderedDict[str, nn.Module] = OrderedDict()
    for i in range(depth):
        layers = OrderedDict[str, nn.Module](
            conv=nn.Conv2d(width if i else channels, width, 3, padding=1),
            norm=nn.BatchNorm2d(width, track_running_stats=False),
            activation=_ACTIVATIONS[activation](),
        )
        # Four times at most, and never below 2 x 2: batch norm cannot take a batch of one example and one pixel.
        if i < 4 and min(height, width_in) >= 4:
            layers["pool"] = nn.MaxPool2d(2)
            height, width_in = height // 2, width_in // 2
        blocks[f"block{i + 1}"] = nn.Sequential(layers)
    return nn.Sequential(
        OrderedDict(**blocks, flat=nn.Flatten(), head=nn.Linear(width * height * width_in, task.classes))
    )
