"""A folder in the user's cache that nobody else can write to, for files that are executed later."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def private_folder(name: str) -> Path | None:
    """The folder `name` in $ARCHSMITH_CACHE, $XDG_CACHE_HOME/archsmith or ~/.cache/archsmith, the first that is set.

    Creates it. Returns None if it cannot be written to, or if others can write to it.
    """
    given = os.environ.get("ARCHSMITH_CACHE")
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    with suppress(OSError, RuntimeError):
        folder = (Path(given) if given else Path(home) / "archsmith").expanduser() / name
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if is_private(folder) and os.access(folder, os.W_OK):
            return folder
    return None


def is_private(path: Path) -> bool:
    """Whether only this user can write to a file or folder. Raises OSError if it does not exist."""
    status = path.lstat()
    own = not hasattr(os, "geteuid") or status.st_uid == os.geteuid()
    return own and not status.st_mode & 0o022 and not path.is_symlink()
