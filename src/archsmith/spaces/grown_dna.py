"""The DNA of a grown graph (Real et al. 2017, supplement): vertices, edges and the learning rate.

A vertex is a block of activations; an edge carries them on, unchanged or through a convolution. One edge into each
vertex is its primary one and no skip: these edges form a chain, the backbone, from the input v0 to the output v1.

As answers of a genotype, each field has a name of its own:

    learning_rate, inherits                                    of the whole
    vertex.2.type, vertex.2.inputs_mutable, vertex.2.outputs_mutable, vertex.2.properties_mutable
    edge.3.type, edge.3.from, edge.3.to, edge.3.skip           and of a convolution
    edge.3.half_height, edge.3.half_width, edge.3.stride_scale, edge.3.depth_factor

An id, v2 or e3, stays with its vertex or edge through all edits, and names its weights.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from archsmith.core.errors import IllegalGenotype
from archsmith.core.genotype import Answer
from archsmith.core.shown import shown

INPUT, OUTPUT = "v0", "v1"
VERTEX_TYPES = ("linear", "bn_relu")
EDGE_TYPES = ("identity", "conv")
# The paper has no limits; these keep what is legal buildable.
MAX_HALF, MAX_STRIDE_SCALE, MAX_DEPTH_FACTOR, MAX_VERTICES = 15, 5, 1024.0, 2048

_LETTERS = {"v": "vertex", "e": "edge"}
_CONV_FIELDS = ("half_height", "half_width", "stride_scale", "depth_factor")
_NAME = re.compile(r"(vertex|edge)\.(0|[1-9][0-9]{0,5})\.([a-z_]+)")


@dataclass(frozen=True, slots=True)
class Vertex:
    """A block of activations, 2^s x 2^s x d in the paper.

    Args:
        type: what is done to the sum of what comes in: nothing ("linear"), or batch norm and ReLU ("bn_relu").
        inputs_mutable, outputs_mutable: whether edits may change the edges that come in, or go out.
        properties_mutable: whether an edit may change or remove the vertex itself.
    """

    type: str = "linear"
    inputs_mutable: bool = True
    outputs_mutable: bool = True
    properties_mutable: bool = True


@dataclass(frozen=True, slots=True)
class Edge:
    """A connection.

    Args:
        type: "identity" or "conv".
        source, target: ids of vertices.
        skip: whether it is added to what the primary edge brings, and reshaped to its size.
        half_height, half_width: of a convolution's filter, which is 2 half + 1 high and wide: always odd.
        stride_scale: the stride is 2 to this power.
        depth_factor: output channels over input channels.
    """

    type: str
    source: str
    target: str
    skip: bool = False
    half_height: int = 1
    half_width: int = 1
    stride_scale: int = 0
    depth_factor: float = 1.0


@dataclass(frozen=True, slots=True)
class DNA:
    """A genotype of the space, to be edited; `vertices` and `edges` are never changed in place.

    Args:
        learning_rate: what its child is trained with.
        inherits: whether its child starts from the weights of the trial it was made from, where shapes match.
        vertices, edges: by id.
    """

    learning_rate: float
    inherits: bool
    vertices: Mapping[str, Vertex]
    edges: Mapping[str, Edge]

    def backbone(self) -> list[str]:
        """The ids of the primary edges, from the input to the output."""
        onward = {edge.source: name for name, edge in self.edges.items() if not edge.skip}
        chain: list[str] = []
        at = INPUT
        while at in onward and len(chain) < len(self.edges):
            chain.append(onward[at])
            at = self.edges[onward[at]].target
        return chain

    def order(self) -> list[str]:
        """The ids of the vertices along the backbone."""
        return [INPUT, *(self.edges[name].target for name in self.backbone())]

    def new_id(self, letter: str) -> str:
        """An id that is free: one above the highest of "v" or "e".

        One that was removed by an earlier edit may come again. Its old weights do not: they went with it, and a child
        reads those of its parent alone.
        """
        taken = self.vertices if letter == "v" else self.edges
        return f"{letter}{1 + max(int(name[1:]) for name in taken)}"

    def answers(self) -> dict[str, Answer]:
        """As a genotype's answers, vertices and edges along the backbone."""
        answers: dict[str, Answer] = {"learning_rate": self.learning_rate, "inherits": self.inherits}
        for name in self.order():
            for field in fields(Vertex):
                answers[_called(name, field.name)] = getattr(self.vertices[name], field.name)
        skips = [name for name, edge in self.edges.items() if edge.skip]
        for name in [*self.backbone(), *sorted(skips, key=lambda n: int(n[1:]))]:
            edge = self.edges[name]
            for written, value in _written(edge).items():
                answers[_called(name, written)] = value
        return answers

    def architecture(self, kind: str) -> dict[str, Any]:
        """As plain data: vertices along the backbone, its edges in order, then the skips."""
        parts = _parts(self.answers())
        return {
            "kind": kind,
            "learning_rate": self.learning_rate,
            "inherits": self.inherits,
            "vertices": [{"id": name, **part} for name, part in parts.items() if name in self.vertices],
            "edges": [{"id": name, **part} for name, part in parts.items() if name in self.edges],
        }


def seed_dna(learning_rate: float, stem: float | None) -> DNA:
    """The DNA that all begin as: input and output and nothing between; with `stem`, one 3x3 convolution of that depth
    factor between them, with batch norm and ReLU."""
    vertices = {
        INPUT: Vertex(inputs_mutable=False, properties_mutable=False),
        OUTPUT: Vertex(outputs_mutable=False, properties_mutable=False),
    }
    edges = {"e0": Edge("identity", INPUT, OUTPUT)}
    if stem is not None:
        vertices["v2"] = Vertex("bn_relu")
        edges = {"e0": Edge("identity", "v2", OUTPUT), "e1": Edge("conv", INPUT, "v2", depth_factor=float(stem))}
    return DNA(learning_rate, False, vertices, edges)


def answers_of(architecture: Any) -> dict[str, Any]:
    """The answers that an architecture was made of; whether they are legal, `read_dna` says.

    Raises IllegalGenotype when it is no such architecture.
    """
    parts: list[Any] = (
        [architecture.get(k) for k in ("vertices", "edges")] if isinstance(architecture, Mapping) else [None]
    )
    if not all(isinstance(part, list | tuple) for part in parts):
        raise IllegalGenotype(
            'a grown graph has "learning_rate", "inherits", and lists of "vertices" and "edges", '
            f"got {shown(architecture)}"
        )
    answers = {name: architecture.get(name) for name in ("learning_rate", "inherits")}
    for part in [*parts[0], *parts[1]]:
        if not isinstance(part, Mapping) or not isinstance(part.get("id"), str) or part["id"][:1] not in _LETTERS:
            raise IllegalGenotype(
                f'a vertex or edge of a grown graph is an object with an "id" such as v2 or e3, got {shown(part)}'
            )
        if _called(part["id"], "type") in answers:
            raise IllegalGenotype(f"a grown graph has two parts with the id {shown(part['id'])}")
        answers |= {_called(part["id"], str(name)): value for name, value in part.items() if name != "id"}
    return answers


def read_dna(answers: Mapping[str, Any]) -> DNA:
    """The DNA of a genotype's answers. Raises IllegalGenotype, which names the answer, its rule and its value."""
    parts = _parts(answers)
    rate = _answer(answers, "learning_rate", "a finite number above 0", lambda v: _is_number(v) and v > 0)
    inherits = _answer(answers, "inherits", "true or false", lambda v: isinstance(v, bool))
    vertices = {name: _vertex(name, part) for name, part in parts.items() if name[0] == "v"}
    for name in (INPUT, OUTPUT):
        if name not in vertices:
            raise IllegalGenotype(f"a grown graph has no vertex {name}; v0 is its input and v1 its output")
    if len(vertices) > MAX_VERTICES:
        raise IllegalGenotype(f"a grown graph has at most {MAX_VERTICES:,} vertices, got {len(vertices):,}")
    edges = {name: _edge(name, part, vertices) for name, part in parts.items() if name[0] == "e"}
    dna = DNA(float(rate), inherits, vertices, edges)
    _check_graph(dna)
    return dna


def _parts(answers: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The answers of vertices and edges by their ids. Raises IllegalGenotype for those of anything else."""
    parts: dict[str, dict[str, Any]] = {}
    for name, value in answers.items():
        if name in ("learning_rate", "inherits"):
            continue
        match = _NAME.fullmatch(name)
        if match is None:
            raise IllegalGenotype(
                f"a grown graph has no choice {shown(name)}: its answers are learning_rate, inherits, "
                "and those of vertices and edges, such as vertex.2.type and edge.3.depth_factor"
            )
        parts.setdefault(match[1][0] + match[2], {})[match[3]] = value
    return parts


def _called(name: str, field: str) -> str:
    """What the field of a part with this id is called among the answers."""
    return f"{_LETTERS[name[0]]}.{name[1:]}.{field}"


def _vertex(name: str, part: Mapping[str, Any]) -> Vertex:
    made: dict[str, Any] = {"type": _one_of(name, part, "type", VERTEX_TYPES)}
    for flag in ("inputs_mutable", "outputs_mutable", "properties_mutable"):
        made[flag] = _answer(part, flag, "true or false", lambda v: isinstance(v, bool), name)
    _no_more(name, part, made)
    return Vertex(**made)


def _edge(name: str, part: Mapping[str, Any], vertices: Mapping[str, Vertex]) -> Edge:
    kind = _one_of(name, part, "type", EDGE_TYPES)
    made: dict[str, Any] = {"type": kind}
    for end in ("from", "to"):
        made[end] = _answer(part, end, "the id of a vertex", lambda v: isinstance(v, str) and v in vertices, name)
    made["skip"] = _answer(part, "skip", "true or false", lambda v: isinstance(v, bool), name)
    if kind == "conv":
        if made["skip"]:
            raise IllegalGenotype(
                f"{_called(name, 'type')} must be identity, since {name} is a skip, which changes nothing"
            )
        for half in ("half_height", "half_width"):
            made[half] = _whole(name, part, half, MAX_HALF)
        made["stride_scale"] = _whole(name, part, "stride_scale", MAX_STRIDE_SCALE)
        made["depth_factor"] = _answer(
            part,
            "depth_factor",
            f"a number from {1 / MAX_DEPTH_FACTOR:g} to {MAX_DEPTH_FACTOR:g}",
            lambda v: _is_number(v) and 1 / MAX_DEPTH_FACTOR <= v <= MAX_DEPTH_FACTOR,
            name,
        )
    _no_more(name, part, made)
    made["source"], made["target"] = made.pop("from"), made.pop("to")
    return Edge(**made)


def _check_graph(dna: DNA) -> None:
    """That the primary edges are one chain over all vertices, and that skips go forward along it."""
    primary = [edge for edge in dna.edges.values() if not edge.skip]
    order = dna.order()
    if len(primary) != len(dna.vertices) - 1 or sorted(order) != sorted(dna.vertices) or order[-1] != OUTPUT:
        raise IllegalGenotype(
            "the edges of a grown graph that are no skips must form one chain from v0 through every vertex to v1; "
            f"from v0 they lead to {shown(order[1:])}"
        )
    position = {name: i for i, name in enumerate(order)}
    joined: dict[tuple[str, str], str] = {}
    for name, edge in dna.edges.items():
        if position[edge.source] >= position[edge.target]:
            raise IllegalGenotype(
                f"the edge {name} of a grown graph goes from {edge.source} back to {edge.target}: that closes a cycle"
            )
        other = joined.setdefault((edge.source, edge.target), name)
        if other != name:
            raise IllegalGenotype(f"the edges {other} and {name} of a grown graph join the same two vertices")


def _written(edge: Edge) -> dict[str, Answer]:
    """An edge's fields under the names that answers have."""
    written: dict[str, Answer] = {"type": edge.type, "from": edge.source, "to": edge.target, "skip": edge.skip}
    if edge.type == "conv":
        written |= {name: getattr(edge, name) for name in _CONV_FIELDS}
    return written


def _answer(part: Mapping[str, Any], field: str, rule: str, legal: Any, of: str = "") -> Any:
    name = _called(of, field) if of else field
    if field not in part:
        raise IllegalGenotype(f"the genotype has no answer to choice {name!r}; it must be {rule}")
    if not legal(part[field]):
        raise IllegalGenotype(f"choice {name!r} must be {rule}, got {shown(part[field])}")
    return part[field]


def _one_of(name: str, part: Mapping[str, Any], field: str, options: tuple[str, ...]) -> str:
    value: str = _answer(
        part, field, f"one of {', '.join(options)}", lambda v: isinstance(v, str) and v in options, name
    )
    return value


def _whole(name: str, part: Mapping[str, Any], field: str, most: int) -> int:
    rule = f"a whole number from 0 to {most}"
    value: int = _answer(part, field, rule, lambda v: type(v) is int and 0 <= v <= most, name)
    return value


def _no_more(name: str, part: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    for field in part:
        if field not in known:
            raise IllegalGenotype(
                f"a grown graph has no choice {_called(name, field)!r} here; {name} has: {', '.join(known)}"
            )


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that no float holds
        return False
