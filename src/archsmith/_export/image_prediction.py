"""Classify image files with an exported model, whatever its format."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from archsmith._export.documents import read_card
from archsmith._export.image_model import ImageModel
from archsmith._export.image_onnx import FILE as ONNX_FILE
from archsmith._export.image_onnx import open_onnx, run_onnx
from archsmith._export.image_source import run_source
from archsmith._export.pytorch import load
from archsmith.core.errors import DataError, UsageError
from archsmith.training.image_folder import read_picture

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


def predict(model: str | os.PathLike[str], images: Sequence[str | os.PathLike[str]], *, k: int = 3) -> list[Prediction]:
    """What an exported model says of image files of any size and mode, in their order.

    `model` is what `export` wrote: a folder in any format, or an `.onnx` file alone. Formats pytorch and onnx are data;
    format source is a program, and is run. A file that cannot be read gets a prediction with an error, and the others
    are answered all the same. Raises UsageError when the model cannot be used.
    """
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise UsageError(f"k must be a whole number of at least 1, got {k!r}")
    card, logits_of = _opened(Path(model))
    channels, size = _channels_and_size(card)
    paths = [os.fspath(path) for path in images]
    answers: list[Prediction | None] = []
    waiting: list[np.ndarray] = []

    def answer() -> None:
        if not waiting:
            return
        pixels = np.stack(waiting).transpose(0, 3, 1, 2).astype(np.float32) / 255.0
        waiting.clear()
        probabilities = torch.from_numpy(logits_of(pixels)).double().softmax(1)
        best = probabilities.topk(min(k, probabilities.shape[1]))
        unanswered = [i for i, a in enumerate(answers) if a is None]
        for i, values, indices in zip(unanswered, best.values.tolist(), best.indices.tolist(), strict=True):
            named = [(card["class_names"][j], p) for j, p in zip(indices, values, strict=True)]
            answers[i] = Prediction(paths[i], named)

    for path in paths:
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


def _opened(path: Path) -> tuple[dict[str, Any], Callable[[np.ndarray], np.ndarray]]:
    """The card of a model, and a function from pixels [n, channels, height, width] to logits."""
    if not path.exists():
        raise UsageError(f"there is no model at {path}; `archsmith export RUN` writes one")
    if path.is_file():
        if path.suffix != ".onnx":
            raise UsageError(
                f"a model is a folder that `archsmith export` wrote, or an .onnx file; got the file {path}"
            )
        session, card = open_onnx(path)
        return card, lambda pixels: run_onnx(session, pixels)
    card = read_card(path)
    if card["kind"] == "onnx":
        session, _ = open_onnx(path / ONNX_FILE)
        return card, lambda pixels: run_onnx(session, pixels)
    if card["kind"] == "source":
        module = run_source(path).load()
    elif card["kind"] == "pytorch":
        model = load(path)
        assert isinstance(model, ImageModel)
        module = model.deployed()
    else:
        raise UsageError(f"{path} holds a model in format {card['kind']!r}, which this archsmith does not know")

    def logits_of(pixels: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            logits: np.ndarray = module(torch.from_numpy(pixels)).numpy()
        return logits

    return card, logits_of


def _channels_and_size(card: dict[str, Any]) -> tuple[int, int]:
    shape = card["task"]["input_shape"]
    if len(shape) != 3 or shape[0] not in (1, 3) or shape[1] != shape[2]:
        raise UsageError(
            f"image files are read as grey or colour squares, and this model takes {' x '.join(map(str, shape))} "
            "(channels, height, width); call it from Python with arrays of that shape"
        )
    return shape[0], shape[1]
