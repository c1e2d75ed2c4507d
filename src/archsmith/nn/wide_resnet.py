"""Wide residual networks (Zagoruyko and Komodakis 2016): the children of AutoAugment, and judges of activations.

A 3x3 convolution to 16 channels, three stages of n pre-activation blocks of 16 k, 32 k and 64 k channels, batch norm, ReLU,
global average, linear: WRN-(6n + 4)-k. No dropout, which the paper leaves out where images are augmented.
"""

from __future__ import annotations

from torch import Tensor, nn

from archsmith.core.child import Task
from archsmith.core.errors import UsageError
from archsmith.nn.preactivated import STEM_CHANNELS, PreActivated
from archsmith.nn.resnet import strides_of


class WideBlock(nn.Module):
    """Batch norm, ReLU, 3x3 convolution, twice, with a shortcut: [n, c, h, w] -> [n, width, h / stride, w / stride].

    Where the shape changes, the shortcut is a 1x1 convolution of the first ReLU's output, as in the authors' code.
    """

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(in_channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv = nn.Conv2d(in_channels, width, 3, stride, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(width)
        self.second_relu = nn.ReLU(inplace=True)
        self.second_conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
        changes = stride > 1 or in_channels != width
        self.shortcut = nn.Conv2d(in_channels, width, 1, stride, bias=False) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        """[n, in_channels, h, w] -> [n, width, ceil(h / stride), ceil(w / stride)]."""
        active = self.relu(self.norm(x))
        carried = x if self.shortcut is None else self.shortcut(active)
        out: Tensor = carried + self.second_conv(self.second_relu(self.second_norm(self.conv(active))))
        return out


class WideResNet(PreActivated):
    """The network.

    Args:
        task: the images and classes.
        depth: 6n + 4 layers.
        widen: k, the factor of the widths.

    Raises UsageError for another depth.
    """

    def __init__(self, task: Task, depth: int, widen: int) -> None:
        if depth < 10 or (depth - 4) % 6:
            raise UsageError(f"a wide residual network has 6n + 4 layers (10, 16, 22, 28, 40, ...), got depth={depth}")
        stem, *strides = strides_of(task)
        blocks: list[nn.Module] = []
        channels = STEM_CHANNELS
        for stage, stride in enumerate(strides):
            for block in range((depth - 4) // 6):
                width = widen * 16 * 2**stage
                blocks.append(WideBlock(channels, width, stride if block == 0 else 1))
                channels = width
        super().__init__(task, stem, blocks, channels)


def wrn_40_2(task: Task) -> WideResNet:
    """WRN-40-2: 2,243,546 parameters for ten classes of 3x32x32."""
    return WideResNet(task, 40, 2)


def wrn_28_10(task: Task) -> WideResNet:
    """WRN-28-10: 36,479,194 parameters for ten classes of 3x32x32."""
    return WideResNet(task, 28, 10)
