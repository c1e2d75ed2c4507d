"""Runs begun and gone on with from the command line, each with random search beside it."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from archsmith.cli.looking import data_lines, store_exists
from archsmith.cli.where import Where
from archsmith.core.budget import Budget
from archsmith.core.config import same_config, to_config
from archsmith.core.errors import AllTrialsFailed, NoReward, RunExists, RunLocked, UsageError
from archsmith.core.evaluator import DescribesData, without_data
from archsmith.core.finish import ACCURACY, Measure, measure_of
from archsmith.core.shown import plain, shown, without_passwords
from archsmith.rewards import default_reward
from archsmith.store.payload import free_name

if TYPE_CHECKING:
    from archsmith._search import Run
    from archsmith.cli.live import LiveView
    from archsmith.recipes import Recipe

LEASE_PATIENCE = 45  # seconds that a command which may be run again waits for a lease: it runs out in 30


def begin(
    recipe: Recipe,
    *,
    name: str,
    store: str,
    seed: int,
    where: Where,
    go_on: str,
    note: Mapping[str, Any] | None = None,
    artifacts: str | None = None,
) -> Run:
    """Search by a recipe with a live view on stderr.

    Args:
        where: children are trained; as many side by side as it says, else as the recipe says, else one for each core.
        go_on: the command to name on Ctrl-C.
        note: what is kept with the run (default: the recipe's name and scale, its plan to finish, and its control).
        artifacts: where a store that is new keeps weights; None: where its kind does.
    """
    from archsmith._search import search
    from archsmith.searchers import Random
    from archsmith.store import open_store

    if note is None:
        note = {"recipe": recipe.name, "scale": recipe.scale, "finish": to_config(recipe.finish)}
        if recipe.file is not None:
            note = {**note, "file": dict(recipe.file)}
        if recipe.control:
            note = {**note, "control": to_config(recipe.control_searcher or Random())}
    note = {**note, **where.to_record()}
    with watched(recipe.budget, go_on, measure=measure_of(recipe.evaluator), file=note.get("file")) as watch:
        return search(
            recipe.space,
            recipe.evaluator,
            searcher=recipe.searcher,
            reward=recipe.reward,
            **vars(recipe.budget),
            workers=where.number(recipe.workers),
            executor=where.make(recipe.workers),
            store=store if artifacts is None else open_store(store, artifacts=artifacts),
            name=name,
            seed=seed,
            limits=recipe.limits,
            stopping=recipe.stopping,
            first=recipe.first,
            note=note,
            watch=watch,
        )


def begin_new(
    recipe: Recipe,
    *,
    name: str | None,
    store: str,
    seed: int,
    where: Where,
    go_on: Callable[[str], str],
    artifacts: str | None = None,
    before: Callable[[str], None] | None = None,
) -> Run:
    """Begin a new run by a recipe. Of several that begin at the same moment without a name, each gets one of its own.

    Args:
        name: the run's; None: the first free one made from the recipe's.
        go_on: gives the command to name on Ctrl-C, for a run of that name.
        artifacts: as of `begin`.
        before: called with the name before the search begins.
    """
    while True:
        chosen = name if name is not None else free_name(names_in(store), recipe.name)
        if before is not None:
            before(chosen)
        try:
            return begin(
                recipe, name=chosen, store=store, seed=seed, where=where, go_on=go_on(chosen), artifacts=artifacts
            )
        except RunExists:  # another process was faster
            if name is not None:
                raise


def begin_or_go_on(
    recipe: Recipe,
    *,
    name: str,
    store: str,
    seed: int,
    where: Where,
    go_on: str,
    note: Mapping[str, Any] | None = None,
    trials: int | None = None,
    data: str | None = None,
    same: Recipe | None = None,
    artifacts: str | None = None,
) -> Run:
    """The run of that name: begun by the recipe where there is none, else gone on with as it was recorded.

    Args:
        trials: what a run that is there already goes on to; None: the budget it was begun with.
        data: where its data set is now, for a run that is there already; other data are refused.
        same: what a run that is there already must be a search by, as must the seed be its own.
        artifacts: as of `begin`.
    """
    from archsmith._search.run import Run
    from archsmith.store import open_store

    if name not in names_in(store):
        try:
            return begin(
                recipe, name=name, store=store, seed=seed, where=where, go_on=go_on, note=note, artifacts=artifacts
            )
        except RunExists:
            if same is None:
                raise  # else another process ran the same command, and was faster
    run = Run(open_store(store), name, recipe=recipe if recipe.file is not None else None)
    if same is not None:
        _check_same(run, same, seed)
    where = where.or_else(Where.of_record(run.config["note"]))
    made = sum(run.summary.counts.values())
    if trials is not None and made >= trials and run.summary.status == "finished":
        return run
    raised = None if trials is None else Budget(trials=trials)
    budget = raised or Budget(**run.config["budget"])
    what = "its budget is used up" if _used_up(run, budget) else "goes on"
    say(f"run {name!r} is in {without_passwords(store)} already and {what}: {budget}")
    go = partial(resumed, run, raised, where=where, go_on=go_on, data=data)
    return go() if same is None else _once_free(go, store)


def resumed(run: Run, raised: Budget | None, *, where: Where, go_on: str, data: str | None = None) -> Run:
    """Go on with a run, with a live view on stderr: to the budget that it was begun with, or to another one."""
    file = run.config["note"].get("file")
    with watched(raised or Budget(**run.config["budget"]), go_on, run, file=file) as watch:
        return run.resume(
            **(vars(raised) if raised is not None else {}),
            workers=where.number(run.config["workers"]),
            executor=where.make(run.config["workers"]),
            data=data,
            watch=watch,
        )


def _once_free(go: Callable[[], Run], store: str) -> Run:
    """The result of `go`, after waiting for the lease of a writer that may be gone: a database cannot know at once that it is."""
    until = time.monotonic() + LEASE_PATIENCE
    told = False
    while True:
        try:
            return go()
        except RunLocked as error:
            if not store.startswith("postgres") or time.monotonic() > until:
                raise
            if not told:
                say(f"{error}. Waiting up to {LEASE_PATIENCE} seconds, in case that process is gone")
            told = True
            time.sleep(1.0)


def beside(
    run: Run,
    *,
    store: str,
    where: Where,
    go_on: str,
    data: str | None = None,
    always: bool = False,
) -> Run | None:
    """The random search beside a run, begun or gone on with until it has as many trials, and otherwise the same.

    None where none was asked for (unless `always`), or the run itself was not searched to its end. Comparisons equalise
    the evaluator's cost: a budget in seconds becomes the trials that it was enough for.
    """
    from archsmith._search.data_check import check_same_data
    from archsmith._search.known_points import recorded_first
    from archsmith.core.evaluator import Limits
    from archsmith.recipes import Recipe
    from archsmith.searchers import Random

    config = run.config
    wanted = config["note"].get("control", to_config(Random()) if always else None)
    if wanted is None or (run.summary.status != "finished" and not always):
        return None
    check_same_data(
        run, run.evaluator, "Random search is its control on the same data only: put them back, or begin a new run"
    )
    trials = sum(run.summary.counts.values())
    if config.get("clock") is not None:
        where = where.or_else(Where("simulated"))  # as the run itself
    where = where.or_else(Where.of_record(config["note"]))
    if where.workers is None:
        where = replace(where, workers=None if where.executor == "ray" else config["workers"])
    reward = None
    if not same_config(config["reward"], to_config(default_reward(run.evaluator))):
        reward = run.made("reward", config["reward"])
    control = Recipe(
        name=f"{run.name}-random",
        summary=f"random search beside {run.name}",
        space=run.space,
        evaluator=run.evaluator,
        searcher=run.made("searcher", wanted),
        budget=Budget(trials=trials),
        reward=reward,
        limits=Limits(**config["limits"]),
        stopping=run.made("stopping", config.get("stopping")),
        first=recorded_first(config),  # both sides start from the same networks
        control=False,
        file=config["note"].get("file"),
    )
    return begin_or_go_on(
        control,
        name=control.name,
        store=store,
        seed=config["seed"],
        where=where,
        go_on=go_on,
        note={key: value for key, value in config["note"].items() if key not in ("control", "fitted")},
        trials=trials,
        data=data,
    )


def _check_same(run: Run, recipe: Recipe, seed: int) -> None:
    """Refuse to go on with a run by another recipe, or another seed, than it was begun with."""
    from archsmith._search.known_points import genotypes_of

    reward = recipe.reward if recipe.reward is not None else default_reward(recipe.evaluator)
    first = [genotype.to_json() for genotype in genotypes_of(run.space, recipe.first)]
    parts = {
        "space": (to_config(recipe.space), run.config["space"]),
        "searcher": (to_config(recipe.searcher), run.config["searcher"]),
        "reward": (to_config(reward), run.config["reward"]),
        "evaluator": (without_data(to_config(recipe.evaluator)), without_data(run.config["evaluator"])),
        "rule that stops children": (to_config(recipe.stopping), run.config.get("stopping")),
        "list of known points": (first, run.config.get("first") or []),
        "seed": (seed, run.config["seed"]),
    }
    for part, (given, found) in parts.items():
        if not same_config(found, given, any_module=True):
            raise UsageError(
                f"run {run.name!r} was begun with another {part}: recorded {shown(found)}, given {shown(given)}; go on with it "
                f"as it is by `{run.command('resume')}`, or begin one of another name"
            )


def tell_data(recipe: Recipe) -> None:
    """Read and describe the recipe's data, if it has any, so that their faults show before anything else."""
    from archsmith._search.session import check_enough

    if isinstance(recipe.evaluator, DescribesData):
        for line in data_lines(dict(recipe.evaluator.describe_data())):
            say(line)
        held, seen = (getattr(recipe.evaluator, name, None) for name in ("source_size", "size"))
        if held not in (None, seen):
            say(f"the network sees {seen} x {seen} pixels")
        check_enough(recipe.evaluator)


def names_in(store: str) -> set[str]:
    """The names of the store's runs; none where there is no store yet."""
    from archsmith.store import open_store

    return {run.name for run in open_store(store).runs()} if store_exists(store) else set()


@contextmanager
def watched(
    budget: Budget,
    go_on: str,
    run: Run | None = None,
    *,
    measure: Measure = ACCURACY,
    file: Mapping[str, Any] | None = None,
) -> Iterator[LiveView | None]:
    """A live view, from where the run stood before, which knows the measure then; on Ctrl-C, how to go on.

    None where the run's budget is used up: there is nothing to be seen.
    """
    from archsmith._search.recipe_file import RecipeFile
    from archsmith.cli.live import LiveView

    view = LiveView(budget, measure=measure)
    if run is not None:
        if _used_up(run, budget):
            yield None
            return
        before = run.summary
        done = sum(before.counts.get(state, 0) for state in ("done", "failed", "stopped"))
        measure = Measure.from_json(before.config.get("measure"))
        best, trial = before.best_reward, run.best
        paused = {}
        if before.counts.get("paused") and budget.epochs is not None:
            paused = {t.number: t.result.cost.epochs for t in run.trials() if t.state == "paused" and t.result}
        view = LiveView(
            budget, done=done, epochs=before.epochs, paused=paused, best=best, best_trial=trial, measure=measure
        )
    try:
        with view:
            yield view
    except KeyboardInterrupt:
        say(f"interrupted; every finished trial is kept. Go on with: {go_on}")
        raise
    except (AllTrialsFailed, NoReward):
        changed = "" if (own := RecipeFile.from_json(file)) is None else f" --recipe {shlex.quote(own.named())}"
        say(f"stopped; every finished trial is kept. Once the cause is corrected, go on with: {go_on}{changed}")
        raise


def _used_up(run: Run, budget: Budget) -> bool:
    return run.summary.status == "finished" and Budget(**run.config["budget"]) == budget


def say(text: str) -> None:
    """Tell the person, on stderr."""
    print(plain(text), file=sys.stderr, flush=True)
