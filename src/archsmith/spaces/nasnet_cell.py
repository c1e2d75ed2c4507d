"""Normal and reduction cells of NASNet (Zoph et al. 2018, "Learning Transferable Architectures for Scalable Image
Recognition", section 3) and of AmoebaNet (Real et al. 2019, "Regularized Evolution for Image Classifier Architecture
Search").

Block by block the space asks for two hidden states, an operation for each, and how the results become a new state: first
for the normal, then for the reduction cell, 2 x 5B decisions. States that nothing reads are concatenated. The cells are
stacked into networks of any depth and width, so what was found on small images moves to large ones: `scaled` and
`scaled_to`. The architecture as plain data is described in `archsmith.nn.nasnet_architecture`, and what the papers leave
open in docs/decisions/0010-nasnet-cell.md.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any, ClassVar

from archsmith.core.checks import plain_fields
from archsmith.core.child import AnyTask, Child, Task
from archsmith.core.diagram import Diagram
from archsmith.core.errors import LimitExceeded, UsageError
from archsmith.core.genotype import Answer, Architecture, Genotype
from archsmith.core.shown import shown
from archsmith.core.walk import Choose
from archsmith.nn.nasnet_architecture import (
    CELLS,
    COMBINATIONS,
    KIND,
    LEAST_FILTERS,
    MAX_BLOCKS,
    MAX_FILTERS,
    SKELETON,
    check_architecture,
    check_size,
    check_skeleton,
    stem_multiplier,
    whole,
)
from archsmith.nn.nasnet_layers import OPERATIONS as ALL_OPERATIONS
from archsmith.nn.nasnet_plan import plan_of
from archsmith.spaces.nasnet_diagram import drawn

OPERATIONS = (
    "identity", "conv_1x3_3x1", "conv_1x7_7x1", "dil_conv_3x3", "avg_pool_3x3", "max_pool_3x3", "max_pool_5x5",
    "max_pool_7x7", "conv_1x1", "conv_3x3", "sep_conv_3x3", "sep_conv_5x5", "sep_conv_7x7",
)  # fmt: skip
"""The 13 operations of NASNet's space."""

AMOEBA_OPERATIONS = (
    "identity", "sep_conv_3x3", "sep_conv_5x5", "sep_conv_7x7", "avg_pool_3x3", "max_pool_3x3", "dil_sep_conv_3x3",
    "conv_1x7_7x1",
)  # fmt: skip
"""The 8 operations of AmoebaNet's space."""

IDENTITY_RATE = 0.05  # how often a mutation changes nothing (Real et al. 2019, Methods Details)


@dataclass(frozen=True)
class NASNetCell:
    """The space. The defaults are NASNet's cells in the small networks of its search; `amoeba()` is AmoebaNet's.

    What is not None by default is the skeleton's: it decides how cells are stacked and trained, and is not searched.

    Args:
        blocks: B, of each cell.
        operations: to choose from; `archsmith.nn.nasnet_layers.OPERATIONS` has all that there are.
        combinations: to choose from, of "add" and "concat"; with one, nothing is asked.
        form: "cifar", for small images, or "imagenet", which reads an eighth of the image's height and width.
        cells: N, the normal cells of a stack; three stacks have 3N, and a reduction cell stands between two.
        filters: F, of the first stack; each reduction doubles them.
        stem_multiplier: the stem's convolution has as many times F filters, and 32 in the form imagenet. None: 3; 1 in
            the form imagenet up to 44 filters.
        skip_reduction_input: whether the cell after a reduction cell reads as the older input what that one read.
        bottleneck: whether convolutions of 3x3, and those in two halves, work with a part of the filters between two
            1x1 convolutions, as in AmoebaNet's code.
        drop_path_keep: what part of the paths of the last cell are kept at the end of training; of cell k of n it is
            1 - k / n (1 - this), and 1 at the beginning. 1: none is ever dropped.
        dropout_keep: before the classifier. None: 1, in the form imagenet 0.5.
        auxiliary: the weight of the loss of an auxiliary classifier, which is there in training alone; 0: none.
        auxiliary_scale: its layers have 128 and 768 times this many filters.
        batch_norm_decay: of the running averages. NASNet's for ImageNet, 0.9997, needs many thousand steps.
        batch_norm_epsilon: None: 1e-5, in the form imagenet 1e-3. An evaluator may have its own.
    """

    blocks: int = 5
    operations: tuple[str, ...] = OPERATIONS
    combinations: tuple[str, ...] = COMBINATIONS
    form: str = "cifar"
    cells: int = 2
    filters: int = 32
    stem_multiplier: int | None = None
    skip_reduction_input: bool = False
    bottleneck: bool = False
    drop_path_keep: float = 1.0
    dropout_keep: float | None = None
    auxiliary: float = 0.0
    auxiliary_scale: float = 1.0
    batch_norm_decay: float = 0.9
    batch_norm_epsilon: float | None = None

    version: ClassVar[int] = 1
    kind: ClassVar[str] = KIND

    def __post_init__(self) -> None:
        plain_fields(self)
        whole("blocks of NASNetCell", self.blocks, 1, MAX_BLOCKS)
        names: tuple[tuple[str, tuple[str, ...]], ...]
        names = (("operations", ALL_OPERATIONS), ("combinations", COMBINATIONS))
        for name, known in names:
            values = getattr(self, name)
            if not isinstance(values, list | tuple) or not values or len(set(map(repr, values))) != len(values):
                raise UsageError(f"{name} of NASNetCell must be a tuple of different names, got {shown(values)}")
            for value in values:
                if value not in known:
                    raise UsageError(f"{name} of NASNetCell must be of {', '.join(known)}, got {shown(value)}")
            object.__setattr__(self, name, tuple(values))
        check_size(self.form, self.cells, self.filters, "NASNetCell")
        for name, value in _of_form(self.form, self.filters).items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        check_skeleton(self.skeleton(), "NASNetCell")

    @classmethod
    def amoeba(
        cls,
        *,
        cells: int = 3,
        filters: int = 24,
        form: str = "cifar",
        drop_path_keep: float = 1.0,
        auxiliary: float = 0.0,
        batch_norm_decay: float = 0.9,
    ) -> NASNetCell:
        """AmoebaNet's space: 8 operations, sums alone, the small networks of its search and the skeleton of its code.

        For others of its options, `dataclasses.replace`.
        """
        return cls(
            operations=AMOEBA_OPERATIONS,
            combinations=("add",),
            form=form,
            cells=cells,
            filters=filters,
            stem_multiplier=1 if form == "imagenet" else 3,
            bottleneck=True,
            drop_path_keep=drop_path_keep,
            auxiliary=auxiliary,
            auxiliary_scale=0.4,
            batch_norm_decay=batch_norm_decay,
        )

    # --- the questions ------------------------------------------------------------------------------------------------

    def architecture(self, choose: Choose) -> Architecture:
        """The architecture that the answers describe."""
        normal, reduction = (self._cell(choose, name) for name in CELLS)
        return {
            "kind": self.kind,
            "form": self.form,
            "cells": self.cells,
            "filters": self.filters,
            "normal": normal,
            "reduction": reduction,
            "skeleton": self.skeleton(),
        }

    def _cell(self, choose: Choose, cell: str) -> dict[str, Any]:
        blocks: list[dict[str, Any]] = []
        read: set[int] = set()
        for b in range(self.blocks):
            name, states = f"{cell}.{b}", range(b + 2)
            inputs = [choose(f"{name}.hidden_state_{k}", states, kind="hidden_state") for k in (1, 2)]
            operations = [choose(f"{name}.operation_{k}", self.operations, kind="operation") for k in (1, 2)]
            combination = self.combinations[0]
            if len(self.combinations) > 1:
                combination = choose(f"{name}.combination", self.combinations, kind="combination")
            blocks.append({"inputs": inputs, "operations": operations, "combination": combination})
            read.update(inputs)
        return {"blocks": blocks, "concatenated": [k for k in range(self.blocks + 2) if k not in read]}

    def skeleton(self) -> dict[str, Any]:
        """Its options that decide how cells are stacked and trained."""
        return {name: getattr(self, name) for name in SKELETON}

    def mutate(self, genotype: Genotype, rng: Random) -> Genotype:
        """A copy with one slot changed, as Real et al. (2019) do it: one time in twenty none; else the hidden state or
        the operation of one of the two elements of one block of one cell, all uniformly drawn, becomes another.

        Where blocks choose their combination, which is not so in the paper, a third mutation changes that of one
        block, as likely as each of the other two.
        """
        if rng.random() < IDENTITY_RATE:
            return genotype
        kinds = ("hidden_state", "operation", "combination")
        what = rng.choice(kinds if len(self.combinations) > 1 else kinds[:2])
        block = rng.randrange(self.blocks)
        name = f"{rng.choice(CELLS)}.{block}.{what}"
        options: tuple[Any, ...] = self.combinations
        if what != "combination":
            name += f"_{rng.choice((1, 2))}"
            options = tuple(range(block + 2)) if what == "hidden_state" else self.operations
        others = [option for option in options if option != genotype.answers[name]]
        if not others:  # a space of one operation
            return genotype
        answers: dict[str, Answer] = {**genotype.answers, name: rng.choice(others)}
        return Genotype(genotype.space, answers)

    # --- the child ----------------------------------------------------------------------------------------------------

    def build(self, architecture: Architecture, task: AnyTask) -> Child:
        """The child of any architecture of this kind, for images [channels, height, width] of any size.

        Raises UsageError when the architecture is not one or the task is not of images, and LimitExceeded when it is
        too large to be made.
        """
        if not isinstance(task, Task):
            raise UsageError(f"NASNetCell builds networks for images, and the task is a {type(task).__name__}")
        check_architecture(architecture)
        plan = plan_of(architecture, task)
        from archsmith.nn.nasnet import NASNet

        return Child(NASNet(plan, architecture["skeleton"]))

    def layers_and_depth(self, architecture: Architecture, task: Task) -> tuple[int, int]:
        """How many convolutions the network has, and the most of them on one way from the image to the classifier."""
        check_architecture(architecture)
        return plan_of(architecture, task).depth()

    def diagram(self, architecture: Architecture) -> Diagram:
        """Both cells as boxes and arrows, each in a frame of its own."""
        check_architecture(architecture)
        return drawn(architecture)


def _of_form(form: str, filters: int) -> dict[str, Any]:
    """What the skeleton has in a form where nobody says, as in the released code."""
    large = form == "imagenet"
    return {
        "stem_multiplier": stem_multiplier(form, filters),
        "dropout_keep": 0.5 if large else 1.0,
        "batch_norm_epsilon": 1e-3 if large else 1e-5,
    }


# --- a found cell in another network ----------------------------------------------------------------------------------


def scaled(
    architecture: Architecture,
    *,
    cells: int | None = None,
    filters: int | None = None,
    form: str | None = None,
    skeleton: Mapping[str, Any] | None = None,
) -> Architecture:
    """The same cells in a network of another depth, width or form.

    Args:
        architecture: of this space.
        cells: N, the normal cells of a stack.
        filters: F, of the first stack. NASNet's "N @ P" has P = 24 F channels in the end; `channels` tells.
        form: "cifar" or "imagenet". A new one brings its own stem, dropout and batch norm epsilon.
        skeleton: options of the skeleton to change, such as {"drop_path_keep": 0.6, "auxiliary": 0.4} for a training to
            convergence.

    None stays as it is. Raises UsageError when that is no architecture, or such a network cannot be.
    """
    check_architecture(architecture)
    found: dict[str, Any] = copy.deepcopy(dict(architecture))
    for name, value in (("cells", cells), ("filters", filters), ("form", form)):
        if value is not None:
            found[name] = value
    check_size(found["form"], found["cells"], found["filters"], "the scaled network")
    own = _of_form(found["form"], found["filters"]) if found["form"] != architecture["form"] else {}
    found["skeleton"] = {**found["skeleton"], **own, **(skeleton or {})}
    check_architecture(found)
    return found


def scaled_to(
    architecture: Architecture,
    *,
    multiply_adds: int,
    input_shape: tuple[int, ...],
    num_classes: int,
) -> Architecture:
    """The same network with as many filters as a budget allows, such as 600 million multiply-adds ("mobile").

    In the form imagenet these are multiples of 4, as the released code needs them. Multiply-adds are counted by
    `archsmith.nn.count.RULE`. Raises UsageError when the narrowest network is above the budget.
    """
    check_architecture(architecture)
    task, step = Task(input_shape, num_classes), 4 if architecture["form"] == "imagenet" else 1
    least = -(-LEAST_FILTERS[architecture["form"]] // step)

    def cost(width: int) -> int:
        return plan_of({**architecture, "filters": step * width}, task).multiply_adds

    if isinstance(multiply_adds, bool) or not isinstance(multiply_adds, int) or cost(least) > multiply_adds:
        raise UsageError(
            f"multiply_adds must be a whole number of at least {cost(least):,}, which the network has with "
            f"{step * least} filters, got {shown(multiply_adds)}; use fewer cells or smaller images"
        )
    # The widest that a plan may have is far above any budget, so the search ends below it or at a refusal.
    low, high = least, least + 1
    most = MAX_FILTERS // step
    while high <= most and _within(cost, high, multiply_adds):
        low, high = high, 2 * high
    high = min(high, most + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _within(cost, middle, multiply_adds) else (low, middle)
    return scaled(architecture, filters=step * low)


def _within(cost: Callable[[int], int], width: int, budget: int) -> bool:
    try:
        return cost(width) <= budget
    except LimitExceeded:  # too large to be made is too large
        return False


def channels(architecture: Architecture) -> int:
    """P of "N @ P": the channels that the classifier reads."""
    check_architecture(architecture)
    return plan_of(architecture, Task((3, 32, 32), 2)).features
