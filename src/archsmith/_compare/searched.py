"""A run as arrays, in the order its trials finished; and what may be made of such arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from archsmith.core.errors import UsageError
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
        keys: what was tried, one key for each genotype.
        at: when they finished, in seconds of the run's clock.
        epochs: what they had cost in epochs, summed up to each.
        reward: NaN for trials without one (failed or stopped).
        value: the measure by which runs are compared; NaN for trials without one.
    """

    summary: RunSummary
    keys: Sequence[str]
    at: Floats
    epochs: Floats
    reward: Floats
    value: Floats

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
        return replace(
            self,
            keys=self.keys[:n],
            at=self.at[:n],
            epochs=self.epochs[:n],
            reward=self.reward[:n],
            value=self.value[:n],
        )


def read(run: Run, measure: Measure) -> Searched:
    """A run's finished trials, by the measure."""
    finished = [trial for trial in run.trials() if trial.state.is_finished]
    finished.sort(key=lambda t: (_at(t), t.number))
    cost = [t.result.cost.epochs if t.result is not None else 0.0 for t in finished]
    return Searched(
        summary=run.summary,
        keys=[t.genotype.key for t in finished],
        at=np.array([_at(t) for t in finished], dtype=np.float64),
        epochs=np.cumsum(np.array(cost, dtype=np.float64)),
        reward=np.array([_finite(t.reward) for t in finished], dtype=np.float64),
        value=np.array([value_of(t, measure) for t in finished], dtype=np.float64),
    )


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
    best = run.best
    if best is None or best.result is None:
        raise UsageError(f"run {run.name!r} has no trial that was trained to its end, so there is nothing to compare")
    measure = Measure.from_json(run.config.get("measure"))
    return measure if measure.name in best.result.metrics else REWARD


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
