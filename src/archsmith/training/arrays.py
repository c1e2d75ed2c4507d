"""Images and labels in memory as the data of an evaluator. A run records their digest, not their content."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from archsmith.core import loaded
from archsmith.core.errors import DataError

if TYPE_CHECKING:
    from archsmith.data.images import ImageData


NAME = "arrays"


@dataclass(frozen=True)
class Arrays:
    """Images and labels that were given as arrays. A run records their digest, so they must be given again to resume it.

    Args:
        sha256: of their content, hexadecimal.
        images: how many there are.
        content: the data set itself; None if this was made from the record of a run.
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
                "stored with it; give them again: in Python as data=(images, labels) of resume, or as evaluator= of open_run; on "
                "the command line in a FILE.py, whose recipe has an evaluator with them"
            )
        return content

    @property
    def key(self) -> Hashable:
        """The key of the data set in `core.loaded`, which hands it to other processes."""
        return ("arrays", self.sha256)

    def __reduce__(self) -> tuple[type[Arrays], tuple[Any, ...]]:
        return Arrays, (self.sha256, self.images, None if loaded.is_sent_along(self.key) else self.content)

    def __str__(self) -> str:
        return NAME
