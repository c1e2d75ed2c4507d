"""`archsmith compare`: searches held against each other, as a table and as a page; and made first where they are not there."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from archsmith.cli.looking import (
    DEFAULT_STORE,
    ForceOption,
    JsonOption,
    StoreOption,
    open_existing,
    print_columns,
    store_exists,
)
from archsmith.cli.runs import say
from archsmith.cli.searching import DataOption, TrialsOption, load_recipe, relocated
from archsmith.cli.where import AddressOption, CpusOption, ExecutorOption, GpusOption, Where
from archsmith.core.errors import UnknownName, UsageError

if TYPE_CHECKING:
    from archsmith._compare.compared import Compared
    from archsmith._compare.difference import Difference
    from archsmith._search import Run
    from archsmith.core.executor import Executor
    from archsmith.recipes import Claim, Recipe

SHOWN = 5  # rows of an improvement
MOST_TOLD = 3  # searchers beside the baseline of which all is told here; of more, a table
SECONDS_PER_LINE = 2.0  # of progress


def register(app: typer.Typer) -> None:
    """Add this command to the command line."""
    app.command(name="compare")(compare)


def compare(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...|RECIPE|CLAIM",
            help="Runs of one store, one alone being held against its random search; or a recipe (a name, or a FILE.py) "
            "that --searchers are to run; or a paper's claim: see --claims.",
        ),
    ] = [],  # noqa: B006
    searchers: Annotated[
        str | None,
        typer.Option(
            "--searchers",
            help="Of a recipe: searchers by name, with their papers' settings, such as random,reinforce,"
            "regularized_evolution,tpe; 'recipe' is the recipe's own.",
        ),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option("--seeds", help="Of a recipe or a claim: runs of each searcher, seeds 0, 1, 2, ...")
    ] = None,
    trials: TrialsOption = None,
    workers: Annotated[
        int | None, typer.Option("--workers", help="Children trained side by side in a run (default: the recipe's).")
    ] = None,
    executor: ExecutorOption = None,
    address: AddressOption = None,
    cpus: CpusOption = None,
    gpus: GpusOption = None,
    data: DataOption = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            "--baseline", help="The run or searcher that the others are held against (default: random search)."
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write a page: one HTML file that works offline.")
    ] = None,
    force: ForceOption = False,
    store: StoreOption = DEFAULT_STORE,
    claims: Annotated[
        bool, typer.Option("--claims", help="List the papers' claims that can be run, and stop.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Compare searches: the best models of each as the search goes, at equal cost, and what may be said.

    Runs of one configuration with different seeds count as one searcher, with an interval and a test. Of a recipe or a
    claim, what the store does not have yet is run first, each searcher with each seed; the same command again goes on.
    """
    from archsmith._compare import compare as compare_
    from archsmith._page.document import check_place

    if claims:
        _list_claims(as_json)
        return
    if not names:
        raise UsageError("name the runs to be compared, a recipe with --searchers, or a claim (--claims lists them)")
    if output is not None:
        check_place(output, "comparison", force=force)
    of_recipe = {"--searchers": searchers, "--seeds": seeds, "--trials": trials, "--workers": workers, "--data": data}
    given = [option for option, value in {**of_recipe, "--executor": executor}.items() if value is not None]
    if _is_made(names, store, bool(given)):
        if len(names) > 1:
            raise UsageError(f"{given[0]} is for one recipe or claim, and {len(names)} names are given")
        where = Where.named(executor, workers, address, cpus, gpus)
        found = _made(names[0], searchers, seeds, trials, where, data, baseline, store)
    else:
        found = compare_([open_existing(store, name) for name in names], baseline=baseline)
    page = found.report(output, force=force) if output is not None else None
    if as_json:
        print(json.dumps({**found.to_json(), "page": str(page) if page is not None else None}, indent=2))
        return
    _tell(found)
    if page is not None:
        print(f"page    {page}")


def _is_made(names: Sequence[str], store: str, options: bool) -> bool:
    """Whether the runs are to be made: options say so, or one name is no run's, and a claim's or a file's."""
    from archsmith.recipes import CLAIMS, RECIPES
    from archsmith.store import open_store

    if options:
        return True
    if len(names) != 1 or not (names[0] in CLAIMS or names[0] in RECIPES or names[0].endswith(".py")):
        return False
    return not store_exists(store) or names[0] not in {run.name for run in open_store(store).runs()}


def _made(
    name: str,
    searchers: str | None,
    seeds: int | None,
    trials: int | None,
    where: Where,
    data: str | None,
    baseline: str | None,
    store: str,
) -> Compared:
    """Run what is not there yet, and compare."""
    from archsmith._compare import compare as compare_
    from archsmith._compare.contest import searcher_of

    what = _named(name, data)
    claimed = not hasattr(what, "searcher")
    chosen = None
    if searchers is not None or not claimed:
        recipe = next(iter(what.arms.values())) if claimed else what  # type: ignore[union-attr]
        listed = [part.strip() for part in (searchers or "").split(",") if part.strip()]
        if not listed:
            raise UsageError(f"name the searchers that are to run {name!r}: --searchers random,reinforce")
        chosen = {part: searcher_of(part, recipe) for part in listed}  # type: ignore[arg-type]
    own = next(iter(what.arms.values())).workers if claimed else what.workers  # type: ignore[union-attr]
    try:
        return compare_(
            what,
            searchers=chosen,
            seeds=seeds,
            trials=trials,
            workers=where.number(own),
            executor=None if where.executor is None else lambda: _executor(where, own),
            baseline=baseline,
            store=store,
            told=_progress(),
        )
    except KeyboardInterrupt:
        say("interrupted; every finished trial is kept, and the same command goes on")
        raise


def _executor(where: Where, usual: int | None) -> Executor:
    made = where.make(usual)
    assert made is not None
    return made


def _named(name: str, data: str | None) -> Recipe | Claim:
    """The recipe or the claim of that name, on these data."""
    from archsmith.recipes import CLAIMS, RECIPES, get_claim

    if name in CLAIMS:
        claim = get_claim(name)
        return claim if data is None else replace(claim, arms={k: relocated(r, data) for k, r in claim.arms.items()})
    if not name.endswith(".py") and name not in RECIPES:
        raise UnknownName("recipe or claim", name, [*RECIPES, *CLAIMS], "(a file of yours is named with its .py)")
    recipe = load_recipe(name)
    return (recipe if data is None else relocated(recipe, data)).suited()


def _progress() -> Callable[[Run, int, int], None]:
    """A line now and then, on stderr, of what has been run."""
    last = time.monotonic()

    def told(run: Run, done: int, of: int) -> None:
        nonlocal last
        if time.monotonic() - last >= SECONDS_PER_LINE or done == of:
            last = time.monotonic()
            say(f"{done} of {of} runs are there: {run.name}")

    return told


def _list_claims(as_json: bool) -> None:
    from archsmith.recipes import CLAIMS

    listed = [make() for make in CLAIMS.values()]
    if as_json:
        keys = ("name", "summary", "paper", "limits", "seeds")
        print(
            json.dumps([{key: getattr(c, key) for key in keys} | {"searchers": list(c.arms)} for c in listed], indent=2)
        )
        return
    print_columns([("CLAIM", "WHAT"), *((claim.name, claim.summary) for claim in listed)])


# --- what came of it --------------------------------------------------------------------------------------------------


def _tell(found: Compared) -> None:
    from archsmith._compare.verdict import told

    head, *rows = found.table()
    print_columns([tuple(cell.upper() for cell in head), *rows])
    print(f"(after {found.cost} of each run, as are the differences below)")
    others = [group.label for group in found.groups if group.label != found.baseline]
    if found.verdicts:
        print(f"\n{found.claimed}\n")
        print_columns(
            [
                ("EXPECTED", "VERDICT", *DIFFERENCE_HEAD),
                *((v.expected, v.verdict, *_difference(v.difference)) for v in found.verdicts),
            ]
        )
        print(f"\n{told(found.verdicts)}")
    elif len(others) > MOST_TOLD:
        print(f"\nless {found.baseline} (above zero: better)")
        print_columns(
            [
                ("SEARCHER", "OUTCOME", *DIFFERENCE_HEAD, "VERDICT"),
                *((d.group, d.outcome, *_difference(d), d.verdict) for d in found.differences),
            ]
        )
        print()
    else:
        for label in others if found.baseline is not None else []:
            _improvement(found, label)
        print()
        for d in found.differences:
            print(d.sentence)
    for note in found.notes:
        print(note)


DIFFERENCE_HEAD = ("IMPROVEMENT", "95 %", "AHEAD", "P")


def _difference(d: Difference) -> tuple[str, ...]:
    """What `DIFFERENCE_HEAD` names."""
    if d.improvement is None or d.interval is None or d.superiority is None:
        return ("–",) * len(DIFFERENCE_HEAD)
    factor, digits = (100 if d.measure.percent else 1), d.measure.digits
    low, high = d.interval
    return (
        f"{factor * d.improvement:+.{digits}f}",
        f"{factor * low:+.{digits}f} to {factor * high:+.{digits}f}",
        f"{100 * d.superiority:.0f} %",
        f"{d.p:.2g}",
    )


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
