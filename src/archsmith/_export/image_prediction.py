"""Classify image files with an exported model, whatever its format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from archsmith._export.opened import Opened
from archsmith.core.errors import DataError, UsageError
from archsmith.data.picture_decoding import read_picture

BATCH = 64


@dataclass(frozen=True)
class Prediction:
    """What a model says of one image file.

    Args:
        path: the file.
        top: classes with their probabilities, the likeliest first; empty when the file could not be read.
        error: why it could not be read, or None.
    """

    path: str
    top: Sequence[tuple[str, float]] = ()
    error: str | None = None

    @property
    def label(self) -> str | None:
        """The likeliest class."""
        return self.top[0][0] if self.top else None

    @property
    def probability(self) -> float | None:
        """Its probability, by softmax."""
        return self.top[0][1] if self.top else None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "path": self.path,
            "label": self.label,
            "probability": self.probability,
            "top": [{"label": label, "probability": probability} for label, probability in self.top],
            "error": self.error,
        }

    def __str__(self) -> str:
        if self.error is not None:
            return f"{self.path}: {self.error}"
        return f"{self.path}: " + ", ".join(f"{label} {100 * p:.1f} %" for label, p in self.top)


def classify(opened: Opened, asked: Sequence[tuple[str, str | None]], k: int) -> list[Prediction]:
    """The k most likely classes of each picture file, in their order.

    Args:
        opened: the model.
        asked: the path of each file, with the reason why it cannot be read, or None.
        k: how many classes to name.
    """
    card = opened.card
    channels, size = _channels_and_size(card)
    answers: list[Prediction | None] = []
    waiting: list[np.ndarray] = []

    def answer() -> None:
        if not waiting:
            return
        pixels = np.stack(waiting).transpose(0, 3, 1, 2).astype(np.float32) / 255.0
        waiting.clear()
        with torch.inference_mode():
            probabilities = opened.network(torch.from_numpy(pixels)).double().softmax(1)
        best = probabilities.topk(min(k, probabilities.shape[1]))
        unanswered = [i for i, a in enumerate(answers) if a is None]
        for i, values, indices in zip(unanswered, best.values.tolist(), best.indices.tolist(), strict=True):
            named = [(card["class_names"][j], p) for j, p in zip(indices, values, strict=True)]
            answers[i] = Prediction(asked[i][0], named)

    for path, why in asked:
        if why is not None:
            answers.append(Prediction(path, error=why))
            continue
        try:
            waiting.append(read_picture(Path(path), size, channels))
            answers.append(None)
        except DataError as error:
            said = str(error)
            answers.append(Prediction(path, error=said.removeprefix(f"{path} ")))
        if len(waiting) == BATCH:
            answer()
    answer()
    return [a for a in answers if a is not None]


def _channels_and_size(card: dict[str, Any]) -> tuple[int, int]:
    shape = card["task"]["input_shape"]
    if len(shape) != 3 or shape[0] not in (1, 3) or shape[1] != shape[2]:
        raise UsageError(
            f"image files are read as grey or colour squares, and this model takes {' x '.join(map(str, shape))} "
            "(channels, height, width); call it from Python with arrays of that shape"
        )
    return shape[0], shape[1]
