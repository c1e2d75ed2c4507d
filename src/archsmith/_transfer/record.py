"""Where a transfer is recorded as it goes, so that a killed one goes on: with a run in its store, else in a folder."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock, Timeout

from archsmith._search import Run
from archsmith._search.writing import writing
from archsmith.core.errors import CorruptStore, RunLocked, StoreError, UsageError

_FORMAT = 1
_FILE = "transfer.json"


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
    """The documents of a run, beside those of its search and its finish.

    Raises UsageError when the run's store keeps nothing on disk.
    """

    def __init__(self, run: Run) -> None:
        if run.store.artifacts is None:
            raise UsageError(
                f"a transfer keeps weights, and the store of run {run.name!r} keeps nothing on disk; "
                'search with store="sqlite:///runs.db"'
            )
        self.run, self.artifacts = run, run.store.artifacts

    def get(self, key: str) -> Any:
        return self.run.reader.document(f"transfer/{key}")

    def put(self, key: str, value: Any) -> None:
        """Raises RunLocked while another process writes the run."""
        with writing(self.run, "carry its cell over when that has ended") as writer:
            writer.put_document(f"transfer/{key}", value)


class FolderRecord:
    """One JSON file in a folder, with the weights beside it. Made by `folder_record`, which holds the folder."""

    def __init__(self, folder: Path) -> None:
        self.path, self.artifacts = folder / _FILE, str(folder / "weights")
        self._documents: dict[str, Any] = {}
        if self.path.exists():
            try:
                value = json.loads(self.path.read_text(encoding="utf-8"))
                if value["format"] > _FORMAT:
                    raise StoreError(f"{self.path} was written by a later archsmith; use that one, or another folder")
                self._documents = dict(value["documents"])
            except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
                raise CorruptStore(
                    f"{self.path} is not the record of a transfer ({error}); name another folder, or move that file away"
                ) from None

    def get(self, key: str) -> Any:
        return self._documents.get(key)

    def put(self, key: str, value: Any) -> None:
        """The file is written aside and renamed, so that a kill leaves it whole. Raises StoreError."""
        documents = {**self._documents, key: json.loads(json.dumps(value))}
        try:
            handle, partial = tempfile.mkstemp(dir=self.path.parent, prefix=f".{_FILE}.")
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    json.dump({"format": _FORMAT, "documents": documents}, file, indent=1)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(partial, self.path)
            except BaseException:
                Path(partial).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise StoreError(f"cannot write {self.path}: {error.strerror or error}") from None
        self._documents = documents


@contextmanager
def folder_record(folder: Path) -> Iterator[FolderRecord]:
    """The record of a folder, held against other processes. Raises RunLocked, CorruptStore and StoreError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        lock.acquire(timeout=0)
    except Timeout:
        raise RunLocked(f"another process is writing to {folder}; wait for it, or name another folder") from None
    except OSError as error:
        raise StoreError(f"cannot use {folder}: {error.strerror or error}") from None
    try:
        yield FolderRecord(folder)
    finally:
        lock.release()
