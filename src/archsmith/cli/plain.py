"""What is printed is text: names from a stranger's store or model never steer the terminal that shows them."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

from archsmith.core.shown import STEERING, plain

_COLOURS, _MOVES = r"\x1b\[[0-9;]*m", r"\x1b\[[0-9;?]*[A-Za-z]"


class PlainStream:
    """A stream that writes text as `core.shown.plain` has it, but for sequences that are allowed."""

    def __init__(self, stream: TextIO, allowed: str | None) -> None:
        self._stream = stream
        self._pattern = re.compile(f"({allowed})|{STEERING}") if allowed else None

    def write(self, text: str) -> int:
        """Write a text, whatever is in it."""
        if self._pattern is None:
            self._stream.write(plain(text))
        else:
            self._stream.write(self._pattern.sub(lambda found: found[1] or plain(found[0]), text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write texts one after another."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def plain_streams() -> Iterator[None]:
    """stdout and stderr as `PlainStream`s meanwhile. On a terminal help has its colours, and the live view on stderr moves
    the cursor too; elsewhere no sequence is let through."""
    streams = sys.stdout, sys.stderr
    for stream in streams:
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # what a terminal's encoding lacks is no reason to stop
    out, err = streams
    sys.stdout = cast(TextIO, PlainStream(out, _COLOURS if out.isatty() else None))
    sys.stderr = cast(TextIO, PlainStream(err, _MOVES if err.isatty() else None))
    try:
        yield
    finally:
        sys.stdout, sys.stderr = streams
