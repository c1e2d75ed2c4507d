"""What `auto` gives."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from archsmith._finish.result import Finished
from archsmith._search import Run
from archsmith.metrics.outcome import AutoOutcome


@dataclass(frozen=True)
class AutoResult:
    """What `auto` gives.

    Args:
        run: the search, in whose store everything is recorded.
        finished: both networks with their test accuracy, as `archsmith.finish` gives them.
        outcome: what was delivered, as the page tells it.
        model, source, page: what was written; None without an output folder, and no source of a network that only its own
            program can compute, such as some backbones.
        earlier: whether an earlier call had delivered this, and nothing was trained.
    """

    run: Run
    finished: Finished
    outcome: AutoOutcome
    model: Path | None = None
    source: Path | None = None
    page: Path | None = None
    earlier: bool = False

    def to_json(self) -> dict[str, Any]:
        """Plain JSON: the main numbers, all of the outcome and of the finish, and where files are."""
        delivered = self.outcome.delivered
        return {
            "run": self.run.name,
            "test_accuracy": None if delivered.test is None else delivered.test.accuracy,
            "validation_accuracy": None if delivered.validation is None else delivered.validation.accuracy,
            "outcome": self.outcome.to_json(),
            "finish": self.finished.to_json(),
            "model": None if self.model is None else str(self.model),
            "source": None if self.source is None else str(self.source),
            "report": None if self.page is None else str(self.page),
        }
