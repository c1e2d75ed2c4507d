"""Finishing a search: the winner tuned, trained for longer and tested once, beside what it must be compared with."""

from __future__ import annotations

from archsmith._finish.result import Finished
from archsmith._finish.rounds import finish
from archsmith.core.finish import FinishPlan

__all__ = ["FinishPlan", "Finished", "finish"]
