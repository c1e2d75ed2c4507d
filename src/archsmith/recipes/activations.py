"""Activation functions (Ramachandran, Zoph and Le 2017, "Searching for Activation Functions"), and a smaller search for a desk."""

from __future__ import annotations

from dataclasses import replace

from archsmith.core.budget import Budget
from archsmith.core.evaluator import Limits
from archsmith.core.finish import FinishPlan
from archsmith.recipes.recipe import Recipe
from archsmith.rewards import accuracy
from archsmith.searchers import PPO, Exhaustive
from archsmith.spaces import Activation
from archsmith.training import ImageClassification

# 10,000 steps of 128 images are 28.4 epochs of 45,000; 28 are 9,856.
_CHILD = ImageClassification(
    "cifar10",
    epochs=28,
    batch_size=128,
    learning_rate=0.1,
    weight_decay=1e-4,
    schedule="cosine",
    upsample=1.0,
    pad=0.125,
)
# The paper's three networks are this one, "wrn_28_10" and "densenet_100_12"; it tells medians of five.
_FINISH = FinishPlan(top=8, epochs=200, seeds=5, space={"model": "preact_resnet164"}, all_data=True)


def activations_desk() -> Recipe:
    """Minutes on two cores: 8 layers in place of 20, two epochs in place of 28; the winner trains 16 layers."""
    return Recipe(
        name="activations-desk",
        summary="3,000 images of Fashion-MNIST, ResNet-8, 24 activations of one unit by PPO, children of 2 epochs, minutes",
        space=Activation(model="resnet8"),
        evaluator=replace(
            ImageClassification.desk("fashion-mnist", epochs=2, max_train=3000),
            batch_size=32,
            learning_rate=0.05,
            schedule="cosine",
            validation=0.25,
        ),
        # Short runs make few updates, so the controller learns in larger steps.
        searcher=PPO(learning_rate=1e-2, minibatch=4, entropy_weight=0.0015, hidden=100),
        reward=accuracy,
        budget=Budget(trials=24),
        limits=Limits(seconds=300),
        finish=FinishPlan(top=2, epochs=4, seeds=2, space={"model": "wrn_16_1"}, final={"max_train": 5000}),
    )


def activations() -> Recipe:
    """CIFAR-10, ResNet-20 for 10,000 steps, functions of three core units by an RNN controller with PPO.

    The paper says that spaces of several units are of the order of 10^12, which three are; how many functions were tried
    it does not say: 10,000 are ours. So are the children's rate, schedule and batch, which are usual for this network, and
    the training of 200 epochs at the end.
    """
    return Recipe(
        name="activations",
        summary="CIFAR-10, ResNet-20 for 10,000 steps, 10,000 activations of three core units by PPO",
        space=Activation(units=3),
        evaluator=_CHILD,
        searcher=PPO(),
        reward=accuracy,
        budget=Budget(trials=10_000),
        scale="paper",
        finish=_FINISH,
    )


def activations_exhaustive() -> Recipe:
    """The same for one core unit: each of the 6,250 functions once, those that are the same function trained once."""
    return Recipe(
        name="activations-exhaustive",
        summary="CIFAR-10, ResNet-20 for 10,000 steps, every activation of one core unit, 6,250",
        space=Activation(),
        evaluator=_CHILD,
        searcher=Exhaustive(),
        reward=accuracy,
        budget=Budget(trials=6250),
        scale="paper",
        finish=_FINISH,
    )
