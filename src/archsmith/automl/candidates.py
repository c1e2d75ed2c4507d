"""Where the search of `auto` begins, and what it may change: known networks, each with a training recipe.

The first known point is the baseline: what a competent person would have picked.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from archsmith.automl.pictures import Pictures
from archsmith.core.genotype import Architecture
from archsmith.discovered.residual import RESIDUAL
from archsmith.spaces import Product, ResidualNetwork, TrainingRecipe

WIDTHS = (16, 24, 32, 40, 48, 64)


def search_space(pictures: Pictures) -> Product:
    """Residual networks that train within minutes, and recipes for them."""
    networks = ResidualNetwork(
        stages=(3, 4),
        blocks=("basic", "inverted"),
        depths=(1, 2, 3),
        widths=WIDTHS,
        kernels=(3,),
        strides=(1, 2),
        expansions=(4.0,),
        se_ratios=(0.0, 0.25),
        stem_filters=WIDTHS,
        stem_kernels=(3,),
        stem_strides=(1, 2),
        stem_pools=(False,),
        activations=("relu", "silu"),
        preactivations=(False,),
        shortcuts=("pool",),
        dropout=0.0,
    )
    recipes = TrainingRecipe(
        optimizers=("muon",),
        muon_learning_rates=(0.035, 0.07, 0.14),
        decay_norms=(False,),
        batch_sizes=(batch_size(pictures),),
        label_smoothings=(0.1,),
        crops=("shift", "resized"),
        crop_areas=(0.35, 0.6),
        flips=(True, False),
        colours=(0.0, 0.3),
        policies=(None, "trivial"),
        mixes=(None, "cutmix"),
        train_sizes=(1.0,),
        first_sizes=(1.0,),
        averages=(0.998,),
        schedules=("trapezoid",),
        warmups=(0.15,),
    )
    return Product(networks, recipes)


def batch_size(pictures: Pictures) -> int:
    """Pictures a step: 128, or fewer where an epoch would have less than eight steps."""
    return min(128, 1 << (max(16, pictures.train // 8).bit_length() - 1))


def known_points(pictures: Pictures) -> list[Architecture]:
    """Known networks with known recipes, the most promising first. The first is the baseline."""
    resnet18, resnet10 = (RESIDUAL[name]().architecture for name in ("resnet18_narrow", "resnet10_narrow"))
    recipe = _recipe(pictures)
    if pictures.small:
        network = _with_stem(resnet10, stride=1)
        others = [_with_stem(resnet18, stride=2), _attentive(network)]
    else:
        network = resnet18
        others = [_attentive(resnet18), resnet10]
    changed = [
        (network, recipe),
        (network, _augmented(recipe, policy="trivial")),
        (others[0], recipe),
        (network, _augmented(recipe, flip=not pictures.mirrored)),
        (network, _augmented(recipe, mix="cutmix")),
        (others[1], recipe),
        (network, _crop(recipe, pictures)),
    ]
    return [{"kind": "product", "parts": {"ResidualNetwork": net, "TrainingRecipe": how}} for net, how in changed]


def title_of(architecture: Architecture) -> str:
    """What a person calls a network of the search space, such as "a ResNet-18 of width 40"."""
    network = architecture["parts"]["ResidualNetwork"]
    stages = network["stages"]
    blocks, width = sum(stage["depth"] for stage in stages), network["stem"]["filters"]
    attention = " with squeeze-and-excitation" if any(stage["se_ratio"] for stage in stages) else ""
    if all(stage["block"] == "basic" for stage in stages):
        return f"a ResNet-{2 * blocks + 2} of width {width}{attention}"
    return f"a residual network of {blocks} blocks and width {width}{attention}"


def _recipe(pictures: Pictures) -> Architecture:
    known = TrainingRecipe().standards()["muon"]
    assert known is not None
    recipe = copy.deepcopy(known)
    recipe["batch_size"] = batch_size(pictures)
    recipe["augmentation"]["flip"] = pictures.mirrored
    recipe["schedule"] = {"name": "trapezoid", "warmup": 0.15}
    if pictures.small:
        recipe["augmentation"] = {**_without_area(recipe["augmentation"]), "crop": "shift", "colour": 0.0}
    if pictures.channels == 1:
        recipe["augmentation"]["colour"] = 0.0
    return recipe


def _crop(recipe: Architecture, pictures: Pictures) -> Architecture:
    """The other way to crop."""
    changed = copy.deepcopy(recipe)
    if recipe["augmentation"]["crop"] == "resized":
        changed["augmentation"] = {**_without_area(recipe["augmentation"]), "crop": "shift"}
    else:
        changed["augmentation"] |= {"crop": "resized", "crop_area": 0.6}
    return changed


def _without_area(augmentation: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in augmentation.items() if k != "crop_area"}


def _augmented(recipe: Architecture, **changes: Any) -> Architecture:
    changed = copy.deepcopy(recipe)
    changed["augmentation"] |= changes
    return changed


def _with_stem(network: Architecture, *, stride: int) -> Architecture:
    changed = copy.deepcopy(network)
    changed["stem"]["stride"] = stride
    return changed


def _attentive(network: Architecture) -> Architecture:
    """The network with squeeze-and-excitation."""
    changed = copy.deepcopy(network)
    for stage in changed["stages"]:
        stage["se_ratio"] = 0.25
    return changed
