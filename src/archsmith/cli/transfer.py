"""`archsmith transfer`: what a search found on other data; and whether a search's reward tells what is good there."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from archsmith.cli.looking import (
    DEFAULT_STORE,
    ForceOption,
    JsonOption,
    StoreOption,
    data_lines,
    print_columns,
    store_exists,
)
from archsmith.core.cores import cores
from archsmith.core.errors import UnknownName, UsageError

if TYPE_CHECKING:
    from archsmith._search import Run

IMAGES, CELLS, CORRELATION = "Networks of images", "Recurrent cells", "Correlation"


def register(app: typer.Typer) -> None:
    """Add this command to the command line."""
    app.command(name="transfer")(transfer)


def transfer(
    thing: Annotated[
        str,
        typer.Argument(
            metavar="RUN|NAME|GENOTYPE|MODEL",
            help="A run, whose best it is; a network of archsmith.discovered; a genotype: JSON, a file of it, or - for "
            "stdin; or the folder of an exported model.",
        ),
    ],
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data",
            help="Of images a folder, an .npz or a name such as fashion-mnist; with --correlate several times. Of a cell "
            "a text; for translation multi30k, a folder with train.en and train.de, or SOURCE,TARGET: two files.",
        ),
    ] = None,
    how: Annotated[
        str | None,
        typer.Option(
            "--how",
            help="scratch, fine-tune, features, or several with commas (default: all that can be). The last two begin with "
            "the weights of `finish` or of a MODEL.",
            rich_help_panel=IMAGES,
        ),
    ] = None,
    cells: Annotated[
        int | None,
        typer.Option("--cells", help="N: cells of a stack, of networks of cells.", rich_help_panel=IMAGES),
    ] = None,
    filters: Annotated[
        int | None, typer.Option("--filters", help="F: filters of the first stack.", rich_help_panel=IMAGES)
    ] = None,
    width: Annotated[
        float | None,
        typer.Option("--width", help="As many times the filters, of mobile blocks.", rich_help_panel=IMAGES),
    ] = None,
    multiply_adds: Annotated[
        str | None,
        typer.Option(
            "--mult-adds", help="As many filters as so many allow for one image, such as 600M.", rich_help_panel=IMAGES
        ),
    ] = None,
    tune: Annotated[
        bool,
        typer.Option("--tune", help="Try three learning rates for each; validation chooses.", rich_help_panel=IMAGES),
    ] = False,
    max_train: Annotated[
        int | None,
        typer.Option("--max-train", help="Learn from and validate with so many images.", rich_help_panel=IMAGES),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option("--size", help="Pixels a side that images are resized to.", rich_help_panel=IMAGES),
    ] = None,
    channels: Annotated[
        int | None, typer.Option("--channels", help="1 (grey) or 3 (colour).", rich_help_panel=IMAGES)
    ] = None,
    to: Annotated[
        str | None,
        typer.Option("--to", help="chars (a character language model) or translation.", rich_help_panel=CELLS),
    ] = None,
    scale: Annotated[
        str,
        typer.Option(
            "--scale",
            help="desk (small networks), paper, or for characters paper-large; --estimate tells how long.",
            rich_help_panel=CELLS,
        ),
    ] = "desk",
    correlate: Annotated[
        bool,
        typer.Option(
            "--correlate",
            help="Train several architectures of a RUN on each --data, and tell whether those that were better in the "
            "search are better there.",
            rich_help_panel=CORRELATION,
        ),
    ] = False,
    top: Annotated[
        int | None, typer.Option("--top", help="The best so many different ones.", rich_help_panel=CORRELATION)
    ] = None,
    spread: Annotated[
        int | None,
        typer.Option(
            "--spread", help="So many, evenly from the best to the worst (default: 8).", rich_help_panel=CORRELATION
        ),
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="The page's path (default: RUN-transfer.html).", rich_help_panel=CORRELATION
        ),
    ] = None,
    force: ForceOption = False,
    seeds: Annotated[
        int | None, typer.Option("--seeds", help="Trainings of each network (default: 3; with --correlate 1).")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", help="Of each training (default: 20 of images; of a cell its scale's).")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option("--seconds", help="Train about this long in all, in place of --epochs.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="The first of all seeds.")] = 0,
    workers: Annotated[
        int | None, typer.Option("--workers", help="Trainings side by side (default: one for each core).")
    ] = None,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Only build the networks, time a batch, and tell what all would take.")
    ] = False,
    folder: Annotated[
        Path | None, typer.Option("--folder", help="Where it is recorded, without a run (default: transfer-NAME-DATA).")
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Train what a search found on other data, beside what a person would have picked; test once.

    A network of images: archsmith transfer RUN --data PATH. From scratch, fine-tuned from the weights of `finish`, and by
    fixed features, beside the baseline and random search's best.

    A recurrent cell: archsmith transfer nas_cell --to chars. Beside the LSTM of its size.

    Is what the search likes good elsewhere? archsmith transfer RUN --data A --data B --correlate.
    """
    from archsmith import _transfer

    found = _found(thing, store)
    sets = data or []
    options: dict[str, Any] = {"epochs": epochs, "max_train": max_train, "size": size, "channels": channels}
    if correlate:
        _refuse(
            "--correlate",
            {
                "--how": how,
                "--cells": cells,
                "--filters": filters,
                "--width": width,
                "--mult-adds": multiply_adds,
                "--tune": tune or None,
                "--to": to,
                "--seconds": seconds,
                "--estimate": estimate or None,
                "--folder": folder,
            },
        )
        _correlate(thing, found, sets, options, top, spread, page, force, seeds or 1, seed, workers, as_json)
        return
    _refuse(
        "a transfer without --correlate", {"--top": top, "--spread": spread, "--output": page, "--force": force or None}
    )
    if len(sets) > 1:
        raise UsageError("a transfer goes to one data set: name one --data, or ask for --correlate")
    one = sets[0] if sets else None
    of_cell = _transfer.is_cell(found)
    if to is not None and not of_cell:
        _transfer.cell_of(found)  # says what it is not
    if of_cell and to is None:
        raise UsageError(f"{thing} is a recurrent cell: name --to chars or --to translation")
    options |= {
        "how": None if how is None else [part.strip() for part in how.split(",")],
        "cells": cells,
        "filters": filters,
        "width": width,
        "multiply_adds": None if multiply_adds is None else _transfer.multiply_adds_of(multiply_adds),
        "tune": tune,
        "scale": scale,
        "seeds": 3 if seeds is None else seeds,
    }
    if of_cell:
        evaluator: Any = _transfer.evaluator_for(str(to), scale, one, epochs)
        for line in data_lines(evaluator.describe_data()):
            print(line, file=sys.stderr)
    if estimate:
        print("building the networks and training a batch or two of each", file=sys.stderr)
        expected = _transfer.estimate(found, to, one, **options)
        if as_json:
            print(json.dumps(expected.to_json(), indent=2))
        else:
            print_columns(expected.table())
            print(expected)
        return
    from archsmith.cli.live import FinishView

    with _going_on(), FinishView() as watch:
        done = _transfer.transfer(
            found,
            to,
            one,
            **options,
            seconds=seconds,
            seed=seed,
            workers=_workers(workers, 2 * max(1, options["seeds"])),
            folder=folder,
            watch=watch,
        )
    if as_json:
        print(json.dumps(done.to_json(), indent=2))
    else:
        if not of_cell:
            for line in data_lines(dict(done.data)):
                print(line, file=sys.stderr)
        print_columns(done.table())
        for sentence in done.sentences:
            print(sentence)


def _correlate(
    thing: str,
    found: Any,
    data: list[str],
    options: dict[str, Any],
    top: int | None,
    spread: int | None,
    page: Path | None,
    force: bool,
    seeds: int,
    seed: int,
    workers: int | None,
    as_json: bool,
) -> None:
    from archsmith import _transfer
    from archsmith._page.document import check_place
    from archsmith._search import Run
    from archsmith.cli.live import FinishView

    if not isinstance(found, Run):
        raise UsageError(f"--correlate is about the architectures of a run, and {thing[:80]} is none")
    path = page if page is not None else Path(f"{found.name}-transfer.html")
    check_place(path, "correlation", force=force)
    with _going_on(), FinishView() as watch:
        done = _transfer.correlate(
            found,
            data,
            top=top,
            spread=spread,
            seeds=seeds,
            seed=seed,
            workers=_workers(workers, max(1, len(data) * (top or spread or 8) * seeds)),
            watch=watch,
            **options,
        )
    written = done.page(path, force=force)
    if as_json:
        print(json.dumps({**done.to_json(), "page": str(written)}, indent=2))
        return
    print_columns(done.table())
    print()
    print_columns(done.coefficients())
    for sentence in done.sentences:
        print(sentence)
    print(f"the page: {shlex.quote(str(written))}", file=sys.stderr)


@contextmanager
def _going_on() -> Iterator[None]:
    """Says on Ctrl-C that the same command goes on."""
    try:
        yield
    except KeyboardInterrupt:
        print("interrupted; every finished training is kept, and the same command goes on", file=sys.stderr)
        raise


def _workers(asked: int | None, most: int) -> int:
    return asked if asked is not None else min(cores(), most)


def _refuse(what: str, options: dict[str, Any]) -> None:
    """Raise UsageError for options that were given where they mean nothing."""
    if given := [name for name, value in options.items() if value is not None]:
        raise UsageError(f"{given[0]} has no meaning for {what}; leave it out")


def _found(thing: str, store: str) -> Run | Any:
    """A run of the store, an exported model, else what `describe` takes. Raises UnknownName, naming them all, for a name of
    none."""
    if thing == "-":
        return sys.stdin.read()
    names: list[str] = []
    is_json = thing.lstrip().startswith(("{", "[", '"'))
    if store_exists(store) and not is_json:
        from archsmith._search.run import Run
        from archsmith.store import open_store

        opened = open_store(store)
        names = [run.name for run in opened.runs()]
        if thing in names:
            return Run(opened, thing)
    if not is_json and not Path(thing).is_file():
        from archsmith.discovered import NETWORKS

        if thing in NETWORKS:
            return thing
        if Path(thing).is_dir():
            from archsmith._export import load

            return load(thing)
        hint = f"(looked for runs in {store.removeprefix('sqlite:///')}; --store names another store)"
        raise UnknownName("run, network, cell, file or model's folder", thing, [*names, *NETWORKS], hint)
    return thing
