"""Does a search's own reward tell which networks are good elsewhere? (Kornblith, Shlens and Le 2019, "Do Better ImageNet
Models Transfer Better?", figure 1.)

Some different architectures of a run are trained from scratch on other data sets, all by the same settings, and tested
there once; what they had in the search is correlated with what they have there by `archsmith.core.correlation`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from archsmith._search import Run
from archsmith._search.record import RunRecord
from archsmith._search.trainings import Carrier, TrainingProgress, Watch, digest_of
from archsmith._transfer.carried import carried
from archsmith._transfer.contest import SCRATCH, Asked, Entry, entry_of, evaluator_on, shortened, task_of
from archsmith._transfer.correlated import Correlated, CorrelatedModel, DataSet
from archsmith._transfer.found import Candidate
from archsmith._transfer.images import work_of
from archsmith._transfer.testing import final_of, look, test_set_of, tested
from archsmith.core.correlation import LEAST_FOR_R
from archsmith.core.correlation import correlate as correlation_of
from archsmith.core.errors import UsageError
from archsmith.core.executor import Executor, derive_seed
from archsmith.core.finish import ACCURACY, Measure
from archsmith.core.genotype import Genotype
from archsmith.core.global_state import generators_kept
from archsmith.core.shown import base_name
from archsmith.executors import InProcess, ProcessPool
from archsmith.training import ImageClassification

SPREAD = 8
_OF_ACCURACY = ("rewards.accuracy", "rewards.cubed_accuracy", "rewards.squared_accuracy")


@dataclass(frozen=True)
class _Model:
    """A different architecture of the run: its first trial, and what it had in the search, the mean over its trials."""

    trial: int
    genotype: Genotype
    reward: float
    searched: float

    @property
    def name(self) -> str:
        return f"trial {self.trial}"


@generators_kept()
def correlate(
    run: Run,
    data: str | Sequence[str],
    *,
    top: int | None = None,
    spread: int | None = None,
    seeds: int = 1,
    epochs: int | None = None,
    max_train: int | None = None,
    size: int | None = None,
    channels: int | None = None,
    seed: int = 0,
    workers: int = 1,
    executor: Executor | None = None,
    watch: Watch | None = None,
) -> Correlated:
    """Train some architectures of a run on other images, and correlate how good they are there with how they were in
    the search.

    Every training is recorded in the run's store as it ends, and the same call goes on. A second call gives the stored
    result and looks at nothing.

    Args:
        run: a search of networks of images.
        data: one data set or several, each as `ImageClassification` takes them.
        top: the best so many different architectures. They differ little in the search, which makes r small.
        spread: so many, evenly from the best to the worst by reward (default: 8).
        seeds: trainings of each architecture on each data set; their mean accuracy counts.
        epochs, max_train, size, channels: as in `transfer`.
        seed: the first of all seeds.
        workers, executor, watch: as in `transfer`.

    Raises:
        UsageError: the run has fewer than three different architectures, or the arguments do not go together.
        RunLocked: another process writes the run.
    """
    sets = [data] if isinstance(data, str) else list(data)
    _check(run, sets, top, spread, seeds, workers)
    models, chosen, of_accuracy = _chosen(run, top, spread)
    own = run.evaluator
    searched = own if isinstance(own, ImageClassification) else None
    asked = Asked((SCRATCH,), epochs=epochs, max_train=max_train, size=size, channels=channels)
    evaluators = [evaluator_on(one, searched, asked, None) for one in sets]
    names = _names([str(e.describe_data()["name"]) for e in evaluators])
    candidates = [Candidate(m.name, m.name, m.name, carried(run.space, m.genotype)) for m in models]
    entries: list[Entry] = []
    for evaluator in evaluators:
        task = task_of(evaluator, (SCRATCH,))
        entries.extend(entry_of(SCRATCH, candidate, evaluator, task) for candidate in candidates)
    where = [name for name in names for _ in models]
    work = [
        work_of(entry, 1.0, i, derive_seed(seed, "transfer", i), f"{name}, seed {i + 1}")
        for entry, name in zip(entries, where, strict=True)
        for i in range(seeds)
    ]
    record = RunRecord(run, "transfer", "correlate it when that has ended")
    key = f"correlation/{digest_of([chosen, names, *(w.key for w in work)])}"
    stored = record.get(key)
    if stored is not None:
        return Correlated.from_json(stored)
    with closing(executor if executor is not None else _executor(workers)) as used:
        outcomes = Carrier(record, used, ACCURACY, watch).carry_out("training", work)
    if watch is not None:
        watch(TrainingProgress("testing", f"{len(outcomes)} models", 0, len(outcomes)))
    each = len(models) * seeds
    looks = []
    for k, evaluator in enumerate(evaluators):
        mine = outcomes[k * each : (k + 1) * each]
        looks.append(look(record, test_set_of(evaluator), [o.result.artifact for o in mine if o.reward is not None]))
    found = [CorrelatedModel(m.name, m.genotype.key, m.reward, m.searched, 0, {}) for m in models]
    counts: dict[str, int] = {}
    for k, (entry, name) in enumerate(zip(entries, where, strict=True)):
        finals = []
        for i in range(seeds):
            w, o = work[k * seeds + i], outcomes[k * seeds + i]
            metrics = tested(entry.network, entry.network.only, o, entry.evaluator, record)
            if "count" in metrics:
                counts[name] = int(metrics["count"])
            finals.append(final_of(i, w.job.seed, o, metrics, ACCURACY))
        model = found[k % len(models)]
        found[k % len(models)] = model.with_finals(name, finals, entry.parameters)
    result = _result(run, found, names, evaluators, counts, chosen, of_accuracy, seed)
    notes = list(dict.fromkeys(shortened(entries)))
    if top is not None:
        notes.append(
            "The best alone differ little in the search, and of few that are alike r is small, whatever it is of all."
        )
    if (most := max(map(len, looks))) > 1:
        notes.append(f"A test set was looked at {most} times in this run: later looks are optimistic.")
    done = result.with_notes(notes, looks[0][-1]["at"])
    record.put(key, done.to_json())
    return done


def _result(
    run: Run,
    found: Sequence[CorrelatedModel],
    names: Sequence[str],
    evaluators: Sequence[ImageClassification],
    counts: dict[str, int],
    chosen: str,
    of_accuracy: bool,
    seed: int,
) -> Correlated:
    searched = {m.name: m.searched for m in found}
    used = {name: {m.name: mean for m in found if (mean := m.mean(name)) is not None} for name in names}
    if not any(used.values()):
        raise UsageError("no training came to its end on the other data, so there is nothing to correlate")
    held_out = (run.config.get("dataset") or {}).get("validation")
    settings: dict[str, Any] = {"searched_count": held_out, "is_accuracy": of_accuracy, "seed": seed}
    return Correlated(
        run=run.name,
        at="",
        chosen=chosen,
        searched_by="validation accuracy" if of_accuracy else "reward",
        data=[
            DataSet(name, counts.get(name, 0), evaluator.epochs, evaluator.describe_data())
            for name, evaluator in zip(names, evaluators, strict=True)
        ],
        models=found,
        correlation=correlation_of(searched, used, counts=counts, **settings),
        by_data={name: correlation_of(searched, {name: used[name]}, counts=counts, **settings) for name in names},
        notes=(),
    )


def _check(run: Run, data: Sequence[str], top: int | None, spread: int | None, seeds: int, workers: int) -> None:
    if not data:
        raise UsageError("a correlation needs at least one other data set (--data PATH)")
    if top is not None and spread is not None:
        raise UsageError("give either top, the best, or spread, from the best to the worst; not both")
    for name, value, least in (
        ("top", top, LEAST_FOR_R),
        ("spread", spread, LEAST_FOR_R),
        ("seeds", seeds, 1),
        ("workers", workers, 1),
    ):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
            raise UsageError(f"{name} of a correlation must be a whole number of at least {least}, got {value!r}")
    measure = Measure.from_json(run.config.get("measure"))
    if measure != ACCURACY:
        raise UsageError(
            f"run {run.name!r} searches by {measure.label}; networks of images are correlated over other images, by accuracy"
        )


def _chosen(run: Run, top: int | None, spread: int | None) -> tuple[list[_Model], str, bool]:
    """Different architectures of the run, what a person is told of the choice, and whether they are judged by accuracy."""
    trials: dict[str, list[Any]] = {}
    for trial in run.trials():
        if trial.reward is not None and trial.result is not None:
            trials.setdefault(trial.genotype.key, []).append(trial)
    of_accuracy = run.config["reward"].get("type") in _OF_ACCURACY and all(
        ACCURACY.name in t.result.metrics for same in trials.values() for t in same
    )
    models = [
        _Model(
            same[0].number,
            same[0].genotype,
            fmean(t.reward for t in same),
            fmean(t.result.metrics[ACCURACY.name] if of_accuracy else t.reward for t in same),
        )
        for same in trials.values()
    ]
    models.sort(key=lambda m: (-m.reward, m.trial))
    if len(models) < LEAST_FOR_R:
        raise UsageError(
            f"run {run.name!r} has {len(models)} different architectures that were trained to their end, and a correlation "
            f"needs at least {LEAST_FOR_R}; search on, with: {run.command('resume', '--trials', str(2 * sum(run.summary.counts.values())))}"
        )
    k = min(len(models), top if top is not None else spread if spread is not None else SPREAD)
    if top is not None:
        return models[:k], f"the best {k} of {len(models)}", of_accuracy
    at = [round(i * (len(models) - 1) / (k - 1)) for i in range(k)]
    return [models[i] for i in at], f"{k} of {len(models)}, from the best to the worst", of_accuracy


def _names(names: Sequence[str]) -> list[str]:
    """The data sets' names, short and different."""
    short = [base_name(name) for name in names]
    return [name if short.count(name) == 1 else f"{name} ({k + 1})" for k, name in enumerate(short)]


def _executor(workers: int) -> Executor:
    return InProcess() if workers == 1 else ProcessPool(workers)
