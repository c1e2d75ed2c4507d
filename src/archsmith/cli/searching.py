"""Commands that search: search, resume, recipes, doctor."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from archsmith.cli.looking import (
    DEFAULT_STORE,
    MEMORY,
    ArtifactsOption,
    JsonOption,
    RecipeOption,
    RunName,
    StoreOption,
    can_finish,
    command_line,
    duration,
    open_existing,
    reward_text,
    score_text,
    summary_json,
)
from archsmith.cli.runs import begin_new, begin_or_go_on, beside, names_in, resumed, say, tell_data
from archsmith.cli.where import (
    AddressOption,
    CpusOption,
    ExecutorOption,
    FaultsOption,
    GpusOption,
    Where,
    WorkersOption,
    numbers_of,
)
from archsmith.core.budget import Budget
from archsmith.core.errors import RunExists, UnknownName, UsageError
from archsmith.core.evaluator import with_data
from archsmith.core.finish import Measure

if TYPE_CHECKING:
    from archsmith._search import Run
    from archsmith._search.known_points import KnownPoint
    from archsmith.core.genotype import Architecture, Genotype
    from archsmith.core.stopping import Rule
    from archsmith.recipes import Recipe

DataOption = Annotated[
    str | None, typer.Option("--data", help="A data set's name, or a path, in place of the recipe's.")
]
LabelsOption = Annotated[
    str | None,
    typer.Option("--labels", metavar="FILE.csv", help="Pictures: a CSV with their file names and labels."),
]
LabelPatternOption = Annotated[
    str | None,
    typer.Option(
        "--label-pattern",
        metavar="REGEX",
        help="Pictures: where the label is in their file names, such as '(?P<label>\\[a-z]+)[._]'.",  # not markup
    ),
]
FoldsOption = Annotated[
    int | None,
    typer.Option(
        "--folds",
        help="Pictures: choose by cross-validation with this many folds, where classes have few (default: a validation split).",
    ),
]
SizeOption = Annotated[
    int | None,
    typer.Option(
        "--size", metavar="PIXELS", help="Pictures: pixels a side of the network's input, in place of the recipe's."
    ),
]
TrialsOption = Annotated[int | None, typer.Option("--trials", help="Budget: children proposed.")]
SecondsOption = Annotated[float | None, typer.Option("--seconds", help="Budget: wall clock, summed over sessions.")]
EpochsOption = Annotated[
    float | None, typer.Option("--epochs", help="Budget: epochs of training, summed over children.")
]
SearcherOption = Annotated[
    str | None,
    typer.Option(
        "--searcher", help="In place of the recipe's, with its paper's settings: random, reinforce, ppo, tpe, ..."
    ),
]
ObjectivesOption = Annotated[
    str | None,
    typer.Option(
        "--objectives",
        metavar="METRIC,METRIC",
        help="Search a front of several metrics, such as accuracy,latency, by NSGA-II or the --searcher nsga2 or tpe.",
    ),
]
ShardsOption = Annotated[
    int | None,
    typer.Option("--shards", help="Asynchronous training of the controller: parameter-server shards, S (default: 20)."),
]
ReplicasOption = Annotated[
    int | None,
    typer.Option(
        "--replicas",
        help="Asynchronous training: controllers that sample and learn, K (default: 1.5 x workers / children, or 100).",
    ),
]
ChildrenOption = Annotated[
    int | None,
    typer.Option(
        "--children", help="Asynchronous training: children that a replica waits for, m (default: the recipe's)."
    ),
]
AccumulateOption = Annotated[
    int | None,
    typer.Option("--accumulate", help="Asynchronous training: gradients that the server waits for (default: 1)."),
]
StoppingOption = Annotated[
    str | None,
    typer.Option(
        "--stopping",
        metavar="RULE[:NAME=NUMBER,...]",
        help="End hopeless children early: asha or median, such as asha:eta=3,minimum=1 (default: all are trained to their "
        "end).",
    ),
]
FirstOption = Annotated[
    list[str] | None,
    typer.Option(
        "--first",
        metavar="NAME|FILE|RUN",
        help="Try a known network before those of the searcher: a name such as resnet20, a file with a genotype or an "
        "architecture, or the name of a run, for its best. May be given several times.",
    ),
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
        str,
        typer.Argument(
            metavar="RECIPE|FILE.py",
            help="A name of `archsmith recipes`, or your own file: FILE.py, or FILE.py:NAME if it has several recipes.",
        ),
    ],
    data: DataOption = None,
    labels: LabelsOption = None,
    label_pattern: LabelPatternOption = None,
    size: SizeOption = None,
    folds: FoldsOption = None,
    trials: TrialsOption = None,
    seconds: SecondsOption = None,
    epochs: EpochsOption = None,
    workers: WorkersOption = None,
    executor: ExecutorOption = None,
    address: AddressOption = None,
    cpus: CpusOption = None,
    gpus: GpusOption = None,
    faults: FaultsOption = None,
    store: StoreOption = DEFAULT_STORE,
    name: Annotated[
        str | None, typer.Option("--name", help="The run's name (default: made from the recipe's).")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="All randomness of the run comes from it.")] = 0,
    searcher: SearcherOption = None,
    objectives: ObjectivesOption = None,
    shards: ShardsOption = None,
    replicas: ReplicasOption = None,
    children: ChildrenOption = None,
    accumulate: AccumulateOption = None,
    stopping: StoppingOption = None,
    first: FirstOption = None,
    artifacts: ArtifactsOption = None,
    go_on_with: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on with the run of that name where there is one: a command that may be run again."
        ),
    ] = False,
    control: ControlOption = True,
    estimate: Annotated[
        bool,
        typer.Option("--estimate", help="Only build some children, time a few batches, and tell what all would take."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Search by a recipe, and by random search beside it.

    A FILE.py holds a value named `recipe` (an archsmith.recipes.Recipe): your own space, searcher or evaluator.
    """
    from archsmith._compare.contest import searcher_of
    from archsmith.recipes.data import advised_folds, with_folds, with_labels, with_size
    from archsmith.recipes.objectives import with_objectives

    where = Where.named(executor, workers, address, cpus, gpus, faults)
    if go_on_with and name is None:
        raise UsageError("--resume needs --name: it says which run to go on with")
    found = with_labels(_adapted(load_recipe(recipe), data, trials, seconds, epochs), labels, label_pattern)
    found = with_folds(with_size(found, size), folds).suited()
    found = found if searcher is None else replace(found, searcher=searcher_of(searcher, found))
    found = with_objectives(found, objectives)
    found = asynchronous(found, shards, replicas, children, accumulate, workers)
    where = with_workers(where, found)
    found = found if stopping is None else replace(found, stopping=rule_named(stopping))
    found = found if not first else replace(found, first=known_points(first, found, store))
    found = replace(found, control=found.control and control)
    tell_data(found)
    if (advised := advised_folds(found)) is not None:
        say(
            "the classes have few images, and a small validation split says little of a network: --folds "
            f"{advised} chooses by cross-validation, for {advised} times the epochs"
        )
    if estimate:
        _tell_estimate(found, as_json)
        return
    if not go_on_with and name is not None and name in names_in(store):  # before the data are read
        go_on = command_line("resume", name, store=store)
        raise RunExists(
            f"a run named {name!r} is in this store already; go on with it by {go_on}, or by this command with "
            "--resume, or choose another name"
        )

    def resume_command(name: str) -> str:
        return command_line("resume", name, store=store)

    if go_on_with and name is not None:
        run = begin_or_go_on(
            found,
            name=name,
            store=store,
            seed=seed,
            where=where,
            go_on=resume_command(name),
            trials=trials,
            data=data,
            same=found,
            artifacts=artifacts,
        )
    else:
        run = begin_new(
            found, name=name, store=store, seed=seed, where=where, go_on=resume_command, artifacts=artifacts
        )
    control_run = beside(run, store=store, where=where, go_on=resume_command(run.name))
    runs = [run] if control_run is None else [run, control_run]
    if as_json:
        print(json.dumps([summary_json(run.summary) for run in runs], indent=2))
        return
    for one in runs:
        print(_outcome(one))
    if store == MEMORY:
        say("this run was in memory only and is gone when the command ends; keep runs in a file with --store FILE.db")
        return
    if objectives is not None:
        say(f"the front: {command_line('top', run.name, '--pareto', objectives, store=store)}")
    verbs = ["report"]
    verbs += ["compare"] if run.best is not None and control_run is not None and control_run.best is not None else []
    verbs += ["finish"] if can_finish(run) else []
    say(f"next: {'   or: '.join(command_line(verb, run.name, store=store) for verb in verbs)}")


def resume(
    name: RunName,
    file: Annotated[str | None, typer.Argument(metavar="[FILE.py]", help="The same as --recipe.")] = None,
    recipe: RecipeOption = None,
    data: Annotated[str | None, typer.Option("--data", help="Where the same data set is now.")] = None,
    trials: TrialsOption = None,
    seconds: SecondsOption = None,
    epochs: EpochsOption = None,
    workers: WorkersOption = None,
    executor: ExecutorOption = None,
    address: AddressOption = None,
    cpus: CpusOption = None,
    gpus: GpusOption = None,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Go on with a run that was interrupted, or raise its budget; and with the random search beside it."""
    run = open_existing(store, name, recipe=recipe if recipe is not None else file)
    where = Where.named(executor, workers, address, cpus, gpus).or_else(Where.of_record(run.config["note"]))
    asked = any(limit is not None for limit in (trials, seconds, epochs))
    raised = Budget(trials=trials, seconds=seconds, epochs=epochs) if asked else None
    go_on = command_line("resume", name, store=store)
    run = resumed(run, raised, where=where, go_on=go_on, data=data)
    control = beside(run, store=store, where=where, go_on=go_on, data=data)
    if as_json:
        print(json.dumps(summary_json(run.summary), indent=2))
        return
    for one in (run, control):
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


def _tell_estimate(recipe: Recipe, as_json: bool) -> None:
    from archsmith._search.estimate import estimate

    say("building three children and training three batches of each")
    expected = estimate(recipe.space, recipe.evaluator, trials=recipe.budget.trials)
    print(json.dumps(expected.to_json(), indent=2) if as_json else expected)


# --- recipes from names and files -------------------------------------------------------------------------------------


def load_recipe(recipe: str) -> Recipe:
    """The recipe of that name, or the one that a file of the user's holds: FILE.py, or FILE.py:NAME."""
    from archsmith._search.recipe_file import is_recipe_file, run_recipe_file
    from archsmith.core.evaluator import as_evaluator
    from archsmith.core.space import as_space
    from archsmith.recipes import Recipe, get_recipe

    if not is_recipe_file(recipe):
        return get_recipe(recipe)
    found, file = run_recipe_file(recipe)
    if not isinstance(found, Recipe):
        raise UsageError(
            f"{file.recipe} of {file.path} must be an archsmith.recipes.Recipe, got {type(found).__name__}"
        )
    return replace(found, space=as_space(found.space), evaluator=as_evaluator(found.evaluator), file=file.to_json())


def _adapted(
    recipe: Recipe, data: str | None, trials: int | None, seconds: float | None, epochs: float | None
) -> Recipe:
    """The recipe with what the command line said. A budget given replaces the recipe's whole budget."""
    if data is not None:
        recipe = relocated(recipe, data)
    if trials is not None or seconds is not None or epochs is not None:
        recipe = replace(recipe, budget=Budget(trials=trials, seconds=seconds, epochs=epochs))
    return recipe


def asynchronous(
    recipe: Recipe,
    shards: int | None,
    replicas: int | None,
    children: int | None,
    accumulate: int | None,
    workers: int | None,
) -> Recipe:
    """The recipe with its controller trained as in the paper's figure 3; as it is where no option asks for that.

    Without a number of replicas there are so many that half as many children again as there are workers may be out: what
    keeps 800 workers busy (docs/decisions/0024-simulated-cluster.md).
    """
    given = {"shards": shards, "replicas": replicas, "accumulate": accumulate}
    if children is None and all(value is None for value in given.values()):
        return recipe
    from archsmith.searchers import Asynchronous, Reinforce

    learner = recipe.searcher
    if not isinstance(learner, Reinforce):
        raise UsageError(
            f"--shards, --replicas, --children and --accumulate train a REINFORCE controller, and recipe {recipe.name!r} "
            f"searches by {type(learner).__name__}; add --searcher reinforce"
        )
    if children is not None:
        learner = replace(learner, minibatch=children)
    if replicas is None and workers is not None:
        given["replicas"] = math.ceil(1.5 * workers / learner.minibatch)
    return replace(recipe, searcher=Asynchronous(learner, **{k: v for k, v in given.items() if v is not None}))


def with_workers(where: Where, recipe: Recipe) -> Where:
    """Where simulated machines are as many as an asynchronous controller has children out, unless told otherwise."""
    if where.executor != "simulated" or where.workers is not None:
        return where
    from archsmith.searchers import Asynchronous

    by = recipe.searcher
    return replace(where, workers=by.replicas * by.learner.minibatch) if isinstance(by, Asynchronous) else where


def rule_named(text: str) -> Rule:
    """The rule that stops hopeless children: a name, and what is not as usual, such as "asha:eta=4,minimum=2"."""
    from archsmith.stopping import ASHA, Median

    rules: dict[str, type[ASHA] | type[Median]] = {"asha": ASHA, "median": Median}
    name, _, settings = text.partition(":")
    if name not in rules:
        raise UnknownName("rule", name, rules)
    return rules[name](**numbers_of(rules[name], settings, "--stopping")) if settings else rules[name]()


def known_points(named: Sequence[str], recipe: Recipe, store: str) -> tuple[Genotype, ...]:
    """The genotypes of networks that are named on the command line: of a paper, in a file, or the best of a run of the store.

    A network alone is trained as the first known point of the recipe is, where its space has training recipes.

    Raises UnknownName for a name of none of these, and UsageError for a network that is no point of the space.
    """
    from archsmith._describe import find
    from archsmith._search.known_points import genotypes_of
    from archsmith._search.run import Run
    from archsmith.discovered import NETWORKS
    from archsmith.store import open_store

    runs = names_in(store)
    points: list[KnownPoint] = []
    for name in named:
        if name in runs and name not in NETWORKS:
            points.append(Run(open_store(store), name))
        elif name in NETWORKS or Path(name).is_file():
            network = find(name)
            points.append(_as_known(recipe, network.architecture) or network)
        else:
            raise UnknownName("network, file or run", name, [*NETWORKS, *runs])
    return tuple(genotypes_of(recipe.space, points))


def _as_known(recipe: Recipe, network: Architecture) -> Architecture | None:
    """The first known point of the recipe with another network in it; None where it is no product with such a part."""
    known = recipe.first[0] if recipe.first else None
    if not isinstance(known, Mapping) or known.get("kind") != "product" or not isinstance(network, Mapping):
        return None
    alike = [name for name, part in known["parts"].items() if part["kind"] == network.get("kind")]
    return {**known, "parts": {**known["parts"], alike[0]: network}} if alike else None


def relocated(recipe: Recipe, data: str) -> Recipe:
    """The recipe on another data set, or on the same one elsewhere. Raises UsageError where it has none."""
    evaluator = with_data(recipe.evaluator, data)
    if evaluator is None:
        raise UsageError(f"recipe {recipe.name!r} uses no data set, so --data means nothing to it")
    return replace(recipe, evaluator=evaluator)


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
    last = measure.of_weights(best.result.metrics)
    weights = f", {score_text(last, measure)} of its weights" if last is not None else ""
    told = f" (validation {measure.label} {score_text(score, measure)}{weights})" if score is not None else ""
    return line + found + told


def _first_failure(run: Run) -> str:
    """Why the first trial failed, for a run in which none did not."""
    for trial in run.trials():
        if trial.result is not None and trial.result.failure is not None:
            return f": trial {trial.number} failed ({trial.result.failure.reason}): {trial.result.failure.message}"
    return ""
