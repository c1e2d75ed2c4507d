"""What the page shows of a run, gathered in one pass over its trials, so that a hundred thousand of them are no burden."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from archsmith._search.known_points import Improvement, improvement
from archsmith._search.saved import Saved, Savings
from archsmith.core.config import same_config
from archsmith.core.errors import ArchsmithError, UnknownName
from archsmith.core.finish import Measure, in_todays_words
from archsmith.core.space import Space, decode, trace
from archsmith.core.store import Learned, RunReader, RunSummary
from archsmith.core.trial import Trial, TrialState
from archsmith.core.walk import kind_of
from archsmith.metrics.outcome import AutoOutcome
from archsmith.report.cluster import Cluster, cluster
from archsmith.report.outcome import read_outcome

if TYPE_CHECKING:
    from archsmith._search.run import Run

Floats = npt.NDArray[np.float64]

SHOWN_FAILURES = 50  # told one by one; all are counted
SHOWN_CURVES = 200  # learning curves drawn; evenly spaced over the run when there are more
SHOWN_TRIALS = 50  # rows of the table of trials
DRAWN = 4  # architectures


@dataclass(frozen=True)
class Series:
    """The finished trials of a run as arrays, in the order they finished.

    Args:
        name: the run's.
        number: the trials' numbers.
        at: when they finished, in seconds of the run's clock.
        reward: NaN for trials without one (failed or stopped).
        score: the metric of the run's measure, NaN where there is none.
        failed: whether they failed; a stopped trial did not.
        parameters, latency: the metrics of these names, NaN where there is none.
    """

    name: str
    number: npt.NDArray[np.int64]
    at: Floats
    reward: Floats
    failed: npt.NDArray[np.bool_]
    parameters: Floats
    score: Floats
    latency: Floats


@dataclass
class Answers:
    """How often each option of a kind of choice was taken, in the first quarter of the run and in the last.

    Args:
        counted: what is counted: "answer" (the option taken), "number" (how many of a subset that refers to earlier
            steps) or "member" (each option of another subset, as a share of the answers).
        first, last: the counts, by option as text.
        answers: how many answers were counted in the first quarter and in the last.
    """

    counted: str = "answer"
    first: Counter[str] = field(default_factory=Counter)
    last: Counter[str] = field(default_factory=Counter)
    answers: list[int] = field(default_factory=lambda: [0, 0])
    order: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Facts:
    """All that the page shows.

    Args:
        measure: the number that its networks are compared by.
        url: how to open the store, without a password; None when it was kept in memory alone.
        space: the live space, or None where it is the user's own and not at hand.
        top: the best trials, best first.
        control: random search beside it, or None; `unlike` names what differs in its configuration.
        failures: the first trials that failed; `reasons` counts all.
        twins: how many were the same child as an earlier one, and were not trained again.
        curve_metric: what the learning curves are of, or "" where there are none.
        curves: (number, epochs, values) of up to SHOWN_CURVES trials; `with_curve` have one in all.
        kinds: answers by kind of choice.
        finish: the document that `finish` kept, if it is one.
        cluster: what the workers did, where there were more than a few.
        saved: what stopping children early has saved, or None where no rule was asked.
        improvement: what the search added to the known points it began with, or None if it had none.
        looks: how often the test set was looked at: a finish says so before it looks, so one that was killed counts.
        auto: what `auto` delivered, if the run is of that command.
        auto_error: why its record cannot be shown, if it is of another version; else empty.
    """

    summary: RunSummary
    measure: Measure
    url: str | None
    space: Space | None
    series: Series
    top: Sequence[Trial]
    learned: Sequence[Learned]
    control: RunSummary | None
    control_series: Series | None
    unlike: Sequence[str]
    failures: Sequence[Trial]
    reasons: Mapping[str, int]
    stopped: int
    twins: int
    curve_metric: str
    curves: Sequence[tuple[int, Floats, Floats]]
    with_curve: int
    kinds: Mapping[str, Answers]
    finish: Mapping[str, Any] | None
    cluster: Cluster | None
    saved: Saved | None
    improvement: Improvement | None
    looks: int
    auto: AutoOutcome | None = None
    auto_error: str = ""

    @property
    def best(self) -> Trial | None:
        """The trial with the highest reward."""
        return self.top[0] if self.top else None

    @property
    def has_score(self) -> bool:
        """Whether the best trial has the measure among its metrics."""
        return self.best is not None and self.best.result is not None and self.measure.name in self.best.result.metrics

    @property
    def trials(self) -> int:
        """How many were proposed."""
        return sum(self.summary.counts.values())


def gather(run: Run, *, control: str | None) -> Facts:
    """Read a run, and the random search beside it.

    Raises UnknownName when `control` names no run of the store.
    """
    summary, top = run.summary, run.reader.top(SHOWN_TRIALS)
    try:
        space: Space | None = run.space
    except ArchsmithError:
        space = None
    beside = _control(run, summary, control)
    total = sum(summary.counts.values())
    stride = max(1, math.ceil(total / SHOWN_CURVES))
    quarter = total // 4
    best = {trial.number for trial in top[:DRAWN]}
    kinds: dict[str, Answers] = {}
    known = _Kinds(space)
    failures: list[Trial] = []
    reasons: Counter[str] = Counter()
    measure = Measure.from_json(summary.config.get("measure"))
    metric = _curve_metric(top, measure)
    curves: list[tuple[int, Floats, Floats]] = []
    rows: list[_Row] = []
    with_curve = stopped = twins = 0
    savings = Savings(summary.config)
    for trial in run.reader.trials():
        savings.count(trial)
        # A run of fewer than 8 trials has no quarters worth comparing.
        if quarter >= 2 and (trial.number < quarter or total - quarter <= trial.number < total):
            known.count(trial, kinds, 0 if trial.number < quarter else 1)
        if not trial.state.is_finished:
            continue
        rows.append(_row(trial, measure))
        stopped += trial.state is TrialState.STOPPED
        if trial.state is TrialState.FAILED:
            reasons[trial.result.failure.reason if trial.result and trial.result.failure else "unknown"] += 1
            if len(failures) < SHOWN_FAILURES:
                failures.append(trial)
        if trial.result is not None and trial.result.copied_from is not None:
            twins += 1
        elif trial.result is not None and trial.result.curve:
            metric = metric or _curve_metric([trial], measure)
            with_curve += 1
            if trial.number % stride == 0 or trial.number in best:
                epochs, values = curve(trial, metric)
                if len(epochs):
                    curves.append((trial.number, epochs, values))
    finish, looks = run.reader.document("finish"), run.reader.document("finish-looks")
    auto, auto_error = read_outcome(run.reader)
    return Facts(
        summary=summary,
        measure=measure,
        url=None if run.store.url.startswith("memory") else redacted(run.store.url),
        space=space,
        series=_series(summary.name, rows),
        top=top,
        learned=run.reader.learned(),
        control=beside.summary() if beside is not None else None,
        control_series=series(beside, measure) if beside is not None else None,
        unlike=_unlike(summary.config, beside.summary().config) if beside is not None else (),
        failures=failures,
        reasons=dict(reasons.most_common()),
        stopped=stopped,
        twins=twins,
        curve_metric=metric,
        curves=curves,
        with_curve=with_curve,
        kinds=kinds,
        finish=in_todays_words(finish) if isinstance(finish, Mapping) else None,
        cluster=cluster(run.reader),
        saved=savings.saved(),
        improvement=improvement(run.reader),
        looks=len(looks) if isinstance(looks, list) else 0,
        auto=auto,
        auto_error=auto_error,
    )


def redacted(text: str) -> str:
    """The text with the passwords of URLs in it hidden: a page is made to be passed on."""
    return re.sub(r"(\w://[^\s:/@'\"]*):[^\s/'\"]*@", r"\1:***@", text)


# --- trials as arrays -------------------------------------------------------------------------------------------------

_Row = tuple[float, int, float, bool, float, float, float]


def _row(trial: Trial, measure: Measure) -> _Row:
    result = trial.result
    return (
        trial.finished_at if trial.finished_at is not None else trial.proposed_at,
        trial.number,
        _shown(trial.reward),
        trial.state is TrialState.FAILED,
        result.metrics.get("parameters", math.nan) if result is not None else math.nan,
        _shown(result.metrics.get(measure.name) if result is not None and trial.state is TrialState.DONE else None),
        _shown(result.metrics.get("latency") if result is not None and trial.state is TrialState.DONE else None),
    )


def _shown(value: float | None) -> float:
    """What an axis can show, or NaN."""
    return value if value is not None and math.isfinite(value) and abs(value) < 1e100 else math.nan


def _series(name: str, rows: list[_Row]) -> Series:
    rows.sort()  # by the time they finished
    columns = zip(*rows, strict=True) if rows else ((),) * 7
    at, numbers, reward, failed, parameters, score, latency = columns
    return Series(
        name=name,
        number=np.array(numbers, dtype=np.int64),
        at=np.array(at, dtype=np.float64),
        reward=np.array(reward, dtype=np.float64),
        failed=np.array(failed, dtype=np.bool_),
        parameters=np.array(parameters, dtype=np.float64),
        score=np.array(score, dtype=np.float64),
        latency=np.array(latency, dtype=np.float64),
    )


def series(reader: RunReader, measure: Measure) -> Series:
    """The finished trials of a run as arrays."""
    return _series(reader.summary().name, [_row(t, measure) for t in reader.trials() if t.state.is_finished])


def curve(trial: Trial, metric: str) -> tuple[Floats, Floats]:
    """Epochs and values of a trial's learning curve; epochs without the metric are left out."""
    rows = trial.result.curve if trial.result is not None else ()
    points = [(row.get("epoch", i + 1), row[metric]) for i, row in enumerate(rows) if metric in row]
    kept = [(e, v) for e, v in points if math.isfinite(e) and math.isfinite(v) and abs(v) < 1e100]
    return np.array([e for e, _ in kept], dtype=np.float64), np.array([v for _, v in kept], dtype=np.float64)


def _curve_metric(trials: Sequence[Trial], measure: Measure) -> str:
    """What to draw by epoch: the measure where there is one, else the first metric."""
    for trial in trials:
        for row in trial.result.curve if trial.result is not None else ():
            if measure.name in row:
                return measure.name
            if names := [name for name in row if name != "epoch"]:
                return names[0]
    return ""


# --- the run beside it ------------------------------------------------------------------------------------------------


def _control(run: Run, summary: RunSummary, name: str | None) -> RunReader | None:
    """The run named; else `<name>-random`; else one of the same search by random search; the latest of several."""
    if name is not None:
        return run.store.read(name)
    try:
        return run.store.read(f"{summary.name}-random")
    except UnknownName:
        pass
    if _type(summary.config.get("searcher")) == "searchers.Random":
        return None
    for other in run.store.runs():
        random = _type(other.config.get("searcher")) == "searchers.Random"
        same = not _unlike(summary.config, other.config) and other.config.get("budget") == summary.config.get("budget")
        if random and same and other.name != summary.name:
            return run.store.read(other.name)
    return None


def _unlike(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """What must be equal for two searches to be compared, and is not. What each was given to spend is shown instead."""
    return [
        part for part in ("space", "evaluator", "reward", "data") if not same_config(one.get(part), other.get(part))
    ]


def _type(config: Any) -> str:
    return str(config.get("type", "")) if isinstance(config, Mapping) else ""


# --- what was chosen --------------------------------------------------------------------------------------------------


class _Kinds:
    """The kind of each choice, and whether a subset refers to earlier steps: from the space, else from the name."""

    def __init__(self, space: Space | None) -> None:
        self._space = space
        self._known: dict[str, tuple[str, bool]] = {}

    def count(self, trial: Trial, kinds: dict[str, Answers], part: int) -> None:
        answers = trial.genotype.answers
        if self._space is not None and any(name not in self._known for name in answers):
            self._learn(trial)
        for name, answer in answers.items():
            found = self._known.get(name)
            if found is None:
                found = self._known[name] = (kind_of(name), True)
            kind, refers = found
            row = kinds.get(kind)
            if row is None:
                counted = ("number" if refers else "member") if isinstance(answer, list) else "answer"
                row = kinds[kind] = Answers(counted)
            row.answers[part] += 1
            counts = row.last if part else row.first
            if not isinstance(answer, list):
                taken: Sequence[Any] = (answer,)
            else:
                taken = (len(answer),) if refers else answer
            for option in taken:
                text = str(option)
                counts[text] += 1
                row.order.setdefault(text, option)

    def _learn(self, trial: Trial) -> None:
        assert self._space is not None
        try:
            decode(self._space, trial.genotype)
        except ArchsmithError:  # the record is of another version of the space: the names must do
            self._space = None
            return
        for question in trace(self._space, trial.genotype.answers):
            self._known[question.name] = (question.kind, question.refers)
