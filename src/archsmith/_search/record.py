"""Where what comes after a search is recorded as it goes, so that a killed one goes on."""

from __future__ import annotations

from typing import Any, Protocol

from archsmith._search.run import Run
from archsmith._search.writing import writing
from archsmith.core.errors import UsageError


class Record(Protocol):
    """Documents by key, and a folder for weights."""

    @property
    def artifacts(self) -> str:
        """The folder of the weights."""
        ...

    def get(self, key: str) -> Any:
        """What was put there, as plain JSON, or None."""
        ...

    def put(self, key: str, value: Any) -> None:
        """Keep it, at once and for good."""
        ...


class RunRecord:
    """The documents of a run, beside those of its search.

    Args:
        run: whose they are.
        what: "finish" or "transfer", which their names begin with.
        otherwise: what to do while another process writes the run, for the message.

    Raises UsageError when the run's store keeps nothing on disk.
    """

    def __init__(self, run: Run, what: str, otherwise: str) -> None:
        if run.store.artifacts is None:
            raise UsageError(
                f"a {what} keeps weights, and the store of run {run.name!r} has no place for them; say where with "
                "--artifacts FOLDER (in Python: open_store(URL, artifacts=...)), or keep runs in an SQLite file"
            )
        self.run, self.artifacts = run, run.store.artifacts
        self._what, self._otherwise = what, otherwise

    def get(self, key: str) -> Any:
        return self.run.reader.document(f"{self._what}/{key}")

    def put(self, key: str, value: Any) -> None:
        """Raises RunLocked while another process writes the run."""
        with writing(self.run, self._otherwise) as writer:
            writer.put_document(f"{self._what}/{key}", value)
