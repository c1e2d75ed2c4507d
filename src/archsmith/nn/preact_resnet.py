"""Pre-activation residual networks (He et al. 2016, "Identity Mappings in Deep Residual Networks", section 3 and appendix).

A 3x3 convolution to 16 channels, three stages of n bottlenecks that end in 64, 128 and 256 channels, batch norm, ReLU, global
average, linear: 9n + 2 layers. A bottleneck is batch norm, ReLU and a convolution, three times: 1x1, 3x3, 1x1.
"""

from __future__ import annotations

from torch import Tensor, nn

from archsmith.core.child import Task
from archsmith.core.errors import UsageError
from archsmith.nn.preactivated import STEM_CHANNELS, PreActivated
from archsmith.nn.resnet import strides_of


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions with a shortcut around them: [n, c, h, w] -> [n, 4 width, h / stride, w / stride].

    Where the shape changes, the shortcut is a 1x1 convolution of the first ReLU's output, as in the authors' code.
    """

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        out_channels = 4 * width
        self.norm = nn.BatchNorm2d(in_channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv = nn.Conv2d(in_channels, width, 1, stride, bias=False)
        self.second_norm = nn.BatchNorm2d(width)
        self.second_relu = nn.ReLU(inplace=True)
        self.second_conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.third_norm = nn.BatchNorm2d(width)
        self.third_relu = nn.ReLU(inplace=True)
        self.third_conv = nn.Conv2d(width, out_channels, 1, bias=False)
        changes = stride > 1 or in_channels != out_channels
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        """[n, in_channels, h, w] -> [n, 4 width, ceil(h / stride), ceil(w / stride)]."""
        active = self.relu(self.norm(x))
        carried = x if self.shortcut is None else self.shortcut(active)
        inner = self.second_conv(self.second_relu(self.second_norm(self.conv(active))))
        out: Tensor = carried + self.third_conv(self.third_relu(self.third_norm(inner)))
        return out


class PreActResNet(PreActivated):
    """The network.

    Args:
        task: the images and classes.
        depth: 9n + 2 layers.

    Raises UsageError for another depth.
    """

    def __init__(self, task: Task, depth: int) -> None:
        if depth < 11 or (depth - 2) % 9:
            raise UsageError(
                f"a residual network of bottlenecks has 9n + 2 layers (11, 20, 29, ...), got depth={depth}"
            )
        stem, *strides = strides_of(task)
        blocks: list[nn.Module] = []
        channels = STEM_CHANNELS
        for stage, stride in enumerate(strides):
            for block in range((depth - 2) // 9):
                blocks.append(Bottleneck(channels, 16 * 2**stage, stride if block == 0 else 1))
                channels = 64 * 2**stage
        super().__init__(task, stem, blocks, channels)


def preact_resnet164(task: Task) -> PreActResNet:
    """Pre-activation ResNet-164: 1,703,258 parameters for ten classes of 3x32x32; the paper has 1.7 million."""
    return PreActResNet(task, 164)
