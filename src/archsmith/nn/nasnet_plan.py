"""From the architecture of a NASNet to all its cells with their shapes, in plain Python (Zoph et al. 2018, sections 3
and A.4, and the released code).

Whatever can be refused is refused here, before torch is loaded and memory is taken; and sizes are counted here, which
is what scaling to a budget needs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from archsmith.core.child import Task
from archsmith.core.errors import LimitExceeded, UsageError
from archsmith.nn.nasnet_layers import (
    Chain,
    Layer,
    Path,
    Shape,
    Step,
    depth_of,
    halve,
    layers_of,
    operation,
    project,
)

MAX_PARAMETERS = 2 * 10**9
MAX_ACTIVATIONS = 10**10  # numbers that all convolutions give, for one image


@dataclass(frozen=True, slots=True)
class Block:
    """Two operations on two states, and how they become one.

    Args:
        inputs: the states.
        paths: the operations.
        dropped: which of them drop-path may drop: all but identities.
        combination: "add" or "concat".
    """

    inputs: tuple[int, int]
    paths: tuple[Path, Path]
    dropped: tuple[bool, bool]
    combination: str


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell.

    Args:
        name: "cell 3", "reduction 0" or "stem 1".
        current, older: the outputs that it reads; 0 is that of the stem's convolution, and k + 1 that of cell k.
        prepared: how the two become states 0 and 1; None for one that nothing reads.
        blocks: their states are numbered from 2.
        concatenated: which states are its output, and how each comes to its shape there.
        out: the shape of its output.
    """

    name: str
    current: int
    older: int
    prepared: tuple[Step | None, Step | None]
    blocks: tuple[Block, ...]
    concatenated: tuple[tuple[int, Step], ...]
    out: Shape

    def steps(self) -> Iterator[Step]:
        """All that has layers."""
        yield from (step for step in self.prepared if step is not None)
        for block in self.blocks:
            yield from block.paths
        yield from (step for _, step in self.concatenated)


@dataclass(frozen=True, slots=True)
class Plan:
    """A network.

    Args:
        stem: its first convolution.
        cells: in order.
        auxiliary: the path to the features of the auxiliary head, or None.
        auxiliary_after: the cell that the head reads.
        features: channels that the classifier reads.
        num_classes: how many logits it gives.
    """

    stem: Path
    cells: tuple[Cell, ...]
    auxiliary: Path | None
    auxiliary_after: int
    features: int
    num_classes: int

    def _layers(self) -> Iterator[Layer]:
        yield from self.stem
        for cell in self.cells:
            for step in cell.steps():
                yield from layers_of(step)

    @property
    def parameters(self) -> int:
        """Without the auxiliary head, which is there in training alone."""
        return sum(layer.parameters for layer in self._layers()) + (self.features + 1) * self.num_classes

    @property
    def auxiliary_parameters(self) -> int:
        """Of the auxiliary head."""
        if self.auxiliary is None:
            return 0
        own = sum(layer.parameters for layer in self.auxiliary)
        return own + (self.auxiliary[-1].out.channels + 1) * self.num_classes

    @property
    def multiply_adds(self) -> int:
        """Of one image, by `archsmith.nn.count.RULE`."""
        return sum(layer.multiply_adds for layer in self._layers()) + self.features * self.num_classes

    @property
    def activations(self) -> int:
        """Numbers that all convolutions give, for one image."""
        return sum(layer.out[0] * layer.out[1] * layer.out[2] for layer in self._layers() if layer.kind == "conv")

    def depth(self) -> tuple[int, int]:
        """How many convolutions there are, and the most of them on one way to the classifier."""
        reached = [depth_of(self.stem)]
        for cell in self.cells:
            ends = (reached[cell.current], reached[cell.older])
            states = [at + depth_of(step or ()) for at, step in zip(ends, cell.prepared, strict=True)]
            for block in cell.blocks:
                into = zip(block.inputs, block.paths, strict=True)
                states.append(max(states[state] + depth_of(path) for state, path in into))
            reached.append(max(states[state] + depth_of(step) for state, step in cell.concatenated))
        return sum(layer.kind == "conv" for layer in self._layers()), reached[-1]


def reductions(cells: int) -> tuple[int, int]:
    """Before which normal cells the reduction cells stand, of 3 x `cells` normal ones."""
    return cells, 2 * cells


def plan_of(architecture: Mapping[str, Any], task: Task) -> Plan:
    """The network of an architecture that `check_architecture` has passed, for images of any size.

    Raises UsageError for a task that its form cannot read, and LimitExceeded for what is too large to be made.
    """
    image, filters = _image(architecture, task), architecture["filters"]
    cells: list[Cell] = []
    outputs: list[Shape] = []
    before: int | None = None  # the output before the last

    def add(name: str, kind: str, width: int, older: int | None) -> None:
        nonlocal before
        current = len(outputs) - 1
        cell = _cell(architecture, kind, name, width, outputs, current, older)
        cells.append(cell)
        outputs.append(cell.out)
        before = current

    multiplier, skeleton = architecture["skeleton"]["stem_multiplier"], architecture["skeleton"]
    if architecture["form"] == "imagenet":
        stem = Chain(image).conv(32 * multiplier, (3, 3), (2, 2), same=False).norm().path()
        outputs.append(stem[-1].out)
        add("stem 0", "reduction", filters // 4, None)
        add("stem 1", "reduction", filters // 2, before)
    else:
        stem = Chain(image).conv(multiplier * filters, (3, 3)).norm().path()
        outputs.append(stem[-1].out)
    width, auxiliary_after = filters, 0
    halved = reductions(architecture["cells"])
    for i in range(3 * architecture["cells"]):
        older = before
        if i in halved:
            width *= 2
            add(f"reduction {halved.index(i)}", "reduction", width, before)
            if not skeleton["skip_reduction_input"]:
                older = before
        add(f"cell {i}", "normal", width, older)
        if i == halved[1] - 1:
            auxiliary_after = len(cells) - 1
    auxiliary = None
    if skeleton["auxiliary"]:
        auxiliary = _auxiliary(cells[auxiliary_after].out, skeleton["auxiliary_scale"])
    plan = Plan(stem, tuple(cells), auxiliary, auxiliary_after, outputs[-1].channels, task.num_classes)
    _check_size(plan)
    return plan


def _image(architecture: Mapping[str, Any], task: Task) -> Shape:
    if len(task.input_shape) != 3:
        raise UsageError(f"NASNet reads images, [channels, height, width], and input_shape is {task.input_shape}")
    image = Shape(*task.input_shape)
    if architecture["form"] == "imagenet" and min(image.height, image.width) < 3:
        raise UsageError(f"the form imagenet needs images of at least 3x3, got {image.height}x{image.width}; use cifar")
    return image


def _cell(
    architecture: Mapping[str, Any],
    kind: str,
    name: str,
    filters: int,
    outputs: Sequence[Shape],
    current: int,
    older: int | None,
) -> Cell:
    """A cell on two outputs, with shapes. Without an older one it reads the current one twice, the second time raw."""
    definition, stride = architecture[kind], 2 if kind == "reduction" else 1
    bottleneck = architecture["skeleton"]["bottleneck"]
    read = {state for block in definition["blocks"] for state in block["inputs"]} | set(definition["concatenated"])
    now, past = outputs[current], outputs[current if older is None else older]
    prepared: list[Step | None] = [project(now, filters) if 0 in read else None, None]
    if 1 in read:
        prepared[1] = () if older is None else _matched(past, filters, now[1:], relu=True)
    states = [_end(now, prepared[0]), _end(past, prepared[1])]
    blocks = []
    for block in definition["blocks"]:
        (left, right), names = block["inputs"], block["operations"]
        one, other = (
            operation(op, states[k], filters, stride if k < 2 else 1, bottleneck)
            for op, k in zip(names, (left, right), strict=True)
        )
        ends = (_end(states[left], one), _end(states[right], other))
        together = ends[0].channels + (ends[1].channels if block["combination"] == "concat" else 0)
        states.append(Shape(together, *ends[0][1:]))
        dropped = (names[0] != "identity", names[1] != "identity")
        blocks.append(Block((left, right), (one, other), dropped, block["combination"]))
    size = states[-1][1:]
    joined = tuple(
        (k, _matched(states[k], filters, size, relu=False) if k < 2 else ()) for k in definition["concatenated"]
    )
    channels = sum(_end(states[k], step).channels for k, step in joined)
    number = (prepared[0], prepared[1])
    return Cell(
        name, current, current if older is None else older, number, tuple(blocks), joined, Shape(channels, *size)
    )


def _matched(shape: Shape, filters: int, size: tuple[int, ...], *, relu: bool) -> Step:
    """How a state gets so many channels and a size: halved, projected, or as it is."""
    if shape[1:] != size:
        return halve(shape, filters, relu=relu)
    return project(shape, filters, relu=relu) if shape.channels != filters else ()


def _end(shape: Shape, step: Step | None) -> Shape:
    layers = layers_of(step) if step is not None else ()
    return layers[-1].out if layers else shape


def _auxiliary(shape: Shape, scale: float) -> Path:
    """The auxiliary head up to its features. Its pooling window is 5x5, on smaller maps the whole map."""
    window = (min(5, shape.height), min(5, shape.width))
    chain = Chain(shape).relu().pool("avg", window, (3, 3), same=False).conv(int(128 * scale)).norm().relu()
    return chain.conv(int(768 * scale), chain.shape[1:], same=False).norm().relu().path()


def _check_size(plan: Plan) -> None:
    for reason, number, limit, what in (
        ("parameters", plan.parameters + plan.auxiliary_parameters, MAX_PARAMETERS, "numbers to train"),
        ("memory", plan.activations, MAX_ACTIVATIONS, "numbers that its convolutions give for each image"),
    ):
        if number > limit:
            raise LimitExceeded(
                f"the architecture is too large to be built: it has {number:.2g} {what}, and at most {limit:.0g} are "
                "allowed; use fewer cells or filters, or smaller images",
                reason=reason,
            )
