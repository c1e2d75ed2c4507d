"""What an image job of a transfer does: fine-tunes finished weights, or classifies by their features alone (Kornblith,
Shlens and Le 2019, "Do Better ImageNet Models Transfer Better?"). `training.linear_probe` has the logistic regression, which is
written into the network's classifier, so that it is a network like any other: tested, kept and used so.

Fine-tuning begins with that classifier too (Kumar et al. 2022, "Fine-Tuning can Distort Pretrained Features and Underperform
Out-of-Distribution"). A random one, as the paper has it, takes many steps at a low rate, and meanwhile spoils the features.
"""

from __future__ import annotations

import time
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
    import torch

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
            from archsmith.training.linear_probe import fit_classifier

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
        from archsmith.training.linear_probe import fit_classifier

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
