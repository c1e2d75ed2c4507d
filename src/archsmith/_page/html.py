"""HTML by construction: text is escaped unless it is `Html` already, so nothing from a store can become markup."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Sequence

VOID = frozenset({"br", "hr", "link", "meta"})


class Html(str):
    """Text that is markup. Everything else is escaped where it meets markup."""

    __slots__ = ()


Piece = str | None
"""What stands inside an element: `Html` as it is, other text escaped, None left out."""


def join(pieces: Iterable[Piece], between: str = "") -> Html:
    """The pieces one after another, each escaped unless it is markup."""
    return Html(escape(between).join(escape(piece) for piece in pieces if piece is not None))


def escape(text: str) -> Html:
    """The text as markup that shows it. Characters that no HTML may hold are spelled out: `\\x1b`."""
    if isinstance(text, Html):
        return text
    return Html(html.escape(_UNSHOWABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)))


# Controls, lone surrogates (a broken file name, read back) and noncharacters; tab and line feed may stay. The marks
# that reverse the direction of text are here too, since they could make a message read as another.
_UNSHOWABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]"
)


def tag(
    name: str, *pieces: Piece, cls: str = "", id: str = "", style: str = "", href: str = "", title: str = ""
) -> Html:
    """An element with its pieces inside; `title` is shown when the pointer rests on it."""
    attributes = (("class", cls), ("id", id), ("style", style), ("href", href), ("title", title))
    head = "".join(f' {key}="{escape(value)}"' for key, value in attributes if value)
    return Html(f"<{name}{head}>" if name in VOID else f"<{name}{head}>{join(pieces)}</{name}>")


def section(id: str, title: str, *pieces: Piece) -> Html:
    """A part of the page, with its heading."""
    return tag("section", tag("h2", title), *pieces, id=id)


def details(summary: Piece, *pieces: Piece) -> Html:
    """What is folded away until it is asked for."""
    return tag("details", tag("summary", summary), *pieces)


def figure(picture: Piece, *caption: Piece, title: str = "") -> Html:
    """A picture with a title above and a sentence or two below."""
    heading = tag("h3", title) if title else None
    return tag("figure", heading, picture, tag("figcaption", *caption) if caption else None)


def table(head: Sequence[Piece], rows: Iterable[Sequence[Piece]], *, left: int = 1, cls: str = "") -> Html:
    """A table that scrolls sideways where it is too wide; the first `left` columns are text, the others numbers."""

    def row(kind: str, cells: Sequence[Piece]) -> Html:
        return tag("tr", *(tag(kind, cell or "", cls="" if i < left else "n") for i, cell in enumerate(cells)))

    body = tag("tbody", *(row("td", cells) for cells in rows))
    return tag("div", tag("table", tag("thead", row("th", head)), body, cls=cls), cls="scroll")


# --- numbers as people read them --------------------------------------------------------------------------------------


def number(value: float | None, digits: int = 4) -> str:
    """Four significant digits, thousands apart; a dash for what there is not."""
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if not math.isfinite(value):
        return str(float(value))
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}".replace(",", "\N{NARROW NO-BREAK SPACE}")
    if abs(value) >= 10**digits:
        return number(round(value)) if abs(value) < 1e15 else f"{value:.{digits}g}"
    return f"{value:#.{digits}g}".rstrip(".")


def percent(value: float | None) -> str:
    """A fraction as a percentage with one decimal."""
    if value is None or not math.isfinite(value):
        return "–" if value is None else str(float(value))
    return f"{100 * value:.1f}\N{NARROW NO-BREAK SPACE}%"


def duration(seconds: float | None) -> str:
    """ "4.2 s", "3 min 12 s", "2 h 05 min", "3 d 4 h"."""
    if seconds is None or not math.isfinite(seconds):
        return "–"
    if seconds < 10:
        return f"{seconds:.2g} s" if seconds else "0 s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 48 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def size(n: int) -> str:
    """A number of bytes: "812 bytes", "1.1 MB"."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n >= factor:
            amount = n / factor
            return (
                f"{amount:.0f} {unit}"
                if amount >= 100
                else f"{amount:.2g} {unit}"
                if amount < 10
                else f"{amount:.0f} {unit}"
            )
    return f"{n} bytes"


def count(n: int, singular: str, plural: str = "") -> str:
    """ "1 trial", "2 trials"."""
    return f"{number(n)} {singular if n == 1 else plural or singular + 's'}"
