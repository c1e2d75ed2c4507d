"""Residual networks in stages (He et al. 2016; Radosavovic et al. 2020, "Designing Network Design Spaces").

A network is a stem and a row of stages, as people design them: for each stage the space asks for the block, its depth,
width, kernel and stride, how much a block expands, and squeeze-and-excitation; for the network, how many stages there are, the
stem, the activation, where it stands, and what shortcuts do. ResNet-20, ResNet-18, ResNet-50 and the wide residual
networks are points of the default space, and so are narrow ones that train within minutes (`archsmith.discovered.RESIDUAL`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from archsmith.core.checks import plain_fields
from archsmith.core.child import AnyTask, Child, Task
from archsmith.core.config import added_later
from archsmith.core.diagram import Diagram
from archsmith.core.errors import LimitExceeded, UsageError
from archsmith.core.genotype import Architecture, Genotype
from archsmith.core.shown import shown
from archsmith.core.space import identity
from archsmith.core.walk import Choose, choose_known
from archsmith.nn.mobile_plan import check_kernel, check_ratio, fraction, whole
from archsmith.spaces.residual_network.architecture import (
    ACTIVATIONS,
    BLOCKS,
    KIND,
    MAX_DEPTH,
    MAX_STAGES,
    MAX_STRIDE,
    MAX_WIDTH,
    SHORTCUTS,
    check_architecture,
    check_expansion,
    one_of,
)
from archsmith.spaces.residual_network.diagram import diagram_of

MAX_PARAMETERS = 10**9


@dataclass(frozen=True)
class ResidualNetwork:
    """The space. Options that are one alone are not asked.

    Args:
        stages: how many stages there may be.
        blocks: of "basic", "bottleneck" and "inverted".
        depths: blocks of a stage.
        widths: channels of the first stage; those of stage i are 2**i times as many.
        kernels: sides of the k×k convolutions, odd numbers.
        strides: of a stage's first block.
        first_strides: of the first stage, where they are others than of the other stages.
        bottlenecks: the inner channels of a bottleneck block as a part of its width.
        expansions: how many times an inverted block expands what it reads.
        se_ratios: the width of squeeze-and-excitation as a part of the block's channels; 0: none.
        stem_filters, stem_kernels, stem_strides, stem_pools: of the first convolution, and whether a 3×3 max pool with a
            stride of 2 follows it.
        activations: of "relu", "silu", "hardswish" and "gelu".
        preactivations: whether batch norm and activation stand before convolutions; inverted blocks have them behind.
        shortcuts: of "conv", "pool" and "pad".
        head: filters of a 1×1 convolution behind the last stage; 0: none.
        dropout: before the classifier.
    """

    stages: tuple[int, ...] = (3, 4)
    blocks: tuple[str, ...] = BLOCKS
    depths: tuple[int, ...] = (1, 2, 3, 4, 6, 9, 23)
    widths: tuple[int, ...] = (8, 16, 24, 32, 40, 48, 64, 96, 128, 160, 256)
    kernels: tuple[int, ...] = (3, 5, 7)
    strides: tuple[int, ...] = (1, 2)
    bottlenecks: tuple[float, ...] = (0.25, 0.5)
    expansions: tuple[float, ...] = (1.0, 2.0, 4.0, 6.0)
    se_ratios: tuple[float, ...] = (0.0, 0.0625, 0.25)
    stem_filters: tuple[int, ...] = (16, 24, 32, 40, 64)
    stem_kernels: tuple[int, ...] = (3, 7)
    stem_strides: tuple[int, ...] = (1, 2)
    stem_pools: tuple[bool, ...] = (False, True)
    activations: tuple[str, ...] = ACTIVATIONS
    preactivations: tuple[bool, ...] = (False, True)
    shortcuts: tuple[str, ...] = SHORTCUTS
    head: int = 0
    dropout: float = 0.0
    first_strides: tuple[int, ...] = added_later(())

    version: ClassVar[int] = 1
    kind: ClassVar[str] = KIND

    def __post_init__(self) -> None:
        plain_fields(self)
        _check_space(self)

    @classmethod
    def desk(cls) -> ResidualNetwork:
        """Networks that train within minutes on two cores; `resnet18_narrow` and `resnet10_narrow` are among them."""
        return cls(
            depths=(1, 2, 3),
            widths=(16, 24, 32, 40, 48),
            kernels=(3, 5),
            bottlenecks=(0.25,),
            expansions=(2.0, 4.0),
            se_ratios=(0.0, 0.25),
            stem_filters=(16, 24, 32, 40),
            stem_kernels=(3,),
            stem_pools=(False,),
            activations=("relu", "silu"),
            preactivations=(False,),
            shortcuts=("conv", "pool"),
        )

    # --- the questions ------------------------------------------------------------------------------------------------

    def architecture(self, choose: Choose) -> Architecture:
        """The architecture that the answers describe."""

        def ask(name: str, options: Sequence[Any]) -> Any:
            return choose(name, options) if len(options) > 1 else options[0]

        stages = ask("stages", self.stages)
        return {
            "kind": self.kind,
            "activation": ask("activation", self.activations),
            "preactivation": ask("preactivation", self.preactivations),
            "shortcut": ask("shortcut", self.shortcuts),
            "dropout": self.dropout,
            "stem": {
                "filters": ask("stem.filters", self.stem_filters),
                "kernel": ask("stem.kernel", self.stem_kernels),
                "stride": ask("stem.stride", self.stem_strides),
                "pool": ask("stem.pool", self.stem_pools),
            },
            "head": self.head,
            "stages": [self._stage(ask, i) for i in range(stages)],
        }

    def _stage(self, ask: Any, i: int) -> dict[str, Any]:
        block = ask(f"{i}.block", self.blocks)
        # Each has a name of its own: an expansion of 4 means nothing to a bottleneck.
        expansion = 1.0
        if block == "bottleneck":
            expansion = ask(f"{i}.bottleneck", self.bottlenecks)
        elif block == "inverted":
            expansion = ask(f"{i}.expansion", self.expansions)
        return {
            "block": block,
            "depth": ask(f"{i}.depth", self.depths),
            "width": ask(f"{i}.width", tuple(width * 2**i for width in self.widths)),
            "kernel": ask(f"{i}.kernel", self.kernels),
            "stride": ask(f"{i}.stride", self.first_strides if i == 0 and self.first_strides else self.strides),
            "expansion": expansion,
            "se_ratio": ask(f"{i}.se_ratio", self.se_ratios),
        }

    def genotype(self, architecture: Architecture) -> Genotype:
        """The genotype of an architecture, such as a published one.

        Raises UsageError when the architecture is not a point of this space; the message names the first value that is
        no option.
        """
        check_architecture(architecture)
        values = _values(architecture)
        answers: dict[str, Any] = {}
        reached = self.architecture(choose_known(values, answers))  # type: ignore[arg-type]
        if reached != architecture:
            name = next(name for name, value in _values(architecture).items() if _values(reached).get(name) != value)
            raise UsageError(
                f"this network is no point of the space: {name} is {values[name]}, and the space has {_values(reached).get(name)}"
            )
        return Genotype(identity(self), answers)

    # --- the child ----------------------------------------------------------------------------------------------------

    def build(self, architecture: Architecture, task: AnyTask) -> Child:
        """The child of any architecture of this kind, for images [channels, height, width] of any size.

        Raises UsageError when the architecture is not one or the task is not of images, and LimitExceeded when it has more
        than 10^9 parameters.
        """
        if not isinstance(task, Task):
            raise UsageError(f"ResidualNetwork builds networks for images, and the task is a {type(task).__name__}")
        check_architecture(architecture)
        if len(task.input_shape) != 3:
            raise UsageError(f"a residual network reads images [channels, height, width], got {task.input_shape}")
        import torch

        from archsmith.nn.count import count_parameters
        from archsmith.spaces.residual_network.network import Network

        with torch.device("meta"):  # nothing is allocated
            parameters = count_parameters(Network(architecture, task))
        if parameters > MAX_PARAMETERS:
            raise LimitExceeded(
                f"this network has {parameters:,} parameters, and at most {MAX_PARAMETERS:,} can be built; use a smaller width",
                reason="parameters",
            )
        return Child(Network(architecture, task))

    def layers_and_depth(self, architecture: Architecture, task: Task) -> tuple[int, int]:
        """How many convolutions the network has without those of shortcuts, and the most of them on one way."""
        number = 1 + (architecture["head"] > 0)
        for stage in architecture["stages"]:
            convolutions = {"basic": 2, "bottleneck": 3, "inverted": 3}[stage["block"]]
            number += (
                stage["depth"] * convolutions
                - (stage["block"] == "inverted" and stage["expansion"] == 1) * stage["depth"]
            )
        return number, number

    # --- the drawing --------------------------------------------------------------------------------------------------

    def diagram(self, architecture: Architecture) -> Diagram:
        """The network block by block, each stage in a frame of its own; arcs are shortcuts."""
        check_architecture(architecture)
        return diagram_of(architecture)


def _values(architecture: Architecture) -> dict[str, Any]:
    """What an architecture says, by the name of the choice."""
    values: dict[str, Any] = {"stages": len(architecture["stages"])}
    values |= {name: architecture[name] for name in ("activation", "preactivation", "shortcut", "dropout", "head")}
    values |= {f"stem.{name}": value for name, value in architecture["stem"].items()}
    for i, stage in enumerate(architecture["stages"]):
        values |= {f"{i}.{name}": value for name, value in stage.items()}
        values[f"{i}.bottleneck"] = stage["expansion"]
    return values


def _check_space(space: ResidualNetwork) -> None:
    """Raise UsageError unless the options make sense; lists, as JSON has them, become tuples."""
    of = "ResidualNetwork"
    for field in fields(space):
        if field.name in ("head", "dropout"):
            continue
        values, may_be_empty = getattr(space, field.name), field.name == "first_strides"
        is_full = isinstance(values, list | tuple) and (bool(values) or may_be_empty)
        if not is_full or len(set(map(repr, values))) != len(values):
            raise UsageError(f"{field.name} of {of} must be a tuple of different values, got {shown(values)}")
        object.__setattr__(space, field.name, tuple(values))
    whole_numbers = (
        ("stages", MAX_STAGES),
        ("depths", MAX_DEPTH),
        ("widths", MAX_WIDTH),
        ("strides", MAX_STRIDE),
        ("first_strides", MAX_STRIDE),
        ("stem_filters", MAX_WIDTH),
        ("stem_strides", MAX_STRIDE),
    )
    for name, most in whole_numbers:
        for value in getattr(space, name):
            whole(f"{name} of {of}", value, 1, most)
    whole(f"the width of the last stage of {of}", max(space.widths) * 2 ** (max(space.stages) - 1), 1, MAX_WIDTH)
    for value in (*space.kernels, *space.stem_kernels):
        check_kernel(of, value)
    for value in (*space.bottlenecks, *space.expansions):
        check_expansion(f"bottlenecks and expansions of {of}", value)
    for value in space.se_ratios:
        check_ratio(of, value)
    choices = (
        ("blocks", BLOCKS),
        ("activations", ACTIVATIONS),
        ("shortcuts", SHORTCUTS),
        ("stem_pools", (False, True)),
        ("preactivations", (False, True)),
    )
    for name, options in choices:
        for value in getattr(space, name):
            one_of(f"{name} of {of}", value, options)
    whole(f"head of {of}", space.head, 0, MAX_WIDTH)
    fraction(f"dropout of {of}", space.dropout, 0.0, 1.0)
