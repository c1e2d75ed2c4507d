"""Training: the evaluators, one file each, and functions to write your own with."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from archsmith.training.arrays import Arrays
from archsmith.training.image_classification import ImageClassification
from archsmith.training.landscape import Landscape
from archsmith.training.language_model import LanguageModel
from archsmith.training.latency import Latency, Measured, measure_latency
from archsmith.training.tabular import Tabular
from archsmith.training.translation import Translation

if TYPE_CHECKING:
    from archsmith.training.isolation import check_parameters, seeded
    from archsmith.training.resuming import Checkpoint, load_checkpoint, save_checkpoint

__all__ = [
    "Arrays",
    "Checkpoint",
    "ImageClassification",
    "Landscape",
    "LanguageModel",
    "Latency",
    "Measured",
    "Tabular",
    "Translation",
    "check_parameters",
    "load_checkpoint",
    "measure_latency",
    "save_checkpoint",
    "seeded",
]

_WITH_TORCH = {
    "Checkpoint": "resuming",
    "check_parameters": "isolation",
    "load_checkpoint": "resuming",
    "save_checkpoint": "resuming",
    "seeded": "isolation",
}
"""Loaded when first used, since their files import torch."""


def __getattr__(name: str) -> Any:
    if name in _WITH_TORCH:
        return getattr(importlib.import_module(f"archsmith.training.{_WITH_TORCH[name]}"), name)
    raise AttributeError(f"module 'archsmith.training' has no attribute {name!r}")
