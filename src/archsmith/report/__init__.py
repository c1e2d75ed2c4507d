"""The report: one self-contained HTML page, and the drawings in it. Reads nothing but the store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from archsmith.core.global_state import generators_kept

if TYPE_CHECKING:
    from archsmith._search.run import Run

__all__ = ["write_report"]


@generators_kept()
def write_report(run: Run, path: Path, *, control: str | None = None, force: bool = False) -> Path:
    """Write a run's page, one HTML file that needs nothing else, and give its path.

    Args:
        run: what it is of; it may still be running.
        path: where to; an earlier page there is replaced, all at once.
        control: the random-search run to show beside it. By default the run `<name>-random` of the same store, else
            the latest random search there with the same space, evaluator, data, reward and budget.
        force: whether to replace a file that archsmith did not write. A database is never replaced.

    Raises:
        UnknownName: the store has no run named `control`.
        UsageError: the path cannot be written.
    """
    from archsmith._page.document import check_place, write
    from archsmith.report.facts import gather  # numpy, and with `page` matplotlib: only when a page is made
    from archsmith.report.page import page

    path = Path(path)
    check_place(path, "report", force=force)
    write(path, page(gather(run, control=control)), "report", force=force)
    return path
