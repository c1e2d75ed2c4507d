"""MetaQNN: Q-learning over plain convolutional networks (Baker et al. 2017, sections 4.3 and 5).

Left out of the paper's training of a child: that one which is no better than chance after its first epoch begins again
at a lower rate, up to five times. Here it keeps the accuracy that it has, as in the paper it would after the fifth.
"""

from __future__ import annotations

from dataclasses import replace

from archsmith.core.budget import Budget
from archsmith.core.evaluator import Limits
from archsmith.core.finish import FinishPlan
from archsmith.recipes.recipe import Recipe
from archsmith.rewards import accuracy
from archsmith.searchers import QLearning
from archsmith.spaces import QNet
from archsmith.training import ImageClassification


def metaqnn_desk() -> Recipe:
    """Minutes on two cores: up to 6 narrow layers with batch norm, children of two epochs."""
    return Recipe(
        name="metaqnn-desk",
        summary="5,000 images of Fashion-MNIST, up to 6 narrow layers, 24 children of 2 epochs by Q-learning, minutes",
        space=QNet(image_size=28, max_layers=6, filters=(8, 16, 32), fc_widths=(128, 64), batch_norm=True),
        evaluator=replace(
            ImageClassification.desk("fashion-mnist", epochs=2, max_train=5000),
            optimizer="adam",
            learning_rate=0.002,
            weight_decay=0.0,
        ),
        searcher=QLearning.for_models(24),
        reward=accuracy,
        budget=Budget(trials=24),
        limits=Limits(seconds=300),
        finish=FinishPlan(top=2, scale={"learning_rate": (0.5, 2.0)}, epochs=8, seeds=2),
    )


def metaqnn() -> Recipe:
    """CIFAR-10: up to 18 layers, 2,700 different networks, the ten best trained again, the winner for 300 epochs.

    The paper's last training is stochastic gradient descent at 0.025, 0.0125, 0.0001 and 0.00001 for 40, 40, 160 and 60
    epochs; these steps are by three different factors, and here are two by one tenth, at the 80th and 240th epoch.
    """
    return Recipe(
        name="metaqnn",
        summary="CIFAR-10, plain networks of up to 18 layers, 2,700 children of 20 epochs by Q-learning",
        space=QNet.cifar10(),
        evaluator=ImageClassification(
            "cifar10",
            epochs=20,
            batch_size=128,
            learning_rate=0.001,
            optimizer="adam",
            weight_decay=0.0,
            decay_at=(0.25, 0.5, 0.75),  # every 5 epochs
            decay_factor=0.2,
            upsample=1.0,
        ),
        searcher=QLearning(),
        reward=accuracy,
        budget=Budget(trials=2700),
        scale="paper",
        finish=FinishPlan(
            top=10,
            epochs=300,
            final={
                "optimizer": "sgd",
                "learning_rate": 0.025,
                "nesterov": False,
                "weight_decay": 5e-4,
                "decay_at": (80 / 300, 240 / 300),
                "decay_factor": 0.1,
                "pad": 5 / 32,
            },
            seeds=5,
            all_data=True,
        ),
    )


def metaqnn_mnist() -> Recipe:
    """MNIST: up to 12 layers; the last training is the search's own, twice as long."""
    cifar10 = metaqnn()
    return replace(
        cifar10,
        name="metaqnn-mnist",
        summary="MNIST, plain networks of up to 12 layers, 2,700 children of 20 epochs by Q-learning",
        space=QNet(image_size=28),
        evaluator=replace(cifar10.evaluator, data="mnist", validation=5000 / 60_000),  # type: ignore[type-var]
        finish=FinishPlan(
            top=10,
            epochs=40,
            final={"decay_at": tuple(k / 8 for k in range(1, 8))},
            seeds=5,
            all_data=True,
        ),
    )
