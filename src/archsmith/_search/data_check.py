"""Whether a run's data are those it began with, and what changed where they are not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from archsmith.core.data_changes import DOCUMENT, changes, contents_of
from archsmith.core.errors import UsageError

if TYPE_CHECKING:
    from archsmith._search.run import Run

COUNTS = ("train", "validation", "test")


def check_same_data(run: Run, evaluator: Any, rule: str) -> None:
    """Raises UsageError, which names what changed and ends with `rule`, where the data are not those of the record."""
    recorded = run.config.get("data")
    if recorded is None or not hasattr(evaluator, "fingerprint"):
        return
    found = evaluator.fingerprint()
    if found != recorded:
        what = _changed(run, evaluator) or f"its fingerprint was {recorded} and is now {found}"
        raise UsageError(f"the data of run {run.name!r} has changed: {what}. {rule}")


def _changed(run: Run, evaluator: Any) -> str:
    before: Mapping[str, str] | None = run.reader.document(DOCUMENT)
    if before:
        now = contents_of(evaluator)
        return changes(before, now) or "the content is the same, but it is read or split in another way"
    described = run.config.get("dataset") or {}  # of a run from before the contents were recorded
    if not hasattr(evaluator, "describe_data"):
        return ""
    now = evaluator.describe_data()
    counts = [(part, described.get(part), now.get(part)) for part in COUNTS]
    return ", ".join(f"{old:,} {part} became {new:,}" for part, old, new in counts if old != new and old and new)
