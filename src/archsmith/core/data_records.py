"""The record of a run's data from which a trained network can be exported without the data."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, Protocol, runtime_checkable

DOCUMENT = "data-record"
"""The document of a run with the `data_record` from when the run began or was finished."""


@runtime_checkable
class RecordsData(Protocol):
    """An evaluator whose networks can be built and exported from a record of its data."""

    def data_record(self) -> Mapping[str, Any]:
        """The facts about the data that an export needs, as plain JSON: shape and classes of images, vocabulary of a text."""
        ...

    def recorded_data(self, record: Mapping[str, Any]) -> Mapping[Hashable, Any]:
        """Empty data of that shape, under the keys of `archsmith.core.loaded`; empty if the record is incomplete."""
        ...


def data_record(evaluator: object) -> dict[str, Any]:
    """The record of an evaluator's data; empty if it keeps none. Raises what reading the data raises."""
    return dict(evaluator.data_record()) if isinstance(evaluator, RecordsData) else {}
