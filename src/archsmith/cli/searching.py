"""Commands that search: search, resume, recipes, doctor."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from archsmith.cli.looking import (
    DEFAULT_STORE,
    JsonOption,
    RunName,
    StoreOption,
    command_line,
    data_lines,
    duration,
    open_existing,
    reward_text,
    score_text,
    store_exists,
    summary_json,
)
from archsmith.core.budget import Budget
from archsmith.core.config import to_config
from archsmith.core.errors import UnknownName, UsageError
from archsmith.core.finish import ACCURACY, Measure, measure_of

if TYPE_CHECKING:
    from archsmith._search import Run
    from archsmith.core.executor import Executor
    from archsmith.core.store import RunSummary
    from archsmith.recipes import Recipe

DataOption = Annotated[
    str | None, typer.Option("--data", help="A data set's name, or a path, in place of the recipe's.")
]
TrialsOption = Annotated[int | None, typer.Option("--trials", help="Budget: children proposed.")]
SecondsOption = Annotated[float | None, typer.Option("--seconds", help="Budget: wall clock, summed over sessions.")]
EpochsOption = Annotated[
    float | None, typer.Option("--epochs", help="Budget: epochs of training, summed over children.")
]
WorkersOption = Annotated[
    int | None, typer.Option("--workers", help="Children trained side by side (default: one for each core).")
]
ExecutorOption = Annotated[
    str | None, typer.Option("--executor", help="Where children are trained: in-process, or pool (of processes).")
]
ControlOption = Annotated[
    bool,
    typer.Option("--control/--no-control", help="Run random search afterwards with the same budget, as RUN-random."),
]


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    for command in (search, resume, recipes, doctor):
        app.command(name=command.__name__)(command)


def search(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE|FILE.py", help="A name of `archsmith recipes`, or a file of yours.")
    ],
    data: DataOption = None,
    trials: TrialsOption = None,
    seconds: SecondsOption = None,
    epochs: EpochsOption = None,
    workers: WorkersOption = None,
    executor: ExecutorOption = None,
    store: StoreOption = DEFAULT_STORE,
    name: Annotated[
        str | None, typer.Option("--name", help="The run's name (default: made from the recipe's).")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="All randomness of the run comes from it.")] = 0,
    control: ControlOption = True,
    as_json: JsonOption = False,
) -> None:
    """Search by a recipe, and by random search beside it.

    A FILE.py holds a value named `recipe` (an archsmith.recipes.Recipe): your own space, searcher or evaluator.
    """
    found = _adapted(_load(recipe), data, trials, seconds, epochs)
    found = replace(found, control=found.control and control)
    tell_data(found)
    name = name if name is not None else free_name(store, found.name)
    own = [recipe] if recipe.endswith(".py") else []
    runs: list[Run] = []
    for recorded in (name, f"{name}-random") if found.control else (name,):
        runs.append(
            run_recipe(
                control_of(found, runs[0]) if runs else found,
                name=recorded,
                store=store,
                seed=seed,
                workers=workers,
                executor=executor,
                go_on=command_line("resume", recorded, *own, store=store),
            )
        )
    if as_json:
        print(json.dumps([summary_json(run.summary) for run in runs], indent=2))
        return
    for run in runs:
        print(_outcome(run))
    report, finish = (command_line(verb, name, store=store) for verb in ("report", "finish"))
    print(f"next: {report}   or: {finish}", file=sys.stderr)


def resume(
    name: RunName,
    file: Annotated[
        str | None, typer.Argument(metavar="[FILE.py]", help="The file of yours that it was begun with.")
    ] = None,
    data: Annotated[str | None, typer.Option("--data", help="Where the same data set is now.")] = None,
    trials: TrialsOption = None,
    seconds: SecondsOption = None,
    epochs: EpochsOption = None,
    workers: WorkersOption = None,
    executor: ExecutorOption = None,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Go on with a run that was interrupted, or raise its budget; and with the random search beside it."""
    run = open_existing(store, name)
    if workers is None:
        workers = 1 if executor == "in-process" else run.config["workers"]
    own = _load(file) if file is not None else None
    if trials is None and seconds is None and epochs is None:
        budget = Budget(**run.config["budget"])
    else:
        budget = Budget(trials=trials, seconds=seconds, epochs=epochs)
    go_on = command_line("resume", name, *([file] if file is not None else []), store=store)
    with watched(budget, go_on, run.summary) as watch:
        run = run.resume(
            trials=trials,
            seconds=seconds,
            epochs=epochs,
            workers=workers,
            executor=make_executor(executor, workers),
            data=data,
            space=own.space if own else None,
            evaluator=own.evaluator if own else None,
            searcher=own.searcher if own else None,
            reward=own.reward if own else None,
            watch=watch,
        )
    beside = _go_on_beside(run, own, store=store, workers=workers, executor=executor, go_on=go_on)
    if as_json:
        print(json.dumps(summary_json(run.summary), indent=2))
        return
    for one in (run, beside):
        if one is not None:
            print(_outcome(one))


def recipes(as_json: JsonOption = False) -> None:
    """List the recipes: named experiments, at paper scale and at desk scale."""
    from archsmith.cli.looking import print_columns
    from archsmith.recipes import RECIPES

    listed = [make() for make in RECIPES.values()]
    if as_json:
        print(
            json.dumps(
                [{"name": r.name, "scale": r.scale, "summary": r.summary, "budget": vars(r.budget)} for r in listed],
                indent=2,
            )
        )
        return
    rows = [("RECIPE", "SCALE", "BUDGET", "WHAT")]
    print_columns(rows + [(r.name, r.scale, str(r.budget), r.summary) for r in listed])


def doctor(as_json: JsonOption = False) -> None:
    """Tell what this machine has: versions, cores, GPUs, extras; and what would be missing."""
    from archsmith.cli.doctor import examine

    findings = examine()
    if as_json:
        print(json.dumps(findings, indent=2))
        return
    width = max(map(len, findings))
    for key, value in findings.items():
        print(f"{key.ljust(width)}  {value}")


# --- what the commands share ------------------------------------------------------------------------------------------


def run_recipe(
    recipe: Recipe,
    *,
    name: str,
    store: str,
    seed: int,
    workers: int | None,
    executor: str | None = None,
    go_on: str,
) -> Run:
    """Search by a recipe with a live view on stderr. `go_on` is the command to name on Ctrl-C."""
    from archsmith._search import search as search_
    from archsmith.searchers import Random

    if workers is None:
        workers = 1 if executor == "in-process" else recipe.workers or cores()
    note = {"recipe": recipe.name, "scale": recipe.scale, "finish": to_config(recipe.finish)}
    if recipe.control:
        note["control"] = to_config(recipe.control_searcher or Random())
    with watched(recipe.budget, go_on, measure=measure_of(recipe.evaluator)) as watch:
        return search_(
            recipe.space,
            recipe.evaluator,
            searcher=recipe.searcher,
            reward=recipe.reward,
            **vars(recipe.budget),
            workers=workers,
            executor=make_executor(executor, workers),
            store=store,
            name=name,
            seed=seed,
            limits=recipe.limits,
            note=note,
            watch=watch,
        )


def tell_data(recipe: Recipe) -> None:
    """Read the recipe's data, if it has any, and say what they are: what is wrong with them shows before all else."""
    if hasattr(recipe.evaluator, "describe_data"):
        for line in data_lines(recipe.evaluator.describe_data()):
            say(line)


def _go_on_beside(
    run: Run, own: Recipe | None, *, store: str, workers: int, executor: str | None, go_on: str
) -> Run | None:
    """The random search beside a run, begun or gone on with until it has as many trials; None where none was asked for."""
    from archsmith._search import Run as Run_
    from archsmith._search import search as search_
    from archsmith._search.run import resolve
    from archsmith.core.config import from_config
    from archsmith.core.evaluator import Limits

    config, name = run.config, f"{run.name}-random"
    wanted = config["note"].get("control")
    if wanted is None or run.summary.status != "finished":
        return None
    budget = Budget(trials=sum(run.summary.counts.values()))
    space, evaluator = run.space, run.evaluator
    if name in {r.name for r in run.store.runs()}:
        control = Run_(run.store, name, space=space, evaluator=evaluator)
        if sum(control.summary.counts.values()) >= (budget.trials or 0) and control.summary.status == "finished":
            return control
        with watched(budget, go_on, control.summary) as watch:
            return control.resume(
                trials=budget.trials, workers=workers, executor=make_executor(executor, workers), watch=watch
            )
    reward = own.reward if own else getattr(evaluator, "default_reward", None)
    if own is None and to_config(reward) != config["reward"]:
        reward = from_config(config["reward"], resolve)
    with watched(budget, go_on, measure=measure_of(evaluator)) as watch:
        return search_(
            space,
            evaluator,
            searcher=from_config(wanted, resolve),
            reward=reward,
            **vars(budget),
            workers=workers,
            executor=make_executor(executor, workers),
            store=store,
            name=name,
            seed=config["seed"],
            limits=Limits(**config["limits"]),
            note={key: value for key, value in config["note"].items() if key != "control"},
            watch=watch,
        )


def control_of(recipe: Recipe, run: Run) -> Recipe:
    """Random search with as many trials as `run` had, and otherwise the same.

    Comparisons equalise the evaluator's cost: a budget in seconds becomes the trials that it was enough for.
    """
    from archsmith.searchers import Random

    budget = Budget(trials=sum(run.summary.counts.values()))
    return replace(recipe, searcher=recipe.control_searcher or Random(), budget=budget, control=False)


def free_name(store: str, stem: str) -> str:
    """`stem`, or `stem-2`, `stem-3`, ...: the first that no run of the store has, its control's included."""
    from archsmith.store import open_store

    taken = {run.name for run in open_store(store).runs()} if store_exists(store) else set()
    names = (stem if i == 1 else f"{stem}-{i}" for i in range(1, len(taken) + 2))
    return next(n for n in names if n not in taken and f"{n}-random" not in taken)


def make_executor(name: str | None, workers: int) -> Executor | None:
    """The executor of that name; None for the default that follows from the number of workers."""
    from archsmith.executors import InProcess, ProcessPool

    if name is None:
        return None
    if name == "in-process":
        if workers > 1:
            raise UsageError(
                f"--executor in-process trains one child at a time, and --workers is {workers}; use --executor pool"
            )
        return InProcess()
    if name == "pool":
        return ProcessPool(workers)
    raise UnknownName("executor", name, ["in-process", "pool"])


def cores() -> int:
    """The cores this process may use: one worker each, with one thread, trains the most children a minute."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def watched(
    budget: Budget, go_on: str, before: RunSummary | None = None, *, measure: Measure = ACCURACY
) -> Iterator[Any]:
    """A live view, from where the run stood before, which knows the measure then; on Ctrl-C, how to go on."""
    from archsmith.cli.live import LiveView

    view = LiveView(budget, measure=measure)
    if before is not None:
        done = sum(before.counts.get(state, 0) for state in ("done", "failed", "stopped"))
        measure = Measure.from_json(before.config.get("measure"))
        view = LiveView(budget, done=done, epochs=before.epochs, best=before.best_reward, measure=measure)
    try:
        with view:
            yield view
    except KeyboardInterrupt:
        say(f"interrupted; every finished trial is kept. Go on with: {go_on}")
        raise


def _load(recipe: str) -> Recipe:
    """The recipe of that name, or the one that a file of the user's holds."""
    from archsmith.recipes import Recipe, get_recipe

    if not recipe.endswith(".py"):
        return get_recipe(recipe)
    if not os.path.isfile(recipe):
        raise UsageError(f"there is no file {recipe!r}")
    import runpy

    sys.path.insert(0, os.path.dirname(os.path.abspath(recipe)))
    found = runpy.run_path(recipe, run_name="archsmith_recipe").get("recipe")
    if not isinstance(found, Recipe):
        raise UsageError(
            f"{recipe} must hold a value named `recipe` that is an archsmith.recipes.Recipe, got {found!r}"
        )
    return found


def _adapted(
    recipe: Recipe, data: str | None, trials: int | None, seconds: float | None, epochs: float | None
) -> Recipe:
    """The recipe with what the command line said. A budget given replaces the recipe's whole budget."""
    if data is not None:
        if not hasattr(recipe.evaluator, "data"):
            raise UsageError(f"recipe {recipe.name!r} uses no data set, so --data means nothing to it")
        recipe = replace(recipe, evaluator=replace(recipe.evaluator, data=data))  # type: ignore[type-var]
    if trials is not None or seconds is not None or epochs is not None:
        recipe = replace(recipe, budget=Budget(trials=trials, seconds=seconds, epochs=epochs))
    return recipe


def _outcome(run: Run) -> str:
    summary = run.summary
    total, failed = sum(summary.counts.values()), summary.counts.get("failed", 0)
    line = f"{run.name}: {total} trials ({failed} failed), {summary.epochs:g} epochs, {duration(summary.seconds)}"
    best = run.best
    if best is None or best.result is None:
        return f"{line}; nothing finished{_first_failure(run)}"
    measure = Measure.from_json(run.config.get("measure"))
    score = best.result.metrics.get(measure.name)
    found = f"; best reward {reward_text(best.reward or 0.0)} at trial {best.number}"
    told = f" (validation {measure.label} {score_text(score, measure)})" if score is not None else ""
    return line + found + told


def _first_failure(run: Run) -> str:
    """Why the first trial failed, for a run in which none did not."""
    for trial in run.trials():
        if trial.result is not None and trial.result.failure is not None:
            return f": trial {trial.number} failed ({trial.result.failure.reason}): {trial.result.failure.message}"
    return ""


def say(text: str) -> None:
    """Tell the person, on stderr."""
    print(text, file=sys.stderr, flush=True)
