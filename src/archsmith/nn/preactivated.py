"""What networks of pre-activation blocks have in common (He et al. 2016, "Identity Mappings in Deep Residual Networks")."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from archsmith.core.child import Task
from archsmith.nn.conv import GlobalAverage, initialise

STEM_CHANNELS = 16


class PreActivated(nn.Module):
    """A 3x3 convolution to 16 channels, blocks that begin with batch norm and ReLU, the two once more, and a classifier.

    Args:
        task: the images and classes.
        stem: the stride of the first convolution.
        blocks: in order; the first reads 16 channels.
        channels: of what the last block gives.
    """

    def __init__(self, task: Task, stem: int, blocks: Sequence[nn.Module], channels: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(task.input_shape[0], STEM_CHANNELS, 3, stem, padding=1, bias=False)
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.pool = GlobalAverage()
        self.classifier = nn.Linear(channels, task.num_classes)
        initialise(self)

    def forward(self, image: Tensor) -> Tensor:
        """[n, channels, height, width] -> logits [n, num_classes]."""
        logits: Tensor = self.classifier(self.pool(self.relu(self.norm(self.blocks(self.stem(image))))))
        return logits
