"""Exports: the trained network as files that others can use."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from archsmith._export.from_run import model_of
from archsmith._export.image_model import ImageModel
from archsmith._export.image_onnx import write_image_onnx
from archsmith._export.image_prediction import Prediction, predict
from archsmith._export.image_source import write_image_source
from archsmith._export.model import Model
from archsmith._export.pytorch import load, write_pytorch
from archsmith._search import Run
from archsmith.core.errors import UnknownName, UsageError

__all__ = ["FORMATS", "ImageModel", "Model", "Prediction", "export", "load", "model_of", "predict"]

FORMATS = ("pytorch", "onnx", "source")

_WRITERS: dict[tuple[str, str], Callable[[Any, Path], Path]] = {
    ("images", "pytorch"): write_pytorch,
    ("images", "onnx"): write_image_onnx,
    ("images", "source"): write_image_source,
}


def export(
    model: Run | Model | str | os.PathLike[str],
    *,
    format: str = "pytorch",
    path: str | os.PathLike[str] | None = None,
) -> Path:
    """Write a trained network as a folder, and give its path.

    Every format takes pixels from 0 to 1, float32 [count, channels, height, width]; whitening is inside. Each is run
    on random and real images, in batches of 1 and 7, before it takes its place: pytorch and source must repeat the
    module to the bit, onnx to rounding.

    Args:
        model: a run (what `finish` chose, or the best trial's kept weights), a `Model`, or a folder in format pytorch.
        format: "pytorch" (safetensors and JSON, for archsmith), "onnx" (for anything) or "source" (one plain PyTorch
            file that needs no archsmith).
        path: the folder (default: `<name>-<format>`); an earlier export there is replaced.

    Raises UsageError when there are no trained weights, or the place cannot be written.
    """
    if format not in FORMATS:
        raise UnknownName("export format", str(format), FORMATS)
    if isinstance(model, Run):
        model = model_of(model)
    elif not isinstance(model, Model):
        if not Path(model).is_dir():
            raise UsageError(
                f"there is no folder {os.fspath(model)!r}; export takes a run, or a folder in format pytorch"
            )
        model = load(model)
    return _WRITERS[model.takes, format](model, Path(path) if path is not None else Path(f"{model.name}-{format}"))
