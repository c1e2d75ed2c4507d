"""The right to write a run in a database file: a lock on a file next to it, which the kernel releases when the process ends."""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path
from typing import Any

from archsmith.core.errors import StoreError
from archsmith.store.holder import refused


class RunLock:
    """The right to write a run of a database file."""

    def __init__(self, database: Path, run: str) -> None:
        self.token = secrets.token_hex(16)
        self.path = Path(f"{database}.{hashlib.sha256(run.encode()).hexdigest()[:12]}.lock")
        self._lock: Any = None

    def take(self, row: Any | None) -> dict[str, Any]:
        if not self._locked():
            raise refused(row)
        return {"token": self.token}

    def keep(self, run: int) -> None:
        """Nothing to do: the kernel keeps a lock."""

    def let_go(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _locked(self) -> bool:
        from filelock import FileLock, Timeout

        lock = FileLock(self.path, timeout=0.2, thread_local=False)  # longer than a reader's look at it
        try:
            lock.acquire(poll_interval=0.02)
        except Timeout:
            return False
        except OSError as error:
            raise StoreError(f"cannot make the lock file {self.path}: {error.strerror or error}") from None
        self._lock = lock
        return True

    def is_taken(self) -> bool:
        """Whether any process holds the lock; needs no right to write."""
        if not self.path.exists():
            return False
        try:
            import fcntl
        except ImportError:  # Windows
            probe = RunLock.__new__(RunLock)
            probe.path, probe._lock = self.path, None
            free = probe._locked()
            probe.let_go()
            return not free
        try:
            descriptor = os.open(self.path, os.O_RDONLY)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False
