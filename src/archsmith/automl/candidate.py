"""A network of `auto`'s search, as far as it was trained."""

from __future__ import annotations

from dataclasses import dataclass, replace

from archsmith._finish.contenders import Contender
from archsmith._finish.training import Network, Trained, Wanted
from archsmith._search import Run
from archsmith.automl.plan import MAX_EPOCHS
from archsmith.core.artifacts import open_artifacts
from archsmith.core.genotype import Genotype
from archsmith.core.space import Space
from archsmith.core.trial import Result, Trial


@dataclass(frozen=True)
class Candidate:
    """A network, as far as it was trained.

    Args:
        trial: which trial of the search it is; None if the search has not trained it.
        trained: its last training.
    """

    trial: Trial | None
    trained: Trained

    @classmethod
    def searched(cls, run: Run, space: Space, trial: Trial) -> Candidate:
        """A trial as the search left it. One whose checkpoint is gone begins anew."""
        assert trial.result is not None
        assert run.store.artifacts is not None
        result, wanted = trial.result, Wanted("as searched", Network(space, trial.genotype), {}, MAX_EPOCHS, 0)
        if result.checkpoint is not None and result.checkpoint not in open_artifacts(run.store.artifacts):
            result = replace(result, checkpoint=None)
        return cls(trial, Trained(wanted, result, trial.reward))

    @classmethod
    def untrained(cls, space: Space, genotype: Genotype) -> Candidate:
        """A network that was not trained yet."""
        return cls(None, Trained(Wanted("untrained", Network(space, genotype), {}, MAX_EPOCHS, 0), Result(), None))

    @property
    def name(self) -> str:
        """What a person is told that it is."""
        return "a known network" if self.trial is None else f"trial {self.trial.number}"

    @property
    def goes_on(self) -> bool:
        """Whether its training can go on from where it stopped."""
        return self.trained.result.checkpoint is not None

    @property
    def accuracy(self) -> float:
        """On the validation pictures, at the end of its training."""
        return final_accuracy(self.trained.result)

    @property
    def genotype(self) -> Genotype:
        """What it is built from."""
        return self.trained.wanted.network.genotype

    @property
    def seconds(self) -> float:
        """How long it was trained."""
        return self.trained.result.cost.seconds + self.trained.result.metrics.get("seconds_before", 0.0)


def contender_of(name: str, origin: str, trained: Trained) -> Contender | None:
    """A network that was trained once, as the test takes it; None if its training failed."""
    if trained.reward is None:
        return None
    network = trained.wanted.network
    return Contender(
        name,
        [(origin, network)],
        origin=origin,
        network=network,
        settings=trained.wanted.settings,
        parameters=int(trained.result.metrics["parameters"]),
        finals=[trained],
    )


def validation_accuracy(contender: Contender) -> float:
    """The validation accuracy of the weights of a network that was trained once."""
    (trained,) = contender.finals
    return final_accuracy(trained.result)


def final_accuracy(result: Result | None) -> float:
    """The validation accuracy at the end of a training."""
    return 0.0 if result is None else result.metrics.get("final_accuracy", 0.0)
