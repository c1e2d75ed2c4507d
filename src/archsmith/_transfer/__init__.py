"""Carrying a recurrent cell over to what it was not searched on: characters, and translation."""

from __future__ import annotations

from archsmith._transfer.estimate import Estimate, estimate
from archsmith._transfer.result import Transferred
from archsmith._transfer.scale import evaluator_for
from archsmith._transfer.transfer import transfer

__all__ = ["Estimate", "Transferred", "estimate", "evaluator_for", "transfer"]
