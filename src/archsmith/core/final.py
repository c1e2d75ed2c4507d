"""One of the trainings, from several seeds, by which networks are compared on the test set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from archsmith.core.trial import Cost


@dataclass(frozen=True)
class Final:
    """One final training, tested.

    Args:
        index: which seed of the plan, from 0; networks are compared seed by seed.
        seed: the seed itself.
        score, loss: on the test set, the score by the measure of the finish or transfer; None when the training failed.
        validation: what it ended with on validation data: of a finish the reward, of a transfer the score; None when
            there was none.
        artifact: the digest of its weights.
        failure: why it failed, or None.
        cost: what it took.
    """

    index: int
    seed: int
    score: float | None
    loss: float | None
    validation: float | None
    artifact: str | None
    failure: str | None
    cost: Cost

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Final:
        """What `dataclasses.asdict` gave."""
        return cls(**{**value, "cost": Cost(**value["cost"])})
