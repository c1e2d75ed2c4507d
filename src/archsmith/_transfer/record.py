"""Where a transfer without a run is recorded as it goes, so that a killed one goes on: in a folder."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from archsmith.core.errors import CorruptStore, RunLocked, StoreError

_FORMAT = 1
_FILE = "transfer.json"


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
