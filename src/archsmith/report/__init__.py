"""The report: one self-contained HTML page, and the drawings in it. Reads nothing but the store."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from archsmith.core.errors import UsageError

if TYPE_CHECKING:
    from archsmith._search.run import Run

__all__ = ["write_report"]


def write_report(run: Run, path: Path, *, control: str | None = None) -> Path:
    """Write a run's page, one HTML file that needs nothing else, and give its path.

    Args:
        run: what it is of; it may still be running.
        path: where to; an earlier file there is replaced, all at once.
        control: the random-search run to show beside it. By default the run `<name>-random` of the same store, else
            the latest random search there with the same space, evaluator, data, reward and budget.

    Raises:
        UnknownName: the store has no run named `control`.
        UsageError: the path cannot be written.
    """
    from archsmith.report.facts import gather  # numpy, and with `page` matplotlib: only when a page is made
    from archsmith.report.page import page

    path = Path(path)
    if os.path.isdir(path):
        raise UsageError(f"the report is a file, and {str(path)!r} is a folder; name a file in it, such as report.html")
    if not os.path.isdir(path.parent):
        raise UsageError(f"the report cannot be written to {str(path)!r}: there is no folder {str(path.parent)!r}")
    text = page(gather(run, control=control))
    try:
        _replace(path, text)
    except OSError as error:
        raise UsageError(
            f"the report cannot be written to {str(path)!r}: {error.strerror or error}; name another place for it"
        ) from None
    return path


def _replace(path: Path, text: str) -> None:
    """Write a file whole or not at all: a reader never sees half a page, and a full disk leaves the old one."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:50]}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp makes it readable by its owner alone; a page is made to be shown
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
