"""Augmentation policies (Cubuk et al. 2019, "AutoAugment: Learning Augmentation Policies from Data", section 3).

The space asks for each of 5 sub-policies two operations, each with a probability (11 values) and a magnitude (10 levels): 30
questions, (16 * 10 * 11)^10 policies. Its children are one network designed by hand, trained with the policy.

What a policy is as plain data, and which of them are the same, `archsmith.nn.augmentation.policy` says.
docs/decisions/0019-augmentation.md has what the paper leaves open.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from archsmith.core.checks import plain_fields, whole_number
from archsmith.core.child import AnyTask, Child, Task
from archsmith.core.diagram import Diagram, Edge, Node
from archsmith.core.errors import UnknownName, UsageError
from archsmith.core.genotype import Answer, Architecture, Genotype
from archsmith.core.shown import shown
from archsmith.core.space import decode, identity
from archsmith.core.walk import Choose
from archsmith.nn.augmentation.policy import (
    FILL,
    KIND,
    LEVELS,
    OPERATIONS,
    PROBABILITIES,
    architecture_of,
    canonical,
    check_architecture,
    check_options,
    joined,
)

PER_SUB_POLICY = 2


@dataclass(frozen=True)
class Augmentation:
    """The space. The defaults are the paper's for CIFAR-10.

    The child's augmentation does its own flips and crops, before the policy; those of the evaluator rest.

    Args:
        model: the network that is trained with the policies, by name (`archsmith.nn.models`).
        sub_policies: how many there are, one of which is drawn for each image.
        operations: which there are to choose from, by the paper's names; empty: all 16.
        flip: whether images are mirrored at random; not for characters.
        pad: how far images are moved at random, as a part of their sides; 0.125 is 4 pixels of 32.
        cutout: the side of the square that is cut out after the policy, as a part of the image's; 0.5 is 16 pixels of 32.
        reading: whether Solarize and Posterize grow "stronger" with their magnitude or "weaker"; the paper leaves it open.
        fill: the colour of what is uncovered or cut out; grey images have its luma.
    """

    model: str = "wrn_40_2"
    sub_policies: int = 5
    operations: tuple[str, ...] = ()
    flip: bool = True
    pad: float = 0.125
    cutout: float = 0.5
    reading: str = "stronger"
    fill: tuple[int, ...] = FILL

    version: ClassVar[int] = 1
    kind: ClassVar[str] = KIND

    def __post_init__(self) -> None:
        plain_fields(self)
        if not isinstance(self.model, str) or not self.model:
            raise UsageError(f"model of Augmentation must be the name of a network, got {shown(self.model)}")
        whole_number(self.sub_policies, "sub_policies of Augmentation", 1, 100)
        for name in ("operations", "fill"):
            given = getattr(self, name)
            if isinstance(given, str) or not isinstance(given, Iterable):
                raise UsageError(f"{name} of Augmentation must be a tuple, got {shown(given)}")
            object.__setattr__(self, name, tuple(given))
        for name in self.operations:
            if name not in OPERATIONS:
                raise UnknownName("augmentation operation", str(name)[:80], OPERATIONS)
        if len(set(self.operations)) != len(self.operations):
            raise UsageError(f"operations of Augmentation must differ from each other, got {shown(self.operations)}")
        check_options(self.flip, self.pad, self.cutout, self.reading, self.fill)

    # --- the questions ------------------------------------------------------------------------------------------------

    def architecture(self, choose: Choose) -> Architecture:
        """The policy that the answers describe. A magnitude is asked of every operation, and used by those that have one."""
        operations = self.operations or tuple(OPERATIONS)
        return self._around(
            [
                [
                    (
                        choose(f"{i}.{k}.operation", operations),
                        choose(f"{i}.{k}.probability", PROBABILITIES),
                        choose(f"{i}.{k}.magnitude", range(LEVELS)),
                    )
                    for k in range(PER_SUB_POLICY)
                ]
                for i in range(self.sub_policies)
            ]
        )

    def _around(self, sub_policies: Sequence[Sequence[tuple[str, float, int]]]) -> dict[str, Any]:
        return architecture_of(
            sub_policies, flip=self.flip, pad=self.pad, cutout=self.cutout, reading=self.reading, fill=self.fill
        )

    def from_sub_policies(self, sub_policies: Sequence[Sequence[tuple[str, float, int]]]) -> Genotype:
        """The genotype of a policy: for each sub-policy two times (operation, probability, magnitude).

        Raises IllegalGenotype when the space does not have it.
        """
        answers: dict[str, Answer] = {}
        for i, sub_policy in enumerate(sub_policies):
            for k, (operation, probability, level) in enumerate(sub_policy):
                answers[f"{i}.{k}.operation"] = operation
                answers[f"{i}.{k}.probability"] = probability
                answers[f"{i}.{k}.magnitude"] = level
        genotype = Genotype(identity(self), answers)
        decode(self, genotype)
        return genotype

    def canonical(self, architecture: Architecture) -> Any:
        """Plain JSON that is equal for policies which do the same to every image with the same chances."""
        return canonical(architecture)

    def join(self, architectures: Sequence[Architecture]) -> Architecture:
        """One policy of all their sub-policies: the paper joins the 5 best into one of 25.

        Raises UsageError for none, and for policies that differ in more than their sub-policies.
        """
        return joined(architectures)

    # --- the child ----------------------------------------------------------------------------------------------------

    def build(self, architecture: Architecture, task: AnyTask) -> Child:
        """The hand-designed network with this augmentation. Raises UsageError when the architecture is none, or the task
        is not of images in grey or colour."""
        check_architecture(architecture)  # refused before a network is made
        return self.edit(architecture, self.baseline(task), task)

    def baseline(self, task: AnyTask) -> Child:
        """The network, with the evaluator's own augmentation. Raises UnknownName when there is none of that name."""
        if not isinstance(task, Task):
            raise UsageError(f"Augmentation has networks for images, and the task is a {type(task).__name__}")
        from archsmith.nn.models import model_named

        return Child(model_named(self.model, task))

    def edit(self, architecture: Architecture, child: Child, task: AnyTask) -> Child:
        """The child with this augmentation, of bytes."""
        if not isinstance(task, Task) or len(task.input_shape) != 3:
            raise UsageError(f"an augmentation is for images, and the task is a {type(task).__name__}")
        from archsmith.nn.augmentation.module import AugmentationPolicy

        return dataclasses.replace(child, augmentation=AugmentationPolicy(architecture), augments_bytes=True)

    def standards(self) -> Mapping[str, Architecture | None]:
        """What a found policy is held against: the same training without augmentation, and with what stands around the
        policy alone."""
        around = {"no augmentation": {**self._around([]), "flip": False, "pad": 0.0, "cutout": 0.0}}
        usual = [
            word for word, there in (("flips", self.flip), ("crops", self.pad), ("a cutout", self.cutout)) if there
        ]
        if usual:
            words = " and ".join([", ".join(usual[:-1]), usual[-1]] if len(usual) > 1 else usual)
            around[words] = self._around([])
        return around

    def layers_and_depth(self, architecture: Architecture, task: Task) -> tuple[int, int]:
        """The layers of the network, and the most of them on one way through it; an augmentation has none."""
        from archsmith.nn.models import layers_and_depth

        return layers_and_depth(self.model, task)

    # --- the drawing --------------------------------------------------------------------------------------------------

    def diagram(self, architecture: Architecture) -> Diagram:
        """What an image goes through: flips and crops, one of the sub-policies, a cutout."""
        check_architecture(architecture)
        nodes = [Node("image", "image", role="input")]
        usual = [word for word, there in (("flip", architecture["flip"]), ("crop", architecture["pad"])) if there]
        if usual:
            nodes.append(Node("first", " and ".join(usual), "", "pool"))
        sub_policies = architecture["sub_policies"]
        for i, sub_policy in enumerate(sub_policies):
            nodes.append(Node(f"sub-policy {i}", *_caption(sub_policy), group=f"one of {len(sub_policies)}"))
        if architecture["cutout"]:
            nodes.append(Node("cutout", "cutout", f"{100 * architecture['cutout']:.0f} % of the side", "pool"))
        nodes.append(Node("network", "network", role="output"))
        edges = [
            Edge(a.id, b.id)
            for a, b in itertools.pairwise(nodes)
            if not (a.group and b.group)  # sub-policies stand beside each other
        ]
        count = len(sub_policies)
        title = f"An augmentation of {count} sub-polic{'y' if count == 1 else 'ies'}, one drawn for each image"
        return Diagram(title, tuple(nodes), tuple(edges), "chain")


def _caption(sub_policy: Sequence[Mapping[str, Any]]) -> tuple[str, str, str]:
    """Label, detail and role of a sub-policy's box."""
    label = ", ".join(
        f"{entry['operation']} {entry['magnitude']}" if "magnitude" in entry else entry["operation"]
        for entry in sub_policy
    )
    return label or "nothing", "chance " + ", ".join(f"{e['probability']:g}" for e in sub_policy), "activation"
