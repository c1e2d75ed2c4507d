"""`archsmith transfer`: a recurrent cell on characters or in a translator, with the LSTM beside it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from archsmith.cli.looking import DEFAULT_STORE, JsonOption, StoreOption, data_lines, print_columns, store_exists
from archsmith.core.errors import UnknownName

if TYPE_CHECKING:
    from archsmith._search import Run


def register(app: typer.Typer) -> None:
    """Add this command to the command line."""
    app.command(name="transfer")(transfer)


def transfer(
    thing: Annotated[
        str,
        typer.Argument(
            metavar="RUN|CELL",
            help="A run, whose best cell it is; nas_cell; or a genotype: JSON, a file of it, or - for stdin.",
        ),
    ],
    to: Annotated[str, typer.Option("--to", help="chars (a character language model) or translation.")],
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            help="A text; for translation multi30k, a folder with train.en and train.de, or SOURCE,TARGET: two files.",
        ),
    ] = None,
    scale: Annotated[
        str,
        typer.Option(
            "--scale", help="desk (small networks), paper, or for characters paper-large; --estimate tells how long."
        ),
    ] = "desk",
    seeds: Annotated[int, typer.Option("--seeds", help="Trainings of each network.")] = 3,
    epochs: Annotated[int | None, typer.Option("--epochs", help="Of each training (default: the scale's).")] = None,
    seconds: Annotated[
        float | None, typer.Option("--seconds", help="Train about this long in all, in place of --epochs.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="The first of all seeds.")] = 0,
    workers: Annotated[
        int | None, typer.Option("--workers", help="Trainings side by side (default: one for each core).")
    ] = None,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Only build both networks, time a batch, and tell what all would take.")
    ] = False,
    folder: Annotated[
        Path | None, typer.Option("--folder", help="Where it is recorded, without a run (default: transfer-CELL-TO).")
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Train a recurrent cell, and the LSTM of equal size beside it, on another task; test once."""
    from archsmith import _transfer
    from archsmith.cli.live import FinishView
    from archsmith.cli.runs import cores

    cell = _found(thing, store)
    evaluator: Any = _transfer.evaluator_for(to, scale, data, epochs)
    for line in data_lines(evaluator.describe_data()):
        print(line, file=sys.stderr)
    if estimate:
        print("building both networks and training a batch or two of each", file=sys.stderr)
        expected = _transfer.estimate(cell, to, data, scale=scale, seeds=seeds, epochs=epochs)
        if as_json:
            print(json.dumps(expected.to_json(), indent=2))
        else:
            print_columns(expected.table())
            print(expected)
        return
    try:
        with FinishView() as watch:
            done = _transfer.transfer(
                cell,
                to,
                data,
                scale=scale,
                seeds=seeds,
                epochs=epochs,
                seconds=seconds,
                seed=seed,
                workers=workers if workers is not None else min(cores(), 2 * max(1, seeds)),
                folder=folder,
                watch=watch,
            )
    except KeyboardInterrupt:
        print("interrupted; every finished training is kept, and the same command goes on", file=sys.stderr)
        raise
    if as_json:
        print(json.dumps(done.to_json(), indent=2))
    else:
        print_columns(done.table())
        print(done.claim)


def _found(thing: str, store: str) -> Run | Any:
    """A run of the store, else what `describe` takes. Raises UnknownName, naming both, for a name of neither."""
    if thing == "-":
        return sys.stdin.read()
    names: list[str] = []
    if store_exists(store) and not thing.lstrip().startswith("{"):
        from archsmith._search.run import Run
        from archsmith.store import open_store

        opened = open_store(store)
        names = [run.name for run in opened.runs()]
        if thing in names:
            return Run(opened, thing)
    if not thing.lstrip().startswith(("{", "[", '"')) and not Path(thing).is_file():
        from archsmith.discovered import NETWORKS

        if thing not in NETWORKS:
            hint = f"(looked for runs in {store.removeprefix('sqlite:///')}; --store names another store)"
            raise UnknownName("run, recurrent cell or file", thing, [*names, *NETWORKS], hint)
    return thing
