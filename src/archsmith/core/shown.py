"""Values as text for people: a stranger's in a message, never longer than a line, and rows as a table."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

_PASSWORD = re.compile(r"(\w://[^\s:/@'\"]*:)[^\s/'\"]*@")
_OPTION = re.compile(r"([?&](?:ssl)?password=)[^\s&'\"]*")
# Controls but for tab and line feed, marks that reverse the direction of text, and halves of characters.
STEERING = "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
_STEERING = re.compile(STEERING)
# In a name also line ends, tabs and code points that are no characters: JSON, HTML and a console show none of them alike.
_UNWRITABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]"
)
_ESCAPE = re.compile(r"\\[\\xu]")


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


def spelled(name: str) -> str:
    """A file name from `os.fsdecode` as text that any file, page and console can show.

    A byte that is not UTF-8 becomes `\\xe9`, a control character `\\x0a` or `\\u0085`, a mark that steers the direction of
    text `\\u202e`. The backslashes of such a name are doubled, and those of a name that looks like one. All other names
    stay as they are, and no two names are spelled alike.
    """
    if not _UNWRITABLE.search(name) and not _ESCAPE.search(name):
        return name
    return _UNWRITABLE.sub(lambda found: _escaped(ord(found[0])), name.replace("\\", "\\\\"))


def base_name(path: str) -> str:
    """The last part of a path of this or another system."""
    windows = path.startswith("\\\\") or path[1:3] == ":\\"
    return (PureWindowsPath if windows else PurePosixPath)(path).name


def _escaped(code: int) -> str:
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was not decoded
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}"


def without_passwords(text: str) -> str:
    """A text with the passwords of the URLs in it hidden: what is printed and recorded is read by others."""
    return _OPTION.sub(r"\1***", _PASSWORD.sub(r"\1***@", text))


def command_text(verb: str, name: str, *options: str) -> str:
    """A command of archsmith about the run or file `name`, as a person types it in a shell."""
    words = [verb, *options, "--", name] if name.startswith("-") else [verb, name, *options]
    return without_passwords(shlex.join(["archsmith", *words]))


def in_columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows of as many texts each, the columns flush left."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)
