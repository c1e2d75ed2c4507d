"""What a training recipe holds, what of it is refused, and which settings of an evaluator it decides. Plain Python.

    {"kind": "training_recipe",
     "optimizer": {"name": "sgd", "learning_rate": 0.1, "weight_decay": 5e-4, "decay_norms": False, "momentum": 0.9},
     "batch_size": 64, "label_smoothing": 0.1,
     "augmentation": {"crop": "resized", "crop_area": 0.35, "flip": None, "colour": 0.3, "policy": None, "mix": None},
     "size": {"train": 1.0, "first": 1.0},
     "average": 0.998, "schedule": {"name": "cosine", "warmup": 0.15}}

- `learning_rate` is that of a batch of 64. For other batches it is multiplied by batch / 64 (Goyal et al. 2017), with AdamW and
  Muon by the square root of that (Malladi et al. 2022): the size of their steps does not follow the gradient's.
- `momentum` (Nesterov's) is there for "sgd" and "muon" only, and `crop_area` for "resized" crops only. `flip` None: decided by the data.
- `size` has the side of the training pictures as a part of the evaluator's size, at the end of the training, and of that side
  at the beginning (Tan and Le 2021).
- `average` is the decay of a moving average of the weights; 0: none. `warmup` is a part of the training.

The other values are those of `training.ImageClassification`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from archsmith.core.errors import UnknownName, UsageError
from archsmith.core.genotype import Architecture
from archsmith.core.shown import shown
from archsmith.nn.augmentation.autoaugment_tables import TABLES
from archsmith.nn.mobile_plan import check_keys, fraction, whole

KIND = "training_recipe"
OPTIMIZERS = ("sgd", "adamw", "muon")
WITH_MOMENTUM = ("sgd", "muon")
CROPS = ("none", "shift", "affine", "resized")
POLICIES = (None, "trivial", *TABLES)
MIXES = (None, "mixup", "cutmix")
SCHEDULES = ("step", "cosine", "linear", "trapezoid", "constant")

REFERENCE_BATCH = 64
MAX_BATCH = 65536
_SIDE_STEP = 8  # pixels: sides of training pictures are multiples of it, which convolutions with strides divide evenly
_SHIFT = 0.125  # of a picture's side: 4 pixels of 32

_KEYS = ("kind", "optimizer", "batch_size", "label_smoothing", "augmentation", "size", "average", "schedule")


def check_architecture(architecture: Any) -> None:
    """Raise UsageError unless this is a training recipe, as the module's docstring has it."""
    if not isinstance(architecture, Mapping) or architecture.get("kind") != KIND:
        raise UsageError(f'a training recipe is an object with "kind": "{KIND}", got {shown(architecture)}')
    check_keys("a training recipe", architecture, _KEYS)
    _check_optimizer(architecture["optimizer"])
    whole("batch_size of a training recipe", architecture["batch_size"], 2, MAX_BATCH)
    fraction("label_smoothing of a training recipe", architecture["label_smoothing"], 0, 1)
    _check_augmentation(architecture["augmentation"])
    size = architecture["size"]
    check_keys("size of a training recipe", size, ("train", "first"))
    for name in size:
        positive(f"the {name} size of a training recipe", size[name], 1)
    fraction("average of a training recipe", architecture["average"], 0, 1)
    schedule = architecture["schedule"]
    check_keys("schedule of a training recipe", schedule, ("name", "warmup"))
    one_of("learning-rate schedule", schedule["name"], SCHEDULES)
    fraction("warmup of a training recipe", schedule["warmup"], 0, 1)


def _check_optimizer(optimizer: Any) -> None:
    name = optimizer.get("name") if isinstance(optimizer, Mapping) else None
    momentum = ("momentum",) if name in WITH_MOMENTUM else ()
    check_keys(
        "optimizer of a training recipe", optimizer, ("name", "learning_rate", "weight_decay", "decay_norms", *momentum)
    )
    one_of("optimizer", name, OPTIMIZERS)
    positive("learning_rate of a training recipe", optimizer["learning_rate"])
    fraction("weight_decay of a training recipe", optimizer["weight_decay"], 0, 1e6)
    if momentum:
        fraction("momentum of a training recipe", optimizer["momentum"], 0, 1)
    flag("decay_norms of a training recipe", optimizer["decay_norms"])


def _check_augmentation(augmentation: Any) -> None:
    crop = augmentation.get("crop") if isinstance(augmentation, Mapping) else None
    area = ("crop_area",) if crop == "resized" else ()
    check_keys("augmentation of a training recipe", augmentation, ("crop", *area, "flip", "colour", "policy", "mix"))
    one_of("crop", crop, CROPS)
    if area:
        positive("crop_area of a training recipe", augmentation["crop_area"], 1)
    flag("flip of a training recipe", augmentation["flip"], (None, False, True))
    strength("colour of a training recipe", augmentation["colour"])
    one_of("augmentation policy", augmentation["policy"], POLICIES)
    one_of("mix", augmentation["mix"], MIXES)


def positive(what: str, value: Any, most: float = math.inf) -> None:
    """Raise UsageError unless `value` is a finite number above 0, and at most `most`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= most or math.isinf(value):
        rule = "above 0" if math.isinf(most) else f"above 0 and at most {most:g}"
        raise UsageError(f"{what} must be a number {rule}, got {shown(value)}")


def strength(what: str, value: Any) -> None:
    """Raise UsageError unless `value` is a number from 0 to 1."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise UsageError(f"{what} must be a number from 0 to 1, got {shown(value)}")


def flag(what: str, value: Any, allowed: tuple[bool | None, ...] = (False, True)) -> None:
    """Raise UsageError unless `value` is true, false, or null where that is allowed."""
    if not any(value is option for option in allowed):
        null = " or null (decided by the data)" if None in allowed else ""
        raise UsageError(f"{what} must be true or false{null}, got {shown(value)}")


def one_of(what: str, value: Any, options: tuple[str | None, ...]) -> None:
    """Raise UnknownName unless `value` is one of the options."""
    if value is None and None in options:
        return
    if not isinstance(value, str) or value not in options:
        raise UnknownName(what, str(value)[:80], [option for option in options if option is not None])


# --- what an evaluator is told ----------------------------------------------------------------------------------------


def learning_rate_of(architecture: Architecture) -> float:
    """The peak learning rate at the recipe's batch size."""
    optimizer, batches = architecture["optimizer"], architecture["batch_size"] / REFERENCE_BATCH
    return float(optimizer["learning_rate"] * (batches if optimizer["name"] == "sgd" else math.sqrt(batches)))


def settings_of(architecture: Architecture, size: int) -> dict[str, Any]:
    """The other fields of `ImageClassification` that a recipe decides, for pictures of `size` pixels a side."""
    augmentation, schedule = architecture["augmentation"], architecture["schedule"]
    settings = {
        **_optimizer_settings(architecture["optimizer"]),
        "batch_size": architecture["batch_size"],
        "label_smoothing": architecture["label_smoothing"],
        **augmentation,
        "pad": _SHIFT if augmentation["crop"] == "shift" else 0.0,
        "upsample": 1.0,
        "average": architecture["average"],
        "schedule": schedule["name"],
        "warmup": 0.0,
        "warmup_share": schedule["warmup"],
        **_sides(architecture["size"], size),
    }
    if schedule["name"] == "step":  # He et al. 2016
        settings |= {"decay_at": [0.5, 0.75], "decay_factor": 0.1}
    return settings


def _optimizer_settings(optimizer: Mapping[str, Any]) -> dict[str, Any]:
    settings = {"optimizer": optimizer["name"]} | {name: optimizer[name] for name in ("weight_decay", "decay_norms")}
    if "momentum" in optimizer:
        settings |= {"momentum": optimizer["momentum"], "nesterov": optimizer["momentum"] > 0}
    return settings


def _sides(size: Mapping[str, float], whole_side: int) -> dict[str, int | None]:
    """The sides of training pictures; None where they are the evaluator's, or do not grow."""
    last = _side(size["train"], whole_side)
    first = _side(size["first"], last)
    return {"train_size": last if last != whole_side else None, "first_size": first if first != last else None}


def _side(part: float, whole_side: int) -> int:
    """A part of a side: the nearest multiple of 8 pixels, at least 8, and at most the whole."""
    return (
        min(whole_side, max(_SIDE_STEP, round(part * whole_side / _SIDE_STEP) * _SIDE_STEP)) if part < 1 else whole_side
    )
