"""Training: the ways to obtain a result for a child. One file each."""

from __future__ import annotations

from archsmith.training.arrays import Arrays
from archsmith.training.image_classification import ImageClassification
from archsmith.training.landscape import Landscape
from archsmith.training.language_model import LanguageModel
from archsmith.training.latency import Latency, Measured, measure_latency
from archsmith.training.tabular import Tabular
from archsmith.training.translation import Translation

__all__ = [
    "Arrays",
    "ImageClassification",
    "Landscape",
    "LanguageModel",
    "Latency",
    "Measured",
    "Tabular",
    "Translation",
    "measure_latency",
]
