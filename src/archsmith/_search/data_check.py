"""Compares the data of a resumed run with those it began with."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any

from archsmith.core.data_changes import DOCUMENT, changes, contents_of
from archsmith.core.data_records import DOCUMENT as RECORD
from archsmith.core.data_records import RecordsData
from archsmith.core.errors import DataError, UsageError
from archsmith.core.evaluator import DescribesData, IdentifiesData

if TYPE_CHECKING:
    from archsmith._search.run import Run

COUNTS = ("train", "validation", "test")


def check_same_data(run: Run, evaluator: Any, rule: str) -> None:
    """Raise UsageError if the data differ from those on record, and DataError if they cannot be read. The message names what
    changed and ends with `rule`."""
    recorded = run.config.get("data")
    if recorded is None or not isinstance(evaluator, IdentifiesData):
        return
    try:
        found = evaluator.fingerprint()
    except DataError as error:
        raise DataError(f"the data of run {run.name!r} cannot be read: {error}. {rule}") from None
    if found != recorded:
        what = _changed(run, evaluator) or f"its fingerprint was {recorded} and is now {found}"
        raise UsageError(f"the data of run {run.name!r} has changed: {what}. {rule}")


def recorded_data(run: Run, evaluator: Any) -> Mapping[Hashable, Any]:
    """Empty data with the recorded shape and classes, for `loaded.installed`; nothing where the run has recorded too little."""
    if not isinstance(evaluator, RecordsData):
        return {}
    return evaluator.recorded_data(run.reader.document(RECORD) or run.config.get("dataset") or {})


def _changed(run: Run, evaluator: Any) -> str:
    before: Mapping[str, str] | None = run.reader.document(DOCUMENT)
    if before:
        listed = changes(before, contents_of(evaluator))
        return listed or "the content is the same, but it is read or split in another way"
    if not isinstance(evaluator, DescribesData):
        return ""
    described, now = (
        run.config.get("dataset") or {},
        evaluator.describe_data(),
    )  # runs of old have no contents on record
    counts = [(part, described.get(part), now.get(part)) for part in COUNTS]
    return ", ".join(f"{old:,} {part} became {new:,}" for part, old, new in counts if old != new and old and new)
