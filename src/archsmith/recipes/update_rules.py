"""Update rules of optimizers (Bello et al. 2017, "Neural Optimizer Search with Reinforcement Learning").

Every rule gets a learning rate of its own, tried for an epoch each; so do those that it is held against.
"""

from __future__ import annotations

from archsmith.core.budget import Budget
from archsmith.core.evaluator import Limits
from archsmith.core.finish import FinishPlan
from archsmith.recipes.recipe import Recipe
from archsmith.rewards import accuracy
from archsmith.searchers import PPO
from archsmith.spaces import UpdateRule
from archsmith.training import ImageClassification


def update_rules_desk() -> Recipe:
    """Minutes on two cores: a network of 2,682 parameters; the winner trains one of 9,962, the paper's."""
    return Recipe(
        name="update-rules-desk",
        summary="5,000 images of Fashion-MNIST, 32 update rules of one group by PPO, children of 2 epochs after 4 rates of one",
        space=UpdateRule(model="convnet2_small"),
        evaluator=ImageClassification(
            "fashion-mnist",
            epochs=2,
            batch_size=128,
            learning_rates=(1e-3, 1e-2, 1e-1, 1.0),
            nesterov=False,
            weight_decay=0.0,
            schedule="constant",
            upsample=1.0,
            max_train=5000,
        ),
        # Short runs make few updates, so the controller learns in larger steps than the paper's 1e-5.
        searcher=PPO(learning_rate=1e-2, minibatch=4, entropy_weight=0.0015, hidden=100),
        reward=accuracy,
        budget=Budget(trials=32),
        limits=Limits(seconds=300),
        finish=FinishPlan(top=2, epochs=4, final={"schedule": "cosine"}, seeds=2, space={"model": "convnet2"}),
    )


def update_rules() -> Recipe:
    """CIFAR-10, the paper's network of two convolutions, rules of two groups, the rates from 1e-5 to 10.

    The paper's text was not at hand for its settings: that children are trained for 5 epochs is sure; the rates, the
    controller (150 units, uniform in 0.08, Adam at 1e-5, minibatches of 5, entropy 0.0015) and the wide residual network of
    its tables are as remembered. It learns by trust-region policy optimization (TRPO), in place of which stands PPO,
    its successor with the same aim. It does not say how many rules: 10,000 are ours. So are, in the end, 300 epochs
    with a cosine for a wide residual network.
    """
    return Recipe(
        name="update-rules",
        summary="CIFAR-10, 10,000 update rules of two groups by PPO, children of 5 epochs after 7 rates of one",
        space=UpdateRule(groups=2),
        evaluator=ImageClassification(
            "cifar10",
            epochs=5,
            learning_rates=(1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0),
            nesterov=False,
            weight_decay=0.0,
            schedule="constant",
            upsample=1.0,
            pad=0.125,
        ),
        searcher=PPO(learning_rate=1e-5, minibatch=5, entropy_weight=0.0015, hidden=150, init=0.08),
        reward=accuracy,
        budget=Budget(trials=10_000),
        scale="paper",
        finish=FinishPlan(
            top=5,
            epochs=300,
            final={"schedule": "cosine", "batch_size": 128},
            seeds=5,
            space={"model": "wrn_28_10"},
        ),
    )
