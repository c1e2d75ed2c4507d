"""A page as one self-contained HTML file, written whole or not at all."""

from __future__ import annotations

import importlib.resources
from pathlib import Path

from archsmith._page.html import Html, escape, tag
from archsmith.core.output_files import check_output, write_output

# Nothing is loaded and no script runs, whatever the page holds: a second lock behind the escaping.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"

_BEGINNING = '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy"'


def document(title: str, *main: Html | None) -> str:
    """The whole page as text, with its style inside."""
    css = importlib.resources.files("archsmith._page").joinpath("page.css").read_text(encoding="utf-8")
    head = (
        f'content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)} · archsmith</title>"
        f'<link rel="icon" href="data:,"><style>{css}</style>'
    )
    return f"{_BEGINNING} {head}</head>\n<body>{tag('main', *main)}</body></html>\n"


def is_page(text: str) -> bool:
    """Whether archsmith wrote a page, from the text that it begins with."""
    return text.startswith(_BEGINNING) and "· archsmith</title>" in text


def check_place(path: Path, what: str, *, force: bool = False) -> None:
    """Raise UsageError unless a page may be written there; `what` it is goes into the message. For before it is made."""
    check_output(path, what, is_page, force=force)


def write(path: Path, text: str, what: str, *, force: bool = False) -> None:
    """Write a page, whole or not at all. An earlier page is replaced, another file only with `force`. Raises UsageError."""
    write_output(path, text, what, is_page, force=force)
