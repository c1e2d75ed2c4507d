"""The weights that a child of `ImageClassification` starts from: those of the trial that it was made from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from archsmith.core.channels import DescribesChannels
from archsmith.core.child import Child
from archsmith.core.evaluator import Context
from archsmith.core.space import Space, build
from archsmith.nn.augment import as_floats
from archsmith.nn.batch_norm import set_epsilon
from archsmith.nn.inheritance import inherit
from archsmith.nn.net2net import inherit_grown

if TYPE_CHECKING:
    from archsmith.training.image_classification import ImageClassification

NOISE = 0.05
"""What is added to the weights of repeated channels, as a part of the standard deviation of their layer's weights."""

_IMAGES = 256


def inherit_from_parent(config: ImageClassification, space: Space, child: Child, context: Context) -> int | None:
    """Start the child from its parent's weights, if the child or else the evaluator says so.

    Returns how many parameters have values from there, or None if there is no parent whose weights were kept. Raises StoreError
    if they were kept and are gone: the child would be trained as something else than it is.
    """
    inherits = config.inherit_weights if child.inherits is None else child.inherits
    parent = context.parent if inherits else None
    weights = context.artifact(parent) if parent is not None else None
    if weights is None:
        return None
    if context.parent_genotype is None or not isinstance(child.model, DescribesChannels):
        return inherit(child.model, weights)
    set_epsilon(child.model, config.batch_norm_epsilon)  # of which a batch norm that starts as the identity depends
    with torch.device("meta"):
        shapes = build(space, context.parent_genotype, config.task()).model
    return inherit_grown(child.model, shapes, weights, noise=NOISE, images=lambda: _images(config))


def _images(config: ImageClassification) -> Tensor:
    """Some training images, as the network reads them."""
    splits, size = config.splits(), config.task().input_shape[1:]
    images = torch.from_numpy(splits.data.images[splits.train[:_IMAGES]])
    floats = as_floats(images, whitened=config.whiten, upsample=1.0).permute(0, 3, 1, 2)
    return floats if floats.shape[2:] == size else F.interpolate(floats, size=size, mode="bilinear")
