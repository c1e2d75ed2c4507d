"""`archsmith compare`: searches held against each other, as a table and as a page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from archsmith.cli.looking import DEFAULT_STORE, JsonOption, StoreOption, open_existing, print_columns

if TYPE_CHECKING:
    from archsmith._compare.compared import Compared

SHOWN = 5  # rows of an improvement


def register(app: typer.Typer) -> None:
    """Add this command to the command line."""
    app.command(name="compare")(compare)


def compare(
    names: Annotated[
        list[str],
        typer.Argument(metavar="RUN...", help="Runs of one store; one alone is held against its random search."),
    ],
    baseline: Annotated[
        str | None,
        typer.Option("--baseline", help="The run that the others are held against (default: random search)."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write a page: one HTML file that works offline.")
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Compare searches: the best models of each as the search goes, at equal cost, and what may be said.

    Runs of one configuration with different seeds count as one searcher, with an interval and a test.
    """
    from archsmith._compare import compare as compare_

    found = compare_([open_existing(store, name) for name in names], baseline=baseline)
    page = found.report(output) if output is not None else None
    if as_json:
        print(json.dumps({**found.to_json(), "page": str(page) if page is not None else None}, indent=2))
        return
    print_columns([tuple(cell.upper() for cell in found.table()[0]), *found.table()[1:]])
    for group in found.groups:
        if found.baseline is not None and group.label != found.baseline:
            _improvement(found, group.label)
    print()
    for said in [*(d.sentence for d in found.differences), *found.notes]:
        print(said)
    if page is not None:
        print(f"page    {page}")


def _improvement(found: Compared, label: str) -> None:
    """Figure 6 as a few rows."""
    at, by_k = found.improvements(label)
    print(f"\n{label} less {found.baseline}, {found.measure.label} of the best models so far (above zero: better)")
    rows = [("MODELS", *(f"TOP {k}" for k in by_k))]
    for i in sorted({round((len(at) - 1) * part / (SHOWN - 1)) for part in range(SHOWN)}):
        each = [values[i] for values in by_k.values()]
        scale = 100 if found.measure.percent else 1
        rows.append((f"{at[i]:,}", *("–" if v != v else f"{scale * v:+.{found.measure.digits}f}" for v in each)))
    print_columns(rows)
