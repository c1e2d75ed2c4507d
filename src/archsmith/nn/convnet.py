"""A plain network of two convolutions, on which update rules are searched (Bello et al. 2017, section 4).

"A small ConvNet with two layers of 3x3 filters, 32 of them each, with batch normalization and ReLU". The paper does not say what
follows: here the map is averaged, and a linear layer gives the classes; 10,538 parameters for ten classes of 3x32x32.
"""

from __future__ import annotations

from torch import Tensor, nn

from archsmith.core.child import Task
from archsmith.core.errors import UsageError
from archsmith.nn.conv import ConvLayer, GlobalAverage, initialise


class ConvNet(nn.Module):
    """The network.

    Args:
        task: the images and classes.
        filters: of each of the two convolutions.
        stride: of the first.
    """

    def __init__(self, task: Task, filters: int, stride: int = 1) -> None:
        super().__init__()
        if len(task.input_shape) != 3:
            raise UsageError(f"a convolution needs images, [channels, height, width], got {task.input_shape}")
        self.first = ConvLayer(task.input_shape[0], filters, (3, 3), (stride, stride))
        self.second = ConvLayer(filters, filters, (3, 3))
        self.pool = GlobalAverage()
        self.classifier = nn.Linear(filters, task.num_classes)
        initialise(self)

    def forward(self, image: Tensor) -> Tensor:
        """[n, channels, height, width] -> logits [n, num_classes]."""
        logits: Tensor = self.classifier(self.pool(self.second(self.first(image))))
        return logits


def convnet2(task: Task) -> ConvNet:
    """The paper's: two layers of 32 filters."""
    return ConvNet(task, 32)


def convnet2_small(task: Task) -> ConvNet:
    """For a desk: 16 filters, and the first layer halves the map; an eighth of the work."""
    return ConvNet(task, 16, 2)
