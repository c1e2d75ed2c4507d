"""The residual network that `finish` trains as a baseline, as a space through which its export is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from archsmith.core.child import AnyTask, Child, Task
from archsmith.core.errors import UsageError
from archsmith.core.genotype import Architecture
from archsmith.core.walk import Choose
from archsmith.nn.resnet import ResNet

TYPE = "baselines.ResidualNetwork"
_MOST_BLOCKS, _MOST_WIDTH = 1_000, 100_000  # a stranger's card could ask for any


@dataclass(frozen=True)
class ResidualBaseline:
    """`archsmith.nn.resnet.ResNet` in one size.

    Args:
        blocks: of each of the three stages.
        widths: their channels.
    """

    blocks: int
    widths: tuple[int, int, int]

    def architecture(self, choose: Choose) -> Architecture:
        """The only architecture of this space."""
        return {"network": "residual network", "blocks": self.blocks, "widths": list(self.widths)}

    def build(self, architecture: Architecture, task: AnyTask) -> Child:
        """The network, freshly initialised."""
        if not isinstance(task, Task):
            raise UsageError(f"a residual network reads images, and the task is a {type(task).__name__}")
        return Child(ResNet(task, self.blocks, self.widths))

    def record(self) -> dict[str, Any]:
        """The entry "space" of `model.json`."""
        return {"type": TYPE, "blocks": self.blocks, "widths": list(self.widths)}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> ResidualBaseline:
        """What `record` wrote. Raises UsageError for anything else."""
        blocks, widths = record.get("blocks"), record.get("widths")
        if not _is_size(blocks, _MOST_BLOCKS) or not isinstance(widths, list) or len(widths) != 3:
            raise UsageError(f"{TYPE} has blocks and three widths, which are whole numbers; got {dict(record)}"[:300])
        if not all(_is_size(width, _MOST_WIDTH) for width in widths):
            raise UsageError(f"the widths of {TYPE} are whole numbers up to {_MOST_WIDTH:,}, got {widths}"[:300])
        return cls(int(str(blocks)), (widths[0], widths[1], widths[2]))


def _is_size(value: Any, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most
