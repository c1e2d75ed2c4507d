"""Residual networks for small images (He et al. 2016, section 4.2): the hand-designed network beside a found one.

A 3x3 convolution, three stages of n blocks of two 3x3 convolutions, global average pooling, a linear classifier:
6n + 2 layers. The first block of the second and third stage halves the map and doubles the width, and its shortcut is
a 1x1 convolution (option B of the paper); the other shortcuts are identities. A map is not
halved below 7x7: an image of 8x8 keeps its size, and one of 28x28 becomes 14x14 and 7x7.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from archsmith.core.child import Task
from archsmith.core.errors import UsageError
from archsmith.nn.conv import ConvLayer, GlobalAverage, initialise


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut around them: [n, c, h, w] -> [n, width, h / stride, w / stride]."""

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.first = ConvLayer(in_channels, width, (3, 3), (stride, stride))
        self.conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        same = stride == 1 and in_channels == width
        self.shortcut = nn.Identity() if same else Projection(in_channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """[n, in_channels, h, w] -> [n, width, ceil(h / stride), ceil(w / stride)]."""
        out: Tensor = self.relu(self.norm(self.conv(self.first(x))) + self.shortcut(x))
        return out


class Projection(nn.Sequential):
    """The shortcut of a block that changes the shape: a 1x1 convolution with stride and batch norm."""

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__(nn.Conv2d(in_channels, width, 1, stride, bias=False), nn.BatchNorm2d(width))


class ResNet(nn.Module):
    """The network.

    Args:
        task: the images and classes.
        blocks: n, the blocks of each stage; the depth is 6n + 2.
        widths: the channels of the three stages.
    """

    def __init__(self, task: Task, blocks: int, widths: tuple[int, int, int]) -> None:
        super().__init__()
        self.sizes = (blocks, widths)
        stem, *strides = strides_of(task)
        kernel = max(3, 2 * stem - 1)
        self.stem = ConvLayer(task.input_shape[0], widths[0], (kernel, kernel), (stem, stem))
        layers: list[nn.Module] = []
        channels = widths[0]
        for width, stride in zip(widths, strides, strict=True):
            for block in range(blocks):
                layers.append(ResidualBlock(channels, width, stride if block == 0 else 1))
                channels = width
        self.blocks = nn.Sequential(*layers)
        self.pool = GlobalAverage()
        self.classifier = nn.Linear(channels, task.num_classes)
        initialise(self)

    def forward(self, image: Tensor) -> Tensor:
        """[n, channels, height, width] -> logits [n, num_classes]."""
        logits: Tensor = self.classifier(self.pool(self.blocks(self.stem(image))))
        return logits


def strides_of(task: Task) -> tuple[int, int, int, int]:
    """The strides of the stem and of the three stages.

    The stem's is above 1 where images are 64 wide and more, so that the stages begin with maps of 32 to 63 on the
    shorter side; a stage's is 1 where it would halve the map to less than 7.
    """
    if len(task.input_shape) != 3:
        raise UsageError(f"a residual network needs images, [channels, height, width], got {task.input_shape}")
    shorter, stem = min(task.input_shape[1:]), 1
    while shorter // (2 * stem) >= 32:
        stem *= 2
    shorter = -(-shorter // stem)
    second = 2 if (shorter + 1) // 2 >= 7 else 1
    third = 2 if (shorter + 3) // 4 >= 7 else 1
    return stem, 1, second, third


def resnet20(task: Task) -> ResNet:
    """ResNet-20 with 16, 32 and 64 channels: 272,474 parameters for ten classes of 3x32x32."""
    return ResNet(task, 3, (16, 32, 64))


def resnet8(task: Task) -> ResNet:
    """A residual network that trains at a desk: 8 layers, 16, 32 and 64 channels, 78,042 parameters for 3x32x32."""
    return ResNet(task, 1, (16, 32, 64))


def resnet_of_size(parameters: int, task: Task) -> ResNet:
    """The residual network whose number of parameters is nearest to `parameters`.

    As deep as ResNet-20 where it can be at least 8 channels wide, with fewer blocks where it cannot, and with more
    (up to 56 layers) where it would be wider than 64. Widths keep the ratio 1 : 2 : 4 but for the last few channels,
    which bring the count near: within 1 % from about 20,000 parameters on.

    Raises UsageError for fewer than one parameter, or a task that is not of images.
    """
    if parameters < 1:
        raise UsageError(f"a network needs at least one parameter, got {parameters}")
    blocks = 3
    while blocks > 1 and size(task, blocks, (8, 16, 32)) > parameters:
        blocks -= 1
    while blocks < 9 and size(task, blocks, (64, 128, 256)) < parameters:
        blocks += 1
    widths = min(_widths(parameters, task, blocks), key=lambda w: abs(size(task, blocks, w) - parameters))
    return ResNet(task, blocks, widths)


def _widths(parameters: int, task: Task, blocks: int) -> Iterator[tuple[int, int, int]]:
    """The widths around the ratio 1 : 2 : 4 at about this size."""
    width = 1
    while size(task, blocks, (width + 1, 2 * width + 2, 4 * width + 4)) <= parameters:
        width += 1
    for first in (width, width + 1):
        for second in range(max(2 * first - 2, 1), 2 * first + 3):
            for third in range(max(4 * first - 6, 1), 4 * first + 7):
                yield first, second, third


def size(task: Task, blocks: int, widths: tuple[int, int, int]) -> int:
    """How many parameters the network has, without making it."""
    stem, *strides = strides_of(task)
    channels, total = widths[0], task.input_shape[0] * widths[0] * max(3, 2 * stem - 1) ** 2 + 2 * widths[0]
    for width, stride in zip(widths, strides, strict=True):
        for block in range(blocks):
            total += 9 * channels * width + 9 * width * width + 4 * width
            if channels != width or (block == 0 and stride > 1):
                total += channels * width + 2 * width
            channels = width
    return total + channels * task.num_classes + task.num_classes
