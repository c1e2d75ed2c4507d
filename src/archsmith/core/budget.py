"""The budget of a run: trials, seconds, epochs; whichever ends first."""

from __future__ import annotations

import math
from dataclasses import dataclass

from archsmith.core.checks import plain_fields
from archsmith.core.errors import UsageError


@dataclass(frozen=True)
class Budget:
    """How much a run may spend. None is no limit, and one limit at least must be set.

    Args:
        trials: proposals, failed and stopped ones included. Running children finish when it ends.
        seconds: wall clock, summed over the run's sessions. Running children are stopped when it ends.
        epochs: that children report, summed over trials: also over those that fail, are stopped or paused, and the epochs that
            a child trains again. Running children finish when it ends, so that a run may take more.
    """

    trials: int | None = None
    seconds: float | None = None
    epochs: float | None = None

    def __post_init__(self) -> None:
        plain_fields(self)
        for name in ("trials", "seconds", "epochs"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not value > 0):
                raise UsageError(f"the budget's {name} must be above zero, got {value!r}")
            if value is not None and not math.isfinite(value):
                raise UsageError(f"the budget's {name} must be finite, got {value!r}; leave it out for no limit")
        if self.trials is not None and self.trials != int(self.trials):
            raise UsageError(f"the budget's trials must be a whole number, got {self.trials!r}")
        if self.trials is not None:
            object.__setattr__(self, "trials", int(self.trials))  # 5.0 is 5
        if self.trials is None and self.seconds is None and self.epochs is None:
            raise UsageError("a search needs a budget: give trials, seconds or epochs")

    def allows(self, *, trials: int, seconds: float, epochs: float) -> bool:
        """Whether another proposal may be made after this much was spent."""
        return (
            (self.trials is None or trials < self.trials)
            and (self.seconds is None or seconds < self.seconds)
            and (self.epochs is None or epochs < self.epochs)
        )

    def __str__(self) -> str:
        parts = [f"{value:g} {name}" for name, value in vars(self).items() if value is not None]
        return " or ".join(parts)
