"""Format pytorch: weights as safetensors, everything else as JSON, loaded again through the space.

Nothing in the folder is run: the space is one that archsmith ships, found by name, and no pickle is read.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from archsmith._export import baseline
from archsmith._export.documents import kind_of, read_card
from archsmith._export.export_folder import CARD, fresh_folder
from archsmith._export.image_model import ImageModel
from archsmith._export.model import WEIGHTS, Model, write_documents, write_weights
from archsmith._export.text_model import TextModel
from archsmith._search.run import resolve
from archsmith.core.config import from_config
from archsmith.core.errors import ChildFailed, UsageError
from archsmith.core.genotype import Genotype
from archsmith.core.global_state import generators_kept
from archsmith.core.shown import shown
from archsmith.core.space import Space, build


def write_pytorch(model: Model, path: Path) -> Path:
    """Write the folder and load it again: the outputs must be equal. Raises UsageError for a space of the user's own."""
    _space(model.space)
    with fresh_folder(path) as folder:
        weights = write_weights(model.network.state_dict(), folder)
        write_documents(model, folder, model.to_json("pytorch") | {"weights": weights})
        again = load(folder)
        if not all(_equal(again.answer(given), model.answer(given)) for given in model.inputs()):
            raise UsageError(
                f"the space {model.space.get('type')} does not build the same network again from its genotype"
            )
    return path


@generators_kept()
def load(path: str | os.PathLike[str]) -> ImageModel | TextModel:
    """The model in a folder that `export(..., format="pytorch")` wrote.

    Of images, an `ImageModel`: its `network` takes preprocessed images, its `deployed()` pixels from 0 to 1. Of text, a
    `TextModel`: its `network` takes tokens, its `vocabulary` makes them. Raises UsageError when the folder is no such
    export, was changed, or needs a space that archsmith does not ship.
    """
    from safetensors import SafetensorError, safe_open

    folder = Path(path)
    card = read_card(folder)
    if card.get("kind") != "pytorch":
        raise UsageError(
            f"{folder} holds a model in format {shown(card.get('kind'))}; only format pytorch is loaded here"
        )
    kind = kind_of(card)
    task = kind.task_of(card)
    space = _space(card["space"])
    what = Genotype.from_json(card["genotype"]) if card["genotype"] is not None else card["architecture"]
    file = folder / WEIGHTS
    try:
        if hashlib.sha256(file.read_bytes()).hexdigest() != card["weights"]["sha256"]:
            raise UsageError(f"{file} is not the file that {folder / CARD} was written with: its SHA-256 differs")
        # Without memory first, so that a card cannot ask for more of it than its weights fill.
        with torch.device("meta"), _Uninitialised():
            expected = {name: tuple(t.shape) for name, t in build(space, what, task).model.state_dict().items()}
        with safe_open(file, framework="pt") as opened:
            found = {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
            if found != expected:
                name = min(set(found.items()) ^ set(expected.items()))[0]
                raise UsageError(
                    f"the weights in {file} do not fit the architecture: {name} is {found.get(name, 'missing')} "
                    f"and should be {expected.get(name, 'absent')}"
                )
            tensors = {name: opened.get_tensor(name) for name in found}
    except (OSError, SafetensorError, KeyError, TypeError, ChildFailed) as error:
        raise UsageError(f"the model in {folder} cannot be read: {error}") from None
    with torch.random.fork_rng(devices=[]):
        network = build(space, what, task).model
    network.load_state_dict(tensors)
    return kind.from_card(card, network, folder)


def _equal(a: Tensor, b: Tensor) -> bool:
    """To the bit; NaN is NaN, as a network may give for random inputs."""
    return a.shape == b.shape and bool(((a == b) | (a.isnan() & b.isnan())).all())


class _Uninitialised(TorchFunctionMode):
    """Leaves out the drawing of weights; on the device "meta" it would draw nothing and take seconds to learn that."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in ("normal_", "uniform_"):  # Tensor's, and those of torch.nn.init
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def _space(record: Any) -> Space:
    """The space of a record, which must be one that archsmith ships."""
    name = record.get("type") if isinstance(record, dict) else None
    if name == baseline.TYPE:
        return baseline.ResidualBaseline.from_record(record)
    if not isinstance(name, str) or not name.startswith("spaces."):
        raise UsageError(
            f"format pytorch is loaded through a space of archsmith.spaces, and {shown(name)} is none; "
            "use format source or onnx, which need no space"
        )
    space: Space = from_config(record, resolve)
    return space
