"""What was delivered, measured: predictions, calibration, latency, suspected wrong labels, and where the time went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import nn

from archsmith._page.pictures import data_address
from archsmith._search import Run
from archsmith._search.writing import writing
from archsmith.automl.latency_target import LatencyTarget
from archsmith.automl.latency_target import measured as measured_latency
from archsmith.core.artifacts import open_artifacts
from archsmith.core.genotype import Genotype
from archsmith.core.temperatures import FittedTemperature
from archsmith.executors.run_job import default_device
from archsmith.metrics.assessment import assess, calibration_report, paired_counts, score
from archsmith.metrics.fitted_temperature import fitted_temperature
from archsmith.metrics.label_errors import label_errors
from archsmith.metrics.outcome import (
    BASELINE,
    DOCUMENT,
    FOUND,
    AutoOutcome,
    DeliveredNetwork,
    FasterNetwork,
    OtherNetwork,
    Score,
    Stage,
    SuspectedLabel,
)
from archsmith.metrics.predictions import Predictions
from archsmith.metrics.temperature import log_loss, with_temperature
from archsmith.training import ImageClassification
from archsmith.training.near_duplicates import duplicates_across

MOST_SUSPECTS = 24
_OTHERWISE = "wait for it to end"


@dataclass(frozen=True)
class TrainedNetwork:
    """A network with its weights, after its training.

    Args:
        name: "found", "baseline", or of a faster network what it is called in the finish.
        genotype: what it is built from.
        title: what a person calls it.
        training: how its weights came about.
        model: the module.
        evaluator: with the settings of its training.
        seconds, epochs: its training, that of earlier stages included.
        parameters: how many it has.
        trial: the trial that proposed it; None for the baseline.
    """

    name: str
    genotype: Genotype
    title: str
    training: str
    model: nn.Module
    evaluator: ImageClassification
    seconds: float
    epochs: float
    parameters: int
    trial: int | None = None


@dataclass(frozen=True)
class Measured:
    """The predictions of a network on both splits."""

    network: TrainedNetwork
    validation: Predictions
    test: Predictions

    @classmethod
    def of(cls, network: TrainedNetwork) -> Measured:
        """Predict for both."""
        device = default_device(0)
        predictions = [network.evaluator.predictions(network.model, split, device) for split in ("validation", "test")]
        return cls(network, *predictions)

    @cached_property
    def temperature(self) -> FittedTemperature | None:
        """What its logits are divided by; None if there are too few validation pictures to fit it."""
        return fitted_temperature(self.validation)

    @property
    def score(self) -> Score:
        """On the test pictures."""
        return score(self.test)

    @property
    def chance(self) -> float:
        """The share of the most frequent class among the test pictures."""
        counts = np.bincount(self.test.labels)
        return float(counts.max() / counts.sum()) if len(self.test) else 0.0

    @property
    def metrics(self) -> dict[str, float]:
        """What a test gives: accuracy, loss and count."""
        return {
            "accuracy": self.test.accuracy or 0.0,
            "loss": log_loss(self.test),
            "count": float(len(self.test)),
        }


def record_outcome(
    run: Run,
    measured: Sequence[Measured],
    *,
    stages: Sequence[Stage],
    time_budget: float,
    engine: str,
    target: LatencyTarget | None = None,
    notes: Sequence[str] = (),
) -> AutoOutcome:
    """Write the run's outcome document.

    Args:
        run: the search.
        measured: the delivered network, then the others, of which faster ones are the last.
        stages: the plan of the time, and what became of it.
        time_budget: in seconds.
        engine: what latencies are measured with.
        target: of the delivered network's latency.
        notes: what else a reader should know.
    """
    first, *others = measured
    splits = first.network.evaluator.splits()
    pictures = first.network.evaluator.test_images()
    fitted = first.temperature
    calibration = None
    shown = first.test
    if fitted is not None:
        calibration = calibration_report(fitted.temperature, first.test)
        scaled = with_temperature(first.test.probabilities, fitted.temperature)
        shown = Predictions(scaled, first.test.labels, first.test.files)
    network = first.network
    latency, engine = _latency(network, engine)
    summary = run.summary
    other = next((each for each in others if each.network.name in (FOUND, BASELINE)), None)
    faster = [each for each in others if each.network.name not in (FOUND, BASELINE)]
    compared = None
    if other is not None:
        compared = OtherNetwork(
            name=other.network.title,
            seconds=_seconds_of(other.network, stages),
            equal_time=_seconds_of(other.network, stages) >= 0.95 * _seconds_of(network, stages),
            validation=score(other.validation),
            test=score(other.test),
            parameters=other.network.parameters,
            epochs=other.network.epochs,
        )
    assert run.store.artifacts is not None
    artifacts = open_artifacts(run.store.artifacts)

    def kept(predictions: Predictions) -> str:
        return artifacts.put({k: torch.from_numpy(v.copy()) for k, v in predictions.tensors().items()})

    baseline_delivered = network.name == BASELINE
    names = splits.data.class_names
    suspected = label_errors(first.validation)
    suspects = tuple(
        SuspectedLabel(
            file=first.validation.files[error.index] if first.validation.files else "",
            label=names[error.label],
            likely=names[error.suggested],
            probability=error.suggested_probability,
            split="validation",
            picture=data_address(splits.data.images[splits.validation[error.index]]),
        )
        for error in suspected[:MOST_SUSPECTS]
    )
    duplicates, duplicates_found = duplicates_across(splits, data_address)
    outcome = AutoOutcome(
        delivered=DeliveredNetwork(
            source=network.name,
            name=network.title,
            training=network.training,
            seconds=network.seconds,
            epochs=network.epochs,
            validation=score(first.validation),
            test=score(first.test),
            parameters=network.parameters,
            file_bytes=sum(t.numel() * t.element_size() for t in network.model.state_dict().values()),
            latency=latency,
            size=network.evaluator.task().input_shape[-1],
            trial=network.trial,
            engine=engine,
        ),
        baseline=None if baseline_delivered else compared,
        found=compared if baseline_delivered else None,
        assessment=assess(shown, names, picture=lambda k: data_address(pictures[k])),
        paired=paired_counts(first.test, other.test) if other is not None and not baseline_delivered else None,
        stages=tuple(stages),
        time_budget=time_budget,
        children=sum(summary.counts.values()),
        epochs=summary.epochs + _finishing_epochs(run),
        calibration=calibration,
        suspects=suspects,
        suspects_found=len(suspected),
        duplicates=tuple(duplicates),
        duplicates_found=duplicates_found,
        notes=(*([] if target is None else [target.sentence(latency, engine)]), *notes),
        validation_predictions=kept(first.validation),
        test_predictions=kept(first.test),
        faster=tuple(_faster(each, engine) for each in faster),
        baseline_test_predictions=kept(other.test) if other is not None and not baseline_delivered else None,
    )
    with writing(run, _OTHERWISE) as writer:
        writer.put_document(DOCUMENT, outcome.to_json())
    return outcome


def _latency(network: TrainedNetwork, engine: str) -> tuple[float, str]:
    """Milliseconds for a picture, and what they were measured with."""
    return measured_latency(network.model, network.evaluator.task().input_shape, engine)


def _faster(measured: Measured, engine: str) -> FasterNetwork:
    network = measured.network
    return FasterNetwork(
        network=network.name,
        name=network.title,
        latency=_latency(network, engine)[0],
        size=network.evaluator.task().input_shape[-1],
        parameters=network.parameters,
        validation=score(measured.validation),
        test=score(measured.test),
    )


def _seconds_of(network: TrainedNetwork, stages: Sequence[Stage]) -> float:
    """How long a network was trained; of the found one with all of the search, of which its own beginning is a part."""
    if network.name == BASELINE:
        return network.seconds
    used = {stage.name: stage.used or 0.0 for stage in stages}
    return max(network.seconds, used.get("search", 0.0) + used.get("choosing", 0.0) + used.get("final", 0.0))


def _finishing_epochs(run: Run) -> float:
    """The epochs of all trainings after the search."""
    documents = (run.reader.document(name) for name in run.reader.documents() if name.startswith("finish/"))
    return sum(float(document["result"]["cost"]["epochs"]) for document in documents if document)
