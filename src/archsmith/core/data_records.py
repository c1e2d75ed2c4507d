"""What a run records of its data so that a trained network can be exported when the data are no longer there."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, Protocol, runtime_checkable

DOCUMENT = "data-record"
"""The document of a run that holds what `data_record` gave when the run began, or was finished."""


@runtime_checkable
class RecordsData(Protocol):
    """An evaluator whose networks can be built and exported from a record of its data."""

    def data_record(self) -> Mapping[str, Any]:
        """What is needed of the data, as plain JSON: shape and classes of images, the vocabulary of a text."""
        ...

    def recorded_data(self, record: Mapping[str, Any]) -> Mapping[Hashable, Any]:
        """Empty data of that shape, under the keys of `archsmith.core.loaded`; nothing where the record has too little."""
        ...


def data_record(evaluator: object) -> dict[str, Any]:
    """The record of an evaluator's data; empty where it keeps none. Raises what reading the data raises."""
    return dict(evaluator.data_record()) if isinstance(evaluator, RecordsData) else {}
