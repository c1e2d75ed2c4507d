"""Comparing searches: equal budgets, several seeds, the paper's figure 6, and what may be said. Reads only the store.

compare([run, other])                                                 runs that were made
compare(recipe, searchers={"random": Random(), ...}, seeds=20)        makes what is not there yet
compare(claim)                                                        a paper's claim, the same way
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from archsmith.core.errors import UnknownName, UsageError
from archsmith.core.global_state import generators_kept

if TYPE_CHECKING:
    from archsmith._compare.compared import Compared
    from archsmith._search.run import Run
    from archsmith.core.executor import Executor
    from archsmith.core.finish import Measure
    from archsmith.core.searcher import Searcher
    from archsmith.recipes.claim import Claim
    from archsmith.recipes.recipe import Recipe

__all__ = ["compare"]


@generators_kept()
def compare(
    what: Sequence[Run | str] | Run | str | Recipe | Claim,
    *,
    searchers: Mapping[str, Searcher] | None = None,
    seeds: int | Sequence[int] | None = None,
    trials: int | None = None,
    workers: int = 1,
    executor: Callable[[], Executor] | None = None,
    baseline: Run | str | None = None,
    store: str = "sqlite:///runs.db",
    told: Callable[[Run, int, int], None] | None = None,
) -> Compared:
    """Hold searches against each other; `.table()`, `.claim` and `.report(path)` say what came of it.

    Runs of one configuration with different seeds form a group; groups are compared with the baseline's. What is
    compared are the best model, and the means of the 5 and the 15 best different models, by validation, at equal cost;
    and the regret of the best one, where the evaluator knows the best there is.

    Args:
        what: two or more runs, or one whose random search `<name>-random` is beside it in its store; or a recipe, which
            each of `searchers` runs with each seed; or a claim, which has its own. Runs are named
            `<recipe>-<searcher>-<seed>`; those that the store has go on to the budget, or are taken as they are.
        searchers: by the name that they are shown under. Of a recipe alone.
        seeds: how many, counted from 0, or which ones (default: a claim's own, else 10).
        trials: the budget of each run (default: the recipe's).
        workers: children trained side by side in a run.
        executor: makes the executor of each run, in place of `workers`: `lambda: Simulated(500)`.
        baseline: one of the runs, or the name of a searcher: what the others are held against (default: random search
            where there is one, else the first).
        store: where runs are that are given by name, and where those of a recipe go.
        told: called with each run of a recipe or a claim once it is there: the run, its place, and how many there are.

    Raises:
        UnknownName: the store has no run of a name.
        UsageError: there is nothing to compare, the runs have other data or another measure, or a run that is in the
            store under a name that is needed is of another configuration.
    """
    from archsmith._compare.contest import arms_of, contest
    from archsmith._compare.searched import read, with_regret
    from archsmith.recipes.claim import Claim
    from archsmith.recipes.recipe import Recipe

    claim = None
    if isinstance(what, Recipe | Claim):
        claim = what if isinstance(what, Claim) else None
        arms, number = arms_of(what, searchers, trials), seeds if seeds is not None else claim.seeds if claim else 10
        found = contest(what.name, arms, number, store=store, workers=workers, executor=executor, told=told)
        cut = next(iter(arms.values())).budget.trials
    else:
        for name, given in (("searchers", searchers), ("seeds", seeds), ("trials", trials), ("executor", executor)):
            if given is not None:
                raise UsageError(f"{name}= is for a recipe or a claim, whose runs are made; these are runs already")
        found, cut = _runs(what, store), None
    names = [label for run in found if isinstance(label := run.config["note"].get("arm"), str)] if claim or cut else []
    base = baseline.name if not isinstance(baseline, str | None) else baseline
    if base is not None and base not in (known := list(dict.fromkeys([*(run.name for run in found), *names]))):
        raise UnknownName("run of the comparison", base, known)
    from archsmith._compare.grouping import compared

    measure = _measure(found)
    higher, within = measure.higher_is_better, claim.within if claim is not None else None
    searched = [read(run, measure, within) for run in found]
    if within is None:
        searched = [with_regret(s, run, higher_is_better=higher) for s, run in zip(searched, found, strict=True)]
    return compared([s.until(trials=cut) for s in searched], measure, base, claim)


def _runs(what: Sequence[Run | str] | Run | str, store: str) -> list[Run]:
    """The runs that are meant, each once, and two at least."""
    from archsmith._search.run import Run
    from archsmith.store import open_store

    runs = [what] if isinstance(what, str | Run) else what
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
    return found


def _measure(runs: Sequence[Run]) -> Measure:
    """The measure of all of them."""
    from archsmith._compare.searched import measure_of

    measure = measure_of(runs[0])
    for run in runs[1:]:
        if (other := measure_of(run)).name != measure.name:
            raise UsageError(
                f"runs {runs[0].name!r} and {run.name!r} are judged by different measures, {measure.label} and "
                f"{other.label}; compare runs of one measure"
            )
    return measure
