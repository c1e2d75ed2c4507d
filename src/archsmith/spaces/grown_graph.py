"""The space of large-scale evolution (Real et al. 2017): networks that grow edit by edit from next to nothing.

There are no choices, and no bounds on depth: a genotype is a DNA (`grown_dna`), a graph of vertices and edges with a
learning rate, and the space is what the eleven mutations (`grown_edits`) make of the seed, a linear layer.

    {"kind": "grown_graph", "learning_rate": 0.1, "inherits": true,
     "vertices": [{"id": "v0", "type": "linear", ...}, ...],
     "edges": [{"id": "e1", "type": "conv", "from": "v0", "to": "v2", "skip": false, "half_height": 1, ...}, ...]}
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import ClassVar

from archsmith.core.checks import plain_fields
from archsmith.core.child import AnyTask, Child, Task
from archsmith.core.diagram import Diagram, Edge, Node
from archsmith.core.errors import UsageError
from archsmith.core.genotype import Answer, Architecture, Genotype
from archsmith.core.grown import Edit, GrownSpace
from archsmith.core.space import identity
from archsmith.spaces.grown_dna import DNA, OUTPUT, answers_of, read_dna, seed_dna
from archsmith.spaces.grown_edits import MUTATIONS


@dataclass(frozen=True)
class GrownGraph(GrownSpace):
    """The space. It fits `LargeScaleEvolution`, `RegularizedEvolution` and `Random`.

    A child starts from the weights of the trial it was made from, wherever layers have the same shape, if those were
    kept: `ImageClassification(..., keep_weights=True)`. After the edit "reset_weights" it starts from new ones.

    Args:
        learning_rate: of the seed; edits alter it from there.
        flatten: whether the classifier of a network without a convolution reads all pixels, which makes the seed a
            linear model of the image (30,730 parameters on CIFAR-10); otherwise the mean of each channel (40), as
            it does in networks with one.
        stem: None, as the paper has it: the seed is no more than the classifier. A number: the seed has a 3x3
            convolution of that depth factor, with batch norm and ReLU, which saves a short search its first steps.
    """

    learning_rate: float = 0.1
    flatten: bool = True
    stem: float | None = None

    version: ClassVar[int] = 1
    kind: ClassVar[str] = "grown_graph"

    def __post_init__(self) -> None:
        plain_fields(self)
        for name, most in (("learning_rate", 100.0), ("stem", 1024.0)):
            value = getattr(self, name)
            if value is None and name == "stem":
                continue
            numeric = isinstance(value, int | float) and not isinstance(value, bool)
            if not numeric or not math.isfinite(value) or not 0 < value <= most:
                raise UsageError(f"{name} of GrownGraph must be a number above 0 and up to {most:g}, got {value!r}")
        if self.stem is not None and self.stem < 1 / 1024:
            raise UsageError(f"stem of GrownGraph must be a depth factor of at least 1/1024, got {self.stem!r}")
        if not isinstance(self.flatten, bool):
            raise UsageError(f"flatten of GrownGraph must be True or False, got {self.flatten!r}")

    def seed(self) -> Genotype:
        """The linear model, or the one convolution, that all begin as."""
        return Genotype(identity(self), seed_dna(float(self.learning_rate), self.stem).answers())

    @property
    def edits(self) -> Mapping[str, Edit]:
        """The paper's eleven mutations, in its order."""
        return {name: functools.partial(_edit, mutation) for name, mutation in MUTATIONS.items()}

    def read(self, answers: Mapping[str, Answer]) -> Architecture:
        """The graph as plain data, vertices and primary edges in order from input to output, then the skips."""
        return read_dna(answers).architecture(self.kind)

    def build(self, architecture: Architecture, task: AnyTask) -> Child:
        """The network for images of any size, with its learning rate.

        Raises UsageError when the architecture is none of this space, LimitExceeded when it is too large to be one.
        """
        plain = read_dna(answers_of(architecture)).architecture(self.kind)
        if not isinstance(task, Task) or len(task.input_shape) != 3:
            raise UsageError(
                f"GrownGraph builds networks for images of channels, height and width, and the task is {task}"
            )
        from archsmith.nn.grown import GrownNetwork

        network = GrownNetwork(
            plain["vertices"], plain["edges"], task.input_shape, task.num_classes, flatten=self.flatten
        )
        return Child(network, learning_rate=plain["learning_rate"], inherits=plain["inherits"])

    def diagram(self, architecture: Architecture) -> Diagram:
        """The backbone as a column, a box for each edge with the vertex behind it, and the skips."""
        dna = read_dna(answers_of(architecture))
        nodes, edges, order = [Node("v0", "input", role="input")], [], dna.order()
        for name, before in zip(dna.backbone(), order, strict=False):
            node = _box(dna, name)
            nodes.append(node)
            edges.append(Edge(before, node.id))
        nodes.append(Node("classifier", "linear classifier", f"learning rate {dna.learning_rate:.3g}", "output"))
        edges.append(Edge(OUTPUT, "classifier"))
        edges += [Edge(edge.source, edge.target, skip=True) for edge in dna.edges.values() if edge.skip]
        return Diagram("A grown graph", tuple(nodes), tuple(edges))


def _edit(mutation: Callable[[DNA, Random], DNA | None], genotype: Genotype, rng: Random) -> Genotype | None:
    # Every child inherits but those of the edit that says otherwise, also a child of theirs.
    changed = mutation(replace(read_dna(genotype.answers), inherits=True), rng)
    return None if changed is None else Genotype(genotype.space, changed.answers())


def _box(dna: DNA, name: str) -> Node:
    edge = dna.edges[name]
    said = ["batch norm, ReLU"] if dna.vertices[edge.target].type == "bn_relu" else []
    if edge.type == "identity":
        summed = any(e.skip and e.target == edge.target for e in dna.edges.values())
        label = "output" if edge.target == OUTPUT else "sum" if summed else "identity"
        return Node(edge.target, label, ", ".join(said), "norm" if said else "combine")
    size = f"{2 * edge.half_height + 1}×{2 * edge.half_width + 1} conv"
    stride = [f"stride {2**edge.stride_scale}"] if edge.stride_scale else []
    return Node(edge.target, size, ", ".join([f"channels ×{edge.depth_factor:.3g}", *stride, *said]), "conv")
