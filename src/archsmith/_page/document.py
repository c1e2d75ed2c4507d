"""A page as one self-contained HTML file, written whole or not at all."""

from __future__ import annotations

import contextlib
import importlib.resources
import os
import tempfile
from pathlib import Path

from archsmith._page.html import Html, escape, tag
from archsmith.core.errors import UsageError

# Nothing is loaded and no script runs, whatever the page holds: a second lock behind the escaping.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


def document(title: str, *main: Html | None) -> str:
    """The whole page as text, with its style inside."""
    css = importlib.resources.files("archsmith._page").joinpath("page.css").read_text(encoding="utf-8")
    head = (
        f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)} · archsmith</title>"
        f'<link rel="icon" href="data:,"><style>{css}</style>'
    )
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body>{tag("main", *main)}</body></html>\n'


def check_place(path: Path, what: str) -> None:
    """Raise UsageError when no file can be there; `what` it is goes into the message. For before the page is made."""
    if os.path.isdir(path):
        raise UsageError(f"the {what} is a file, and {str(path)!r} is a folder; name a file in it, such as {what}.html")
    if not os.path.isdir(path.parent):
        raise UsageError(f"the {what} cannot be written to {str(path)!r}: there is no folder {str(path.parent)!r}")


def write(path: Path, text: str, what: str) -> None:
    """Write a page: a reader never sees half of one, and a full disk leaves the old one.

    Raises UsageError when the place cannot be written.
    """
    try:
        _replace(path, text)
    except OSError as error:
        raise UsageError(
            f"the {what} cannot be written to {str(path)!r}: {error.strerror or error}; name another place for it"
        ) from None


def _replace(path: Path, text: str) -> None:
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
