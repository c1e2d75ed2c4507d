"""What an image job of a transfer does: fine-tunes finished weights, or classifies by their features alone (Kornblith,
Shlens and Le 2019, "Do Better ImageNet Models Transfer Better?").

Fixed features are what the classifier was given, of images as they are tested (no crops, no mirroring), each with mean 0
and deviation 1 over the training images. Multinomial logistic regression by L-BFGS, L2 alone; its strength is the
one of twelve that classifies most validation images rightly, of equals the strongest. The paper tries 45 and then learns
from the validation images as well; here they stay out, as in the other ways. The result is written into the network's
classifier, so that it is a network like any other: tested, kept and used so.

Fine-tuning begins with that classifier too (Kumar et al. 2022, "Fine-Tuning can Distort Pretrained Features and Underperform
Out-of-Distribution"). A random one, as the paper has it, takes many steps at a low rate, and meanwhile spoils the features.
"""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from archsmith.core.child import Task
from archsmith.core.errors import StoreError
from archsmith.core.evaluator import Context
from archsmith.core.executor import derive_seed
from archsmith.core.finish import Finishable
from archsmith.core.genotype import Genotype
from archsmith.core.space import Space, build
from archsmith.core.trial import Cost, Result
from archsmith.training import ImageClassification

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

STRENGTHS = tuple(10.0**k for k in range(6, -6, -1))  # of L2, strongest first
_BATCH = 500
_ITERATIONS = 500
START = 0  # what a job calls the weights that it begins with


@dataclass(frozen=True)
class FineTuning:
    """Trains all of a network from finished weights, its classifier from that of fixed features where these can be read.

    Args:
        evaluator: with the settings of this training in its fields.
        factor: multiplies the learning rate of a child that decides its own.
    """

    evaluator: Finishable
    factor: float = 1.0

    def evaluate(self, space: Space, genotype: Genotype, context: Context) -> Result:
        from archsmith.nn.seeding import seed_torch

        seed_torch(derive_seed(context.seed, "init"))
        child = build(space, genotype, self.evaluator.task())
        layer = _begin(child.model, self.evaluator, context)
        began = time.perf_counter()
        if isinstance(
            self.evaluator, ImageClassification
        ):  # others tell neither their images nor how they prepare them
            fit_classifier(child.model, layer, self.evaluator, context)
            child.model.train()
        spent = time.perf_counter() - began
        if child.learning_rate is not None:
            child = replace(child, learning_rate=child.learning_rate * self.factor)
        result = self.evaluator.train(child, context)
        result = replace(result, cost=Cost(result.cost.seconds + spent, result.cost.epochs))
        return replace(result, artifact=context.checkpoint(child.model.state_dict()))


@dataclass(frozen=True)
class Features:
    """Trains nothing but the classifier, by logistic regression on fixed features.

    Args:
        evaluator: whose images they are, in `splits()`, and how they are prepared; an `ImageClassification`.
    """

    evaluator: Any

    def evaluate(self, space: Space, genotype: Genotype, context: Context) -> Result:
        began = time.perf_counter()
        model = build(space, genotype, self.evaluator.task()).model
        layer = _begin(model, self.evaluator, context)
        fit = fit_classifier(model, layer, self.evaluator, context)
        metrics = {
            "accuracy": fit.accuracy,
            "train_accuracy": fit.train_accuracy,
            "l2": fit.strength,
            "features": float(layer.in_features),
        }
        cost = Cost(seconds=time.perf_counter() - began, epochs=0)
        return Result(metrics, (), cost, artifact=context.checkpoint(model.to("cpu").state_dict()))


def fit_classifier(model: torch.nn.Module, layer: torch.nn.Linear, evaluator: Any, context: Context) -> Fit:
    """Put the logistic regression of a network's features into its classifier; the network is left on the context's
    device, in evaluation mode."""
    import torch

    from archsmith.nn.batch_norm import set_epsilon
    from archsmith.training.image_batches import held_bytes

    splits = evaluator.splits()
    set_epsilon(model, evaluator.batch_norm_epsilon)
    model.to(context.device).eval()
    shape = evaluator.task().input_shape
    train, valid = (
        _read(model, layer, held_bytes(splits, part, (shape[1], shape[2])).numpy(), evaluator, context)
        for part in (splits.train, splits.validation)
    )
    labels = splits.data.labels
    fit = logistic_regression(train, labels[splits.train], valid, labels[splits.validation], context)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(fit.weight))
        layer.bias.copy_(torch.from_numpy(fit.bias))
    return fit


def _read(
    model: torch.nn.Module, layer: torch.nn.Linear, images: NDArray[np.uint8], evaluator: Any, context: Context
) -> NDArray[np.float64]:
    """The features of images [n, height, width, channels], [n, features], as a test would see them."""
    import torch

    from archsmith.nn.augment import as_floats, centre_crop
    from archsmith.nn.classifier import reading_features

    height, width = images.shape[1:3]
    with torch.inference_mode(), reading_features(layer) as found:
        for start in range(0, len(images), _BATCH):
            context.check()
            part = torch.from_numpy(images[start : start + _BATCH]).to(context.device)
            floats = as_floats(part, whitened=evaluator.whiten, upsample=evaluator.upsample)
            model(centre_crop(floats, height, width).permute(0, 3, 1, 2))
        return torch.cat([x.float().cpu() for x in found]).double().numpy()


@dataclass(frozen=True, eq=False)
class Fit:
    """A classifier that logistic regression found.

    Args:
        weight, bias: of a linear layer over the features as they are, [classes, features] and [classes].
        strength: of L2.
        accuracy, train_accuracy: on validation and on training data.
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    strength: float
    accuracy: float
    train_accuracy: float


def logistic_regression(
    train: NDArray[np.float64],
    train_labels: NDArray[np.int64],
    valid: NDArray[np.float64],
    valid_labels: NDArray[np.int64],
    context: Context | None = None,
) -> Fit:
    """The best by validation over `STRENGTHS`; of equals the strongest. Labels are 0 to classes - 1, all in `train`."""
    import numpy as np
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    mean, deviation = train.mean(0), train.std(0)
    # A unit that is the same for all images tells nothing, and divided by nearly nothing it would tell anything.
    deviation = np.where(deviation > 1e-7 * (1 + np.abs(mean)), deviation, np.inf)
    scaled_train = (train - mean) / deviation
    scaled_valid = (valid - mean) / deviation
    best: Fit | None = None
    model = LogisticRegression(max_iter=_ITERATIONS, warm_start=True)
    for strength in STRENGTHS:
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
            best = Fit(
                weight.astype(np.float32),
                (bias - weight @ mean).astype(np.float32),
                strength,
                accuracy,
                float((model.predict(scaled_train) == train_labels).mean()),
            )
    assert best is not None
    return best


def _begin(model: torch.nn.Module, evaluator: Finishable, context: Context) -> torch.nn.Linear:
    """Load the finished weights; gives the new classifier. Raises StoreError when they are gone."""
    from archsmith.nn.classifier import classifier_of, load_body

    task = evaluator.task()
    assert isinstance(task, Task)
    weights = context.artifact(START)
    if weights is None:
        raise StoreError("the finished weights are gone; finish the run again, or name an exported model")
    name, layer = classifier_of(model, task.input_shape)
    load_body(model, weights, name)
    return layer
