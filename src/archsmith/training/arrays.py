"""Images and labels in memory as the data of an evaluator: known by their content, and not kept with a run."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from archsmith.core import loaded
from archsmith.core.errors import DataError

if TYPE_CHECKING:
    from archsmith.training.data import ImageData


NAME = "arrays"


@dataclass(frozen=True)
class Arrays:
    """Images and labels that were given as arrays. A run's record has their digest; who goes on with it gives them again.

    Args:
        sha256: of their content, hexadecimal.
        images: how many there are.
        content: the data set itself; None where it was made from the record of a run.
    """

    sha256: str
    images: int
    content: ImageData | None = field(default=None, repr=False, compare=False)

    def read(self) -> ImageData:
        """The data set. Raises DataError when it is not in this process."""
        content: ImageData | None = self.content if self.content is not None else loaded.given(self.key)
        if content is None:
            raise DataError(
                f"the {self.images:,} images of this run were arrays in memory (SHA-256 {self.sha256[:12]}...), and are not "
                "kept with it; give them again: in Python as data=(images, labels) of resume, or as evaluator= of open_run; on "
                "the command line in a FILE.py, whose recipe has an evaluator with them"
            )
        return content

    @property
    def key(self) -> Hashable:
        """What the data set is called where it is handed to another process; see `core.loaded`."""
        return ("arrays", self.sha256)

    def __reduce__(self) -> tuple[type[Arrays], tuple[Any, ...]]:
        return Arrays, (self.sha256, self.images, None if loaded.is_sent_along(self.key) else self.content)

    def __str__(self) -> str:
        return NAME
