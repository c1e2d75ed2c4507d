"""Residual networks together with their training recipes, from the networks that a person would pick."""

from __future__ import annotations

from dataclasses import replace

from archsmith.core.budget import Budget
from archsmith.core.evaluator import Limits
from archsmith.core.finish import FinishPlan
from archsmith.recipes.recipe import Recipe
from archsmith.searchers import BayesianOptimization
from archsmith.spaces import Product, ResidualNetwork, TrainingRecipe
from archsmith.spaces.residual_network.known import KNOWN
from archsmith.training import ImageClassification

FIRST = ("resnet10_narrow", "resnet18_narrow")


def residual() -> Recipe:
    """Any pictures: the first two trials are narrow known networks with the "modern" recipe, and the search has to improve on them.

    The evaluator has the same recipe, so that the hand-designed network of the finish is trained with it.
    """
    return Recipe(
        name="residual",
        summary="any image data set (--data), residual networks of 64 pixels with their training recipes, from known networks",
        space=Product(ResidualNetwork.desk(), TrainingRecipe.desk()),
        evaluator=replace(
            ImageClassification.desk("fashion-mnist", epochs=8, max_train=5000),
            size=64,
            source_size=96,
            crop="resized",
            pad=0.0,
            colour=0.3,
            label_smoothing=0.1,
            weight_decay=5e-4,
            decay_norms=False,
            average=0.998,
            schedule="cosine",
            warmup_share=0.15,
        ),
        searcher=BayesianOptimization(),
        budget=Budget(trials=24),
        limits=Limits(seconds=1200),
        first=tuple(KNOWN[name] for name in FIRST),
        finish=FinishPlan(top=2, scale={"learning_rate": (0.5, 2.0)}, epochs=40, seeds=3, final={"max_train": None}),
    )
