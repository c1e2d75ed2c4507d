"""Augmentation policies: the experiment of Cubuk et al. (2019) on reduced CIFAR-10, and a smaller one for a desk."""

from __future__ import annotations

from dataclasses import replace

from archsmith.core.budget import Budget
from archsmith.core.evaluator import Limits
from archsmith.core.finish import FinishPlan
from archsmith.nn.augmentation.policy import OPERATIONS
from archsmith.recipes.recipe import Recipe
from archsmith.rewards import accuracy
from archsmith.searchers import PPO
from archsmith.spaces import Augmentation
from archsmith.training import ImageClassification


def augmentation_desk() -> Recipe:
    """Minutes on two cores: 4 narrow layers in place of 40, children of 2 epochs.

    The paper's sub-policies take 80 epochs and more to be of use, so what is found in 2 says what does not hurt a short
    training; the finish, on more images for longer, shows what is left of it.
    """
    return Recipe(
        name="augmentation-desk",
        summary="2,000 images of Fashion-MNIST, WRN-16-1, 24 augmentation policies of 2 epochs by PPO, minutes",
        # Color does nothing to grey images.
        space=Augmentation(
            model="wrn_16_1", operations=tuple(name for name in OPERATIONS if name != "Color"), pad=0.125, cutout=0.0
        ),
        evaluator=replace(
            ImageClassification.desk("fashion-mnist", epochs=2, max_train=2000),
            batch_size=32,
            learning_rate=0.05,
            schedule="cosine",
            weight_decay=1e-4,
            validation=0.25,
        ),
        searcher=PPO(learning_rate=3.5e-3, minibatch=4),
        reward=accuracy,
        budget=Budget(trials=24),
        limits=Limits(seconds=300),
        finish=FinishPlan(top=2, epochs=6, seeds=2, final={"max_train": 5000}),
    )


def autoaugment_cifar10() -> Recipe:
    """Reduced CIFAR-10: 4,000 images to learn from, WRN-40-2 for 120 epochs, 15,000 policies by PPO; then WRN-28-10 on all.

    The paper validates on images that it does not number: 5,000 here, as in its full training. The batch of 128 is that of the
    authors' code. Weight decay, peak rate and the single cosine are the paper's, for the search and for the end.
    """
    return Recipe(
        name="autoaugment-cifar10",
        summary="AutoAugment: 4,000 images of CIFAR-10, WRN-40-2, 15,000 policies of 120 epochs by PPO",
        space=Augmentation(),
        evaluator=ImageClassification(
            "cifar10",
            epochs=120,
            batch_size=128,
            learning_rate=0.01,
            weight_decay=1e-4,
            schedule="cosine",
            upsample=1.0,
            max_train=9000,
            validation=5000 / 9000,
        ),
        searcher=PPO(),
        reward=accuracy,
        budget=Budget(trials=15_000),
        scale="paper",
        finish=FinishPlan(
            top=5,
            epochs=200,
            space={"model": "wrn_28_10"},
            final={"learning_rate": 0.1, "weight_decay": 5e-4, "max_train": None},
            seeds=5,
            all_data=True,
        ),
    )
