"""Documents of a run, written beside its search by what comes after it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from archsmith._search.run import Run
from archsmith.core.errors import RunLocked
from archsmith.core.store import RunWriter


@contextmanager
def writing(run: Run, what_to_do: str) -> Iterator[RunWriter]:
    """The run open for writing, for as long as it takes to put a document; its status stays what it was.

    Raises RunLocked, saying `what_to_do`, while another process writes it.
    """
    status = run.summary.status
    try:
        writer = run.store.write(run.name)
    except RunLocked as error:
        raise RunLocked(f"run {run.name!r} is being written by another process: {what_to_do} ({error})") from None
    try:
        yield writer
    finally:
        writer.close("interrupted" if status == "running" else status)
