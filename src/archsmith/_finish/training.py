"""The trainings of a finish, each a job of an executor and each recorded as it ends.

A training is known by a digest of all that decides its outcome, so that a finish that was killed goes on where it
stopped, and one with a wider grid repeats nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from archsmith._search import Run
from archsmith._search.writing import writing as open_for_writing
from archsmith.core.child import AnyTask, Child, Task
from archsmith.core.config import to_config
from archsmith.core.evaluator import Context, Limits
from archsmith.core.executor import Completed, Executor, Job, Progress, Reward, derive_seed
from archsmith.core.finish import Finishable, measure_of
from archsmith.core.genotype import Architecture, Genotype, canonical_json
from archsmith.core.space import Space, build, identity
from archsmith.core.store import RunWriter
from archsmith.core.trial import Result, TrialState
from archsmith.core.walk import Choose

if TYPE_CHECKING:
    import torch

KEPT_FAILURES = frozenset({"diverged", "parameters"})  # the child's own; the others may be the machine's: tried again


class HandDesigned:
    """The network that a person would have picked, as a space in which there is one thing to choose.

    Not a dataclass, so that the evaluator is no part of its identity.

    Args:
        parameters: about how many it shall have.
        by: the evaluator, whose `baseline(parameters, task)` is asked where it has one.
    """

    def __init__(self, parameters: int, by: Finishable) -> None:
        self.parameters = parameters
        self.by = by

    def architecture(self, choose: Choose) -> Architecture:
        return {"network": "hand-designed", "parameters": choose("parameters", (self.parameters,))}

    def build(self, architecture: Architecture, task: AnyTask) -> Any:
        """The evaluator's own baseline, or the residual network for images (He et al. 2016)."""
        own = getattr(self.by, "baseline", None)
        if own is not None:
            return own(self.parameters, task)
        from archsmith.nn.resnet import resnet_of_size

        assert isinstance(task, Task)
        return resnet_of_size(self.parameters, task)

    @property
    def genotype(self) -> Genotype:
        """The only one."""
        return Genotype(identity(self), {"parameters": self.parameters})


@dataclass(frozen=True)
class Network:
    """What is trained: a genotype of a space."""

    space: Space
    genotype: Genotype

    def build(self, evaluator: Finishable) -> Child:
        """The child for the evaluator's task, initialised from torch's current seed."""
        return build(self.space, self.genotype, evaluator.task())


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
        child = Network(space, genotype).build(self.evaluator)
        if child.learning_rate is not None:
            child = replace(child, learning_rate=child.learning_rate * self.factor)
        result = self.evaluator.train(child, context, all_data=self.all_data)
        if self.keep:
            result = replace(result, artifact=context.checkpoint(child.model.state_dict()))
        return result


@dataclass(frozen=True)
class Wanted:
    """A training that is wanted.

    Args:
        label: what a person is told is being trained.
        network: what is trained.
        settings: fields of the evaluator to replace.
        epochs: for how long.
        seed: the child's.
        all_data, keep: as in `Training`.
    """

    label: str
    network: Network
    settings: Mapping[str, Any]
    epochs: int
    seed: int
    all_data: bool = False
    keep: bool = False


@dataclass(frozen=True)
class Trained:
    """A training that ended; `reward` is None when it failed, and then `result.failure` says why."""

    wanted: Wanted
    result: Result
    reward: float | None


@dataclass(frozen=True)
class FinishProgress:
    """What a finish tells while it works.

    Args:
        stage: "choosing", "tuning", "final training" or "testing".
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


Watch = Callable[[FinishProgress], None]


def writing(run: Run) -> AbstractContextManager[RunWriter]:
    """The run open for writing a document of its finish; see `archsmith._search.writing`."""
    return open_for_writing(run, "finish it when its search, or the other finish, has ended")


@dataclass
class Trainings:
    """Runs what is wanted, side by side as the executor has it, and never the same twice."""

    run: Run
    evaluator: Finishable
    reward: Reward
    executor: Executor
    limits: Limits
    watch: Watch | None = None

    _submitted: int = field(default=0, init=False)

    def train(self, stage: str, wanted: Sequence[Wanted]) -> list[Trained]:
        """The outcomes, in the order wanted. A training that fails is an outcome; Ctrl-C is raised."""
        found: dict[int, Trained] = {}
        keys = [self.key(w) for w in wanted]
        running: dict[int, int] = {}
        twins: dict[int, int] = {}
        first: dict[str, int] = {}
        for i, (w, key) in enumerate(zip(wanted, keys, strict=True)):
            recorded = self._recorded(w, key)
            if recorded is not None:
                found[i] = recorded
            elif key in first:
                twins[i] = first[key]
            else:
                first[key] = i
                running[self._submit(w)] = i
        self._tell(stage, "", len(found), len(wanted))
        if hasattr(self.executor, "on_progress"):  # an executor that trains in this process tells of epochs as they end
            self.executor.on_progress = lambda event: self._progress(event, stage, wanted, running, len(found))
        while running:
            for event in self.executor.completed():
                if isinstance(event, Completed):
                    i = running.pop(event.trial)
                    found[i] = self._record(wanted[i], keys[i], event)
                    self._tell(stage, wanted[i].label, len(found), len(wanted), ended=found[i])
                elif isinstance(event, Progress):
                    self._progress(event, stage, wanted, running, len(found))
        found |= {i: replace(found[twin], wanted=wanted[i]) for i, twin in twins.items()}
        return [found[i] for i in range(len(wanted))]

    def key(self, wanted: Wanted) -> str:
        """A digest of all that decides what comes of a training."""
        config = to_config(self.set(wanted))
        fingerprint = self.run.config.get("data")
        if fingerprint is not None:
            config = {**config, "data": fingerprint}  # wherever it is kept
        return hashlib.sha256(
            canonical_json(
                {
                    "genotype": wanted.network.genotype.to_json(),
                    "evaluator": config,
                    "factor": self._factor(wanted),
                    "seed": wanted.seed,
                    "all_data": wanted.all_data,
                    "keep": wanted.keep,
                }
            ).encode()
        ).hexdigest()[:16]

    def set(self, wanted: Wanted) -> Finishable:
        """The evaluator with the settings of a training."""
        changed: Finishable = replace(self.evaluator, **{**wanted.settings, "epochs": wanted.epochs})  # type: ignore[type-var]
        return changed

    def _factor(self, wanted: Wanted) -> float:
        own = getattr(self.evaluator, "learning_rate", None)
        return float(wanted.settings["learning_rate"] / own) if own and "learning_rate" in wanted.settings else 1.0

    def _submit(self, wanted: Wanted) -> int:
        number = self._submitted
        self._submitted += 1
        training = Training(self.set(wanted), self._factor(wanted), wanted.all_data, wanted.keep)
        self.executor.submit(
            Job(
                trial=number,
                space=wanted.network.space,
                genotype=wanted.network.genotype,
                evaluator=training,
                reward=_nothing if wanted.all_data else self.reward,
                seed=wanted.seed,
                limits=self.limits,
                artifacts=self.run.store.artifacts,
            )
        )
        return number

    def _recorded(self, wanted: Wanted, key: str) -> Trained | None:
        document = self.run.reader.document(f"finish/{key}")
        if document is None:
            return None
        result = Result.from_json(document["result"])
        if result.failure is not None and result.failure.reason not in KEPT_FAILURES:
            return None
        if wanted.keep and result.failure is None and not self._is_kept(result.artifact):
            return None  # the weights were collected: the training is deterministic, and is done again
        return Trained(wanted, result, document["reward"])

    def _is_kept(self, digest: str | None) -> bool:
        from archsmith.core.artifacts import ArtifactFolder

        folder = self.run.store.artifacts
        return digest is not None and folder is not None and digest in ArtifactFolder(folder)

    def _record(self, wanted: Wanted, key: str, event: Completed) -> Trained:
        trained = Trained(wanted, event.result, event.reward if event.state is TrialState.DONE else None)
        document = {
            "label": wanted.label,
            "genotype": wanted.network.genotype.to_json(),
            "settings": dict(wanted.settings),
            "epochs": wanted.epochs,
            "seed": wanted.seed,
            "all_data": wanted.all_data,
            "reward": trained.reward,
            "result": event.result.to_json(),
        }
        with writing(self.run) as writer:
            writer.put_document(f"finish/{key}", document)
        return trained

    def _progress(
        self, event: Progress, stage: str, wanted: Sequence[Wanted], running: Mapping[int, int], done: int
    ) -> None:
        if event.trial in running:
            w = wanted[running[event.trial]]
            self._tell(stage, w.label, done, len(wanted), epoch=event.epoch, epochs=w.epochs)

    def _tell(
        self,
        stage: str,
        label: str,
        done: int,
        total: int,
        *,
        epoch: int = 0,
        epochs: int = 0,
        ended: Trained | None = None,
    ) -> None:
        if self.watch is not None:
            reward = ended.reward if ended is not None else None
            score = measure_of(self.evaluator).said(ended.result.metrics) if ended is not None else ""
            self.watch(FinishProgress(stage, label, done, total, epoch, epochs, reward, score))


def trained_module(trained: Trained, evaluator: Finishable, artifacts: str) -> torch.nn.Module:
    """The module of a final training with its weights, in evaluation mode on the CPU. `evaluator` has its settings.

    Raises StoreError when the weights are gone.
    """
    from archsmith.core.artifacts import ArtifactFolder
    from archsmith.nn.batch_norm import set_epsilon

    assert trained.result.artifact is not None
    module = trained.wanted.network.build(evaluator).model
    module.load_state_dict(ArtifactFolder(artifacts).get(trained.result.artifact))
    epsilon = getattr(evaluator, "batch_norm_epsilon", None)
    return (module if epsilon is None else set_epsilon(module, epsilon)).eval()


def _nothing(result: Result) -> float:
    """The reward of a training that leaves nothing to validate with."""
    return 0.0
