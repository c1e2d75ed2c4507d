"""`archsmith auto` by stages of a search: for texts, and for pictures by trials or over several seeds."""

from __future__ import annotations

import json
import time
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

from archsmith.cli.auto_options import AutoOptions
from archsmith.cli.looking import summary_json
from archsmith.cli.runs import begin_new, begin_or_go_on, beside, say, tell_data
from archsmith.cli.where import Where
from archsmith.core.budget import Budget
from archsmith.core.config import to_config
from archsmith.core.cores import cores
from archsmith.core.output_files import folder_for_now
from archsmith.core.shown import command_text, without_passwords
from archsmith.recipes import Recipe

if TYPE_CHECKING:
    from archsmith._search import Run

SEARCH_SHARE = 0.4  # of a budget in seconds: as much again for random search beside it, and the rest to finish
ALONE_SHARE = 0.6  # without random search


def auto_by_trials(
    recipe: Recipe,
    options: AutoOptions,
    *,
    seconds: float | None,
    trials: int | None,
    seeds: int | None,
    control: bool,
) -> None:
    """Search, random search beside it, finish over several seeds, report, export.

    Random search always runs with a budget in trials, and with one in seconds if `control` says so.
    """
    from archsmith._export import export
    from archsmith._finish.time import within
    from archsmith.cli.models import finish_run, print_finished

    began = time.monotonic()
    if seconds is not None:
        share = SEARCH_SHARE if control else ALONE_SHARE
        recipe = replace(recipe, budget=Budget(trials=trials, seconds=share * seconds))
    elif trials is not None:
        recipe = replace(recipe, budget=Budget(trials=trials))
    if seeds is not None and recipe.finish is not None:
        recipe = replace(recipe, finish=replace(recipe.finish, seeds=seeds))
    where = Where(workers=options.workers if options.workers is not None else cores())
    stages = 4 if control or seconds is None else 3
    amounts = (("--seconds", seconds), ("--trials", trials), ("--seeds", seeds))
    more = [text for option, given in amounts if given is not None for text in (option, f"{given:.15g}")]
    more += ["--control"] if control else []

    def same_command(name: str) -> str:
        return options.command(name, *more)

    def check_and_tell(name: str) -> None:
        options.check_outputs(name)
        place = without_passwords(options.store)
        say(f"1/{stages} searching {recipe.summary} ({recipe.budget}), as run {name!r} in {place}")

    with folder_for_now(options.output):
        pass
    tell_data(recipe)
    if options.name is None:
        run = begin_new(
            recipe,
            name=None,
            store=options.store,
            seed=options.seed,
            where=where,
            go_on=same_command,
            before=check_and_tell,
        )
    else:
        check_and_tell(options.name)
        run = begin_or_go_on(
            recipe,
            name=options.name,
            store=options.store,
            seed=options.seed,
            where=where,
            go_on=same_command(options.name),
            data=options.data,
        )
    name, go_on = run.name, same_command(run.name)
    random = None
    if stages == 4:
        say(f"2/4 random search with as many trials, as run {name + '-random'!r}")
        random = beside(run, store=options.store, where=where, go_on=go_on, data=options.data, always=True)
    of_each = "the best of each" if random is not None else "the best"
    say(f"{stages - 1}/{stages} finishing: {of_each}, and {_beside(run)}, trained on over several seeds")
    note = run.config["note"]
    if seconds is not None and recipe.finish is not None and not note.get("fitted"):
        left = seconds - (time.monotonic() - began)
        runs = [run] if random is None else [run, random]
        plan = within(recipe.finish, runs, seconds=left, workers=where.number(None))
        # On record, so that going on after an interruption finishes by the same plan and uses what it trained.
        with closing(run.store.write(run.name)) as writer:
            writer.configure({"note": {**note, "finish": to_config(plan), "fitted": True}})
    beside_it = None if random is None else random.name
    try:
        finished = finish_run(run, control=beside_it, where=where)
    except KeyboardInterrupt:
        say(f"interrupted; every finished training is kept. Go on with: {go_on}")
        raise
    say(f"{stages}/{stages} writing the page and the model")
    page, folder, source = options.outputs(name)
    options.output.mkdir(parents=True, exist_ok=True)
    run.report(page, control=beside_it, force=options.force)
    model = export(run, format="pytorch", path=folder)
    export(run, format="source", path=source)
    if options.as_json:
        summaries = {"run": summary_json(run.summary), "finish": finished.to_json()}
        if random is not None:
            summaries["control"] = summary_json(random.summary)
        paths = {"report": str(page), "model": str(model), "source": str(source)}
        print(json.dumps(summaries | paths, indent=2))
        return
    print_finished(finished)
    print(f"page    {page}")
    files = "IMAGE..." if finished.measure.name == "accuracy" else "TEXT..."
    print(f"model   {model}     try it: {command_text('predict', str(model))} {files}")
    print(f"source  {source}     one plain PyTorch file that needs no archsmith")
    if seconds is None and trials is None:
        say("So short a run shows the machinery at work and claims no difference between searchers.")


def _beside(run: Run) -> str:
    """What the found network is compared with."""
    from archsmith._search.known_points import recorded_first

    if recorded_first(run.config):
        return "the first known network"
    return f"of the same size the {getattr(run.evaluator, 'baseline_name', 'residual network')}"
