"""A network's classifier by logistic regression on its features (Kornblith, Shlens and Le 2019, "Do Better ImageNet Models
Transfer Better?"): a linear probe. Fine-tuning may begin with it (Kumar et al. 2022, "Fine-Tuning can Distort Pretrained Features
and Underperform Out-of-Distribution").

Features are what the classifier is given, of pictures as they are tested, each with mean 0 and deviation 1 over the training
pictures. The regression is multinomial, by L-BFGS, with L2 alone. Its strength is the one that classifies most validation
pictures correctly; of equals, the strongest. The paper tries 45 strengths and then learns from the validation pictures as well;
here these stay out.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from archsmith.core.evaluator import Context
from archsmith.nn.augment import as_floats, centre_crop
from archsmith.nn.batch_norm import set_epsilon
from archsmith.nn.classifier import reading_features
from archsmith.training.image_batches import held_bytes

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

    from archsmith.training.image_classification import ImageClassification

STRENGTHS = tuple(10.0**k for k in range(6, -6, -1))  # of L2, strongest first
_BATCH = 128
_ITERATIONS = 500


@dataclass(frozen=True, eq=False)
class LinearProbe:
    """A classifier that logistic regression found.

    Args:
        weight, bias: of a linear layer over the features as they are, [classes, features] and [classes].
        strength: of L2.
        accuracy, train_accuracy: on validation and on training data.
        loss, train_loss: the mean cross-entropy there.
        pictures: how many training pictures it was fitted to.
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    strength: float
    accuracy: float
    train_accuracy: float
    loss: float
    train_loss: float
    pictures: int


def fit_classifier(
    model: nn.Module,
    layer: nn.Linear,
    evaluator: ImageClassification,
    context: Context,
    *,
    most: int | None = None,
    strengths: Sequence[float] = STRENGTHS,
) -> LinearProbe:
    """Put the logistic regression of a network's features into its classifier.

    The network is left on the context's device, in evaluation mode.

    Args:
        model: the network.
        layer: its classifier.
        evaluator: with the pictures, in `splits()`, and how they are prepared.
        context: checked between batches.
        most: how many training pictures are learned from, and validation pictures looked at, stratified samples; None: all.
        strengths: of L2 that are tried, strongest first.
    """
    from archsmith.data.images import stratified

    splits = evaluator.splits()
    labels = splits.data.labels
    learned, validated = (
        part if most is None or len(part) <= most else stratified(labels, most / len(part), 0, part)[1]
        for part in (splits.train, splits.validation)
    )
    set_epsilon(model, evaluator.batch_norm_epsilon)
    model.to(context.device).eval()
    shape = evaluator.task().input_shape
    train, valid = (
        _features(model, layer, held_bytes(splits, part, (shape[1], shape[2])), evaluator, context)
        for part in (learned, validated)
    )
    fit = logistic_regression(train, labels[learned], valid, labels[validated], context, strengths)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(fit.weight))
        layer.bias.copy_(torch.from_numpy(fit.bias))
    return fit


def _features(
    model: nn.Module, layer: nn.Linear, images: torch.Tensor, evaluator: ImageClassification, context: Context
) -> NDArray[np.float64]:
    """The features of images [n, height, width, channels], [n, features], as a test would see them."""
    height, width = images.shape[1:3]
    layout = torch.channels_last if evaluator.channels_last else torch.contiguous_format
    with torch.inference_mode(), reading_features(layer) as found:
        for part in images.split(_BATCH):  # type: ignore[no-untyped-call]
            context.check()
            floats = as_floats(part.to(context.device), whitened=evaluator.whiten, upsample=evaluator.enlargement)
            model(centre_crop(floats, height, width).permute(0, 3, 1, 2).contiguous(memory_format=layout))
        return torch.cat([x.float().cpu() for x in found]).double().numpy()


def logistic_regression(
    train: NDArray[np.float64],
    train_labels: NDArray[np.int64],
    valid: NDArray[np.float64],
    valid_labels: NDArray[np.int64],
    context: Context | None = None,
    strengths: Sequence[float] = STRENGTHS,
) -> LinearProbe:
    """The best by validation over `strengths`; of equals the strongest. Labels are 0 to classes - 1, all in `train`."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    mean, deviation = train.mean(0), train.std(0)
    # A unit that is the same for all images tells nothing, and divided by nearly nothing it would tell anything.
    deviation = np.where(deviation > 1e-7 * (1 + np.abs(mean)), deviation, np.inf)
    scaled_train = (train - mean) / deviation
    scaled_valid = (valid - mean) / deviation
    best: LinearProbe | None = None
    model = LogisticRegression(max_iter=_ITERATIONS, warm_start=True)
    for strength in strengths:
        if context is not None:
            context.check()
        model.set_params(C=1 / strength)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the weakest need not end: validation judges them
            model.fit(scaled_train, train_labels)
        accuracy = float((model.predict(scaled_valid) == valid_labels).mean())
        if best is None or accuracy > best.accuracy:
            weight, bias = model.coef_, model.intercept_
            if len(weight) == 1:  # of two classes it gives the odds of the second
                weight, bias = np.concatenate([0 * weight, weight]), np.concatenate([0 * bias, bias])
            weight = weight / deviation
            best = LinearProbe(
                weight.astype(np.float32),
                (bias - weight @ mean).astype(np.float32),
                strength,
                accuracy,
                float((model.predict(scaled_train) == train_labels).mean()),
                _loss(model, scaled_valid, valid_labels),
                _loss(model, scaled_train, train_labels),
                len(train_labels),
            )
    assert best is not None
    return best


def _loss(model: LogisticRegression, features: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """The mean cross-entropy of a model whose classes are 0 to classes - 1."""
    return float(-model.predict_log_proba(features)[np.arange(len(labels)), labels].mean()) if len(labels) else 0.0
