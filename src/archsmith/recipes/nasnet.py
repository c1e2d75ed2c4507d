"""NASNet: cells found by a controller that learns by PPO (Zoph et al. 2018, "Learning Transferable Architectures for
Scalable Image Recognition", sections 3 and 4.1, appendix A.2 to A.6).

Where the paper says nothing of how a child is trained (batch, learning rate, weight decay, clipping), the child has what
the released code has for the last training on CIFAR-10. The 250 best are "trained to convergence"; here in networks as
large as the published one, by the last training's settings, since the paper names no others.
"""

from __future__ import annotations

from dataclasses import replace

from archsmith.core.budget import Budget
from archsmith.core.evaluator import Limits
from archsmith.core.finish import FinishPlan
from archsmith.recipes.recipe import Recipe
from archsmith.rewards import accuracy
from archsmith.searchers import PPO
from archsmith.spaces import NASNetCell
from archsmith.training import ImageClassification

# What a desk has for cells. They are many small layers: bf16 pays from some 50 channels on, and these have 8; images of
# 14 x 14 pixels cost a quarter; and a step of 128 images costs less than two of 64. docs/log.md has the measurements.
DESK_CHILD = replace(
    ImageClassification.desk("fashion-mnist", epochs=2, max_train=5000),
    size=14,
    batch_size=128,
    precision="fp32",
    clip=5.0,
)
DESK_FINISH = FinishPlan(
    top=2,
    epochs=4,
    seeds=2,
    space={"cells": 2, "filters": 12, "drop_path_keep": 0.9, "auxiliary": 0.4},
)


def nasnet_desk() -> Recipe:
    """Minutes on two cores: the paper's whole space of cells, in networks of 3 narrow normal cells and 2 reductions."""
    return Recipe(
        name="nasnet-desk",
        summary="5,000 images of Fashion-MNIST at 14x14, cells of 5 blocks with N=1 F=8, 16 children of 2 epochs by PPO",
        space=NASNetCell(cells=1, filters=8),
        evaluator=DESK_CHILD,
        # 16 children are less than one of the paper's updates; in updates of 4 there is at least something to be seen.
        searcher=PPO(learning_rate=1e-2, minibatch=4),
        reward=accuracy,
        budget=Budget(trials=16),
        limits=Limits(seconds=300),
        finish=DESK_FINISH,
    )


def nasnet() -> Recipe:
    """CIFAR-10: 20,000 children of 20 epochs with N = 2 and F = 32, the best 250 trained as 6 @ 768 for 600 epochs."""
    return Recipe(
        name="nasnet",
        summary="CIFAR-10, normal and reduction cells of 5 blocks, N=2 F=32, 20,000 children of 20 epochs by PPO",
        space=NASNetCell(cells=2, filters=32),
        evaluator=ImageClassification(
            "cifar10",
            epochs=20,
            batch_size=32,
            learning_rate=0.025,
            nesterov=False,
            weight_decay=5e-4,
            schedule="cosine",
            clip=5.0,
        ),
        searcher=PPO(),
        reward=accuracy,
        budget=Budget(trials=20_000),
        scale="paper",
        finish=FinishPlan(
            top=250,
            tuning_epochs=600,
            epochs=600,
            seeds=5,
            all_data=True,  # 937,500 steps of 32 in 600 epochs are 50,000 images
            space={"cells": 6, "filters": 32, "drop_path_keep": 0.6, "auxiliary": 0.4},
        ),
    )
