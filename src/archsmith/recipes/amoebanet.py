"""AmoebaNet: NASNet's cells found by regularized evolution (Real et al. 2019, "Regularized Evolution for Image Classifier
Architecture Search", Methods).

Of a child's training the paper gives epochs and size. The rest is that of its last training on CIFAR-10: stochastic gradient
descent at 0.024 with one period of a cosine, weight decay 5e-4, batches of 128. A finish trains the search's 20 best in
networks as large as the published one; how many is ours.
"""

from __future__ import annotations

from dataclasses import replace

from archsmith.core.budget import Budget
from archsmith.core.evaluator import Limits
from archsmith.core.finish import FinishPlan
from archsmith.recipes.nasnet import DESK_CHILD, DESK_FINISH
from archsmith.recipes.recipe import Recipe
from archsmith.rewards import accuracy
from archsmith.searchers import RegularizedEvolution
from archsmith.spaces import NASNetCell
from archsmith.training import ImageClassification


def amoebanet_desk() -> Recipe:
    """Minutes on two cores: the paper's whole space of cells, in networks of 3 narrow normal cells and 2 reductions."""
    return Recipe(
        name="amoebanet-desk",
        summary="5,000 images of Fashion-MNIST at 14x14, cells of 5 blocks with N=1 F=8, 16 children of 2 epochs by "
        "aging evolution",
        space=NASNetCell.amoeba(cells=1, filters=8),
        evaluator=DESK_CHILD,
        # The paper's 100 and 25 would be random search here: 6 random models, then 10 that have a parent.
        searcher=RegularizedEvolution(population=6, sample=3, unique=True),
        reward=accuracy,
        budget=Budget(trials=16),
        limits=Limits(seconds=300),
        finish=DESK_FINISH,
    )


def amoebanet() -> Recipe:
    """CIFAR-10: P = 100, S = 25, 20,000 children of 25 epochs with N = 3 and F = 24, the best with N = 6 and F = 36."""
    return Recipe(
        name="amoebanet",
        summary="CIFAR-10, normal and reduction cells of 5 blocks, N=3 F=24, 20,000 children of 25 epochs by aging evolution",
        space=NASNetCell.amoeba(),
        evaluator=ImageClassification(
            "cifar10",
            epochs=25,
            batch_size=128,
            learning_rate=0.024,
            nesterov=False,
            weight_decay=5e-4,
            schedule="cosine",
        ),
        searcher=RegularizedEvolution(),
        reward=accuracy,
        budget=Budget(trials=20_000),
        scale="paper",
        finish=FinishPlan(
            top=20,
            tuning_epochs=600,
            epochs=600,
            seeds=5,
            all_data=True,
            space={"cells": 6, "filters": 36, "drop_path_keep": 0.7, "auxiliary": 0.5},
        ),
    )


def amoebanet_non_aging() -> Recipe:
    """The paper's control: the worst of another 25 leaves, in place of the oldest."""
    return replace(
        amoebanet(),
        name="amoebanet-non-aging",
        summary="CIFAR-10, the same with evolution that removes the worst in place of the oldest, 20,000 children",
        searcher=RegularizedEvolution(aging=False),
    )
