"""Comparing searches: equal budgets, several seeds, the paper's figure 6, and what may be said. Reads only the store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from archsmith.core.errors import UnknownName, UsageError

if TYPE_CHECKING:
    from archsmith._compare.compared import Compared
    from archsmith._search.run import Run

__all__ = ["compare"]


def compare(
    runs: Sequence[Run | str], *, baseline: Run | str | None = None, store: str = "sqlite:///runs.db"
) -> Compared:
    """Hold searches against each other; `.table()`, `.claim` and `.report(path)` say what came of it.

    Runs of one configuration with different seeds form a group; groups are compared with the baseline's. What is
    compared are the best model, and the means of the 5 and the 15 best different models, by validation, at equal cost.

    Args:
        runs: two or more, or one whose random search `<name>-random` is beside it in its store.
        baseline: one of the runs, whose group the others are held against (default: random search where there is one,
            else the first).
        store: where runs are that are given by name.

    Raises:
        UnknownName: the store has no run of a name.
        UsageError: there is nothing to compare, or the runs have other data or another measure.
    """
    from archsmith._compare.compared import compared
    from archsmith._compare.searched import measure_of, read
    from archsmith._search.run import Run
    from archsmith.store import open_store

    if isinstance(runs, str | Run):
        runs = [runs]
    found = [run if isinstance(run, Run) else Run(open_store(store), run) for run in runs]
    if len(found) == 1:
        only = found[0]
        try:
            found.append(Run(only.store, f"{only.name}-random", space=None))
        except UnknownName:
            raise UsageError(
                f"a comparison takes two runs or more; {only.name!r} has no random search {only.name + '-random'!r} "
                "beside it, so name another run"
            ) from None
    names = [(run.store.url, run.name) for run in found]
    if twice := next((run.name for run in found if names.count((run.store.url, run.name)) > 1), None):
        raise UsageError(f"run {twice!r} is named twice; a comparison takes each run once")
    if not found:
        raise UsageError("a comparison takes two runs or more, and got none")
    base = baseline.name if isinstance(baseline, Run) else baseline
    if base is not None and base not in {run.name for run in found}:
        raise UnknownName("run of the comparison", base, [run.name for run in found])
    measure = measure_of(found[0])
    for run in found[1:]:
        if (other := measure_of(run)).name != measure.name:
            raise UsageError(
                f"runs {found[0].name!r} and {run.name!r} are judged by different measures, {measure.label} and "
                f"{other.label}; compare runs of one measure"
            )
    return compared([read(run, measure) for run in found], measure, base)
