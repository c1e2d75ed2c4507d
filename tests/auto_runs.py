"""Runs of real trainings with what `auto` would record of them, for tests of the page and of the command line."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.neighbors import NearestCentroid

import archsmith as smith
from archsmith._page.pictures import data_address
from archsmith._search.run import Run
from archsmith.metrics.assessment import assess, calibration_report, paired_counts, score
from archsmith.metrics.outcome import (
    DOCUMENT,
    AutoOutcome,
    DeliveredNetwork,
    DuplicatePair,
    OtherNetwork,
    Stage,
    SuspectedLabel,
)
from archsmith.metrics.predictions import Predictions
from archsmith.metrics.temperature import fit_temperature, with_temperature


def searched(folder: Path, data: Any = "digits", trials: int = 3) -> tuple[Run, AutoOutcome]:
    """A search of seconds with its best network delivered, its worst as the baseline, and everything recorded."""
    store = f"sqlite:///{folder / 'runs.db'}"
    evaluator = replace(smith.training.ImageClassification.desk(data, epochs=6), keep_weights=True)
    small, wide = smith.spaces.ConvChain(layers=1, filters=(16,)), smith.spaces.ConvChain(layers=2, filters=(16, 24))
    by_hand_run = smith.search(small, evaluator, trials=1, store=store, name="by-hand")
    run = smith.search(wide, evaluator, searcher=smith.searchers.Random(), trials=trials, store=store, name="digits")
    best, hand = run.best, by_hand_run.best
    assert best is not None
    assert hand is not None
    splits = run.evaluator.splits()
    names = splits.data.class_names
    validation_images = splits.data.images[splits.validation], splits.data.labels[splits.validation]
    test_images = splits.test_images, splits.test_labels
    ours, theirs = predictor(run, folder / "model"), predictor(by_hand_run, folder / "by-hand")
    validation, raw = ours(*validation_images), ours(*test_images)
    temperature = fit_temperature(validation)
    test = replace(raw, probabilities=with_temperature(raw.probabilities, temperature))
    by_hand = theirs(*test_images)
    address = lambda k: data_address(test_images[0][k])  # noqa: E731
    twins = closest(test_images[0])
    assert best.result is not None
    assert hand.result is not None
    outcome = AutoOutcome(
        delivered=DeliveredNetwork(
            "found",
            "a chain of two convolutions",
            f"continued from trial {best.number}",
            best.result.cost.seconds,
            best.result.cost.epochs,
            score(validation),
            score(test),
            int(best.result.metrics["parameters"]),
            sum(file.stat().st_size for file in (folder / "model").iterdir()),
            0.31,
            8,
            best.number,
        ),
        baseline=OtherNetwork(
            "one convolution", hand.result.cost.seconds, True, score(theirs(*validation_images)), score(by_hand)
        ),
        assessment=assess(test, names, picture=address),
        paired=paired_counts(test, by_hand),
        stages=(
            Stage("reading", None, 0.4),
            Stage("search", 4.0, sum(t.result.cost.seconds for t in run.trials() if t.result)),
            Stage("final", 2.0, best.result.cost.seconds),
            Stage("closing", 1.0, 0.6),
        ),
        time_budget=10.0,
        children=trials,
        epochs=run.summary.epochs,
        calibration=calibration_report(temperature, raw),
        suspects=suspects(test, names, address),
        suspects_found=5,
        duplicates=(
            DuplicatePair(
                f"{twins[0]}.png",
                f"{twins[1]}.png",
                ("training", "test"),
                False,
                True,
                (address(twins[0]), address(twins[1])),
            ),
        ),
        duplicates_found=1,
        notes=("The final training ended early, since its validation accuracy no longer rose.",),
    )
    record(run, outcome)
    return run, outcome


def record(run: Run, outcome: AutoOutcome) -> None:
    """Put the outcome on record with the run."""
    with closing(run.store.write(run.name)) as writer:
        writer.put_document(DOCUMENT, outcome.to_json())


def predictor(run: Run, folder: Path) -> Any:
    """What gives the predictions of a run's exported network, of images as bytes."""
    model = smith.load(smith.export(run, format="pytorch", path=folder))

    def predict(images: Any, labels: Any) -> Predictions:
        pixels = torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32) / 255)
        return Predictions(
            model.answer(pixels).softmax(1).numpy(), labels, tuple(f"{k:04d}.png" for k in range(len(labels)))
        )

    return predict


def suspects(test: Predictions, names: Any, address: Any) -> tuple[SuspectedLabel, ...]:
    """The items whose own class the network finds least likely."""
    own = test.probabilities[np.arange(len(test)), test.labels]
    return tuple(
        SuspectedLabel(
            test.files[k],
            names[test.labels[k]],
            names[test.predicted[k]],
            float(test.confidence[k]),
            "test",
            address(k),
        )
        for k in np.argsort(own)[:3].tolist()
    )


def closest(images: Any) -> tuple[int, int]:
    """The two images that differ least."""
    flat = images.reshape(len(images), -1).astype(np.float64)
    distances = ((flat[:, None] - flat[None]) ** 2).sum(2)
    distances[np.diag_indices(len(flat))] = np.inf
    first, second = np.unravel_index(distances.argmin(), distances.shape)
    return int(first), int(second)


def of_pairs(kept: int = 100, *, uneven: bool = False) -> AutoOutcome:
    """Two classifiers of pairs of digits, 10 x 10 classes of which `kept` are kept, and their test."""
    images, digits = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    left, right = rng.integers(0, len(images), (2, 9000))
    pairs, labels = np.hstack([images[left], images[right]]), 10 * digits[left] + digits[right]
    there = labels < kept
    if uneven:
        there &= (labels > 0) | (rng.random(len(labels)) < 0.3)
    pairs, labels = pairs[there] + rng.normal(0, 2, (there.sum(), pairs.shape[1])), labels[there]
    half = len(labels) // 2
    made = []
    for model in (LinearDiscriminantAnalysis(), NearestCentroid()):
        model.fit(pairs[:half], labels[:half])
        shares = (
            model.predict_proba(pairs[half:])
            if isinstance(model, LinearDiscriminantAnalysis)
            else np.eye(kept)[model.predict(pairs[half:])]
        )
        made.append(Predictions(shares, labels[half:]))
    test, by_hand = made
    return AutoOutcome(
        DeliveredNetwork(
            "found", "linear discriminant analysis", "from the beginning", 0.2, 1, None, score(test), 12_800
        ),
        OtherNetwork("nearest centroid", 0.2, True, None, score(by_hand)),
        assessment=assess(test, [f"digits {k // 10} and {k % 10}" for k in range(kept)]),
        paired=paired_counts(test, by_hand),
        calibration=calibration_report(fit_temperature(test), test),
    )
