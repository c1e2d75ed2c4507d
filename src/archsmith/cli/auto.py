"""`archsmith auto`: the whole job on a data set, from images or a text to a page and a model."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from archsmith.cli.looking import DEFAULT_STORE, ForceOption, JsonOption, StoreOption, summary_json
from archsmith.cli.runs import begin_new, begin_or_go_on, beside, say, tell_data
from archsmith.cli.searching import LabelPatternOption, LabelsOption, SizeOption, TrialsOption
from archsmith.cli.where import Where, WorkersOption, cores
from archsmith.core.budget import Budget
from archsmith.core.config import to_config
from archsmith.core.errors import UsageError
from archsmith.core.shown import command_text, without_passwords

SEARCH_SHARE = 0.4  # of a budget in seconds: as much again for random search, and the rest to finish


def register(app: typer.Typer) -> None:
    """Add this command to the command line."""
    app.command(name="auto")(auto)


@contextmanager
def _folder_for_now(path: Path) -> Iterator[None]:
    """Make a folder for the body, to check what will be written into it. Left empty among classes, it would be one of them."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot write to {path}: {error.strerror or error}; name another --output") from None
    try:
        yield
    finally:
        with suppress(OSError):  # another process has written into it
            for folder in missing:
                folder.rmdir()


def auto(
    data: Annotated[
        str,
        typer.Argument(
            help="Images: a folder with one folder of them a class, a CSV that names them, or an .npz file. A text: one "
            "file, or a folder with train.txt, valid.txt and test.txt. Or a data set's name."
        ),
    ],
    labels: LabelsOption = None,
    label_pattern: LabelPatternOption = None,
    size: SizeOption = None,
    seconds: Annotated[float | None, typer.Option("--seconds", help="How long all of it may take, about.")] = None,
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
    """The whole job on a data set: search, random search for comparison, finish, report, export.

    Without a budget it takes some minutes on two cores, which shows the machinery and no more; give it --seconds 3600.
    Interrupted, the same command with --name goes on where it was.
    """
    from archsmith._export import check_folder, export
    from archsmith._finish.time import within
    from archsmith._page.document import check_place
    from archsmith.cli.models import finish_run, print_finished
    from archsmith.recipes import for_data
    from archsmith.recipes.data import with_size

    began = time.monotonic()
    recipe = with_size(for_data(data, labels=labels, label_pattern=label_pattern), size)
    if seconds is not None and not seconds > 0:
        raise UsageError(f"--seconds must be above zero, got {seconds:g}")
    if seconds is not None:
        recipe = replace(recipe, budget=Budget(trials=trials, seconds=SEARCH_SHARE * seconds))
    elif trials is not None:
        recipe = replace(recipe, budget=Budget(trials=trials))
    where = Where(workers=workers if workers is not None else cores())

    def same_command(name: str) -> str:
        again = ["archsmith", "auto", data, "--name", name]
        for option, given, default in (("--store", store, DEFAULT_STORE), ("--output", str(output), "out")):
            again += [option, given] if given != default else []
        for option, said in (("--labels", labels), ("--label-pattern", label_pattern)):
            again += [option, said] if said is not None else []
        for option, amount in (
            ("--size", size),
            ("--seconds", seconds),
            ("--trials", trials),
            ("--seed", seed or None),
        ):
            again += [option, f"{amount:.15g}"] if amount is not None else []
        again += ["--force"] if force else []
        return without_passwords(shlex.join(again))

    def places(name: str) -> tuple[Path, Path, Path]:
        return output / f"{name}.html", output / name, output / f"{name}-source"

    def check_and_tell(name: str) -> None:
        page, *folders = places(name)
        with _folder_for_now(output):
            check_place(page, "report", force=force)  # before hours of training
            for folder in folders:
                check_folder(folder)
        say(f"1/4 searching {recipe.summary} ({recipe.budget}), as run {name!r} in {without_passwords(store)}")

    with _folder_for_now(output):
        pass
    tell_data(recipe)
    if name is None:
        run = begin_new(
            recipe, name=None, store=store, seed=seed, where=where, go_on=same_command, before=check_and_tell
        )
    else:
        check_and_tell(name)
        go_on = same_command(name)
        run = begin_or_go_on(recipe, name=name, store=store, seed=seed, where=where, go_on=go_on, data=data)
    name, go_on = run.name, same_command(run.name)
    page, folder, source = places(name)
    say(f"2/4 random search with as many trials, as run {name + '-random'!r}")
    control = beside(run, store=store, where=where, go_on=go_on, data=data, always=True)
    assert control is not None
    hand_designed = getattr(run.evaluator, "baseline_name", "residual network")
    say(f"3/4 finishing: the best of each, and of the same size the {hand_designed}, trained on over several seeds")
    note = run.config["note"]
    if seconds is not None and recipe.finish is not None and not note.get("fitted"):
        left = seconds - (time.monotonic() - began)
        plan = within(recipe.finish, [run, control], seconds=left, workers=where.number(None))
        # On record, so that going on after an interruption finishes by the same plan and uses what it trained.
        with closing(run.store.write(run.name)) as writer:
            writer.configure({"note": {**note, "finish": to_config(plan), "fitted": True}})
    try:
        finished = finish_run(run, control=control.name, where=where)
    except KeyboardInterrupt:
        say(f"interrupted; every finished training is kept. Go on with: {go_on}")
        raise
    say("4/4 writing the page and the model")
    output.mkdir(parents=True, exist_ok=True)
    run.report(page, control=control.name, force=force)
    model = export(run, format="pytorch", path=folder)
    export(run, format="source", path=source)
    if as_json:
        found = {
            "run": summary_json(run.summary),
            "control": summary_json(control.summary),
            "finish": finished.to_json(),
        }
        print(json.dumps(found | {"report": str(page), "model": str(model), "source": str(source)}, indent=2))
        return
    print_finished(finished)
    print(f"page    {page}")
    files = "IMAGE..." if finished.measure.name == "accuracy" else "TEXT..."
    print(f"model   {model}     try it: {command_text('predict', str(model))} {files}")
    print(f"source  {source}     one plain PyTorch file that needs no archsmith")
    if seconds is None and trials is None:
        say("So short a run shows the machinery at work and claims no difference between searchers.")
