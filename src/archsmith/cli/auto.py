"""`archsmith auto`: the whole job on a data set, from images or a text to a page and a model."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from archsmith.cli.auto_options import FROM_SCRATCH, AutoOptions
from archsmith.cli.looking import DEFAULT_STORE, ForceOption, JsonOption, StoreOption, print_columns
from archsmith.cli.runs import names_in, say
from archsmith.cli.searching import LabelPatternOption, LabelsOption, SizeOption, TrialsOption
from archsmith.cli.where import WorkersOption
from archsmith.core.duration import duration_text, milliseconds_of, seconds_of
from archsmith.core.errors import UsageError
from archsmith.core.shown import command_text, without_passwords
from archsmith.store.payload import free_name

if TYPE_CHECKING:
    from archsmith.recipes import Recipe

DEFAULT_TIME = "10m"


def register(app: typer.Typer) -> None:
    """Add this command to the command line."""
    app.command(name="auto")(auto)


def auto(
    data: Annotated[
        str,
        typer.Argument(
            help="Images: a folder with one folder of them a class, a CSV that names them, or an .npz file. A text: one "
            "file, or a folder with train.txt, valid.txt and test.txt. Or a data set's name."
        ),
    ],
    time_budget: Annotated[
        str | None,
        typer.Option(
            "--time", metavar="20m", help=f"How long everything may take, such as 1h30m (default: {DEFAULT_TIME})."
        ),
    ] = None,
    labels: LabelsOption = None,
    label_pattern: LabelPatternOption = None,
    size: SizeOption = None,
    pretrained: Annotated[
        str | None,
        typer.Option(
            "--pretrained",
            metavar="imagenet|FILE",
            help="Weights to begin with: imagenet, or a safetensors file of EfficientNet-Lite0, EfficientNet-B0, MobileNetV3-Large or "
            "MnasNet-B1 in timm's naming (default: imagenet for colour pictures, if the extra is installed).",
        ),
    ] = None,
    from_scratch: Annotated[bool, typer.Option("--from-scratch", help="Use no pretrained weights.")] = False,
    latency: Annotated[
        str | None,
        typer.Option("--latency", metavar="5ms", help="What the network may take for a picture here, with one thread."),
    ] = None,
    runtime: Annotated[
        str | None,
        typer.Option(
            "--runtime",
            help="What latencies are measured with: onnxruntime or pytorch (default: the former, if installed).",
        ),
    ] = None,
    baseline_time: Annotated[
        str | None,
        typer.Option("--baseline-time", metavar="3m", help="For the baseline's training (default: one sixth)."),
    ] = None,
    control: Annotated[
        bool, typer.Option("--control", help="Run random search beside the search, with as many children.")
    ] = False,
    seeds: Annotated[
        int | None,
        typer.Option(
            "--seeds", help="Compare over so many final trainings of each network, and no longer by time alone."
        ),
    ] = None,
    seconds: Annotated[float | None, typer.Option("--seconds", help="The same as --time, in seconds.")] = None,
    trials: TrialsOption = None,
    workers: WorkersOption = None,
    store: StoreOption = DEFAULT_STORE,
    name: Annotated[
        str | None,
        typer.Option("--name", help="The run's name (default: made from the data's); one that exists goes on."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="All randomness comes from it.")] = 0,
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder for the page and the model.")] = Path(
        "out"
    ),
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """The whole job on a data set: search, compare with a baseline, train, test once, report, export.

    Pictures get a plan for the --time. The first Ctrl-C wraps up within a minute; after a kill, the same command with --name
    goes on where it was.
    """
    began = time.monotonic()
    from archsmith.cli.auto_by_trials import auto_by_trials
    from archsmith.recipes import for_data
    from archsmith.recipes.data import with_size
    from archsmith.training import ImageClassification

    if seconds is not None and time_budget is not None:
        raise UsageError("give either --time or --seconds, which is the same in seconds")
    total = None if time_budget is None else seconds_of(time_budget, "--time")
    if seconds is not None:
        total = seconds_of(seconds, "--seconds")
    recipe = with_size(for_data(data, labels=labels, label_pattern=label_pattern), size)
    if from_scratch and pretrained is not None:
        raise UsageError("give either --pretrained or --from-scratch")
    milliseconds = None if latency is None else milliseconds_of(latency, "--latency")
    weights = FROM_SCRATCH if from_scratch else pretrained
    options = AutoOptions(
        data,
        labels,
        label_pattern,
        size,
        weights,
        milliseconds,
        runtime,
        workers,
        store,
        name,
        seed,
        output,
        force,
        as_json,
    )
    of_pictures = isinstance(recipe.evaluator, ImageClassification)
    if not of_pictures or trials is not None or seeds is not None:
        if baseline_time is not None:
            raise UsageError("--baseline-time is for pictures with a time budget: give it with --time alone")
        if latency is not None or runtime is not None:
            raise UsageError("--latency and --runtime are for pictures with a time budget: give them with --time alone")
        if pretrained is not None:
            raise UsageError("--pretrained is for pictures with a time budget: give it with --time alone")
        auto_by_trials(recipe.suited(), options, seconds=total, trials=trials, seeds=seeds, control=control)
        return
    by_time(recipe, options, seconds_of(DEFAULT_TIME) if total is None else total, baseline_time, control, began)


def by_time(
    recipe: Recipe, options: AutoOptions, total: float, baseline_time: str | None, control: bool, began: float
) -> None:
    """A network for pictures within a time budget."""
    from archsmith.automl import auto as auto_
    from archsmith.cli.auto_view import AutoView
    from archsmith.report.outcome import outcome_lines

    name = options.name if options.name is not None else free_name(names_in(options.store), recipe.name)
    more = ["--time", f"{total:.15g}", *(["--control"] if control else [])]
    more += [] if baseline_time is None else ["--baseline-time", baseline_time]
    again = options.command(name, *more)
    say(f"{duration_text(total)} for everything, as run {name!r} in {without_passwords(options.store)}")
    try:
        with AutoView(total, began) as watch:
            result = auto_(
                options.data,
                time=total,
                size=options.size,
                pretrained=options.pretrained,
                latency=options.latency,
                runtime=options.runtime,
                labels=options.labels,
                label_pattern=options.label_pattern,
                baseline_time=None if baseline_time is None else seconds_of(baseline_time, "--baseline-time"),
                control=control,
                workers=options.workers,
                store=options.store,
                name=name,
                seed=options.seed,
                output=options.output,
                force=options.force,
                began=began,
                watch=watch,
            )
    except KeyboardInterrupt:
        say(f"interrupted; every finished training is kept. Go on with: {again}")
        raise
    if options.as_json:
        print(json.dumps(result.to_json(), indent=2))
        return
    if result.earlier:
        say(f"run {name!r} was finished before: nothing was trained")
    print_columns(outcome_lines(result.outcome))
    for note in result.outcome.notes:
        print(note)
    print(f"page    {result.page}")
    print(f"model   {result.model}     try it: {command_text('predict', str(result.model))} IMAGE...")
    if result.source is not None:
        print(f"source  {result.source}     one plain PyTorch file that needs no archsmith")
