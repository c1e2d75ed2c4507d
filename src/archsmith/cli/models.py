"""Commands about networks: finish, export, predict, describe, draw."""

from __future__ import annotations

import json
import sys
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from archsmith.cli.looking import (
    DEFAULT_STORE,
    ArtifactsOption,
    ForceOption,
    JsonOption,
    MovedData,
    RecipeOption,
    StoreOption,
    command_line,
    data_lines,
    open_existing,
    print_columns,
    store_exists,
)
from archsmith.cli.searching import load_recipe
from archsmith.cli.where import AddressOption, CpusOption, ExecutorOption, GpusOption, Where, WorkersOption
from archsmith.core.errors import UnknownName, UsageError

if TYPE_CHECKING:
    from archsmith._describe import Thing as Thing_
    from archsmith._search import Run

Thing = Annotated[
    str,
    typer.Argument(
        metavar="NAME|GENOTYPE|RUN",
        help="A network of archsmith.discovered; a genotype (JSON, a file, or - for stdin); or a run.",
    ),
]
TrialOption = Annotated[int | None, typer.Option("--trial", help="The trial of a run (default: the best).")]
ShapeOption = Annotated[str | None, typer.Option("--input-shape", help="Channels, height, width, such as 3,32,32.")]
ClassesOption = Annotated[int | None, typer.Option("--classes", help="How many classes.")]
CellsOption = Annotated[
    int | None,
    typer.Option("--cells", help="N, the normal cells of each of the three stacks of a NASNet or AmoebaNet."),
]
FiltersOption = Annotated[
    int | None, typer.Option("--filters", help="F, the filters of its first stack; 6 @ 4032 has 168.")
]
FormOption = Annotated[
    str | None, typer.Option("--form", help="Its form: cifar, for small images, or imagenet, for large ones.")
]
WidthOption = Annotated[float | None, typer.Option("--width", help="How many times the filters a MnasNet has.")]


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    for command in (finish, export, predict, describe, draw):
        app.command(name=command.__name__)(command)


def finish(
    name: Annotated[
        str, typer.Argument(metavar="RUN|NAME", help="A run; or, with --data, a network of archsmith.discovered.")
    ],
    control: Annotated[str | None, typer.Option(help="The random-search run beside it (default: RUN-random).")] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Train and test again, though the test set was looked at already.")
    ] = False,
    workers: WorkersOption = None,
    executor: ExecutorOption = None,
    address: AddressOption = None,
    cpus: CpusOption = None,
    gpus: GpusOption = None,
    data: Annotated[
        str | None, typer.Option("--data", help="What a published network is trained on; or where a run's data is now.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", help="Of a published network: of each final training (default: 20).")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option("--seeds", help="Of a published network: final trainings (default: 3).")
    ] = None,
    size: Annotated[
        int | None, typer.Option("--size", help="Of a published network: pixels a side that images are read as.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Of a published network: of all its randomness.")] = None,
    run_name: Annotated[
        str | None, typer.Option("--name", help="Of a published network: the run's name (default: NAME-DATA).")
    ] = None,
    cells: CellsOption = None,
    filters: FiltersOption = None,
    form: FormOption = None,
    width: WidthOption = None,
    artifacts: ArtifactsOption = None,
    recipe: RecipeOption = None,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Train the best for longer, beside what a person would have picked and random search's best; test once.

    A published network, by its name, is trained on --data: its learning rate is chosen by validation.
    """
    where = Where.named(executor, workers, address, cpus, gpus)
    chosen = {"epochs": epochs, "seeds": seeds, "size": size, "seed": seed, "name": run_name}
    network = {"cells": cells, "filters": filters, "form": form, "width": width}
    run = _published_run(store, name, data, chosen, network) or open_existing(store, name, data, artifacts, recipe)
    if run.name == name and (asked := [k for k, v in {**chosen, **network}.items() if v is not None]):
        raise UsageError(f"--{asked[0]} is of a published network, and {name!r} is a run, which has its own plan")
    name = run.name
    try:
        finished = finish_run(run, control=control, where=where, again=again)
    except KeyboardInterrupt:
        go_on = command_line("finish", name, store=store)
        print(f"interrupted; every finished training is kept. Go on with: {go_on}", file=sys.stderr)
        raise
    if as_json:
        print(json.dumps(finished.to_json(), indent=2))
    else:
        print_finished(finished)
        from archsmith._export.from_run import can_export

        verbs = ["export", "report"] if can_export(run.evaluator) else ["report"]
        print(f"next: {'   or: '.join(command_line(verb, name, store=store) for verb in verbs)}", file=sys.stderr)


def export(
    name: Annotated[
        str,
        typer.Argument(
            metavar="RUN|NAME|GENOTYPE",
            help="A run; or a network without trained weights: a name of archsmith.discovered, or a genotype (JSON, a "
            "file of it, or - for stdin). A recurrent cell is written alone, with --format source.",
        ),
    ],
    format: Annotated[str, typer.Option("--format", help="pytorch, onnx, or source.")] = "pytorch",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to (default: RUN-FORMAT; of a cell NAME.py).")
    ] = None,
    network: Annotated[
        str | None,
        typer.Option("--network", help="Another network that `finish` trained, by its name in the result."),
    ] = None,
    trial: Annotated[
        int | None, typer.Option("--trial", help="The network of a trial of the search, if its weights were kept.")
    ] = None,
    bits: Annotated[
        int, typer.Option("--bits", help="32, or 8 of format onnx: calibrated on the run's training pictures.")
    ] = 32,
    seed: Annotated[int, typer.Option("--seed", help="Of weights that were not trained.")] = 0,
    input_shape: ShapeOption = None,
    classes: ClassesOption = None,
    cells: CellsOption = None,
    filters: FiltersOption = None,
    form: FormOption = None,
    width: WidthOption = None,
    data: MovedData = None,
    recipe: RecipeOption = None,
    force: ForceOption = False,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Write a network with its weights as files that others can use, or a cell as one file. Prints their path."""
    from archsmith._export import export as export_

    thing = _read(name)
    run = _run_or_none(store, thing, data, recipe)
    if run is not None and output is None and network is None and trial is None:
        output = Path(f"{name}-{format}")
    written = export_(
        thing if run is None else run,
        format=format,
        network=network,
        trial=trial,
        bits=bits,
        path=output,
        seed=seed,
        input_shape=_shape(input_shape),
        num_classes=classes,
        cells=cells,
        filters=filters,
        form=form,
        width=width,
        force=force,
    )
    if run is None and written.is_dir():
        print(f"nothing was trained: the weights are drawn at random from seed {seed}", file=sys.stderr)
    print(written)


def predict(
    model: Annotated[Path, typer.Argument(help="What `archsmith export` wrote.")],
    files: Annotated[
        list[Path] | None, typer.Argument(help="Image files and folders of them, or text files for a language model.")
    ] = None,
    k: Annotated[int, typer.Option("-k", help="How many classes to name for each image.")] = 3,
    text: Annotated[
        str | None, typer.Option("--continue", metavar="TEXT", help="Have a language model go on with a text.")
    ] = None,
    length: Annotated[int, typer.Option(help="How many words or characters it writes.")] = 100,
    temperature: Annotated[float, typer.Option(help="Below 1 more sober, 0 the likeliest each time.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Of what it writes.")] = 0,
    run_source: Annotated[
        bool, typer.Option("--run-source", help="Run the model.py of a model of format source: it is a program.")
    ] = False,
    recipe: RecipeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Classify image files, or tell the perplexity of text files, with an exported model; or go on with a text."""
    from archsmith._export import generate
    from archsmith._export import predict as predict_

    if (text is None) == (not files):
        raise UsageError("predict needs files, or --continue TEXT, and not both")
    if text is not None:
        whole = generate(model, text, length=length, temperature=temperature, seed=seed, run_source=run_source)
        print(json.dumps({"text": whole, "temperature": temperature, "seed": seed}, indent=2) if as_json else whole)
        return
    space = load_recipe(recipe).space if recipe is not None else None
    predictions = predict_(model, files or [], k=k, run_source=run_source, space=space)
    if as_json:
        print(json.dumps([p.to_json() for p in predictions], indent=2))
    else:
        for p in predictions:
            print(p)
    if any(p.error for p in predictions):
        raise typer.Exit(1)


def describe(
    thing: Thing,
    input_shape: ShapeOption = None,
    classes: ClassesOption = None,
    vocabulary: Annotated[int | None, typer.Option(help="Of a recurrent cell: how many symbols it reads.")] = None,
    hidden: Annotated[int | None, typer.Option(help="Units of each recurrent layer.")] = None,
    layers: Annotated[int | None, typer.Option(help="How many recurrent layers.")] = None,
    tied: Annotated[
        bool | None, typer.Option("--tied/--untied", help="Whether the softmax uses the embedding's weights.")
    ] = None,
    cells: CellsOption = None,
    filters: FiltersOption = None,
    form: FormOption = None,
    width: WidthOption = None,
    latency: Annotated[
        bool, typer.Option("--latency", help="Of a network for images: measure its latency on this machine as well.")
    ] = False,
    engine: Annotated[str, typer.Option(help="What runs it for --latency: pytorch or onnxruntime.")] = "pytorch",
    threads: Annotated[int, typer.Option(help="Threads for --latency.")] = 1,
    device: Annotated[str, typer.Option(help="cpu or cuda, for --latency.")] = "cpu",
    trial: TrialOption = None,
    recipe: RecipeOption = None,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Tell a network's parameters, multiply-adds and depth, and how long it takes."""
    from archsmith._describe import describe as describe_
    from archsmith.training import Latency

    description = describe_(
        _network(thing, trial, recipe, store),
        input_shape=_shape(input_shape),
        num_classes=classes,
        vocabulary=vocabulary,
        hidden=hidden,
        layers=layers,
        tied=tied,
        cells=cells,
        filters=filters,
        form=form,
        width=width,
        latency=Latency(engine=engine, threads=threads, device=device) if latency else None,
    )
    if as_json:
        print(json.dumps(description.to_json(), indent=2))
        return
    for key, value in description.to_json().items():
        if value is not None and (not isinstance(value, dict | list) or key == "input_shape"):
            number = isinstance(value, int) and not isinstance(value, bool)
            print(f"{key:<20} {value:,}" if number else f"{key:<20} {value}")
    if description.latency is not None:
        print(f"{'latency':<20} {description.latency}")


def draw(
    thing: Thing,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The SVG's path (default: stdout).")] = None,
    trial: TrialOption = None,
    recipe: RecipeOption = None,
    store: StoreOption = DEFAULT_STORE,
    force: ForceOption = False,
) -> None:
    """Draw a network as SVG."""
    from archsmith._describe import diagram_of
    from archsmith.core.output_files import check_output, write_output
    from archsmith.report.draw import draw as draw_
    from archsmith.report.draw import is_drawing

    if output is not None:
        check_output(output, "drawing", is_drawing, force=force)
    svg = draw_(diagram_of(_network(thing, trial, recipe, store)))
    if output is None:
        print(svg)
    else:
        write_output(output, svg, "drawing", is_drawing, force=force)
        print(output)


# --- what the commands share ------------------------------------------------------------------------------------------


def finish_run(run: Run, *, control: str | None, where: Where, again: bool = False) -> Any:
    """Finish a run with a live view on stderr."""
    from archsmith._finish import finish as finish_
    from archsmith.cli.live import FinishView
    from archsmith.core.config import from_config
    from archsmith.core.finish import FinishPlan

    plan = None
    if again or run.reader.document("finish") is None:  # else it was finished, by a plan on record
        plan = from_config(run.config["note"].get("finish"), {"core.FinishPlan": FinishPlan}.__getitem__)
    made = where.make()
    with FinishView() as watch, closing(made) if made is not None else nullcontext():
        return finish_(
            run,
            plan=plan,
            control=control,
            workers=where.number(None),
            executor=made,
            again=again,
            watch=watch,
        )


def print_finished(finished: Any) -> None:
    """What finish found, as a table and a sentence."""
    print_columns(finished.table())
    print(finished.claim)


def _published_run(
    store: str, name: str, data: str | None, chosen: dict[str, Any], network: dict[str, Any]
) -> Run | None:
    """The run that a published network is finished in, begun where there is none yet; None for the name of a run."""
    from archsmith.discovered import NETWORKS, Published

    if name not in NETWORKS or (data is None and _is_run(store, name)):
        return None
    from archsmith._finish.published import EPOCHS, evaluator_for, plan_for, published_run
    from archsmith.cli.runs import say, watched
    from archsmith.core.budget import Budget

    if data is None:
        raise UsageError(f"{name} is a published network and no run of {store}; say what it is trained on, with --data")
    space = Published(name, **network)
    epochs = chosen["epochs"] if chosen["epochs"] is not None else EPOCHS
    evaluator = evaluator_for(space, data, epochs=epochs, size=chosen["size"])
    plan = plan_for(space, epochs=epochs, seeds=chosen["seeds"] if chosen["seeds"] is not None else 3)
    for line in data_lines(evaluator.describe_data()):
        say(line)
    with watched(Budget(trials=1), command_line("finish", name, "--data", data, store=store)) as watch:
        return published_run(
            space,
            evaluator,
            store=store,
            name=chosen["name"],
            seed=chosen["seed"] if chosen["seed"] is not None else 0,
            plan=plan,
            watch=watch,
        )


def _is_run(store: str, name: str) -> bool:
    from archsmith.store import open_store

    return store_exists(store) and name in {run.name for run in open_store(store).runs()}


def _run_or_none(store: str, name: str, data: str | None, recipe: str | None) -> Run | None:
    """The run of that name, or None where there is none but a discovered network, a file or a JSON text.

    Raises UnknownName when there is nothing of the name.
    """
    from archsmith.discovered import NETWORKS

    is_json = name.lstrip().startswith("{")
    try:
        if not is_json:
            return open_existing(store, name, data, recipe=recipe)
    except UnknownName as error:
        if name not in NETWORKS and not Path(name).is_file():
            raise UsageError(f"{error}; nor is it a network of archsmith.discovered or a file") from None
    return None


def _read(thing: str) -> str:
    return sys.stdin.read() if thing == "-" else thing


def _network(thing: str, trial: int | None, recipe: str | None, store: str) -> Thing_:
    """The named network, a run's included. With --recipe, a genotype is read in the space of that file."""
    from archsmith._describe import find, network_of, task_of
    from archsmith.discovered import NETWORKS

    plain = thing != "-" and thing not in NETWORKS and not thing.lstrip().startswith(("{", "[", '"'))
    if plain and len(thing) <= 255 and not Path(thing).is_file() and _is_run(store, thing):
        return network_of(open_existing(store, thing, recipe=recipe), trial)
    if trial is not None:
        raise UsageError(f"--trial is for a run, and {store} has no run {thing[:80]!r}")
    if recipe is None:
        return _read(thing)
    pieces = load_recipe(recipe)
    return replace(find(_read(thing), None, pieces.space), task=task_of(pieces.evaluator))


def _shape(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.replace("x", ",").split(","))
    except ValueError:
        raise UsageError(f"--input-shape must be whole numbers such as 3,32,32, got {text!r}") from None
