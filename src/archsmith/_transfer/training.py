"""The trainings of a transfer, each a job of an executor and each recorded as it ends.

A training is known by a digest of all that decides its outcome, so that a transfer that was killed goes on where it
stopped, and one with more seeds repeats nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from archsmith._transfer.cell import OneCell
from archsmith._transfer.record import Record
from archsmith.core.artifacts import ArtifactFolder
from archsmith.core.config import to_config
from archsmith.core.evaluator import Context
from archsmith.core.executor import Completed, Executor, Job, Progress, derive_seed
from archsmith.core.finish import Finishable, measure_of
from archsmith.core.genotype import Genotype, canonical_json
from archsmith.core.space import Space, build, identity
from archsmith.core.trial import Result, TrialState

KEPT_FAILURES = frozenset({"diverged", "parameters"})  # the network's own; the others may be the machine's: tried again


@dataclass(frozen=True)
class TransferProgress:
    """What a transfer tells while it works.

    Args:
        stage: "training" or "testing".
        label: what is being trained, or was.
        done, total: trainings.
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


Watch = Callable[[TransferProgress], None]


@dataclass(frozen=True)
class Training:
    """An evaluator as jobs run it: it keeps the weights."""

    evaluator: Finishable

    def evaluate(self, space: Space, genotype: Genotype, context: Context) -> Result:
        from archsmith.nn.seeding import seed_torch

        seed_torch(derive_seed(context.seed, "init"))
        child = build(space, genotype, self.evaluator.task())
        result = self.evaluator.train(child, context)
        return replace(result, artifact=context.checkpoint(child.model.state_dict()))


@dataclass(frozen=True)
class Wanted:
    """A training that is wanted: a network, called so, from the seed of that index."""

    name: str
    network: OneCell
    index: int
    seed: int

    @property
    def label(self) -> str:
        """What a person is told is being trained."""
        return f"{self.name}, seed {self.index + 1}"


@dataclass(frozen=True)
class Trained:
    """A training that ended; `reward` is None when it failed, and then `result.failure` says why."""

    wanted: Wanted
    result: Result
    reward: float | None


@dataclass
class Trainings:
    """Runs what is wanted, side by side as the executor has it, and nothing that is on record."""

    record: Record
    evaluator: Finishable
    executor: Executor
    watch: Watch | None = None

    _data: str = field(init=False)

    def __post_init__(self) -> None:
        self._data = str(self.evaluator.fingerprint())  # type: ignore[attr-defined]

    def train(self, wanted: Sequence[Wanted]) -> list[Trained]:
        """The outcomes, in the order wanted. A training that fails is an outcome; Ctrl-C is raised."""
        found: dict[int, Trained] = {}
        for i, w in enumerate(wanted):
            recorded = self._recorded(w)
            if recorded is not None:
                found[i] = recorded
            else:
                self.executor.submit(
                    Job(
                        trial=i,
                        space=w.network,
                        genotype=w.network.genotype,
                        evaluator=Training(self.evaluator),
                        reward=self.evaluator.default_reward,  # type: ignore[attr-defined]
                        seed=w.seed,
                        artifacts=self.record.artifacts,
                    )
                )
        self._tell("", len(found), len(wanted))

        def progress(event: Progress) -> None:
            label, epochs = wanted[event.trial].label, self.evaluator.epochs
            self._tell(label, len(found), len(wanted), epoch=event.epoch, epochs=epochs)

        if hasattr(self.executor, "on_progress"):  # an executor that trains in this process tells of epochs as they end
            self.executor.on_progress = progress
        while len(found) < len(wanted):
            for event in self.executor.completed():
                if isinstance(event, Completed):
                    done = Trained(
                        wanted[event.trial], event.result, event.reward if event.state is TrialState.DONE else None
                    )
                    found[event.trial] = done
                    self._keep(done)
                    self._tell(done.wanted.label, len(found), len(wanted), ended=done)
                elif isinstance(event, Progress):
                    progress(event)
        return [found[i] for i in range(len(wanted))]

    def key(self, wanted: Wanted) -> str:
        """A digest of all that decides what comes of a training."""
        asked = {
            "network": identity(wanted.network),
            "evaluator": {**to_config(self.evaluator), "data": self._data},  # wherever it is kept
            "seed": wanted.seed,
        }
        return digest_of(asked)

    def _recorded(self, wanted: Wanted) -> Trained | None:
        document = self.record.get(f"training/{self.key(wanted)}")
        if document is None:
            return None
        result = Result.from_json(document["result"])
        if result.failure is not None:
            return Trained(wanted, result, None) if result.failure.reason in KEPT_FAILURES else None
        if result.artifact is None or result.artifact not in ArtifactFolder(self.record.artifacts):
            return None  # the weights are gone: the training is deterministic, and is done again
        return Trained(wanted, result, document["reward"])

    def _keep(self, trained: Trained) -> None:
        document: dict[str, Any] = {
            "label": trained.wanted.label,
            "hidden": trained.wanted.network.hidden,
            "seed": trained.wanted.seed,
            "reward": trained.reward,
            "result": trained.result.to_json(),
        }
        self.record.put(f"training/{self.key(trained.wanted)}", document)

    def _tell(
        self, label: str, done: int, total: int, epoch: int = 0, epochs: int = 0, ended: Trained | None = None
    ) -> None:
        if self.watch is not None:
            reward = ended.reward if ended is not None else None
            score = measure_of(self.evaluator).said(ended.result.metrics) if ended is not None else ""
            self.watch(TransferProgress("training", label, done, total, epoch, epochs, reward, score))


def digest_of(value: Any) -> str:
    """A short digest of plain JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:16]
