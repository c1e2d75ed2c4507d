"""The trainings of a finish: the settings of each, and what it is recorded under."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from archsmith._search import Run
from archsmith._search.record import RunRecord
from archsmith._search.trainings import Carrier, Training, Watch, Work, digest_of
from archsmith._search.writing import writing as open_for_writing
from archsmith.core.child import Child
from archsmith.core.config import to_config
from archsmith.core.evaluator import Limits
from archsmith.core.executor import Executor, Job, Reward
from archsmith.core.finish import Finishable, measure_of
from archsmith.core.genotype import Genotype
from archsmith.core.space import Space, build_decided
from archsmith.core.store import RunWriter
from archsmith.core.trial import Result

if TYPE_CHECKING:
    import torch

_OTHERWISE = "finish it when its search, or the other finish, has ended"


@dataclass(frozen=True)
class Network:
    """What is trained: a genotype of a space."""

    space: Space
    genotype: Genotype

    def build(self, evaluator: Finishable) -> Child:
        """The child for the evaluator, initialised from torch's current seed."""
        return build_decided(self.space, self.genotype, evaluator)[1]


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
        resume: the result of an earlier training whose state it goes on from; None: it begins at its first epoch.
        seconds: its length by the clock, where that is no part of what it is recorded under: a killed call that goes on later
            has other times, and uses what was trained.
    """

    label: str
    network: Network
    settings: Mapping[str, Any]
    epochs: int
    seed: int
    all_data: bool = False
    keep: bool = False
    resume: Result | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Trained:
    """A training that ended; `reward` is None when it failed, and then `result.failure` says why."""

    wanted: Wanted
    result: Result
    reward: float | None


def writing(run: Run) -> AbstractContextManager[RunWriter]:
    """The run open for writing a document of its finish; see `archsmith._search.writing`."""
    return open_for_writing(run, _OTHERWISE)


@dataclass
class Trainings:
    """Runs what is wanted, side by side as the executor has it, and never the same twice."""

    run: Run
    evaluator: Finishable
    reward: Reward
    executor: Executor
    limits: Limits
    watch: Watch | None = None

    _carrier: Carrier = field(init=False)

    def __post_init__(self) -> None:
        record = RunRecord(self.run, "finish", _OTHERWISE)
        self._carrier = Carrier(record, self.executor, measure_of(self.evaluator), self.watch)

    def train(self, stage: str, wanted: Sequence[Wanted]) -> list[Trained]:
        """The outcomes, in the order wanted. A training that fails is an outcome; Ctrl-C is raised."""
        outcomes = self._carrier.carry_out(stage, [self._work(w) for w in wanted])
        return [Trained(w, o.result, o.reward) for w, o in zip(wanted, outcomes, strict=True)]

    def key(self, wanted: Wanted) -> str:
        """A digest of all that decides what comes of a training."""
        config = to_config(self.set(replace(wanted, seconds=None)))
        fingerprint = self.run.config.get("data")
        if fingerprint is not None:
            config = {**config, "data": fingerprint}  # wherever it is kept
        resumed = {} if wanted.resume is None else {"resume": wanted.resume.checkpoint}
        return digest_of(
            {
                "genotype": wanted.network.genotype.to_json(),
                "evaluator": config,
                "factor": self._factor(wanted),
                "seed": wanted.seed,
                "all_data": wanted.all_data,
                "keep": wanted.keep,
                **resumed,
            }
        )

    def set(self, wanted: Wanted) -> Finishable:
        """The evaluator with the settings of a training."""
        timed = {} if wanted.seconds is None else {"seconds": wanted.seconds}
        changed: Finishable = replace(self.evaluator, **{**wanted.settings, "epochs": wanted.epochs, **timed})  # type: ignore[type-var]
        return changed

    def _factor(self, wanted: Wanted) -> float:
        own = getattr(self.evaluator, "learning_rate", None)
        return float(wanted.settings["learning_rate"] / own) if own and "learning_rate" in wanted.settings else 1.0

    def _work(self, wanted: Wanted) -> Work:
        genotype = wanted.network.genotype
        job = Job(
            trial=0,
            space=wanted.network.space,
            genotype=genotype,
            evaluator=Training(self.set(wanted), self._factor(wanted), wanted.all_data, wanted.keep),
            reward=_nothing if wanted.all_data else self.reward,
            seed=wanted.seed,
            limits=self.limits,
            resume=wanted.resume,
        )
        about = {
            "genotype": genotype.to_json(),
            "settings": dict(wanted.settings),
            "epochs": wanted.epochs,
            "all_data": wanted.all_data,
        }
        return Work(wanted.label, self.key(wanted), job, wanted.epochs, wanted.keep, about)


def trained_module(trained: Trained, evaluator: Finishable, artifacts: str) -> tuple[Finishable, torch.nn.Module]:
    """The module of a final training with its weights, in evaluation mode on the CPU, and the evaluator as its genotype decides
    it. `evaluator` has the settings of the training.

    Raises StoreError when the weights are gone.
    """
    from archsmith.core.artifacts import open_artifacts
    from archsmith.nn.batch_norm import set_epsilon

    assert trained.result.artifact is not None
    network = trained.wanted.network
    evaluator, child = build_decided(network.space, network.genotype, evaluator)
    module = child.model
    module.load_state_dict(open_artifacts(artifacts).get(trained.result.artifact))
    epsilon = getattr(evaluator, "batch_norm_epsilon", None)
    return evaluator, (module if epsilon is None else set_epsilon(module, epsilon)).eval()


def _nothing(result: Result) -> float:
    """The reward of a training that leaves nothing to validate with."""
    return 0.0
