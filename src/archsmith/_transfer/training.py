"""The trainings of a transfer of a cell, and what each is recorded under."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from archsmith._search.record import Record
from archsmith._search.trainings import Carrier, Training, Watch, Work, digest_of
from archsmith._transfer.cell import OneCell
from archsmith.core.config import to_config
from archsmith.core.executor import Executor, Job
from archsmith.core.finish import Finishable, measure_of
from archsmith.core.space import identity
from archsmith.core.trial import Result


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
        carrier = Carrier(self.record, self.executor, measure_of(self.evaluator), self.watch)
        outcomes = carrier.carry_out("training", [self._work(w) for w in wanted])
        return [Trained(w, o.result, o.reward) for w, o in zip(wanted, outcomes, strict=True)]

    def key(self, wanted: Wanted) -> str:
        """A digest of all that decides what comes of a training."""
        asked = {
            "network": identity(wanted.network),
            "evaluator": {**to_config(self.evaluator), "data": self._data},  # wherever it is kept
            "seed": wanted.seed,
        }
        return digest_of(asked)

    def _work(self, wanted: Wanted) -> Work:
        job = Job(
            trial=0,
            space=wanted.network,
            genotype=wanted.network.genotype,
            evaluator=Training(self.evaluator, keep=True),
            reward=self.evaluator.default_reward,  # type: ignore[attr-defined]
            seed=wanted.seed,
        )
        about = {"hidden": wanted.network.hidden}
        key = f"training/{self.key(wanted)}"
        return Work(wanted.label, key, job, self.evaluator.epochs, keep=True, about=about)
