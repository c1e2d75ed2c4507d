"""Ask an exported model about files: what pictures show, or how well it foresees texts."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from archsmith._export.image_model import ImageModel
from archsmith._export.image_prediction import Prediction, classify
from archsmith._export.opened import open_model
from archsmith._export.tensor_model import TensorModel
from archsmith._export.text_prediction import Score, score
from archsmith.core.errors import DataError, UsageError
from archsmith.core.genotype import Architecture
from archsmith.core.global_state import generators_kept
from archsmith.core.space import Space, as_space
from archsmith.data.listing import list_folder


@generators_kept()
def predict(
    model: str | os.PathLike[str],
    files: Sequence[str | os.PathLike[str]],
    *,
    k: int = 3,
    run_source: bool = False,
    space: Space | Callable[..., Architecture] | None = None,
    build: Callable[[Architecture, Any], Any] | None = None,
) -> list[Prediction] | list[Score]:
    """The answers of an exported model for files, in their order: a `Prediction` of each picture, or a `Score` of each text.

    A folder stands for all pictures in it, at any depth; a warning says how many other files it has. A file that cannot
    be read gets an answer with an error, and does not affect the others.

    Args:
        model: what `export` wrote: a folder in any format, or an `.onnx` file alone. Formats pytorch and onnx are data.
        files: pictures of any size and mode, and folders of them; or texts in UTF-8, plain or packed, prepared as the
            training text was.
        k: how many classes to name for each picture.
        space, build: as in `load`, for a model in format pytorch with your own space.
        run_source: whether a model of format source, which is a program, is run; without this it is refused.

    Raises UsageError when the model cannot be used.
    """
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise UsageError(f"k must be a whole number of at least 1, got {k!r}")
    opened = open_model(Path(model), run_source=run_source, space=None if space is None else as_space(space, build))
    if opened.takes == TensorModel.takes:
        raise UsageError(
            f"{os.fspath(model)} is a model of arrays of shape {opened.card['task']['input_shape']}, which predict cannot "
            "read from files; in Python, call archsmith.load(FOLDER).deployed()(inputs)"
        )
    paths = [os.fspath(path) for path in files]
    if opened.takes != ImageModel.takes:
        return score(opened, paths)
    asked: list[tuple[str, str | None]] = []
    for path in paths:
        asked += _pictures_in(path) if os.path.isdir(path) else [(path, None)]
    return classify(opened, asked, k)


def _pictures_in(folder: str) -> list[tuple[str, str | None]]:
    """The pictures of a folder, sorted, and the folders in it that could not be opened, with the reason."""
    try:
        listing = list_folder(Path(folder))
    except DataError as error:
        return [(folder, str(error).removeprefix(f"the folder {folder} "))]
    asked: list[tuple[str, str | None]] = [(os.path.join(folder, *parts), None) for parts in listing.pictures()]
    asked += [(os.path.join(folder, *parts), f"cannot be opened: {why}") for parts, why in listing.unreadable]
    if left := len(list(listing.others())):
        what = "1 file of {} is no picture and was" if left == 1 else f"{left:,} files of {{}} are no pictures and were"
        warnings.warn(f"{what.format(folder)} left out", stacklevel=3)
    return sorted(asked) if asked else [(folder, "has no picture in it")]
