"""Networks of grown graphs (Real et al. 2017, section 3.2 and supplement).

Vertices in order, each the sum of what its edges bring, through batch norm and ReLU or as it is. The primary edge sets
the size; what skips bring is made to fit: repeated or thinned out in space, cut or filled with zeros in channels.

The paper says neither what the classifier reads nor how weights begin. Here: the mean of each channel over the image
once there is a convolution, and all pixels before, if asked for; He's normal initialisation (He et al. 2015).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from torch import Tensor, nn
from torch.nn import functional as F

from archsmith.core.errors import LimitExceeded
from archsmith.nn.conv import GlobalAverage

MOST_PARAMETERS = 2**31
"""More than any child of a search has; depth factors multiply along a path, so a short DNA can describe far more."""


Shape: TypeAlias = tuple[int, int, int]
"""Channels, height and width."""


class GrownNetwork(nn.Module):
    """The network of a grown graph. Weights are called by the ids of edges and vertices, so that a child finds those of
    its parent.

    Args:
        vertices: "id" and "type" of each, along the backbone.
        edges: as `GrownGraph` has them in an architecture.
        input_shape: channels, height and width of an image.
        num_classes: how many classes.
        flatten: whether the classifier reads all pixels while there is no convolution.

    Raises LimitExceeded when it would have more than `MOST_PARAMETERS` parameters.
    """

    def __init__(
        self,
        vertices: Sequence[Mapping[str, Any]],
        edges: Sequence[Mapping[str, Any]],
        input_shape: tuple[int, ...],
        num_classes: int,
        *,
        flatten: bool,
    ) -> None:
        super().__init__()
        channels, height, width = input_shape
        shapes: dict[str, Shape] = {vertices[0]["id"]: (channels, height, width)}
        kinds = {vertex["id"]: vertex["type"] for vertex in vertices}
        self.convolutions = nn.ModuleDict()
        self.norms = nn.ModuleDict()
        self.relus = nn.ModuleDict()  # none in the seed, and in what has not grown one yet
        # What forward does, in order: a vertex, its primary edge and where that comes from, and the skips.
        self.plan: list[tuple[str, str, str, list[str]]] = []
        self.shapes = shapes
        primary = {edge["to"]: edge for edge in edges if not edge["skip"]}
        for vertex in vertices[1:]:
            name, edge = vertex["id"], primary[vertex["id"]]
            shapes[name] = shapes[edge["from"]]
            if edge["type"] == "conv":
                shapes[name] = self._convolve(edge, shapes[edge["from"]], biased=kinds[name] == "linear")
            if kinds[name] == "bn_relu":
                self.norms[name] = nn.BatchNorm2d(shapes[name][0])
                self.relus[name] = nn.ReLU()
            skips = [e["from"] for e in edges if e["skip"] and e["to"] == name]
            self.plan.append((name, edge["id"], edge["from"], skips))
        last = shapes[vertices[-1]["id"]]
        pooled = len(self.convolutions) > 0 or not flatten
        features = last[0] if pooled else math.prod(last)
        _check_size(features * num_classes)
        self.reduce = GlobalAverage() if pooled else nn.Flatten()
        self.classifier = nn.Linear(features, num_classes)
        nn.init.kaiming_normal_(self.classifier.weight, nonlinearity="linear")
        nn.init.zeros_(self.classifier.bias)

    def _convolve(self, edge: Mapping[str, Any], shape: Shape, biased: bool) -> Shape:
        """Add an edge's convolution; gives the shape that comes out of it."""
        channels, height, width = shape
        out = max(1, math.floor(edge["depth_factor"] * channels + 0.5))
        halves, stride = (edge["half_height"], edge["half_width"]), 2 ** edge["stride_scale"]
        kernel = (2 * halves[0] + 1, 2 * halves[1] + 1)
        _check_size(out * channels * kernel[0] * kernel[1])
        # Batch norm's own shift would undo a bias.
        convolution = nn.Conv2d(channels, out, kernel, stride, halves, bias=biased)
        nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
        if convolution.bias is not None:
            nn.init.zeros_(convolution.bias)
        self.convolutions[edge["id"]] = convolution
        return out, -(-height // stride), -(-width // stride)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, classes] of images [B, channels, height, width]."""
        state = {self.plan[0][2]: images}
        x = images
        for name, edge, source, skips in self.plan:
            x = state[source]
            if edge in self.convolutions:
                x = self.convolutions[edge](x)
            for begin in skips:
                x = x + fitted(state[begin], self.shapes[begin], self.shapes[name])
            if name in self.norms:
                x = self.relus[name](self.norms[name](x))
            state[name] = x
        out: Tensor = self.classifier(self.reduce(x))
        return out


def fitted(x: Tensor, shape: Shape, to: Shape) -> Tensor:
    """[n, *shape] -> [n, *to]: nearest neighbours in space, channels cut off or zeros added behind them.

    The shapes are given, since a forward pass that is exported must not depend on those of tensors.
    """
    if shape[0] > to[0]:
        x = x[:, : to[0]]
    if shape[1:] != to[1:]:
        x = F.interpolate(x, size=to[1:], mode="nearest")
    if shape[0] < to[0]:
        x = F.pad(x, (0, 0, 0, 0, 0, to[0] - shape[0]))
    return x


def _check_size(parameters: int) -> None:
    if parameters > MOST_PARAMETERS:
        raise LimitExceeded(
            f"a layer of the grown graph has {parameters:,} parameters, and no network of this space may have more than "
            f"{MOST_PARAMETERS:,}; lower the depth factors before it",
            reason="parameters",
        )
