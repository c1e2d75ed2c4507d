"""A run as arrays, in the order its trials finished; and what may be made of such arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from archsmith.core.errors import ArchsmithError
from archsmith.core.finish import Measure
from archsmith.core.store import RunSummary
from archsmith.core.trial import Trial, TrialState

if TYPE_CHECKING:
    from archsmith._search.run import Run

Floats = npt.NDArray[np.float64]

REWARD = Measure("reward", "reward", higher_is_better=True, items="", digits=4)


@dataclass(frozen=True)
class Searched:
    """The finished trials of a run, in the order they finished: what the searcher knew after each.

    Args:
        summary: the run's line in the store.
        looked_up: whether results were looked up: they are said to have cost more seconds than the run's clock shows.
        keys: what was tried, one key for each genotype.
        numbers: of the trials.
        at: when they finished, in seconds of the run's clock; of results looked up, what they had cost in seconds, summed
            up to each.
        epochs: what they had cost in epochs, summed up to each.
        multiply_adds: of each network, for one input; NaN where its result has no such metric.
        failed: 1 for those that failed.
        reward: NaN for trials without one (failed or stopped).
        value: the measure by which runs are compared; NaN for trials without one.
        regret: of the best so far, where the best there is is known; empty where it is not.
    """

    summary: RunSummary
    looked_up: bool
    keys: Sequence[str]
    numbers: npt.NDArray[np.int64]
    at: Floats
    epochs: Floats
    multiply_adds: Floats
    failed: Floats
    reward: Floats
    value: Floats
    regret: Floats

    @property
    def name(self) -> str:
        """The run's name."""
        return self.summary.name

    def __len__(self) -> int:
        return len(self.keys)

    def until(self, *, trials: int | None = None, epochs: float | None = None) -> Searched:
        """The same run, ended earlier: after so many trials, or before it had cost more epochs."""
        n = len(self) if trials is None else min(trials, len(self))
        if epochs is not None:
            n = min(n, int(np.searchsorted(self.epochs, epochs * (1 + 1e-9), side="right")))
        cut: dict[str, Any] = {
            f.name: getattr(self, f.name)[:n] for f in fields(self) if f.name not in ("summary", "looked_up")
        }
        return replace(self, **cut)

    @property
    def spent(self) -> Floats:
        """The multiply-adds of the networks trained, each times its epochs, summed up to each. A trial without a reward
        may have none; from any other whose size is not known on, NaN."""
        none = np.isnan(self.multiply_adds) & np.isnan(self.reward)
        each = np.where(none, 0.0, self.multiply_adds) * np.diff(self.epochs, prepend=0.0)
        return np.asarray(np.cumsum(each), dtype=np.float64)


def read(run: Run, measure: Measure, within: tuple[str, float] | None = None) -> Searched:
    """A run's finished trials, by the measure.

    Args:
        within: a metric and a limit: a trial above it, or without such a metric, has no value.
    """
    finished = [trial for trial in run.trials() if trial.state.is_finished]
    finished.sort(key=lambda t: (_at(t), t.number))
    summary = run.summary
    at = np.array([_at(t) for t in finished], dtype=np.float64)
    took = np.cumsum([t.result.cost.seconds if t.result is not None else 0.0 for t in finished], dtype=np.float64)
    workers = summary.config.get("workers")
    slots = workers if isinstance(workers, int) else 1
    looked_up = bool(len(at)) and summary.config.get("clock") is None and took[-1] > 1.01 * slots * at[-1] + 1.0
    values = [value_of(t, measure) for t in finished]
    if within is not None:
        values = [v if _metric(t, within[0]) <= within[1] else math.nan for t, v in zip(finished, values, strict=True)]
    return Searched(
        summary=summary,
        looked_up=looked_up,
        keys=[t.genotype.key for t in finished],
        numbers=np.array([t.number for t in finished], dtype=np.int64),
        at=took if looked_up else at,
        epochs=np.cumsum([t.result.cost.epochs if t.result is not None else 0.0 for t in finished], dtype=np.float64),
        multiply_adds=np.array([_metric(t, "multiply_adds") for t in finished], dtype=np.float64),
        failed=np.array([t.state is TrialState.FAILED for t in finished], dtype=np.float64),
        reward=np.array([_finite(t.reward) for t in finished], dtype=np.float64),
        value=np.array(values, dtype=np.float64),
        regret=np.zeros(0),
    )


def with_regret(searched: Searched, run: Run, *, higher_is_better: bool) -> Searched:
    """The same with the regret of its best so far, where the run's evaluator can tell one (`Evaluator.regret`).

    What is best is chosen by the value alone; only then is it judged.
    """
    try:
        tell, space = getattr(run.evaluator, "regret", None), run.space
        if tell is None or not len(searched):
            return searched
        best = best_so_far(searched.value, higher_is_better=higher_is_better)
        regret = np.full(len(searched), np.nan)
        better = np.flatnonzero(~np.isnan(best) & (best != np.concatenate([[np.nan], best[:-1]])))
        for position in better:
            regret[position:] = tell(space, run.reader.trial(int(searched.numbers[position])).genotype)
    except ArchsmithError:  # a table that is no longer there, or parts that are the user's own
        return searched
    return replace(searched, regret=regret)


def _metric(trial: Trial, name: str) -> float:
    return _finite(trial.result.metrics.get(name) if trial.result is not None else None)


def _at(trial: Trial) -> float:
    return trial.finished_at if trial.finished_at is not None else trial.proposed_at


def value_of(trial: Trial, measure: Measure) -> float:
    """The measure of a trial that was trained to its end, NaN for any other."""
    if trial.state is not TrialState.DONE:
        return math.nan
    if measure is REWARD:
        return _finite(trial.reward)
    return _finite(trial.result.metrics.get(measure.name) if trial.result is not None else None)


def _finite(value: float | None) -> float:
    return float(value) if value is not None and math.isfinite(value) else math.nan


def measure_of(run: Run) -> Measure:
    """What the run's children are judged by: the measure on its record, else accuracy, where its best trial has such a
    metric; else the reward. Raises UsageError when the run has no trial with a reward."""
    best = run.needed_best("there is nothing to compare")
    measure = Measure.from_json(run.config.get("measure"))
    return measure if best.result is not None and measure.name in best.result.metrics else REWARD


# --- curves -----------------------------------------------------------------------------------------------------------


def best_so_far(values: Floats, *, higher_is_better: bool) -> Floats:
    """The best value up to each; NaN before the first."""
    if not len(values):
        return values
    best = np.fmax.accumulate(values) if higher_is_better else np.fmin.accumulate(values)
    return np.asarray(best, dtype=np.float64)


def top_k_unique_means(
    values: Floats, keys: Sequence[str], ks: Sequence[int], at: Sequence[int], *, higher_is_better: bool
) -> Floats:
    """The mean value of the k best different models among the first n (Zoph and Le 2017, figure 6, "top_k_unique").

    A model that was trained more than once counts once, with the mean of its values: the paper does not say which, and
    its best value would reward proposing the same model again until a training is lucky.

    Gives an array of one row for each of `ks` and a column for each n of `at`, which must rise; NaN where fewer than
    k models have a value.
    """
    codes = np.unique(np.asarray(keys, dtype=object).astype(str), return_inverse=True)[1] if len(keys) else np.array([])
    total, n = np.zeros(len(keys)), np.zeros(len(keys))
    means = np.full((len(ks), len(at)), np.nan)
    done = 0
    for column, until in enumerate(at):
        for i in range(done, min(until, len(keys))):
            if not np.isnan(values[i]):
                total[codes[i]] += values[i]
                n[codes[i]] += 1
        done = max(done, min(until, len(keys)))
        models = total[n > 0] / n[n > 0]
        models = np.sort(models)[::-1] if higher_is_better else np.sort(models)
        for row, k in enumerate(ks):
            if k <= len(models):
                means[row, column] = models[:k].mean()
    return means


def checkpoints(n: int) -> list[int]:
    """After how many models the top-k means are taken: every 400 as in the paper, more often in short runs."""
    every = min(400, max(1, n // 50))
    return sorted({*range(every, n + 1, every), n} - {0})


def stepped(x: Floats, y: Floats, grid: Floats) -> Floats:
    """The y of the last x at or before each point of the grid; NaN before the first. `x` must not fall."""
    before = np.searchsorted(x, grid, side="right") - 1
    return np.where(before >= 0, y[np.maximum(before, 0)] if len(y) else np.nan, np.nan)
