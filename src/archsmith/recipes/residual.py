"""Residual networks together with their training recipes: the space, and the points of it that a person would pick.

The first known point is the baseline: what a competent person would have picked.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from archsmith.core.genotype import Architecture
from archsmith.spaces import Product, ResidualNetwork, TrainingRecipe
from archsmith.spaces.residual_network.known import KNOWN
from archsmith.spaces.training_recipe.architecture import learning_rate_of, settings_of
from archsmith.training import ImageClassification

WIDTHS = (16, 24, 32, 40, 48, 64)


@dataclass(frozen=True)
class PictureKind:
    """What the known networks and recipes for pictures depend on.

    Args:
        train: how many pictures there are to learn from.
        channels: 1 or 3.
        small: whether they are so small that crops would take away too much.
        mirrored: whether a mirrored picture shows the same thing, as far as is known.
    """

    train: int
    channels: int
    small: bool
    mirrored: bool


def search_space(pictures: PictureKind) -> Product:
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
        crops=("shift", "affine", "resized"),
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


def light_space(pictures: PictureKind) -> Product:
    """The same for children that are trained for epochs, however long they take: no network takes several times as long as all
    that are known. Every stage but the first halves what it reads."""
    networks, recipes = search_space(pictures).parts
    assert isinstance(networks, ResidualNetwork)
    light = replace(
        networks,
        depths=(1, 2),
        widths=WIDTHS[:-1],
        strides=(2,),
        first_strides=(1, 2),
        stem_filters=WIDTHS[:-1],
        stem_strides=(1, 2) if pictures.small else (2,),
    )
    return Product(light, recipes)


def batch_size(pictures: PictureKind) -> int:
    """Pictures a step: 128, or fewer where an epoch would have less than eight steps."""
    return min(128, 1 << (max(16, pictures.train // 8).bit_length() - 1))


def networks(pictures: PictureKind) -> list[Architecture]:
    """Known networks for such pictures, the largest first."""
    resnet18, resnet10 = (copy.deepcopy(KNOWN[name]) for name in ("resnet18_narrow", "resnet10_narrow"))
    if pictures.small:
        return [_with_stem(resnet10, stride=1), _three_stages(), resnet10, _narrow(resnet10, 16)]
    return [resnet18, resnet10, _narrow(resnet10, 24), _narrow(resnet10, 16)]


def known_points(pictures: PictureKind, size: int = 0, largest: int = 0) -> list[Architecture]:
    """Known networks with known recipes, the most promising first. The first is the baseline.

    Args:
        pictures: what they are for.
        size: which of `networks` the time is enough for.
        largest: the first of `networks` that may be used.
    """
    known, recipe = networks(pictures), known_recipe(pictures)
    network = known[size]
    larger = known[size - 1] if size > largest else _attentive(network)
    smaller = known[size + 1] if size + 1 < len(known) else _attentive(network)
    changed = [
        (network, recipe),
        (network, _augmented(recipe, policy="trivial")),
        (larger, recipe),
        (network, _augmented(recipe, flip=not pictures.mirrored)),
        (network, _augmented(recipe, mix="cutmix")),
        (smaller, recipe),
        (network, _crop(recipe, pictures)),
    ]
    return [{"kind": "product", "parts": {"ResidualNetwork": net, "TrainingRecipe": how}} for net, how in changed]


def known_recipe(pictures: PictureKind) -> Architecture:
    """The training recipe of the baseline."""
    known = TrainingRecipe().standards()["muon"]
    assert known is not None
    recipe = copy.deepcopy(known)
    recipe["batch_size"] = batch_size(pictures)
    recipe["augmentation"]["flip"] = pictures.mirrored
    recipe["schedule"] = {"name": "trapezoid", "warmup": 0.15}
    if pictures.small or pictures.channels == 1:  # grey pictures are seldom of things at any distance
        crop = "shift" if pictures.small else "affine"
        recipe["augmentation"] = {**_without_area(recipe["augmentation"]), "crop": crop, "colour": 0.0}
    return recipe


def trained_by(evaluator: ImageClassification, recipe: Architecture) -> ImageClassification:
    """The evaluator with a training recipe, for networks whose genotype has none."""
    settings = settings_of(recipe, evaluator.size or 0)
    free = {name: value for name, value in settings.items() if name not in evaluator.fixed}
    return replace(evaluator, learning_rate=learning_rate_of(recipe), **free)


def _crop(recipe: Architecture, pictures: PictureKind) -> Architecture:
    """Another way to crop."""
    if pictures.channels == 3 and pictures.small:
        return _augmented(recipe, crop="resized", crop_area=0.6)
    other = "affine" if recipe["augmentation"]["crop"] == "shift" else "shift"
    changed = copy.deepcopy(recipe)
    changed["augmentation"] = {**_without_area(recipe["augmentation"]), "crop": other}
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


def _narrow(network: Architecture, width: int) -> Architecture:
    """The network with so many filters in its stem and first stage, and twice as many in each further stage."""
    changed = copy.deepcopy(network)
    changed["stem"]["filters"] = width
    for i, stage in enumerate(changed["stages"]):
        stage["width"] = width * 2**i
    return changed


def _three_stages() -> Architecture:
    """A ResNet-8 whose stem alone sees pictures in their full size, which costs little: every stage halves them."""
    changed = _narrow(KNOWN["resnet10_narrow"], 48)
    changed["stem"] |= {"filters": 24, "stride": 1}
    changed["stages"] = [stage | {"stride": 2} for stage in changed["stages"][:3]]
    return changed


def _attentive(network: Architecture) -> Architecture:
    """The network with squeeze-and-excitation."""
    changed = copy.deepcopy(network)
    for stage in changed["stages"]:
        stage["se_ratio"] = 0.25
    return changed
