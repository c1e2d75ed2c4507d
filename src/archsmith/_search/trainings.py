"""The trainings that come after a search, each a job of an executor and each recorded as it ends.

A training is known by a digest of all that decides its outcome, so that what was killed goes on where it stopped, and a
second one that wants more repeats nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from archsmith._search.record import Record
from archsmith.core import loaded
from archsmith.core.artifacts import open_artifacts
from archsmith.core.evaluator import Context
from archsmith.core.executor import Completed, Executor, Job, Progress, TrainsInCompleted, derive_seed
from archsmith.core.finish import Finishable, Measure
from archsmith.core.genotype import Genotype, canonical_json
from archsmith.core.space import Space, build_decided
from archsmith.core.trial import Result, TrialState

KEPT_FAILURES = frozenset({"diverged", "parameters"})  # the child's own; the others may be the machine's: tried again


@dataclass(frozen=True)
class TrainingProgress:
    """What a finish or a transfer tells while it works.

    Args:
        stage: "choosing", "tuning", "final training", "training" or "testing".
        label: what is being trained, or was.
        done, total: trainings of this stage.
        epoch, epochs: how far the one that is labelled has come; 0 where that is not known.
        reward: its validation reward, once it has ended.
        score: by what the networks are compared, once it has ended, for a person: "perplexity 78.41".
    """

    stage: str
    label: str
    done: int
    total: int
    epoch: int = 0
    epochs: int = 0
    reward: float | None = None
    score: str = ""


Watch = Callable[[TrainingProgress], None]


@dataclass(frozen=True)
class Training:
    """An evaluator as jobs run it: the settings are in, and the weights are kept if asked for.

    Args:
        evaluator: with the settings of this training in its fields.
        factor: multiplies the learning rate of a child that decides its own, so that a grid holds for it too.
        all_data: whether it learns from the validation set too.
        keep: whether the trained weights become an artifact.
    """

    evaluator: Finishable
    factor: float = 1.0
    all_data: bool = False
    keep: bool = False

    def evaluate(self, space: Space, genotype: Genotype, context: Context) -> Result:
        from archsmith.nn.seeding import seed_torch

        seed_torch(derive_seed(context.seed, "init"))
        _, child = build_decided(space, genotype, self.evaluator)
        if child.learning_rate is not None:
            child = replace(child, learning_rate=child.learning_rate * self.factor)
        train = self.evaluator.train
        result = train(child, context, all_data=True) if self.all_data else train(child, context)
        if self.keep:
            result = replace(result, artifact=context.checkpoint(child.model.state_dict()))
        return result

    def loaded(self) -> Mapping[Hashable, Any]:
        """What the evaluator has read; see `archsmith.core.loaded`."""
        return loaded.of(self.evaluator)


@dataclass(frozen=True)
class Work:
    """A training that is wanted.

    Args:
        label: what a person is told is being trained.
        key: what it is recorded under: a digest of all that decides what comes of it.
        job: what is run; its trial's number is given later.
        epochs: for how long.
        keep: whether its weights are wanted, so that it is done again where they are gone.
        about: plain JSON to record beside what came of it.
    """

    label: str
    key: str
    job: Job
    epochs: int
    keep: bool = False
    about: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """A training that ended; `reward` is None when it failed, and then `result.failure` says why."""

    result: Result
    reward: float | None


@dataclass
class Carrier:
    """Carries work out, side by side as the executor has it, and never the same twice.

    Args:
        record: where outcomes are kept.
        executor: where it trains.
        measure: by which an outcome is told.
        watch: called with what it is doing.
    """

    record: Record
    executor: Executor
    measure: Measure
    watch: Watch | None = None

    _submitted: int = field(default=0, init=False)

    def carry_out(self, stage: str, work: Sequence[Work]) -> list[Outcome]:
        """The outcomes, in the order of the work. A training that fails is an outcome; Ctrl-C is raised."""
        found: dict[int, Outcome] = {}
        running: dict[int, int] = {}
        twins: dict[int, int] = {}
        first: dict[str, int] = {}
        for i, w in enumerate(work):
            recorded = self._recorded(w)
            if recorded is not None:
                found[i] = recorded
            elif w.key in first:
                twins[i] = first[w.key]
            else:
                first[w.key] = i
                running[self._submit(w)] = i
        self._tell(stage, "", len(found), len(work))

        def progress(event: Progress) -> None:
            if event.trial in running:
                w = work[running[event.trial]]
                self._tell(stage, w.label, len(found), len(work), epoch=event.epoch, epochs=w.epochs)

        if isinstance(self.executor, TrainsInCompleted):
            self.executor.on_progress = progress
        while running:
            for event in self.executor.completed():
                if isinstance(event, Completed):
                    i = running.pop(event.trial)
                    found[i] = Outcome(event.result, event.reward if event.state is TrialState.DONE else None)
                    self._keep(work[i], found[i])
                    self._tell(stage, work[i].label, len(found), len(work), ended=found[i])
                elif isinstance(event, Progress):
                    progress(event)
        found |= {i: found[twin] for i, twin in twins.items()}
        return [found[i] for i in range(len(work))]

    def _submit(self, work: Work) -> int:
        number = self._submitted
        self._submitted += 1
        self.executor.submit(replace(work.job, trial=number, artifacts=self.record.artifacts))
        return number

    def _recorded(self, work: Work) -> Outcome | None:
        document = self.record.get(work.key)
        if document is None:
            return None
        result = Result.from_json(document["result"])
        if result.failure is not None:
            return Outcome(result, None) if result.failure.reason in KEPT_FAILURES else None
        if work.keep and (result.artifact is None or result.artifact not in open_artifacts(self.record.artifacts)):
            return None  # the weights are gone: the training is deterministic, and is done again
        return Outcome(result, document["reward"])

    def _keep(self, work: Work, outcome: Outcome) -> None:
        document = {
            "label": work.label,
            **work.about,
            "seed": work.job.seed,
            "reward": outcome.reward,
            "result": outcome.result.to_json(),
        }
        self.record.put(work.key, document)

    def _tell(
        self,
        stage: str,
        label: str,
        done: int,
        total: int,
        *,
        epoch: int = 0,
        epochs: int = 0,
        ended: Outcome | None = None,
    ) -> None:
        if self.watch is not None:
            reward = ended.reward if ended is not None else None
            score = self.measure.said(ended.result.metrics) if ended is not None else ""
            self.watch(TrainingProgress(stage, label, done, total, epoch, epochs, reward, score))


def digest_of(value: Any) -> str:
    """A short digest of plain JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:16]
