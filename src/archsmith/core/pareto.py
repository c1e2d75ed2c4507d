"""The Pareto front of a run's trials: those that no other is at least as good as in every metric, and better in one
(Tan et al. 2019, section 3)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from archsmith.core.errors import UsageError
from archsmith.core.shown import shown
from archsmith.core.trial import Trial, TrialState

HIGHER = ("reward", "accuracy", "final_accuracy", "train_accuracy", "bleu", "value")
LOWER = (
    "latency", "parameters", "multiply_adds", "perplexity", "bits_per_character", "loss", "train_loss", "train_seconds",
)  # fmt: skip


def pareto(trials: Iterable[Trial], metrics: Sequence[str]) -> list[Trial]:
    """The trials on the front, in the order of the last metric, its best first; of equal ones the earliest.

    Args:
        trials: of a run. Those that are not done, or have one of the metrics not as a finite number, are left out.
        metrics: two or more, by name: "reward", or a metric of the results. Which way is better is known of archsmith's own;
            of others a sign says it: "+recall" or "-energy".

    Raises UsageError for fewer than two metrics, one given twice, and one whose better side nobody said.
    """
    if isinstance(metrics, str) or len(metrics) < 2:
        raise UsageError(f"a Pareto front is of two metrics or more, got {shown(metrics)}")
    signed = [signed_metric(metric) for metric in metrics]
    names = [name for name, _ in signed]
    if len(set(names)) != len(names):
        raise UsageError(f"the metrics of a Pareto front must differ, got {', '.join(names)}")
    points = []  # smaller is better in every coordinate; the last metric comes first, so that sorting gives the order
    for trial in trials:
        point = [sign * value_of(trial, name) for name, sign in reversed(signed)]
        if all(map(math.isfinite, point)):
            points.append((point, trial.number, trial))
    front: list[tuple[list[float], Trial]] = []
    for point, _, trial in sorted(points, key=lambda entry: entry[:2]):
        # Whatever dominates it comes before it. Of two metrics the last one kept has the best second metric so far.
        rivals = front[-1:] if len(point) == 2 else front
        if not any(all(a <= b for a, b in zip(rival, point, strict=True)) for rival, _ in rivals):
            front.append((point, trial))
    return [trial for _, trial in front]


def value_of(trial: Trial, metric: str) -> float:
    """A trial's reward, or a metric of its result; NaN where it is not done or has no such number."""
    if trial.state is not TrialState.DONE:
        return math.nan
    if metric == "reward":
        return math.nan if trial.reward is None else trial.reward
    value = trial.result.metrics.get(metric, math.nan) if trial.result is not None else math.nan
    return value if isinstance(value, int | float) else math.nan


def signed_metric(metric: object) -> tuple[str, int]:
    """The name of a metric, and the factor that makes smaller numbers better: "latency" gives 1, "accuracy" -1, "+recall" -1.

    Raises UsageError for a metric whose better side nobody said.
    """
    if not isinstance(metric, str) or not metric.lstrip("+-"):
        raise UsageError(f"a metric of a Pareto front is a name, got {shown(metric)}")
    if metric[0] in "+-":
        return metric[1:], -1 if metric[0] == "+" else 1
    if metric in HIGHER:
        return metric, -1
    if metric in LOWER or metric.rpartition("/")[2].endswith(("_latency", "_energy")):
        return metric, 1
    raise UsageError(
        f"whether more of the metric {metric!r} is better is not known; write {'+' + metric!r} where it is, {'-' + metric!r} where not"
    )


def check_objectives(of: str, objectives: Sequence[str]) -> tuple[str, ...]:
    """The objectives of a searcher as a tuple. Raises UsageError unless they are two different metrics or more, of each of which it is
    known which way is better."""
    if isinstance(objectives, str) or len(objectives) < 2:
        raise UsageError(f"objectives of {of} must be two metrics or more, got {shown(objectives)}")
    names = [signed_metric(metric)[0] for metric in objectives]
    if len(set(names)) != len(names):
        raise UsageError(f"the objectives of {of} must differ, got {', '.join(names)}")
    return tuple(objectives)


def objectives_of(searcher: str, trial: Trial, signed: Sequence[tuple[str, int]]) -> tuple[float, ...]:
    """The objectives of a trial that is done, smaller where they are better.

    Args:
        searcher: who asks, for the message.
        trial: with its result.
        signed: the metrics, as `signed_metric` gives them.

    Raises UsageError if the trial does not have one of them as a finite number.
    """
    values = []
    for name, sign in signed:
        value = value_of(trial, name)
        if not math.isfinite(value):
            known = ", ".join(sorted(trial.result.metrics)) if trial.result is not None else ""
            raise UsageError(
                f"{searcher} compares {name}, and trial {trial.number} has no such finite number; its metrics are "
                f"{known or 'none'}. Give other objectives, or an evaluator that reports it"
            )
        values.append(sign * value)
    return tuple(values)
