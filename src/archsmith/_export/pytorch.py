"""Format pytorch: weights as safetensors, everything else as JSON, loaded again through the space.

Nothing in the folder is run, and no pickle is read. The space is one of archsmith's, found by name, or the user's own, which is
given or found in a recipe file that this user has named before.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable
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
from archsmith._search.recipe_file import find_by_content
from archsmith._search.run import resolve
from archsmith.core.child import AnyTask
from archsmith.core.config import from_config, own_name, same_config, to_config
from archsmith.core.errors import ChildFailed, UsageError
from archsmith.core.genotype import Architecture, Genotype
from archsmith.core.global_state import generators_kept
from archsmith.core.shown import shown
from archsmith.core.space import Space, as_space
from archsmith.core.space import build as build_child
from archsmith.spaces.backbone import backbone_of, with_module


def write_pytorch(model: Model, path: Path) -> Path:
    """Write the folder and load it again: the outputs must be equal."""
    with fresh_folder(path) as folder:
        weights = write_weights(model.network.state_dict(), folder)
        write_documents(model, folder, model.to_json("pytorch") | {"weights": weights})
        again = load(folder, space=model.built_by)
        if not all(_equal(again.answer(given), model.answer(given)) for given in model.inputs()):
            raise UsageError(
                f"the space {model.space.get('type')} does not build the same network again from its genotype"
            )
    return path


@generators_kept()
def load(
    path: str | os.PathLike[str],
    *,
    space: Space | Callable[..., Architecture] | None = None,
    build: Callable[[Architecture, Any], Any] | None = None,
) -> ImageModel | TextModel:
    """The model in a folder that `export(..., format="pytorch")` wrote.

    For images it is an `ImageModel`: its `network` takes preprocessed images, its `deployed()` pixels from 0 to 1. For text it
    is a `TextModel`: its `network` takes tokens, its `vocabulary` makes them. A network of your own space needs `space` and
    `build` as in `search`, unless it came from a recipe file, which is found again. One of a backbone needs
    `space=spaces.Backbone(MODULE, ...)`. Raises UsageError if the folder is no such export, was changed, or needs a space that
    cannot be found.
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
    given = as_space(space, build) if space is not None else None
    found_space = _space(card["space"], given, card["card"].get("file"))
    what = Genotype.from_json(card["genotype"]) if card["genotype"] is not None else card["architecture"]
    file = folder / WEIGHTS
    try:
        if hashlib.sha256(file.read_bytes()).hexdigest() != card["weights"]["sha256"]:
            raise UsageError(f"{file} is not the file that {folder / CARD} was written with: its SHA-256 differs")
        # Without memory first, so that a card cannot ask for more of it than its weights fill.
        expected = _shapes(found_space, what, task)
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
        network = build_child(found_space, what, task).model
    network.load_state_dict(tensors)
    return dataclasses.replace(kind.from_card(card, network, folder), built_by=found_space)


def _shapes(space: Space, what: Genotype | Architecture, task: AnyTask) -> dict[str, tuple[int, ...]]:
    try:
        with torch.device("meta"), _Uninitialised():
            network = build_child(space, what, task).model
    except (NotImplementedError, RuntimeError):  # a user's own may compute with its weights as it is built
        network = build_child(space, what, task).model
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def _equal(a: Tensor, b: Tensor) -> bool:
    """To the bit; NaN is NaN, as a network may give for random inputs."""
    return a.shape == b.shape and bool(((a == b) | (a.isnan() & b.isnan())).all())


class _Uninitialised(TorchFunctionMode):
    """Leaves out the drawing of weights; on the device "meta" it would draw nothing and take seconds to learn that."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in ("normal_", "uniform_"):  # Tensor's, and those of torch.nn.init
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def _space(record: Any, given: Space | None, file: Any) -> Space:
    """The space of a record: one of archsmith's, with the module of a backbone that is given, else the one given, else that of a
    recipe file which this user has named."""
    name = record.get("type") if isinstance(record, dict) else None
    if name == baseline.TYPE:
        return baseline.ResidualBaseline.from_record(record)
    if not isinstance(name, str) or not name.startswith("spaces."):
        if given is None and (pieces := find_by_content(file)) is not None:
            given = as_space(pieces.space)
        if given is None:
            raise UsageError(
                f"format pytorch is loaded through the model's space, and {own_name(record)} is none of archsmith.spaces; name "
                "the file that has it, with --recipe FILE.py (in Python: load(..., space=..., build=...)), or use format "
                "source or onnx, which need no space"
            )
        if not same_config(record, to_config(given), any_module=True):
            raise UsageError(
                f"this model is of another space, {own_name(record)}, than the one given, {own_name(to_config(given))}"
            )
        return given
    if given is not None and same_config(record, to_config(given)):
        return given
    space: Space = from_config(record, resolve)
    backbone = None if given is None or backbone_of(space) is None else backbone_of(given)
    return space if backbone is None else with_module(space, backbone)
