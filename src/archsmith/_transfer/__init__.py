"""Carrying over what a search found: a network of images to other images, a recurrent cell to characters or translation."""

from __future__ import annotations

from archsmith._transfer.estimate import Estimate
from archsmith._transfer.result import Transferred
from archsmith._transfer.scale import evaluator_for
from archsmith._transfer.transfer import estimate, transfer

__all__ = ["Estimate", "Transferred", "estimate", "evaluator_for", "transfer"]
