"""Carrying over what a search found: a network of images to other images, a recurrent cell to characters or translation."""

from __future__ import annotations

from archsmith._transfer.cell import cell_of
from archsmith._transfer.correlate import correlate
from archsmith._transfer.correlated import Correlated
from archsmith._transfer.estimate import Estimate
from archsmith._transfer.result import Transferred
from archsmith._transfer.scale import evaluator_for
from archsmith._transfer.scaling import multiply_adds_of
from archsmith._transfer.transfer import estimate, is_cell, transfer

__all__ = [
    "Correlated",
    "Estimate",
    "Transferred",
    "cell_of",
    "correlate",
    "estimate",
    "evaluator_for",
    "is_cell",
    "multiply_adds_of",
    "transfer",
]
