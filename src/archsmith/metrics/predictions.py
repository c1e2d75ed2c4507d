"""The predictions of a classifier for a set of labelled items, from which all statistics of this package are computed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from archsmith.core.errors import UsageError

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a classifier said of each item of a labelled set.

    Args:
        probabilities: of each class, float32 [items, classes]; the rows sum to 1.
        labels: the true classes, int64 [items].
        files: the items' paths below the data; empty if the data are arrays.

    Raises UsageError if the shapes do not fit, a label names no class, or a probability is no finite number from 0 to 1.
    """

    probabilities: Floats
    labels: Integers
    files: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        probabilities = np.asarray(self.probabilities, dtype=np.float32)
        labels = np.asarray(self.labels)
        files = tuple(str(file) for file in self.files)
        if probabilities.ndim != 2 or probabilities.shape[1] == 0:
            raise UsageError(f"probabilities must be [items, classes], got the shape {list(probabilities.shape)}")
        n, classes = probabilities.shape
        if labels.shape != (n,):
            raise UsageError(
                f"labels must be one for each of the {n:,} predictions, got the shape {list(labels.shape)}"
            )
        if n and not (np.issubdtype(labels.dtype, np.integer) and labels.min() >= 0 and labels.max() < classes):
            raise UsageError(f"labels must be whole numbers from 0 to {classes - 1}")
        if files and len(files) != n:
            raise UsageError(f"files must be one for each of the {n:,} predictions or none, got {len(files):,}")
        if not (np.isfinite(probabilities).all() and (probabilities >= 0).all() and (probabilities <= 1.001).all()):
            raise UsageError("probabilities must be finite numbers from 0 to 1")
        object.__setattr__(self, "probabilities", probabilities)
        object.__setattr__(self, "labels", labels.astype(np.int64))
        object.__setattr__(self, "files", files)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return int(self.probabilities.shape[1])

    @property
    def predicted(self) -> Integers:
        """The most probable class of each item; of equals the first."""
        classes: Integers = self.probabilities.argmax(1).astype(np.int64)
        return classes

    @property
    def confidence(self) -> Floats:
        """The probability of the predicted class."""
        highest: Floats = self.probabilities.max(1)
        return highest

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """Whether each prediction is the label."""
        right: npt.NDArray[np.bool_] = self.predicted == self.labels
        return right

    @property
    def correct(self) -> int:
        """How many predictions are right."""
        return int(self.right.sum())

    @property
    def accuracy(self) -> float | None:
        """The share of right predictions; None without items."""
        return self.correct / len(self) if len(self) else None

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """The arrays by name, for an artifact. The files are the bytes of a JSON list."""
        files = np.frombuffer(json.dumps(self.files).encode(), dtype=np.uint8)
        return {"probabilities": self.probabilities, "labels": self.labels, "files": files}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Any]) -> Predictions:
        """What `tensors` gave, as numpy arrays or as torch tensors. Raises UsageError for anything else."""
        try:
            arrays = {name: np.asarray(tensors[name]) for name in ("probabilities", "labels", "files")}
            files = json.loads(arrays["files"].astype(np.uint8).tobytes())
            if not isinstance(files, list):
                raise TypeError("files is no list")
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"these tensors are no predictions: {type(error).__name__}: {error}") from None
        return cls(arrays["probabilities"], arrays["labels"], tuple(files))
