"""A run as its owner sees it: the best, the trials, a report, and how to go on."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archsmith._search.recipe_file import Pieces, RecipeFile, find_recipe
from archsmith._search.space_check import check_same_space
from archsmith.core.checks import whole_number
from archsmith.core.config import from_config, own_name, same_config, to_config
from archsmith.core.errors import CorruptStore, UsageError
from archsmith.core.evaluator import Evaluator, as_evaluator, with_data
from archsmith.core.executor import Executor, Reward
from archsmith.core.pareto import pareto
from archsmith.core.shown import command_text
from archsmith.core.space import Space, as_space
from archsmith.core.stopping import Rule
from archsmith.core.store import RunReader, RunSummary, Store
from archsmith.core.trial import Trial
from archsmith.rewards import default_reward

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from archsmith._search.loop import Watch

RECORDED = (
    "space",
    "evaluator",
    "searcher",
    "reward",
    "budget",
    "limits",
    "workers",
    "seed",
    "versions",
    "command",
    "note",
)
"""What every search records of itself."""

SHIPPED = ("spaces", "searchers", "stopping", "training", "rewards", "discovered")


def resolve(name: str) -> Any:
    """The class or function that archsmith ships under "namespace.Name"; nothing else can be made from a record.

    Raises UsageError for any other name.
    """
    namespace, _, attribute = name.partition(".")
    if namespace in SHIPPED:
        module = importlib.import_module(f"archsmith.{namespace}")
        if attribute in module.__all__:
            return getattr(module, attribute)
    raise UsageError(f"{name!r} is not part of archsmith, so it cannot be made again from the record of a run")


def _candidates(part: str, recipe: Pieces) -> list[Any]:
    """The pieces of a recipe that may be this part of a run, or of its random control search."""
    match part:
        case "space":
            return [as_space(recipe.space)]
        case "evaluator":
            return [as_evaluator(recipe.evaluator)]
        case "searcher":
            return [recipe.searcher, recipe.control_searcher]
        case "reward":
            return [recipe.reward, default_reward(recipe.evaluator)]
        case _:
            return [recipe.stopping]


class Run:
    """One search in a store. Reading is always up to date, also while another process writes the run.

    Args:
        store: where it is kept.
        name: its name there.
        space, evaluator, reward: the live objects, where this process has them; else they are made again from the record.
        recipe: where the user's own pieces are taken from; None: from the FILE.py that the record tells of.
    """

    def __init__(
        self,
        store: Store,
        name: str,
        *,
        space: Space | None = None,
        evaluator: Evaluator | None = None,
        recipe: Pieces | None = None,
        reward: Reward | None = None,
    ) -> None:
        self.store = store
        self.name = name
        self.reader: RunReader = store.read(name)
        self._space = space
        self._evaluator = evaluator
        self._recipe = recipe
        self._reward = reward

    @property
    def summary(self) -> RunSummary:
        """A line about it: status, counts, best reward, cost."""
        return self.reader.summary()

    @property
    def config(self) -> dict[str, Any]:
        """What it is a search of, as plain JSON. Raises CorruptStore for the record of a run that no search wrote."""
        recorded = dict(self.summary.config)
        missing = [part for part in RECORDED if part not in recorded]
        if missing:
            raise CorruptStore(f"run {self.name!r} was not written by a search: its record has no {missing[0]!r}")
        return recorded

    @property
    def best(self) -> Trial | None:
        """The trial with the highest reward, or None while there is none."""
        top = self.reader.top(1)
        return top[0] if top else None

    def needed_best(self, so: str) -> Trial:
        """The best trial. Raises UsageError if there is none; `so` ends the message: "there is nothing to export"."""
        if (best := self.best) is None:
            raise UsageError(f"run {self.name!r} has no trial that was trained to its end, so {so}{self._why_none()}")
        return best

    def _why_none(self) -> str:
        """Why a run has no best trial: how its first trial failed, and the next step if it only lacks a reward."""
        for trial in self.trials():
            if trial.lacks_reward and trial.result is not None:
                have = ", ".join(sorted(trial.result.metrics))
                return f"; trial {trial.number} has the metrics {have} and no reward: resume the run with a reward= of those"
            if trial.result is not None and trial.result.failure is not None:
                failure = trial.result.failure
                return f"; trial {trial.number} failed ({failure.reason}): {failure.message}"
        return ""

    def different(self, k: int, key: Callable[[Trial], Hashable], so: str) -> list[Trial]:
        """The best trials, best first, of which no two have the same key; k, or as many as there are.

        Raises UsageError as `needed_best` does where there is none.
        """
        self.needed_best(so)
        asked = k
        while True:
            best = self.top(asked)
            taken: dict[Hashable, Trial] = {}
            for trial in best:
                taken.setdefault(key(trial), trial)
            if len(taken) >= k or len(best) < asked:
                return list(taken.values())[:k]
            asked *= 2  # some were proposed twice

    def trials(self) -> Iterator[Trial]:
        """All trials, by number."""
        return self.reader.trials()

    def top(self, k: int) -> list[Trial]:
        """The k trials with the highest rewards, best first."""
        return self.reader.top(whole_number(k, "k of top(k)", 1))

    def pareto(self, *metrics: str) -> list[Trial]:
        """The trials that no other beats in every metric, in the order of the last: `run.pareto("accuracy", "latency")`
        from the fastest to the most accurate.

        Metrics are "reward" and those of the results; of one that archsmith does not know a sign says which way is
        better, as in "-energy". Raises UsageError for fewer than two, and for an unknown one without a sign.
        """
        return pareto(self.trials(), metrics)

    @property
    def twins(self) -> int:
        """How many trials were the same child as an earlier one, and were not trained again."""
        if not self._may_have_twins():  # spares reading all
            return 0
        return sum(t.result is not None and t.result.copied_from is not None for t in self.trials())

    def _may_have_twins(self) -> bool:
        try:
            return hasattr(self._space or from_config(self.config["space"], resolve), "canonical")
        except UsageError:  # the user's own space, whose file is not run for this
            return True

    @property
    def space(self) -> Space:
        """The space searched. Raises UsageError when it is the user's own and was edited, or is not to be had."""
        if self._space is None:
            recorded = self.config["space"]
            space = self.made("space", recorded)
            if ":" in own_name(recorded):
                check_same_space(self, space)
            self._space = space
        return self._space

    @property
    def evaluator(self) -> Evaluator:
        """The evaluator. Raises UsageError when it is the user's own and this process does not have it."""
        if self._evaluator is None:
            self._evaluator = self.made("evaluator", self.config["evaluator"])
        return self._evaluator

    @property
    def reward(self) -> Reward:
        """What is made of a result. Raises UsageError when it is the user's own and this process does not have it."""
        if self._reward is None:
            own = default_reward(self.evaluator)
            recorded = self.config["reward"]
            self._reward = own if same_config(recorded, to_config(own)) else self.made("reward", recorded)
        return self._reward

    def with_evaluator(self, evaluator: Evaluator) -> Run:
        """The same run with an evaluator at hand, such as the recorded one on data that lie elsewhere."""
        return Run(
            self.store, self.name, space=self._space, evaluator=evaluator, recipe=self._recipe, reward=self._reward
        )

    def made(self, part: str, recorded: Any) -> Any:
        """A part of the run ("space", "searcher", ...) from its record; what is the user's own from the recipe's file.

        Raises UsageError when it is the user's own and is not to be had.
        """
        try:
            return from_config(recorded, resolve)
        except UsageError:  # nothing that archsmith ships
            pass
        try:
            for piece in _candidates(part, self._found_recipe()):
                if same_config(recorded, to_config(piece), any_module=True):
                    return piece
                if part == "evaluator" and isinstance(data := recorded.get("data", recorded.get("table")), str):
                    moved = with_data(piece, data)
                    if moved is not None and same_config(recorded, to_config(moved), any_module=True):
                        return moved
            why = "that of the recipe is another one"
        except UsageError as error:
            why = str(error)
        given = "space=..., build=..." if part == "space" else f"{part}=..."
        call = "open_run" if part in ("space", "evaluator") else "run.resume"
        raise UsageError(
            f"the {part} of run {self.name!r} is your own ({own_name(recorded)}), and {why}; name the file that has it in "
            f"its recipe with --recipe FILE.py, or in Python pass it: {call}(..., {given})"
        )

    def recipe_reward(self) -> Reward | None:
        """The reward of the recipe that was named with the run; None where none was, or it has none."""
        return None if self._recipe is None else self._recipe.reward

    def _found_recipe(self) -> Pieces:
        if self._recipe is None:
            file = RecipeFile.from_json(self.config["note"].get("file"))
            if file is None:
                raise UsageError("the run was begun in Python, so no file is on record")
            self._recipe = find_recipe(file)
        return self._recipe

    def command(self, verb: str, *options: str) -> str:
        """What a person types to have archsmith do something with the run, from any folder; of one in memory, in Python."""
        if self.store.url.startswith("memory"):
            return "archsmith.finish(run)" if verb == "finish" else f"run.{verb}()"
        return command_text(verb, self.name, *options, "--store", self.store.url)

    def build(self, trial: Trial | None = None) -> torch.nn.Module:
        """A fresh, untrained module of a trial's architecture (default: the best one's) for the run's own task."""
        from archsmith.core.space import build

        trial = trial or self.needed_best("there is nothing to build")
        task = getattr(self.evaluator, "task", None)
        if task is None:
            raise UsageError(f"the evaluator of run {self.name!r} has no task; use archsmith.build with an input shape")
        return build(self.space, trial.genotype, task()).model

    def resume(
        self,
        *,
        trials: int | None = None,
        seconds: float | None = None,
        epochs: float | None = None,
        workers: int | None = None,
        executor: Executor | None = None,
        data: Any = None,
        space: Space | Callable[..., Any] | None = None,
        evaluator: Evaluator | Callable[[Any], Any] | None = None,
        searcher: Any | None = None,
        reward: Callable[[Any], float] | None = None,
        stopping: Rule | None = None,
        build: Callable[..., Any] | None = None,
        watch: Watch | None = None,
    ) -> Run:
        """Go on to the budget, or to a higher one given here. What a kill interrupted runs again, as the same trial.

        Parts that archsmith ships are made again from the record; your own must be passed. `data` is
        where the data set lies now, or the arrays that it is; its content must be the same.

        Trials that were trained and lack a reward get it from their metrics, and are not trained again. `reward` may be
        another one than before while no trial of the run has a reward.
        """
        from archsmith._search.session import resume

        return resume(
            self,
            trials=trials,
            seconds=seconds,
            epochs=epochs,
            workers=workers,
            executor=executor,
            data=data,
            space=space if space is not None else self._space,
            evaluator=evaluator if evaluator is not None else self._evaluator,
            searcher=searcher,
            reward=self._reward if reward is None and self.best is not None else reward,
            stopping=stopping,
            build=build,
            watch=watch,
        )

    def report(
        self, path: str | os.PathLike[str] | None = None, *, control: str | None = None, force: bool = False
    ) -> Path:
        """Write the run's page, one self-contained HTML file, and give its path (default: `<name>.html` here).

        An earlier page there is replaced, another file only with `force`, and a database never.
        """
        from archsmith.report import write_report

        place = Path(path) if path is not None else Path(f"{self.name}.html")
        return write_report(self, place, control=control, force=force)

    def to_dataframe(self) -> pd.DataFrame:
        """A row per trial: number, state, reward, metrics, cost, reason of failure, and the answers as `choice.*`.

        Needs pandas.
        """
        try:
            import pandas as pd
        except ImportError:
            raise UsageError("to_dataframe needs pandas: pip install pandas") from None
        rows = []
        for trial in self.trials():
            result = trial.result
            row: dict[str, Any] = {
                "number": trial.number,
                "state": str(trial.state),
                "reward": trial.reward,
                "parent": trial.parent,
                "key": trial.genotype.key,
                "proposed_at": trial.proposed_at,
                "started_at": trial.started_at,
                "finished_at": trial.finished_at,
            }
            if result is not None:
                row |= {"seconds": result.cost.seconds, "epochs": result.cost.epochs}
                row |= {f"metric.{k}": v for k, v in result.metrics.items()}
                row["failure"] = result.failure.reason if result.failure else None
            row |= {f"choice.{k}": v for k, v in trial.genotype.answers.items()}
            rows.append(row)
        return pd.DataFrame(rows)

    def __repr__(self) -> str:
        s = self.summary
        failed = s.counts.get("failed", 0)
        counts = f"{sum(s.counts.values())} trials" + (f" ({failed} failed)" if failed else "")
        best = f"best {s.best_reward:.4g} at trial {s.best}" if s.best_reward is not None else "nothing finished yet"
        return f"Run({self.name!r}, {s.status}, {counts}, {best})"
