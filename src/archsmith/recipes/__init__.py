"""Recipes: a named, typed configuration of a run for each experiment of the papers, at paper scale and at desk scale.

    recipe = get_recipe("digits")

A recipe is data. Write your own in a file with a value named `recipe` and run it: `archsmith search FILE.py`.
"""

from __future__ import annotations

from archsmith.recipes.activations import activations, activations_desk, activations_exhaustive
from archsmith.recipes.amoebanet import amoebanet, amoebanet_desk, amoebanet_non_aging
from archsmith.recipes.augmentation import augmentation_desk, autoaugment_cifar10
from archsmith.recipes.claim import Claim, Expected
from archsmith.recipes.data import for_data
from archsmith.recipes.images import (
    cifar10_conv,
    cifar10_conv_more_filters,
    cifar10_conv_pools,
    cifar10_conv_strides,
    digits,
    digits_hour,
    images,
    landscape,
)
from archsmith.recipes.large_scale_evolution import large_scale_evolution, large_scale_evolution_desk
from archsmith.recipes.metaqnn import metaqnn, metaqnn_desk, metaqnn_mnist
from archsmith.recipes.mnasnet import mnasnet, mnasnet_desk, mnasnet_hard
from archsmith.recipes.nasbench201 import CLAIMS, nasbench201
from archsmith.recipes.nasnet import nasnet, nasnet_desk
from archsmith.recipes.recipe import Recipe
from archsmith.recipes.text import (
    ptb_cell,
    ptb_cell_desk,
    ptb_cell_desk_max_sin,
    ptb_cell_max_sin,
    text,
    text_chars,
)
from archsmith.recipes.update_rules import update_rules, update_rules_desk

__all__ = ["CLAIMS", "RECIPES", "Claim", "Expected", "Recipe", "for_data", "get_claim", "get_recipe"]

RECIPES = {
    "digits": digits,
    "digits-hour": digits_hour,
    "images": images,
    "text": text,
    "text-chars": text_chars,
    "ptb-cell-desk": ptb_cell_desk,
    "ptb-cell-desk-max-sin": ptb_cell_desk_max_sin,
    "nasnet-desk": nasnet_desk,
    "amoebanet-desk": amoebanet_desk,
    "metaqnn-desk": metaqnn_desk,
    "activations-desk": activations_desk,
    "augmentation-desk": augmentation_desk,
    "update-rules-desk": update_rules_desk,
    "mnasnet-desk": mnasnet_desk,
    "large-scale-evolution-desk": large_scale_evolution_desk,
    "landscape": landscape,
    "nasbench201": nasbench201,
    "cifar10-conv": cifar10_conv,
    "cifar10-conv-strides": cifar10_conv_strides,
    "cifar10-conv-pools": cifar10_conv_pools,
    "cifar10-conv-more-filters": cifar10_conv_more_filters,
    "nasnet": nasnet,
    "amoebanet": amoebanet,
    "amoebanet-non-aging": amoebanet_non_aging,
    "metaqnn": metaqnn,
    "autoaugment-cifar10": autoaugment_cifar10,
    "activations": activations,
    "activations-exhaustive": activations_exhaustive,
    "update-rules": update_rules,
    "mnasnet": mnasnet,
    "mnasnet-hard": mnasnet_hard,
    "large-scale-evolution": large_scale_evolution,
    "metaqnn-mnist": metaqnn_mnist,
    "ptb-cell": ptb_cell,
    "ptb-cell-max-sin": ptb_cell_max_sin,
}
"""The recipes by name, as functions, so that listing their names costs nothing."""


def get_recipe(name: str) -> Recipe:
    """The recipe of that name. Raises UnknownName, with the nearest names."""
    from archsmith.core.errors import UnknownName

    if name not in RECIPES:
        raise UnknownName("recipe", name, RECIPES, "(a file of yours is named with its .py)")
    return RECIPES[name]()


def get_claim(name: str) -> Claim:
    """The claim of that name, a paper's, ready to be run by `compare`. Raises UnknownName, with the nearest names."""
    from archsmith.core.errors import UnknownName

    if name not in CLAIMS:
        raise UnknownName("claim", name, CLAIMS)
    return CLAIMS[name]()
