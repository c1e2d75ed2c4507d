"""What a cluster did in a run: how its workers were used, how stale the gradients were, how good the children by when.

From the record of a run alone, of a simulated cluster as of a real one. Plain Python, for the command line as for the page.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from archsmith._page.html import duration
from archsmith.core.store import Learned, RunReader, RunSummary
from archsmith.core.trial import Trial, TrialState

FEW = 4
"""Workers: of so many or fewer there is nothing to tell."""

MOMENTS = 120
"""Of how many parts of the time it is told how many workers had a child."""

_MOST_WORKERS = 10_000_000  # a record may come from anywhere


@dataclass(frozen=True)
class Quality:
    """What there was at a moment of the run.

    Args:
        at: seconds of the run's clock.
        trials: how many had finished.
        best: the highest reward so far, or None.
        mean: of the rewards that came since the moment before, or None.
    """

    at: float
    trials: int
    best: float | None
    mean: float | None


@dataclass(frozen=True)
class Staleness:
    """By how many updates the parameters had gone on when a gradient was applied.

    Args:
        mean: over the updates.
        last: mean of the last tenth of them: at the beginning gradients are fresher.
        largest: of any gradient.
        updates: how many there were.
    """

    mean: float
    last: float
    largest: float
    updates: int


@dataclass(frozen=True)
class Cluster:
    """A run's workers, in seconds summed over all of them.

    Args:
        workers: how many there were; or how many children ran at once, if that is more than the record says.
        seconds: of the run's clock; times `workers` it is the sum of the five below.
        busy: in trainings that came to something.
        lost: in attempts that came to nothing, since their worker died, and until there was another one.
        waiting: without a child before the last one was proposed: the searcher had to wait, or there was work between
            children, such as starting and sending.
        ending: without a child after the last one was proposed: the last children of a run leave most workers idle.
        attempts: how often a child was begun.
        again: how many of these were begun again: after a lost worker, or an interrupted run.
        failed: how many trials failed since their workers died too often.
        in_use: of equal parts of the time, the share of the workers that had a child, from 0 to 1.
        quality: at each tenth of the time.
        staleness: where the searcher told of any.
    """

    workers: int
    seconds: float
    busy: float
    lost: float
    waiting: float
    ending: float
    attempts: int
    again: int
    failed: int
    in_use: Sequence[float]
    quality: Sequence[Quality]
    staleness: Staleness | None

    def share(self, seconds: float) -> float:
        """Of all the time of all workers, from 0 to 1."""
        return seconds / (self.workers * self.seconds)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)

    def lines(self) -> list[tuple[str, str]]:
        """For a terminal: a name and what there is to say, line by line."""
        use = [(self.busy, "at work"), (self.lost, "lost with machines"), (self.waiting, "waiting for the searcher")]
        use.append((self.ending, "idle at the end"))
        parts = ", ".join(f"{100 * self.share(seconds):.1f} % {name}" for seconds, name in use)
        lines = [("workers", f"{self.workers:,} for {duration(self.seconds)}: {parts}")]
        if self.again or self.failed:
            lines.append(
                ("again", f"{self.again:,} of {self.attempts:,} attempts; {self.failed:,} children lost for good")
            )
        if (s := self.staleness) is not None:
            text = (
                f"{s.mean:.1f} updates in the mean, {s.last:.1f} at last, {s.largest:g} at most; {s.updates:,} updates"
            )
            lines.append(("staleness", text))
        for q in self.quality:
            if q.trials and round(10 * q.at / self.seconds) in (1, 2, 5, 10):
                text = f"best {_reward(q.best)}, mean of late {_reward(q.mean)}, {q.trials:,} trials"
                lines.append((f"at {duration(q.at)}", text))
        return lines


def cluster(run: RunReader) -> Cluster | None:
    """What the workers of a run did; None where there were too few to tell of, or nothing has finished."""
    summary = run.summary()
    if _recorded(summary) <= FEW or not 0 < summary.seconds < math.inf:
        return None
    return _told(summary, run.trials(), run.learned())


def _told(summary: RunSummary, trials: Iterable[Trial], learned: Sequence[Learned]) -> Cluster | None:
    seconds = summary.seconds
    simulated = summary.config.get("clock") is not None
    aside = summary.config.get("stopping") is not None  # then a trial may have no worker for some of its time
    spans: list[_Span] = []
    rewards: list[tuple[float, float]] = []  # when, and what; NaN for none
    busy = lost = last_proposed = 0.0
    attempts = again = failed = 0
    for trial in trials:
        last_proposed = max(last_proposed, trial.proposed_at)
        result, twin = trial.result, trial.result is not None and trial.result.copied_from is not None
        if trial.started_at is not None and not twin:
            spans.append(_span(trial, seconds, aside))
            attempts, again = attempts + trial.attempts, again + max(0, trial.attempts - 1)
        if not trial.state.is_finished or trial.finished_at is None:
            continue
        rewards.append((trial.finished_at, math.nan if trial.reward is None else trial.reward))
        if result is None or twin:
            continue
        failed += trial.state is TrialState.FAILED and result.failure is not None and result.failure.reason == "worker"
        lost += result.cost.lost_seconds
        busy += _worked(trial, simulated)
    if not rewards:
        return None
    workers = _recorded(summary) if aside else max(_recorded(summary), _at_once(spans))
    whole = workers * seconds
    after = [(end - max(begin, last_proposed)) * share for begin, end, share in spans if end > last_proposed]
    ending = max(0.0, workers * (seconds - last_proposed) - math.fsum(after)) if summary.status != "running" else 0.0
    idle = max(0.0, whole - busy - lost)
    ending = min(ending, idle)
    return Cluster(
        workers=workers,
        seconds=seconds,
        busy=busy,
        lost=lost,
        waiting=idle - ending,
        ending=ending,
        attempts=attempts,
        again=again,
        failed=failed,
        in_use=tuple(min(1.0, used / workers) for used in _in_use(spans, seconds)),
        quality=_quality(sorted(rewards), seconds),
        staleness=_staleness(learned),
    )


def _recorded(summary: RunSummary) -> int:
    workers = summary.config.get("workers")
    is_count = isinstance(workers, int) and not isinstance(workers, bool)
    return int(workers) if is_count and 0 < workers <= _MOST_WORKERS else 1  # type: ignore[operator, arg-type]


def _worked(trial: Trial, simulated: bool) -> float:
    """Seconds of training; of an evaluator that tells none, those of the last attempt by the run's clock."""
    assert trial.result is not None
    seconds = trial.result.cost.seconds
    if seconds > 0 or simulated or trial.started_at is None or trial.finished_at is None:
        return seconds if 0 <= seconds < math.inf else 0.0
    return trial.finished_at - trial.started_at


_Span = tuple[float, float, float]
"""From when to when a trial was open, and what share of that it had a worker."""


def _span(trial: Trial, now: float, aside: bool) -> _Span:
    begin, end = trial.proposed_at, min(now, now if trial.finished_at is None else trial.finished_at)
    if not aside or trial.result is None or end <= begin:
        return begin, end, 1.0
    return begin, end, min(1.0, (trial.result.cost.seconds + trial.result.cost.lost_seconds) / (end - begin))


def _in_use(spans: Sequence[_Span], seconds: float) -> list[float]:
    """Of each part of the time how many children had a worker in the mean."""
    width = seconds / MOMENTS
    used = [0.0] * MOMENTS  # what a span's first and last part have more or less than a whole part,
    change = [0.0] * (MOMENTS + 1)  # and how many more or fewer there are from its beginning on
    for begin, end, share in spans:
        first, last = min(int(begin / width), MOMENTS - 1), min(int(end / width), MOMENTS - 1)
        used[first] += share * ((first + 1) * width - begin) / width
        used[last] -= share * ((last + 1) * width - end) / width
        change[first + 1] += share
        change[last + 1] -= share
    running = 0.0
    for part in range(MOMENTS):
        running += change[part]
        used[part] = max(0.0, used[part] + running)
    return used


def _at_once(spans: Sequence[_Span]) -> int:
    """How many children had a worker at once at most."""
    now = most = 0
    for _, change in sorted([(begin, 1) for begin, _, _ in spans] + [(end, -1) for _, end, _ in spans]):
        now += change  # what ends at a moment makes room first
        most = max(most, now)
    return most


def _quality(rewards: Sequence[tuple[float, float]], seconds: float) -> tuple[Quality, ...]:
    """At each tenth of the time."""
    rows: list[Quality] = []
    place, best = 0, None
    for tenth in range(1, 11):
        at, since = seconds * tenth / 10, list[float]()
        while place < len(rewards) and (rewards[place][0] <= at or tenth == 10):
            if not math.isnan(rewards[place][1]):
                since.append(rewards[place][1])
            place += 1
        if since:
            best = max(since) if best is None else max(best, max(since))
        rows.append(Quality(at, place, best, math.fsum(since) / len(since) if since else None))
    return tuple(rows)


def _staleness(learned: Sequence[Learned]) -> Staleness | None:
    """From what the searcher showed of each update."""
    rows = [row.values for row in learned if _finite(row.values, "mean_staleness")]
    if not rows:
        return None
    means = [row["mean_staleness"] for row in rows]
    late = means[-max(1, len(means) // 10) :]
    largest = max(
        row["largest_staleness"] if _finite(row, "largest_staleness") else row["mean_staleness"] for row in rows
    )
    return Staleness(math.fsum(means) / len(means), math.fsum(late) / len(late), largest, len(rows))


def _finite(values: Mapping[str, float], name: str) -> bool:
    return name in values and math.isfinite(values[name])


def _reward(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
