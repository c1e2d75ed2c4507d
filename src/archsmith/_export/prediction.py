"""Ask an exported model about files: what pictures show, or how well it foresees texts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from archsmith._export.image_model import ImageModel
from archsmith._export.image_prediction import Prediction, classify
from archsmith._export.opened import open_model
from archsmith._export.text_prediction import Score, score
from archsmith.core.errors import UsageError


def predict(
    model: str | os.PathLike[str],
    files: Sequence[str | os.PathLike[str]],
    *,
    k: int = 3,
    run_source: bool = False,
) -> list[Prediction] | list[Score]:
    """What an exported model says of files, in their order: a `Prediction` of each picture, or a `Score` of each text.

    A file that cannot be read gets one with an error, and the others are answered all the same.

    Args:
        model: what `export` wrote: a folder in any format, or an `.onnx` file alone. Formats pytorch and onnx are data.
        files: pictures of any size and mode; or texts in UTF-8, plain or packed, prepared as the training text was.
        k: how many classes to name for each picture.
        run_source: whether a model of format source, which is a program, is run; without this it is refused.

    Raises UsageError when the model cannot be used.
    """
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise UsageError(f"k must be a whole number of at least 1, got {k!r}")
    opened = open_model(Path(model), run_source=run_source)
    paths = [os.fspath(path) for path in files]
    if opened.takes == ImageModel.takes:
        return classify(opened, paths, k)
    return score(opened, paths)
