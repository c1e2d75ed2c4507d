"""MetaQNN's space of plain convolutional networks (Baker et al. 2017, "Designing Neural Network Architectures using
Reinforcement Learning", sections 4.1 and 4.2, table 1).

Layer by layer one question, "what comes next?", whose options are written as in the paper: C(filters, size, stride) a
convolution, P(size, stride) a max pool, FC(width) fully connected, and GAP or SM to end. So an option is an action of
the paper's agent, and `state` names the state in which it acts.

An architecture is plain data, complete without the space it came from:

    {"kind": "qnet", "head": "softmax", "dropout": 0.5, "batch_norm": false, "dense_side": null, "layers": [
        {"type": "conv", "filters": 512, "filter_size": 5}, {"type": "max_pool", "pool_size": 5, "pool_stride": 3},
        {"type": "fc", "units": 256}]}

docs/decisions/0012-metaqnn.md has what the paper leaves open, and where its text and its code disagree.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from archsmith.core.checks import plain_fields
from archsmith.core.child import AnyTask, Child, Task
from archsmith.core.diagram import Diagram, Edge, Node
from archsmith.core.errors import UsageError
from archsmith.core.genotype import Answer, Architecture, Genotype, Scalar
from archsmith.core.shown import shown
from archsmith.core.space import decode, identity
from archsmith.core.walk import Choose
from archsmith.spaces.chain_plan import whole
from archsmith.spaces.qnet_plan import KIND, MAX_LAYERS, check_architecture, check_training, plan_of, pooled


@dataclass(frozen=True)
class QNet:
    """The space. The defaults are the paper's table 1; `cifar10()` is its experiment on CIFAR-10.

    What may follow what: a pool follows a convolution; a fully connected layer follows a map of the two smaller bins of
    representation size, or a fully connected layer that is not narrower; it is followed by no map again. No filter and
    no window is larger than the bin. A network may end anywhere.

    Args:
        image_size: the side of the images (the smaller one) that the representation size is counted from.
        max_layers: the most layers; the softmax is none.
        filters: how many filters a convolution may have.
        filter_sizes: their sides, odd numbers.
        pools: sides and strides of max pools.
        fc_widths: units of fully connected layers.
        max_fc: the most of them.
        dropout: behind the last of every two layers; i/n of it behind the i-th pair of n.
        batch_norm: whether batch norm stands behind each convolution, which the paper's networks do without and short
            trainings gain by.
        dense_side: a map is averaged down to so many rows and columns before a fully connected layer or the softmax,
            where it has more. None: it is read as it is.
    """

    image_size: int = 32
    max_layers: int = 12
    filters: tuple[int, ...] = (64, 128, 256, 512)
    filter_sizes: tuple[int, ...] = (1, 3, 5)
    pools: tuple[tuple[int, int], ...] = ((5, 3), (3, 2), (2, 2))
    fc_widths: tuple[int, ...] = (512, 256, 128)
    max_fc: int = 2
    dropout: float = 0.5
    batch_norm: bool = False
    dense_side: int | None = None

    version: ClassVar[int] = 1
    kind: ClassVar[str] = KIND

    def __post_init__(self) -> None:
        plain_fields(self)
        _check_space(self)

    @classmethod
    def cifar10(cls) -> QNet:
        """The paper's experiment on CIFAR-10: up to 18 layers."""
        return cls(max_layers=18)

    # --- the questions ------------------------------------------------------------------------------------------------

    def architecture(self, choose: Choose) -> Architecture:
        """The architecture that the answers describe."""
        at, layers = self._start(), []
        while (action := choose(f"{at.depth}.layer", _actions(self, at))) not in _ENDS:
            layers.append(_layer(action))
            at = _after(at, action)
        return {
            "kind": self.kind,
            "head": _ENDS[action],
            "dropout": self.dropout,
            "batch_norm": self.batch_norm,
            "dense_side": self.dense_side,
            "layers": [dict(layer) for layer in layers],
        }

    def state(self, answers: Mapping[str, Answer]) -> tuple[Scalar, ...]:
        """The paper's state in which the next question is asked: the last layer's type, depth, filters (of a fully
        connected one: how many there are in a row), size, stride, the bin of the representation size, and width.

        The bin is 8 for a side above 7, 4 for one above 3, else 1. A pool may or may not change it, so the way from
        state to state is stochastic; the options are a function of the state alone.
        """
        at = self._start()
        while (action := answers.get(f"{at.depth}.layer")) is not None and action not in _ENDS:
            at = _after(at, str(action))
        layer = at.layer
        return (
            at.type, at.depth, at.in_a_row if at.type == "fc" else layer.get("filters", 0),
            layer.get("filter_size", layer.get("pool_size", 0)), layer.get("pool_stride", int(at.type == "conv")),
            _bin(at.size), layer.get("units", 0),
        )  # fmt: skip

    def from_layers(self, layers: Sequence[str]) -> Genotype:
        """The genotype of a network in the paper's words, such as ("C(512,5,1)", "P(2,2)", "FC(128)", "SM").

        Raises IllegalGenotype when the space does not have it.
        """
        answers: dict[str, Answer] = {f"{i}.layer": "".join(layer.split()) for i, layer in enumerate(layers)}
        genotype = Genotype(identity(self), answers)
        decode(self, genotype)
        return genotype

    def _start(self) -> _At:
        return _At(self.image_size)

    # --- the child ----------------------------------------------------------------------------------------------------

    def build(self, architecture: Architecture, task: AnyTask) -> Child:
        """The child of any architecture of this kind, for images [channels, height, width] of any size.

        Raises UsageError when the architecture is not one or the task is not of images, and LimitExceeded when it is
        too large to be made.
        """
        if not isinstance(task, Task):
            raise UsageError(f"QNet builds networks for images, and the task is a {type(task).__name__}")
        plan = plan_of(architecture, task)  # everything is refused here that can be, before memory is taken
        from torch import nn

        from archsmith.nn.qnet import Dense, QNetwork, average_classifier, conv, max_pool

        modules: list[nn.Module] = []
        side = architecture["dense_side"]
        for step in plan.steps:
            layer = step.layer
            match layer["type"]:
                case "conv":
                    modules.append(
                        conv(step.channels, layer["filters"], layer["filter_size"], architecture["batch_norm"])
                    )
                case "max_pool":
                    modules.append(max_pool(step.size, layer["pool_size"], layer["pool_stride"]))
                case _:
                    modules.append(nn.Sequential(Dense(step.channels, step.size, layer["units"], side), nn.ReLU()))
            if step.dropout:
                modules.append(nn.Dropout(step.dropout))
        if architecture["head"] == "gap":
            classifier: nn.Module = average_classifier(plan.channels, task.num_classes)
        else:
            classifier = Dense(plan.channels, plan.size, task.num_classes, side)
        return Child(QNetwork(modules, classifier))

    # --- the drawing --------------------------------------------------------------------------------------------------

    def diagram(self, architecture: Architecture) -> Diagram:
        """The architecture as one column of boxes."""
        check_architecture(architecture)
        layers = architecture["layers"]
        drops = len(layers) // 2
        nodes = [Node("image", "image", role="input")]
        for i, layer in enumerate(layers):
            label, detail, role = _caption(layer)
            if i % 2 and architecture["dropout"]:
                detail += f", dropout {architecture['dropout'] * (i // 2 + 1) / drops:.3g}"
            nodes.append(Node(str(i), label, detail, role))
        head = "global average, linear" if architecture["head"] == "gap" else "linear"
        nodes.append(Node("classifier", "classifier", head, "output"))
        edges = tuple(Edge(a.id, b.id) for a, b in itertools.pairwise(nodes))
        title = f"A network of {len(layers)} layer{'' if len(layers) == 1 else 's'} of MetaQNN's space"
        return Diagram(title, tuple(nodes), edges, "chain")


def _caption(layer: Mapping[str, Any]) -> tuple[str, str, str]:
    match layer["type"]:
        case "conv":
            return "{0}×{0} conv".format(layer["filter_size"]), f"{layer['filters']} filters", "conv"
        case "max_pool":
            return "{0}×{0} max pool".format(layer["pool_size"]), f"stride {layer['pool_stride']}", "pool"
        case _:
            return "fully connected", f"{layer['units']} units", "dense"


# --- what may follow what ---------------------------------------------------------------------------------------------

_ENDS = {"GAP": "gap", "SM": "softmax"}


@dataclass(frozen=True, slots=True)
class _At:
    """Where a network has come to: the side of its map, and the last layer."""

    size: int
    depth: int = 0
    type: str = "start"
    action: str = ""
    in_a_row: int = 0  # fully connected layers

    @property
    def layer(self) -> Mapping[str, Any]:
        return _layer(self.action) if self.action else {}


def _bin(size: int) -> int:
    """The bin of a representation size (section 4.1), named as in the authors' code: 8, 4 and 1."""
    return 8 if size > 7 else 4 if size > 3 else 1


@functools.lru_cache(maxsize=4096)
def _layer(action: str) -> Mapping[str, Any]:
    """The layer that an action adds."""
    name, _, numbers = action.rstrip(")").partition("(")
    values = [int(number) for number in numbers.split(",")]
    match name:
        case "C":
            return {"type": "conv", "filters": values[0], "filter_size": values[1]}
        case "P":
            return {"type": "max_pool", "pool_size": values[0], "pool_stride": values[1]}
        case _:
            return {"type": "fc", "units": values[0]}


@functools.lru_cache(maxsize=1 << 16)
def _after(at: _At, action: str) -> _At:
    layer = _layer(action)
    match layer["type"]:
        case "max_pool":
            size = pooled(at.size, layer["pool_size"], layer["pool_stride"])
            return _At(size, at.depth + 1, "pool", action)
        case "fc":
            return _At(0, at.depth + 1, "fc", action, at.in_a_row + 1)  # the code's representation size of an FC state
        case _:
            return replace(at, depth=at.depth + 1, type="conv", action=action)


@functools.lru_cache(maxsize=1 << 16)
def _actions(space: QNet, at: _At) -> tuple[str, ...]:
    """What may come next, in the order of the authors' code: convolutions, pools, fully connected layers, the ends."""
    largest, found = _bin(at.size), []
    if at.depth < space.max_layers:
        if at.type != "fc":
            found += [f"C({n},{size},1)" for n in space.filters for size in space.filter_sizes if size <= largest]
        if at.type == "conv":
            found += [f"P({size},{stride})" for size, stride in space.pools if size <= largest]
        if at.type == "fc":
            widest = at.layer["units"]
            found += [f"FC({width})" for width in space.fc_widths if width <= widest and at.in_a_row < space.max_fc]
        elif largest < 8 and space.max_fc:
            found += [f"FC({width})" for width in space.fc_widths]
    return (*found, *(end for end in _ENDS if end == "SM" or at.type != "fc"))


# --- options that make no sense ---------------------------------------------------------------------------------------


def _check_space(space: QNet) -> None:
    """Raise UsageError unless the options make sense; lists, as JSON has them, become tuples."""
    whole("image_size of QNet", space.image_size, 1)
    whole("max_layers of QNet", space.max_layers, 1, MAX_LAYERS)
    whole("max_fc of QNet", space.max_fc, 0, MAX_LAYERS)
    for name in ("filters", "filter_sizes", "fc_widths"):
        for value in _options(space, name, empty=name == "fc_widths"):
            whole(f"{name} of QNet", value, 1)
            if name == "filter_sizes" and value % 2 == 0:
                raise UsageError(
                    f"filter_sizes of QNet must be odd, so that padding is equal on both sides, got {value}"
                )
    pools = []
    for pool in _options(space, "pools", empty=True):
        if not isinstance(pool, Sequence) or isinstance(pool, str) or len(pool) != 2:
            raise UsageError(f"pools of QNet must be pairs of size and stride, such as (3, 2), got {shown(pool)}")
        for value in pool:
            whole("a size or stride in pools of QNet", value, 1)
        pools.append(tuple(pool))
    object.__setattr__(space, "pools", tuple(pools))
    check_training(space.dropout, space.batch_norm, space.dense_side)


def _options(space: QNet, name: str, *, empty: bool) -> tuple[Any, ...]:
    values = getattr(space, name)
    if not isinstance(values, Sequence) or isinstance(values, str) or not (values or empty):
        raise UsageError(f"{name} of QNet must be a tuple{'' if empty else ' of at least one'}, got {shown(values)}")
    if len(set(map(repr, values))) != len(values):
        raise UsageError(f"{name} of QNet must differ from each other, got {shown(values)}")
    object.__setattr__(space, name, tuple(values))
    return tuple(values)
