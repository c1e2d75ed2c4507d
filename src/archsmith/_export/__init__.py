"""Exports: the trained network as files that others can use."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from archsmith._describe import Thing, find
from archsmith._export.activation import is_activation, write_activation
from archsmith._export.augmentation import is_augmentation, write_augmentation
from archsmith._export.cell import write_cell
from archsmith._export.export_folder import check_folder
from archsmith._export.from_run import model_of
from archsmith._export.image_model import ImageModel
from archsmith._export.image_onnx import write_image_onnx
from archsmith._export.image_prediction import Prediction
from archsmith._export.image_source import write_image_source
from archsmith._export.model import Model
from archsmith._export.optimizer import is_rule, write_optimizer
from archsmith._export.prediction import predict
from archsmith._export.pytorch import load, write_pytorch
from archsmith._export.tensor_model import TensorModel, write_tensor_source
from archsmith._export.text_model import TextModel
from archsmith._export.text_onnx import write_text_onnx
from archsmith._export.text_prediction import Score, generate
from archsmith._export.text_source import write_text_source
from archsmith._export.untrained import untrained
from archsmith._search import Run
from archsmith.core.errors import UnknownName, UsageError
from archsmith.core.global_state import generators_kept
from archsmith.discovered import NETWORKS
from archsmith.spaces import Activation, Augmentation, RecurrentCell, UpdateRule

__all__ = [
    "FORMATS",
    "ImageModel",
    "Model",
    "Prediction",
    "Score",
    "TensorModel",
    "TextModel",
    "check_folder",
    "export",
    "generate",
    "load",
    "model_of",
    "predict",
]

FORMATS = ("pytorch", "onnx", "source")

_WRITERS: dict[tuple[str, str], Callable[[Any, Path], Path]] = {
    ("images", "pytorch"): write_pytorch,
    ("images", "onnx"): write_image_onnx,
    ("images", "source"): write_image_source,
    ("tensors", "pytorch"): write_pytorch,
    ("tensors", "onnx"): write_image_onnx,
    ("tensors", "source"): write_tensor_source,
    ("text", "pytorch"): write_pytorch,
    ("text", "onnx"): write_text_onnx,
    ("text", "source"): write_text_source,
}


@generators_kept()
def export(
    model: Run | Model | Thing,
    path: str | os.PathLike[str] | None = None,
    *,
    format: str = "pytorch",
    network: str | None = None,
    trial: int | None = None,
    bits: int = 32,
    seed: int = 0,
    input_shape: Sequence[int] | None = None,
    num_classes: int | None = None,
    cells: int | None = None,
    filters: int | None = None,
    form: str | None = None,
    width: float | None = None,
    force: bool = False,
) -> Path:
    """Write a network as a folder, or a recurrent cell as a file, and give its path.

    Every format of images takes pixels from 0 to 1, float32 [count, channels, height, width]; whitening is inside.
    Every format of text takes tokens, int64 [steps, batch], and a state; the vocabulary lies beside it. Each is run on
    random and real inputs before it takes its place: it must repeat the module to the bit, or to rounding where sums
    are made in another order (onnx, and a recurrent cell as source).

    Args:
        model: a run (what `finish` chose, or the best trial's kept weights), a `Model`, or a folder in format pytorch.
            Also what has no trained weights: the name of a discovered network, a genotype or an architecture (the
            object, JSON text, or a JSON file). One of images gets weights from a seed, which its card says; a recurrent
            cell is written alone, in format source; so is an update rule, as an optimizer, an activation, as a module,
            and an augmentation policy, as a transform for Pillow, also of a run of such: of policies the five best are
            joined. The trained network of a run of activations is written as source from its folder in format pytorch.
        format: "pytorch" (safetensors and JSON, for archsmith), "onnx" (for anything) or "source" (one plain PyTorch
            file that needs no archsmith).
        network: another network that `finish` trained, by its name in the result, such as "residual network" or
            "random search" (default: the one that the search found). The error for an unknown name lists them.
        trial: the number of a trial of the search whose weights were kept (`keep_weights=True`), such as one of a Pareto front.
        bits: 32, or 8 of format onnx, of a run of pictures whose data are there: ONNX Runtime's static quantisation, calibrated
            on training pictures. The card has the validation accuracy and the milliseconds before and after.
        path: the folder (default: `<name>-<format>`), or the cell's file (default: `<name>.py`). An earlier export
            there is replaced in one step, and other files in its folder stay. Any other non-empty folder is refused.
        seed: of the weights of a network that was not trained. All that follows is of such a one too.
        input_shape, num_classes: other images than it was published for.
        cells, filters, form, width: another size, as in `describe`.
        force: whether a single file replaces one that archsmith did not write. A database is never replaced.

    Raises UsageError when a run has no trained weights, or the place cannot be written.
    """
    if format not in FORMATS:
        raise UnknownName("export format", str(format), FORMATS)
    if bits not in (8, 32) or (bits == 8 and format != "onnx"):
        raise UsageError(f"bits of an export must be 32, or 8 of format onnx; got {bits!r} of format {format}")
    place = Path(path) if path is not None else None
    size = {"cells": cells, "filters": filters, "form": form, "width": width}
    changes = {"input_shape": input_shape, "num_classes": num_classes, **size, "seed": seed or None}
    asked = [name for name, value in changes.items() if value is not None]
    trained = isinstance(model, Run | Model) or (
        isinstance(model, str | os.PathLike) and model not in NETWORKS and _is_there(model, Path.is_dir)
    )
    if trained and asked:
        raise UsageError(f"{asked[0]} cannot be chosen of a network that was trained, only of one that was not")
    if network is not None and not isinstance(model, Run):
        raise UsageError(f"network={network!r} names a network of a finished run, and this is not a run")
    if trial is not None and (network is not None or not isinstance(model, Run)):
        what = "a network of a finish was named as well" if network is not None else "this is not a run"
        raise UsageError(f"trial={trial!r} is a trial of a run's search, and {what}")
    if isinstance(model, Run) and network is None and trial is None:
        if format == "source" and isinstance(model.space, UpdateRule):
            return write_optimizer(model, place, force=force)
        if format == "source" and isinstance(model.space, Activation):
            return write_activation(model, place, force=force)
        if format == "source" and isinstance(model.space, Augmentation):
            return write_augmentation(model, place, force=force)
    if isinstance(model, Run):
        model = model_of(model, network, trial)
    elif not isinstance(model, Model):
        if not trained:
            found = _untrained(model, format, asked)
            if found is None:
                architecture = find(model).architecture
                alone = write_optimizer if is_rule(architecture) else write_cell
                alone = write_activation if is_activation(architecture) else alone
                return (write_augmentation if is_augmentation(architecture) else alone)(model, place, force=force)
            model = untrained(found, seed=seed, input_shape=input_shape, num_classes=num_classes, size=size)
        else:
            model = load(model)  # type: ignore[arg-type]  # `trained` says that it is a path
    place = place or Path(f"{model.name}-{format}")
    if bits == 8:
        if not isinstance(model, ImageModel):
            raise UsageError(f"8 bits are for classifiers of pictures, and {model.name!r} is none")
        return write_image_onnx(model, place, bits=8)
    return _WRITERS[model.takes, format](model, place)


def _untrained(thing: Thing, format: str, asked: Sequence[str]) -> Thing | None:
    """The network of images that a thing without weights stands for; None for a recurrent cell, an update rule, an
    activation or an augmentation, which is written alone.

    Raises UsageError for what is none of these, and for such a part in a format that holds weights.
    """
    if isinstance(thing, str | os.PathLike) and not os.fspath(thing).lstrip().startswith("{"):
        name = os.fspath(thing)
        if name not in NETWORKS and not _is_there(name, Path.is_file):
            raise UsageError(
                f"there is no folder {name[:200]!r}; export takes a run, a folder in format pytorch, the name of a network "
                "of archsmith.discovered, or a genotype"
            )
    architecture = find(thing).architecture
    kinds = {
        RecurrentCell.kind: "a recurrent cell",
        Activation.kind: "an activation",
        UpdateRule.kind: "an update rule",
        Augmentation.kind: "an augmentation",
    }
    what = kinds.get(architecture.get("kind", "")) if isinstance(architecture, dict) else None
    if what is None:
        return thing
    if format != "source":
        raise UsageError(
            f"format {format} is of networks with weights, and here are no weights; {what} alone is written with "
            "--format source"
        )
    if asked:
        raise UsageError(f"{asked[0]} is of a network of images, and this is {what}")
    return None


def _is_there(place: str | os.PathLike[str], check: Callable[[Path], bool]) -> bool:
    try:
        return check(Path(place))
    except (OSError, ValueError):  # longer than any name, or with NUL in it
        return False
