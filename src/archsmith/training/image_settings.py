"""The settings of `ImageClassification`: what each may be, and which of them a child may decide."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from archsmith.core.checks import whole_number
from archsmith.core.errors import UnknownName, UsageError
from archsmith.core.shown import shown
from archsmith.training.latency import Latency
from archsmith.training.settings import number, whole

if TYPE_CHECKING:
    from archsmith.training.image_classification import ImageClassification

SCHEDULES = ("step", "cosine", "linear", "trapezoid", "constant")
PRECISIONS = ("auto", "fp32", "bf16")
OPTIMIZERS = ("sgd", "adam", "adamw", "rmsprop", "muon")
CROPS = ("none", "shift", "affine", "resized")
POLICIES = ("trivial", *(before + name for before in ("autoaugment_", "") for name in ("cifar10", "imagenet", "svhn")))
MIXES = ("mixup", "cutmix")
LEAST_SIDE, LARGEST_SIDE = 8, 1024  # of training pictures

_OF_STEPS = "batch_size learning_rate optimizer momentum nesterov weight_decay decay_norms clip average label_smoothing"
_OF_TIME = "schedule decay_at decay_factor decay_from warmup warmup_share"
_OF_PICTURES = "size train_size first_size crop crop_area pad upsample flip colour policy mix whiten"
_OF_NETWORKS = "batch_norm_epsilon channels_last"
DECIDABLE = frozenset(" ".join((_OF_STEPS, _OF_TIME, _OF_PICTURES, _OF_NETWORKS)).split())
"""The settings that a child may decide (`Child.settings`). What it learns from, its seeds and its time are none of them."""


def check_settings(config: ImageClassification) -> None:
    """Raise UsageError, which names the setting, the rule and the value, for settings that cannot be."""
    for name, least in (("probe", 0), ("epochs", int(not config.probe)), ("batch_size", 2), ("split_seed", 0)):
        whole(name, getattr(config, name), least)
    for name, least in (("size", 4), ("max_train", 4)):
        if getattr(config, name) is not None:
            whole(name, getattr(config, name), least)
    number("learning_rate", config.learning_rate, 0, math.inf, "above 0", open_below=True)
    for rate in config.learning_rates:
        number("each of learning_rates", rate, 0, math.inf, "above 0", open_below=True)
    number("momentum", config.momentum, 0, 1, "at least 0 and below 1")
    number("decay_factor", config.decay_factor, 0, 1, "above 0 and below 1", open_below=True)
    number("weight_decay", config.weight_decay, 0, math.inf, "at least 0")
    number("warmup", config.warmup, 0, max(1, config.epochs), "at least 0 and below the epochs")
    number("upsample", config.upsample, 1, 4 + 1e-9, "from 1 to 4")
    number("pad", config.pad, 0, 0.5, "at least 0 and below 0.5")
    number("label_smoothing", config.label_smoothing, 0, 1, "at least 0 and below 1")
    if config.clip is not None:
        number("clip", config.clip, 0, math.inf, "above 0, or None", open_below=True)
    number("validation", config.validation, 0, 1, "above 0 and below 1", open_below=True)
    if config.batch_norm_epsilon is not None:
        number("batch_norm_epsilon", config.batch_norm_epsilon, 0, math.inf, "above 0, or None", open_below=True)
    if config.flip not in (None, True, False) or (isinstance(config.flip, int) and not isinstance(config.flip, bool)):
        raise UsageError(f"flip must be True, False or None (decided by the data), got {config.flip!r}")
    if config.channels not in (None, 1, 3):
        raise UsageError(f"channels must be 1, 3 or None, got {config.channels!r}")
    for name in ("keep_weights", "inherit_weights"):
        if not isinstance(getattr(config, name), bool):
            raise UsageError(f"{name} must be True or False, got {shown(getattr(config, name))}")
    if config.inherit_weights and not config.keep_weights:
        raise UsageError(
            "inherit_weights=True needs keep_weights=True: a child starts from what the trial before it has kept"
        )
    if config.nesterov and config.momentum == 0:
        raise UsageError("nesterov=True needs a momentum above 0; with momentum=0 give nesterov=False")
    if config.schedule not in SCHEDULES:
        raise UnknownName("learning-rate schedule", str(config.schedule), SCHEDULES)
    if config.optimizer not in OPTIMIZERS:
        raise UnknownName("optimizer", str(config.optimizer), OPTIMIZERS, "(a child may bring any other)")
    if config.latency is not None and not isinstance(config.latency, Latency):
        raise UsageError(f"latency must be a Latency(...) or None, got {shown(config.latency)}")
    if config.precision not in PRECISIONS:
        raise UnknownName("precision", str(config.precision), PRECISIONS)
    ascending = all(a < b for a, b in zip((0.0, *config.decay_at), (*config.decay_at, 1.0), strict=True))
    if not ascending:
        raise UsageError(f"decay_at must be fractions of the epochs, ascending between 0 and 1, got {config.decay_at}")
    _check_recipe(config)


def _check_recipe(config: ImageClassification) -> None:
    """Check the settings of the pictures and of time."""
    if config.crop not in CROPS:
        raise UnknownName("crop", str(config.crop), CROPS)
    if config.policy is not None and config.policy not in POLICIES:
        raise UnknownName("policy", str(config.policy), POLICIES)
    if config.mix is not None and config.mix not in MIXES:
        raise UnknownName("mix", str(config.mix), MIXES)
    number("crop_area", config.crop_area, 0, 1 + 1e-9, "above 0 and at most 1", open_below=True)
    number("colour", config.colour, 0, 1 + 1e-9, "from 0 to 1")
    number("average", config.average, 0, 1, "at least 0 and below 1")
    number("decay_from", config.decay_from, 0, 1, "at least 0 and below 1")
    number("warmup_share", config.warmup_share, 0, 1, "at least 0 and below 1")
    if config.seconds is not None:
        number("seconds", config.seconds, 0, math.inf, "above 0, or None", open_below=True)
    for name in ("decay_norms", "continues"):
        if not isinstance(getattr(config, name), bool):
            raise UsageError(f"{name} must be True or False, got {shown(getattr(config, name))}")
    if unknown := sorted(map(str, set(config.fixed) - DECIDABLE)):
        raise UnknownName("setting in fixed", unknown[0], DECIDABLE)
    if config.folds is not None:
        whole("folds", config.folds, 2)
        if config.continues and config.fold is None:
            raise UsageError("a cross-validation cannot be continued; give either folds or continues=True")
    if config.fold is not None:
        if config.folds is None:
            raise UsageError(f"fold needs folds, the number of all, got fold={config.fold!r} without it")
        whole_number(config.fold, "fold", 0, config.folds - 1)
    for name in ("train_size", "first_size"):
        if getattr(config, name) is not None:
            whole_number(getattr(config, name), name, LEAST_SIDE, LARGEST_SIDE)
    if config.source_size is not None:
        whole_number(config.source_size, "source_size", 4)
        if config.size is None or config.source_size < config.size:
            raise UsageError(
                f"source_size must be at least size, the side of the network's input, got source_size={config.source_size} "
                f"and size={config.size}; give both, or size alone"
            )
    if config.size is not None:
        check_sides(config, (config.size, config.size))


def check_sides(config: ImageClassification, input_size: tuple[int, ...]) -> None:
    """Raise UsageError for training pictures of a size that no one can mean with this size of the input."""
    height, width = input_size
    if height != width and (config.crop in ("affine", "resized") or config.train_size or config.first_size):
        raise UsageError(
            f"crop={config.crop!r}, train_size and first_size are for square pictures, and these are {height} x {width}; give size"
        )
    last = config.train_size or height
    if last > 4 * height:
        raise UsageError(
            f"train_size must be at most four times the input's side, which is {height}, got {config.train_size}"
        )
    if config.first_size is not None and config.first_size > last:
        raise UsageError(
            f"first_size must be at most train_size, to which the pictures grow and which is {last} here, got "
            f"{config.first_size}"
        )
