"""NASNet (Zoph et al. 2018, "Learning Transferable Architectures for Scalable Image Recognition") and AmoebaNet (Real et
al. 2019) as modules, from a plan that has every shape.

A network is built for one size of images: SAME padding is worked out for it. For another size, build it again and load
the weights; all but those of the auxiliary head fit. A forward pass has no branches, so torch.fx traces it, and ONNX and
the source export follow it. Images are [batch, channels, height, width].
"""

from __future__ import annotations

import math
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from archsmith.core.channels import Groups, NetworkChannels
from archsmith.nn.channel_trace import ChannelTrace
from archsmith.nn.conv import GlobalAverage
from archsmith.nn.nasnet_layers import Halving, Layer, Path, Step
from archsmith.nn.nasnet_plan import Cell as CellPlan
from archsmith.nn.nasnet_plan import Plan

_WITHIN = math.erf(math.sqrt(2))  # how much of a normal distribution lies within two deviations


class DropPath(nn.Module):
    """Drops whole examples of a path in training, each with probability 1 - `keep`; kept ones are divided by `keep`
    (Larsson et al. 2017, with the schedule of Zoph et al. 2018).

    Args:
        least: what `keep` falls to at the end of training.
    """

    def __init__(self, least: float) -> None:
        super().__init__()
        self.least = least
        self.keep = 1.0

    def forward(self, x: Tensor) -> Tensor:
        """[n, c, h, w] -> the same."""
        if not self.training or self.keep >= 1:
            return x
        return x * x.new_empty(x.shape[0], 1, 1, 1).bernoulli_(self.keep).div_(self.keep)

    def extra_repr(self) -> str:
        return f"{self.keep:.3g}, at the end {self.least:.3g}"


class FactorisedReduction(nn.Module):
    """Half the size without losing every other pixel: two strided 1x1 convolutions, the second a pixel further."""

    def __init__(self, step: Halving) -> None:
        super().__init__()
        self.first = path(step.paths[0])
        self.second = path(step.paths[1])
        self.norm = nn.BatchNorm2d(step.out.channels)

    def forward(self, x: Tensor) -> Tensor:
        """[n, c, h, w] -> [n, filters, ceil(h / 2), ceil(w / 2)]."""
        out: Tensor = self.norm(torch.cat([self.first(x), self.second(x)], 1))
        return out


class Cell(nn.Module):
    """A normal or a reduction cell.

    Args:
        plan: its blocks with all shapes.
        keep: what drop-path's keep probability falls to; 1 is no drop-path.
    """

    def __init__(self, plan: CellPlan, keep: float) -> None:
        super().__init__()
        self.name = plan.name
        self.inputs = [block.inputs for block in plan.blocks]
        self.concat = [block.combination == "concat" for block in plan.blocks]
        self.outputs = [k for k, _ in plan.concatenated]
        # Two operations on one state often begin with the same ReLU: it is computed once, outside of them.
        rectified = [[_rectified(step) for step in block.paths] for block in plan.blocks]
        self.rectified = rectified
        self.relus = nn.ModuleDict()
        for block, firsts in zip(plan.blocks, rectified, strict=True):
            self.relus.update({str(k): nn.ReLU() for k, first in zip(block.inputs, firsts, strict=True) if first})
        self.prepared = nn.ModuleList(_module(step or ()) for step in plan.prepared)
        self.operations = nn.ModuleList(
            nn.ModuleList(
                _dropped(path(step[1:] if first else step), keep if drops else 1.0)
                for step, first, drops in zip(block.paths, firsts, block.dropped, strict=True)
            )
            for block, firsts in zip(plan.blocks, rectified, strict=True)
        )
        self.fitted = nn.ModuleList(_module(step) for _, step in plan.concatenated)

    def forward(self, current: Tensor, older: Tensor) -> Tensor:
        """The two outputs that it reads -> its own, [n, channels, h, w]."""
        states = [_apply(module, x) for module, x in zip(self.prepared, (current, older), strict=True)]
        positive: dict[int, Tensor] = {}
        for (left, right), rectified, concat, pair in zip(
            self.inputs, self.rectified, self.concat, self.operations, strict=True
        ):
            ends = []
            for k, first, operation in zip((left, right), rectified, pair, strict=True):  # type: ignore[call-overload]
                if first and k not in positive:
                    positive[k] = self.relus[str(k)](states[k])
                ends.append(_apply(operation, positive[k] if first else states[k]))
            states.append(torch.cat(ends, 1) if concat else ends[0] + ends[1])
        last = [_apply(module, states[k]) for k, module in zip(self.outputs, self.fitted, strict=True)]
        return torch.cat(last, 1) if len(last) > 1 else last[0]

    def trace(self, trace: ChannelTrace, module: str, current: Groups, older: Groups) -> Groups:
        """Add its layers; gives the channels that come out. Operations correspond if they differ in their kernels alone."""
        states = [
            _traced(trace, part, f"{module}.prepared.{k}", f"{self.name} state {k}", reads)
            for k, (part, reads) in enumerate(zip(self.prepared, (current, older), strict=True))
        ]
        for b, (inputs, concat, pair) in enumerate(zip(self.inputs, self.concat, self.operations, strict=True)):
            name, at = f"{self.name} state {b + 2}", f"{module}.operations.{b}"
            ends: list[Groups] = []
            for side, (k, part) in enumerate(zip(inputs, pair, strict=True)):  # type: ignore[call-overload]
                own = f"{name} side {side} {_signature(part)}"
                end = trace.path(part, own, states[k], module=f"{at}.{side}")
                pooled = end == states[k] and not isinstance(part, nn.Identity)
                ends.append(trace.version(own, end) if pooled else end)
            # What is added has the channels of the sum, in the same order.
            states.append((*ends[0], *ends[1]) if concat else trace.group(name, trace.size(ends[0])))
        last = [
            _traced(trace, part, f"{module}.fitted.{at}", f"{self.name} output {k}", states[k])
            for at, (k, part) in enumerate(zip(self.outputs, self.fitted, strict=True))
        ]
        return tuple(chain.from_iterable(last))


class NASNet(nn.Module):
    """The network: a stem, cells that each read the two before, a classifier.

    Args:
        plan: everything with its shapes.
        skeleton: of the architecture.

    `auxiliary` is the second classifier of training, or None: `forward_with_auxiliary` gives its logits as well, and
    `auxiliary_weight` is that of its loss. `set_progress` tells the schedule of drop-path how far training is.
    """

    def __init__(self, plan: Plan, skeleton: dict[str, Any]) -> None:
        super().__init__()
        number, keep = len(plan.cells), skeleton["drop_path_keep"]
        self.reads = [(cell.current, cell.older) for cell in plan.cells]
        self.image_channels = plan.stem[0].shape.channels
        self.stem = path(plan.stem)
        # The deeper a cell, the more of it is dropped; the last one's share is the whole.
        self.cells = nn.ModuleList(Cell(cell, 1 - (k + 1) / number * (1 - keep)) for k, cell in enumerate(plan.cells))
        self.relu = nn.ReLU()
        self.pool = GlobalAverage()
        drops = skeleton["dropout_keep"] < 1
        self.dropout = nn.Dropout(1 - skeleton["dropout_keep"]) if drops else nn.Identity()
        self.classifier = nn.Linear(plan.features, plan.num_classes)
        self.auxiliary: AuxiliaryHead | None = None
        self.auxiliary_weight = float(skeleton["auxiliary"])
        self.auxiliary_after = plan.auxiliary_after
        if plan.auxiliary is not None:
            self.auxiliary = AuxiliaryHead(plan.auxiliary, plan.num_classes)
        initialise(self)
        self.drops = [module for module in self.modules() if isinstance(module, DropPath)]
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = round(1 - skeleton["batch_norm_decay"], 12)
                module.eps = skeleton["batch_norm_epsilon"]

    def forward(self, image: Tensor) -> Tensor:
        """[n, channels, height, width] -> logits [n, num_classes]."""
        return self._classify(self._outputs(image)[-1])

    def forward_with_auxiliary(self, image: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits, and those of the auxiliary head, where there is one."""
        outputs = self._outputs(image)
        auxiliary = None if self.auxiliary is None else self.auxiliary(outputs[self.auxiliary_after + 1])
        return self._classify(outputs[-1]), auxiliary

    def endpoints(self, image: Tensor) -> list[Tensor]:
        """The outputs of the stem's convolution and of all cells, in order."""
        return self._outputs(image)

    def set_progress(self, done: float) -> None:
        """Set drop-path to what it is when this part of the training is done, from 0 to 1: it grows linearly."""
        for module in self.drops:
            module.keep = 1 - min(1.0, max(0.0, done)) * (1 - module.least)

    def channel_groups(self) -> NetworkChannels:
        """Its layers and their channels."""
        trace = ChannelTrace()
        outputs = [trace.path(self.stem, "stem", trace.group("image", self.image_channels), module="stem")]
        for k, (cell, (current, older)) in enumerate(zip(self.cells, self.reads, strict=True)):
            assert isinstance(cell, Cell)
            outputs.append(cell.trace(trace, f"cells.{k}", outputs[current], outputs[older]))
        trace.linear("classifier", "classifier", outputs[-1], self.classifier)
        if self.auxiliary is not None:
            features = outputs[self.auxiliary_after + 1]
            features = trace.path(self.auxiliary.features, "auxiliary", features, module="auxiliary.features")
            trace.linear("auxiliary.classifier", "auxiliary classifier", features, self.auxiliary.classifier)
        return trace.channels()

    def _outputs(self, image: Tensor) -> list[Tensor]:
        outputs = [self.stem(image)]
        for cell, (current, older) in zip(self.cells, self.reads, strict=True):
            outputs.append(cell(outputs[current], outputs[older]))
        return outputs

    def _classify(self, features: Tensor) -> Tensor:
        logits: Tensor = self.classifier(_apply(self.dropout, self.pool(self.relu(features))))
        return logits


class AuxiliaryHead(nn.Module):
    """A classifier on the state before the second reduction, for training alone."""

    def __init__(self, layers: Path, num_classes: int) -> None:
        super().__init__()
        self.features = path(layers)
        self.classifier = nn.Linear(layers[-1].out.channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """[n, c, h, w] -> logits [n, num_classes]."""
        logits: Tensor = self.classifier(self.features(x).flatten(1))
        return logits


def _apply(module: nn.Module, x: Tensor) -> Tensor:
    """What the module makes of it; identities leave no trace in an export."""
    out: Tensor = x if isinstance(module, nn.Identity) else module(x)
    return out


def _traced(trace: ChannelTrace, part: nn.Module, module: str, name: str, reads: Groups) -> Groups:
    """What comes out of a step."""
    halves = next(
        ((key, half) for key, half in part.named_modules(prefix=module) if isinstance(half, FactorisedReduction)), None
    )
    if halves is None:
        return trace.path(part, name, reads, module=module)
    key, half = halves
    first = trace.path(half.first, f"{name} first", reads, module=f"{key}.first")
    second = trace.path(half.second, f"{name} second", reads, module=f"{key}.second")
    return trace.norm(f"{key}.norm", f"{name} norm", (*first, *second))


def _signature(operation: nn.Module) -> str:
    """What the layers of an operation are, without the sizes of their kernels."""
    return " ".join(
        f"{type(part).__name__}{'' if isinstance(part, nn.MaxPool2d | nn.AvgPool2d) else (part.groups > 1, part.dilation)}"
        for part in operation.modules()
        if isinstance(part, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d)
    )


def path(layers: Path) -> nn.Module:
    """The modules of a path, in order; an empty one is the identity."""
    modules = [module for k, layer in enumerate(layers) for module in _modules(layer, first=k == 0)]
    return nn.Sequential(*modules) if modules else nn.Identity()


def _module(step: Step) -> nn.Module:
    if not isinstance(step, Halving):
        return path(step)
    reduction = FactorisedReduction(step)
    return nn.Sequential(nn.ReLU(), reduction) if step.relu else reduction


def _dropped(module: nn.Module, keep: float) -> nn.Module:
    return nn.Sequential(module, DropPath(keep)) if keep < 1 else module


def _rectified(step: Path) -> bool:
    return bool(step) and step[0].kind == "relu"


def _modules(layer: Layer, *, first: bool) -> list[nn.Module]:
    left, right, top, bottom = layer.pads
    even = (left, top) == (right, bottom)
    match layer.kind:
        case "relu":
            return [nn.ReLU(inplace=not first)]  # what others may read stays; what batch norm gave is read here alone
        case "norm":
            return [nn.BatchNorm2d(layer.out.channels)]
        case "shift":
            return [nn.ZeroPad2d(layer.pads)]
        case "conv":
            convolution = nn.Conv2d(
                layer.shape.channels,
                layer.out.channels,
                layer.kernel,
                layer.stride,
                (top, left) if even else 0,
                layer.dilation,
                layer.groups,
                bias=False,
            )
            return [convolution] if even else [nn.ZeroPad2d(layer.pads), convolution]
    # Where one side has one more, the last window reaches over the edge, which for strides is what ceil_mode does.
    kernel, stride, padding = (_one(pair) for pair in (layer.kernel, layer.stride, (top, left)))
    if layer.kind == "avg_pool":
        return [nn.AvgPool2d(kernel, stride, padding, ceil_mode=not even, count_include_pad=False)]
    if not even and 1 in layer.stride:
        return [nn.ConstantPad2d(layer.pads, -math.inf), nn.MaxPool2d(kernel, stride)]
    return [nn.MaxPool2d(kernel, stride, padding, ceil_mode=not even)]


def _one(pair: tuple[int, int]) -> int | tuple[int, int]:
    return pair[0] if pair[0] == pair[1] else pair


def initialise(network: nn.Module) -> None:
    """Draw weights as the released code does: normal with variance 2.6 / fan-out, cut off at two deviations.

    (Variance scaling with factor 2, and 1.3 for what the cut takes away.) The fan-out is that of one group, so a
    depthwise filter's is its own size. Biases are zero.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.out_channels / module.groups * math.prod(module.kernel_size)
        elif isinstance(module, nn.Linear):
            fan_out = module.out_features
            nn.init.zeros_(module.bias)
        else:
            continue
        with torch.no_grad():  # by the inverse of the distribution: torch's own draws until all fit, and is slow
            module.weight.uniform_(-_WITHIN, _WITHIN).erfinv_().mul_(math.sqrt(2 * 2.6 / fan_out))
