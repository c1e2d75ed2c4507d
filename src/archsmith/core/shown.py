"""Values as text for people: a stranger's in a message, never longer than a line, and rows as a table."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

_PASSWORD = re.compile(r"(\w://[^\s:/@'\"]*:)[^\s/'\"]*@")
_OPTION = re.compile(r"([?&](?:ssl)?password=)[^\s&'\"]*")
# Controls but for tab and line feed, marks that reverse the direction of text, and halves of characters.
STEERING = "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
_STEERING = re.compile(STEERING)


def shown(value: Any) -> str:
    """A value for a message: as Python writes it, or how large it is where that would not fit on a line.

    Never fails: a number of many digits and lists nested without end are values too.
    """
    if isinstance(value, int) and abs(value) >= 2**63:
        return "a number of more than 64 bits"
    if isinstance(value, str):
        value = value[:200]
    if isinstance(value, Mapping | list | tuple) and len(value) > 8:
        return f"{type(value).__name__} of {len(value):,}"
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # nested too deep; a number of thousands of digits inside
        return f"{type(value).__name__} of {len(value):,}" if hasattr(value, "__len__") else type(value).__name__
    return text if len(text) <= 160 else text[:157] + "..."


def plain(text: str) -> str:
    """A text as a terminal may be given it: what would steer it, reverse its direction or cannot be written is spelt out.

    Line feeds and tabs stay.
    """
    return _STEERING.sub(lambda found: found.group().encode("unicode_escape").decode(), text)


def without_passwords(text: str) -> str:
    """A text with the passwords of the URLs in it hidden: what is printed and recorded is read by others."""
    return _OPTION.sub(r"\1***", _PASSWORD.sub(r"\1***@", text))


def in_columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows of as many texts each, the columns flush left."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)
