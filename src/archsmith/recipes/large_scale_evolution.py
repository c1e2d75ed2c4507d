"""Large-scale evolution: networks grown from a linear model by mutation and inherited weights (Real et al. 2017).

The result is a trained network: `finish` takes the best by validation as it stands, tests it once, and trains the same
network from newly drawn weights beside it, to show what inheriting was worth.
"""

from __future__ import annotations

from dataclasses import replace

from archsmith.core.budget import Budget
from archsmith.core.evaluator import Limits
from archsmith.core.finish import FinishPlan
from archsmith.recipes.recipe import Recipe
from archsmith.rewards import accuracy
from archsmith.searchers import LargeScaleEvolution
from archsmith.spaces import GrownGraph
from archsmith.training import ImageClassification


def large_scale_evolution_desk() -> Recipe:
    """Minutes on two cores. A population of 10 in place of 1,000 is soon all of one family: the search is shown, not
    what it can do.

    The seed has a convolution already, and its classifier sees means: from a linear model of all pixels, which is good
    on so few images, a first convolution of one channel is a step down that a short search does not come back from.
    """
    return Recipe(
        name="large-scale-evolution-desk",
        summary="5,000 images of Fashion-MNIST, a population of 10 that begins with one convolution, 100 children of "
        "2 epochs with inherited weights, minutes",
        space=GrownGraph(stem=16.0, flatten=False),
        evaluator=replace(
            ImageClassification.desk("fashion-mnist", epochs=2, max_train=5000),
            batch_size=50,
            nesterov=False,
            schedule="constant",
            keep_weights=True,
        ),
        searcher=LargeScaleEvolution(population=10),
        reward=accuracy,
        budget=Budget(trials=100),
        limits=Limits(seconds=60, parameters=1_000_000),
        finish=FinishPlan(epochs=10, seeds=2, trained=True),
    )


def large_scale_evolution() -> Recipe:
    """CIFAR-10: 1,000 individuals, 25,600 steps of 50 images each. The paper used 250 workers (--workers 250).

    25,600 steps are 28.4 epochs of 45,000 images; here 28. The paper's runs ended by the clock, after some ten days, and
    it does not say how many individuals that were: 20,000 is ours. The learning rate is the DNA's and stays.
    """
    return Recipe(
        name="large-scale-evolution",
        summary="CIFAR-10, a population of 1,000 grown from a linear model, 20,000 children of 28 epochs with inherited "
        "weights",
        space=GrownGraph(),
        evaluator=ImageClassification(
            "cifar10",
            epochs=28,
            batch_size=50,
            nesterov=False,
            schedule="constant",
            upsample=1.0,
            pad=0.125,
            keep_weights=True,
        ),
        searcher=LargeScaleEvolution(),
        reward=accuracy,
        budget=Budget(trials=20_000),
        scale="paper",
        finish=FinishPlan(epochs=300, final={"schedule": "step"}, seeds=5, trained=True),
    )
