"""Commands that look at runs: list, show, top, best, report. None of them imports torch."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import statistics
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from archsmith.core.config import to_config
from archsmith.core.errors import RunLocked, UnknownName, UsageError
from archsmith.core.evaluator import with_data
from archsmith.core.finish import FINAL_ACCURACY, Measure, epochs_of_finals, epochs_text, in_todays_words
from archsmith.core.shown import command_text, in_columns, plain, without_passwords

if TYPE_CHECKING:
    from archsmith._search import Run
    from archsmith.core.store import RunSummary
    from archsmith.core.trial import Trial

RunName = Annotated[str, typer.Argument(metavar="RUN", help="The run's name; `archsmith list` shows them.")]
StoreOption = Annotated[
    str,
    typer.Option("--store", envvar="ARCHSMITH_STORE", help="Where runs are kept: a URL or the path of an SQLite file."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
ArtifactsOption = Annotated[
    str | None,
    typer.Option(
        "--artifacts",
        envvar="ARCHSMITH_ARTIFACTS",
        help="Where a new store keeps weights: a folder, or an address such as s3://BUCKET/PATH (default: a folder next to "
        "the SQLite file).",
    ),
]
ForceOption = Annotated[
    bool,
    typer.Option("--force", help="Replace a file that archsmith did not write, unless it is a database."),
]
MovedData = Annotated[str | None, typer.Option("--data", help="Where the run's data set is now.")]
RecipeOption = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        metavar="FILE.py",
        help="Your file with the run's recipe, if it was moved or changed: FILE.py, or FILE.py:NAME.",
    ),
]
DEFAULT_STORE = "sqlite:///runs.db"
MEMORY = "memory://"
STATES = {"paused": "put aside", "stopped": "stopped early"}  # as a search tells them while it runs
MOST_READ = 100_000  # trials that `show` reads to tell how workers were used: two seconds' worth


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    for command in (list_, show, top, best, report):
        app.command(name=command.__name__.rstrip("_"))(command)


def open_existing(
    store: str, name: str, data: str | None = None, artifacts: str | None = None, recipe: str | None = None
) -> Run:
    """Open an existing run; a missing store is not created.

    Args:
        store, name: the store, and the run's name.
        data: where the run's data set is now.
        artifacts: where the store keeps weights from now on, if it has no place for them yet.
        recipe: the FILE.py with the run's recipe.

    Raises UnknownName if there is no such run, and UsageError if `data` or `recipe` do not fit it.
    """
    from archsmith._search.run import Run
    from archsmith.store import open_store

    if not store_exists(store):
        path = store.removeprefix("sqlite:///")
        raise UnknownName(
            "run", name, [], f"({without_passwords(path)} does not exist; name another store with --store)"
        )
    run = Run(open_store(store, artifacts=artifacts), name)
    if recipe is not None:
        run = with_recipe(run, recipe)
    if data is None:
        return run
    evaluator: Any = run.evaluator
    if (moved := with_data(evaluator, data)) is None:
        raise UsageError(f"--data relocates a data set, and the evaluator of run {name!r} has none")
    return run.with_evaluator(moved)


def with_recipe(run: Run, argument: str) -> Run:
    """The run with its space and evaluator from a recipe file. The run records the file for later commands.

    Raises UsageError if the file's space or evaluator differs from the run's.
    """
    from archsmith._search.recipe_file import run_recipe_file
    from archsmith._search.run import Run
    from archsmith._search.writing import writing

    pieces, file = run_recipe_file(argument)
    run = Run(run.store, run.name, recipe=pieces)
    for part in ("space", "evaluator"):
        run.made(part, run.config[part])
    note = run.config["note"]
    if note.get("file") != file.to_json():
        with suppress(RunLocked), writing(run, "name the file again when that has ended") as writer:
            writer.configure({"note": {**note, "file": file.to_json()}})
    return run


def command_line(verb: str, name: str, *more: str, store: str) -> str:
    """A command about a run, as one would type it here. It names the store unless that is the default or in the environment."""
    where = [] if store in (DEFAULT_STORE, os.environ.get("ARCHSMITH_STORE")) else ["--store", store]
    return command_text(verb, name, *more, *where)


def can_finish(run: Run) -> bool:
    """Whether the record of a run allows `finish`."""
    return run.best is not None and run.store.artifacts is not None and run.config.get("finishable", True) is True


def store_exists(store: str) -> bool:
    """Whether there is something at a store's URL or path to be opened; false for a file that is not there yet."""
    path = store.removeprefix("sqlite:///")
    return "://" in path or os.path.exists(path)


def list_(store: StoreOption = DEFAULT_STORE, as_json: JsonOption = False) -> None:
    """List the runs of a store, the latest first."""
    from archsmith.store import open_store

    runs = open_store(store).runs() if store_exists(store) else []
    if as_json:
        print(json.dumps([summary_json(run) for run in runs], indent=2))
        return
    if not runs:
        print(f"no runs in {without_passwords(store)}; begin with: {command_line('search', 'digits', store=store)}")
        return
    rows = [("RUN", "STATUS", "TRIALS", "FAILED", "BEST", "TIME", "UPDATED")]
    for run in runs:
        best = "-" if run.best_reward is None else reward_text(run.best_reward)
        failed, total = run.counts.get("failed", 0), sum(run.counts.values())
        rows.append((run.name, run.status, str(total), str(failed), best, duration(run.seconds), run.updated[:16]))
    print_columns(rows)


def show(name: RunName, store: StoreOption = DEFAULT_STORE, as_json: JsonOption = False) -> None:
    """Show what a run searches, how far it is, what it cost and what it found."""
    from archsmith._search.known_points import improvement
    from archsmith._search.saved import saved
    from archsmith._search.start_phase import learned_nothing
    from archsmith.report.cluster import cluster
    from archsmith.report.outcome import outcome_json, outcome_lines, read_outcome

    run = open_existing(store, name)
    summary = run.summary
    auto, auto_error = read_outcome(run.reader)
    finish = _finish(run)
    few = sum(summary.counts.values()) <= MOST_READ
    less, workers = (saved(run.reader), cluster(run.reader)) if few else (None, None)
    if as_json:
        trial = run.best
        found = {"config": run.config, "best_trial": None if trial is None else trial_json(trial), "finish": finish}
        used = {
            "cluster": None if workers is None else workers.to_json(),
            "saved": None if less is None else vars(less),
            "auto": None if auto is None else outcome_json(auto),
            "improvement": None if (improved := improvement(run.reader)) is None else vars(improved),
        }
        print(json.dumps({**summary_json(summary), **found, **used}, indent=2))
        return
    config = run.config
    print(f"{summary.name}: {summary.status}")
    for word, line in outcome_lines(auto) if auto is not None else ():
        print(f"  {word:9}  {plain(line)}")
    if auto_error:
        print(f"  delivered  not shown, since its record is of another version: {plain(auto_error)}")
    print(f"  space      {_phrase(config['space'])}")
    print(f"  searcher   {_phrase(config['searcher'])}")
    print(f"  evaluator  {_phrase(config['evaluator'])}")
    if config.get("dataset"):
        first, *more = data_lines(config["dataset"])
        print(f"  data       {first}")
        for line in more:
            print(f"             {line}")
    print(f"  reward     {_phrase(config['reward'])}")
    print(
        f"  budget     {', '.join(f'{v:g} {k}' for k, v in config['budget'].items() if v is not None)}; seed {config['seed']}"
    )
    counts = ", ".join(f"{n} {STATES.get(state, state)}" for state, n in summary.counts.items() if n)
    twins = f" ({run.twins} the same as an earlier one, not trained again)" if run.twins else ""
    print(f"  trials     {counts or 'none yet'}{twins}; {summary.epochs:g} epochs, {duration(summary.seconds)}")
    if (remark := learned_nothing(config, sum(summary.counts.values()))) is not None:
        print(f"  note       {remark}")
    if less is not None:
        print(f"  stopping   {less}")
    for what, told in workers.lines() if workers is not None else ():
        print(f"  {what:9}  {told}")
    best_trial = run.best
    if best_trial is not None and best_trial.result is not None:
        metrics = ", ".join(f"{k} {v:.6g}" for k, v in best_trial.result.metrics.items())
        print(f"  best       trial {best_trial.number}: reward {best_trial.reward:.6g} ({metrics})")
    if (improved := improvement(run.reader)) is not None:
        print(f"  first      {improved}")
    if finish is not None:
        measure = Measure.from_json(finish["measure"])
        tested = ", ".join(f"{n['name']} {_score(n, measure)}{_trained(n, finish)}" for n in finish["networks"])
        looked = f"looked at the test set {finish['looks']} time{'s' * (finish['looks'] != 1)}"
        print(f"  tested     {'' if measure.percent else measure.label + ': '}{tested} ({looked})")
    print(f"  versions   {', '.join(f'{k} {v}' for k, v in config['versions'].items())}")
    print(f"  command    {config['command']}")
    if summary.status == "interrupted":
        print(f"next: {command_line('resume', name, store=store)}")
    elif finish is None and auto is None and summary.status == "finished" and can_finish(run):
        print(f"next: {command_line('finish', name, store=store)}")


def top(
    name: RunName,
    k: Annotated[int, typer.Option("-k", help="How many.")] = 10,
    pareto: Annotated[
        str | None,
        typer.Option(
            metavar="METRICS",
            help="The whole Pareto front instead: of the score and one metric (latency), or of several (accuracy,latency). "
            "A sign says which way is better: -energy.",
        ),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Show the best trials of a run, or those that no other beats in several metrics."""
    from archsmith.report.outcome import outcome_json, outcome_lines, read_outcome

    if k < 1:
        raise UsageError(f"-k must be at least 1, got {k}")
    run = open_existing(store, name)
    measure = Measure.from_json(run.config.get("measure"))
    more: list[str] = []  # metrics in columns of their own
    if pareto is None:
        trials = run.top(k)
        found = {metric for trial in trials if trial.result for metric in trial.result.metrics}
        of_weights = [FINAL_ACCURACY] if measure.name == "accuracy" else []
        more = [metric for metric in (*of_weights, "latency") if metric in found]
    else:
        metrics = [part.strip() for part in pareto.split(",")]
        if len(metrics) == 1:
            metrics.insert(0, ("+" if measure.higher_is_better else "-") + measure.name)
        trials = run.pareto(*metrics)
        if not trials:
            raise UsageError(
                f"run {name!r} has no trial with the metrics {', '.join(m.lstrip('+-') for m in metrics)}{_metrics_there(run)}"
            )
        more = [m for m in (m.lstrip("+-") for m in metrics) if m not in ("reward", "parameters", measure.name)]
    auto, _ = read_outcome(run.reader)
    if as_json:
        delivered = {} if auto is None else {auto.delivered.trial: {"delivered": outcome_json(auto)["delivered"]}}
        print(json.dumps([{**trial_json(t), **delivered.get(t.number, {})} for t in trials], indent=2))
        return
    rows = [("TRIAL", "REWARD", measure.label.upper(), *map(_column, more), "PARAMETERS", "SECONDS", "GENOTYPE")]
    for trial in trials:
        has = trial.result.metrics if trial.result else {}
        score = score_text(has[measure.name], measure) if measure.name in has else "-"
        others = (f"{has[m]:.4{'f' if m == FINAL_ACCURACY else 'g'}}" if m in has else "-" for m in more)
        parameters = f"{has['parameters']:,.0f}" if "parameters" in has else "-"
        seconds = f"{trial.result.cost.seconds:.1f}" if trial.result else "-"
        rows.append((str(trial.number), f"{trial.reward:.6g}", score, *others, parameters, seconds, trial.genotype.key))
    print_columns(rows)
    if auto is not None and pareto is None:
        word, line = outcome_lines(auto)[0]
        print(f"{word}: {plain(line)}")


def _column(metric: str) -> str:
    named = {"latency": "LATENCY (ms)", FINAL_ACCURACY: "OF WEIGHTS"}
    return named.get(metric, metric.replace("_", " ").upper())


def _metrics_there(run: Run) -> str:
    """What the best trial has, for a message."""
    best = run.best
    there = sorted(best.result.metrics) if best is not None and best.result is not None else []
    return f"; its best has: {', '.join(['reward', *there])}" if there else ""


def best(name: RunName, store: StoreOption = DEFAULT_STORE) -> None:
    """Print the genotype of the best trial, as JSON: archsmith best RUN > genotype.json."""
    trial = open_existing(store, name).needed_best("there is no genotype to print")
    print(json.dumps(trial.genotype.to_json(), indent=2))


def report(
    name: RunName,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The page's path (default: RUN.html).")] = None,
    control: Annotated[str | None, typer.Option(help="The random-search run to compare it with.")] = None,
    recipe: RecipeOption = None,
    force: ForceOption = False,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Write a run's page: one HTML file that works offline. Prints its path."""
    print(open_existing(store, name, recipe=recipe).report(output, control=control, force=force))


def summary_json(summary: RunSummary) -> dict[str, Any]:
    """A run's summary without its configuration, as JSON."""
    fields = ("name", "status", "created", "updated", "best", "best_reward", "seconds", "epochs")
    return {**{f: getattr(summary, f) for f in fields}, "counts": dict(summary.counts)}


def trial_json(trial: Trial) -> dict[str, Any]:
    """A trial as JSON, its curve left out."""
    result = trial.result.to_json() if trial.result else None
    if result is not None:
        del result["curve"]
    return {
        "number": trial.number,
        "state": str(trial.state),
        "reward": trial.reward,
        "key": trial.genotype.key,
        "genotype": trial.genotype.to_json(),
        "result": result,
    }


def reward_text(reward: float) -> str:
    """A reward with four digits behind the point, or four that tell something: 80 / perplexity^2 is small."""
    return f"{reward:.4f}" if abs(reward) >= 0.1 or reward == 0 else f"{reward:.4g}"


def score_text(score: float, measure: Measure) -> str:
    """A validation score in a column or a line: an accuracy as a fraction, the others as they are."""
    return f"{score:.4f}" if measure.percent else measure.text(score)


def data_lines(dataset: dict[str, Any]) -> list[str]:
    """What a run's data are, as its record tells: how many, of what, and what was done with them."""
    needed = {"name", "train", "validation", "test", "unreadable", "shape", "classes", "test_split"}
    if (
        not needed <= dataset.keys() or len(dataset["shape"]) != 3
    ):  # of a text, or as a user's own evaluator describes it
        return _text_lines(dataset)
    parts = ", ".join(f"{dataset[part]:,} {part}" for part in ("train", "validation", "test"))
    unreadable = f"; {dataset['unreadable']} files could not be read" if dataset["unreadable"] else ""
    height, width, depth = dataset["shape"]
    own = "; validation split: official" if dataset.get("validation_split") == "official" else ""
    return [
        f"{dataset['name']}: {parts}, {len(dataset['classes'])} classes{unreadable}",
        f"read as {height} x {width} pixels, {'grey' if depth == 1 else f'{depth} channels'}; "
        f"test split: {dataset['test_split']}{own}",
        *dataset.get("remarks", ()),
    ]


def _text_lines(dataset: dict[str, Any]) -> list[str]:
    """The same of a text, or of pairs of sentences."""
    items = {"word": "words", "char": "characters"}.get(str(dataset.get("level")), str(dataset.get("kind", "")))
    counts = ", ".join(
        f"{dataset[part]:,} {part}" for part in ("train", "validation", "test") if isinstance(dataset.get(part), int)
    )
    more = []
    if sizes := dataset.get("vocabulary"):
        more.append("vocabulary of " + " and ".join(f"{n:,}" for n in (sizes if isinstance(sizes, list) else [sizes])))
    if unknown := dataset.get("unknown"):
        more.append(f'{100 * unknown:.1f} % of the validation text is "<unk>"')
    if split := dataset.get("test_split"):
        more.append(f"test split: {split}")
    first = ": ".join(filter(None, (str(dataset.get("name", "data")), counts))) + (f" {items}" if items else "")
    return [first, *(["; ".join(more)] if more else []), *dataset.get("remarks", ())]


def duration(seconds: float) -> str:
    """Seconds as a person would say them: 42 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def print_columns(rows: Sequence[Sequence[str]]) -> None:
    """Print rows in columns as wide as they need to be."""
    print(in_columns(rows))


def _finish(run: Run) -> dict[str, Any] | None:
    """What finishing the run found, as it is on record."""
    document = run.reader.document("finish")
    if not isinstance(document, Mapping) or not {"networks", "looks"} <= set(document):
        return None  # a store may come from anywhere
    return in_todays_words(document)


def _score(network: dict[str, Any], measure: Measure) -> str:
    """A finished network's test score over seeds."""
    found = [final["score"] for final in network["finals"] if final["score"] is not None]
    if not found:
        return "failed"
    return measure.text(statistics.fmean(found), statistics.stdev(found) if len(found) > 1 else None)


def _trained(network: dict[str, Any], finish: dict[str, Any]) -> str:
    """For how long a finished network was trained, against what its plan asks for."""
    epochs = epochs_of_finals(network)
    return "" if epochs is None else f" after {epochs_text(epochs, finish.get('plan') or {})}"


@functools.cache
def _usual(type_name: str) -> dict[str, Any]:
    """The default values of one of archsmith's own classes, as a configuration has them; of others none is known."""
    if ":" in type_name:
        return {}
    from archsmith._search.run import resolve

    try:
        fields = dataclasses.fields(resolve(type_name))
    except (TypeError, UsageError):  # no dataclass, or gone since
        return {}
    return {f.name: to_config(f.default) for f in fields if f.default is not dataclasses.MISSING}


def _phrase(config: Any) -> str:
    """A configuration in one line, without what is as usual: ConvChain(layers=4)."""
    if isinstance(config, dict) and "type" in config:
        usual = _usual(str(config["type"]))
        told = {k: v for k, v in config.items() if k != "type" and not (k in usual and usual[k] == v)}
        fields = ", ".join(f"{k}={_phrase(v)}" for k, v in told.items())
        name = str(config["type"]).rpartition(".")[2]
        return f"{name}({fields})" if fields else name
    if isinstance(config, list):
        return "(" + ", ".join(_phrase(v) for v in config) + ")"
    return repr(config) if isinstance(config, str) else f"{config}"
