"""Describe: how large a network is, for anyone who holds its name, its genotype or its architecture."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from archsmith import spaces
from archsmith.core.child import Task
from archsmith.core.diagram import Diagram
from archsmith.core.errors import UnknownName, UsageError
from archsmith.core.genotype import Architecture, Genotype
from archsmith.core.space import Space, build, decode, identity
from archsmith.discovered import NETWORKS, Discovered

Thing: TypeAlias = str | os.PathLike[str] | Mapping[str, Any] | Genotype | Discovered
"""The name of a discovered network, a genotype or an architecture (as object, as JSON text, or in a JSON file)."""

_LARGEST_FILE = 64 * 2**20  # bytes; a genotype has a few thousand


@dataclass(frozen=True)
class Description:
    """How large a network is.

    Args:
        name: of the discovered network, or of the space.
        input_shape: one input.
        num_classes: how many classes it tells apart.
        parameters: numbers that training may change.
        multiply_adds: of one forward pass of one input, by `rule`.
        rule: what was counted.
        layers: convolutions and fully connected layers; the classifier, pooling and normalisation are not counted.
        depth: the most of them on one way from the input to the classifier.
        genotype: the genotype's key; None for a bare architecture.
        learning_rate: the peak learning rate, where the genotype decides it.
    """

    name: str
    input_shape: tuple[int, ...]
    num_classes: int
    parameters: int
    multiply_adds: int
    rule: str
    layers: int
    depth: int
    genotype: str | None = None
    learning_rate: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {**vars(self), "input_shape": list(self.input_shape)}


def describe(thing: Thing, *, input_shape: Sequence[int] | None = None, num_classes: int | None = None) -> Description:
    """The exact parameters, multiply-adds and depth of a network, found by building it (without its memory).

    Args:
        thing: the name of a discovered network, or a genotype or architecture: the object, JSON text, or a JSON file.
        input_shape: one input (default: what the network was published for, else 3x32x32).
        num_classes: the classes (default: what the network was published for, else 10).

    Raises UsageError when the thing is none of these, or its space does not allow it; LimitExceeded when it is too
    large to be built.
    """
    import torch

    from archsmith.nn.count import RULE, count

    found = _find(thing)
    default = found.task or Task()
    try:
        task = Task(
            tuple(input_shape or default.input_shape), num_classes if num_classes is not None else default.num_classes
        )
    except (ValueError, TypeError) as error:
        raise UsageError(str(error)) from None
    with torch.device("meta"):
        child = build(found.space, found.architecture, task)
        counts = count(child.model, task.input_shape)
    layers, depth = _depth(found.diagram())
    return Description(
        name=found.name,
        input_shape=task.input_shape,
        num_classes=task.num_classes,
        parameters=counts.parameters,
        multiply_adds=counts.multiply_adds,
        rule=RULE,
        layers=layers,
        depth=depth,
        genotype=found.genotype.key if found.genotype is not None else None,
        learning_rate=child.learning_rate,
    )


def diagram_of(thing: Thing) -> Diagram:
    """The diagram of a network, for `archsmith.report.draw`. Whatever cannot be built is refused, as by `describe`."""
    found = _find(thing)
    import torch

    with torch.device("meta"):
        build(found.space, found.architecture, found.task or Task())
    return found.diagram()


def space_of(genotype: Genotype) -> Space:
    """The space of `archsmith.spaces` that a genotype belongs to, made from the name and options it carries.

    Raises UsageError when archsmith ships no such space, or its options do not fit.
    """
    name, options = str(genotype.space["name"]), genotype.space.get("options")
    if name not in spaces.__all__:
        raise UnknownName("space", name, spaces.__all__, "(for a space of your own: archsmith.build(space, genotype))")
    if not isinstance(options, Mapping):
        raise UsageError(f'the "space" of a genotype must have "options", got {sorted(genotype.space)}')
    try:
        space: Space = getattr(spaces, name)(**options)
    except TypeError as error:
        raise UsageError(f"the options of this genotype's space do not fit {name}: {error}") from None
    return space


# --- from what the caller has to a space and an architecture ----------------------------------------------------------


@dataclass(frozen=True)
class _Found:
    name: str
    space: Any
    architecture: Architecture
    genotype: Genotype | None = None
    task: Task | None = None

    def diagram(self) -> Diagram:
        diagram: Diagram = self.space.diagram(self.architecture)
        return diagram


def _depth(diagram: Diagram) -> tuple[int, int]:
    """How many layers with weights a network has, and the most of them on one way through it."""
    weighted = {node.id: node.role in ("conv", "dense") for node in diagram.nodes}
    longest = {node.id: int(weighted[node.id]) for node in diagram.nodes}
    into: dict[str, list[str]] = {node.id: [] for node in diagram.nodes}
    for edge in diagram.edges:
        into[edge.target].append(edge.source)
    for node in diagram.nodes:  # topological order
        longest[node.id] += max((longest[source] for source in into[node.id]), default=0)
    return sum(weighted.values()), max(longest.values())


def _find(thing: Thing) -> _Found:
    if isinstance(thing, Discovered):
        return _Found(thing.name, thing.space, thing.architecture, thing.genotype, thing.task)
    if isinstance(thing, Genotype):
        space = space_of(thing)
        return _Found(str(identity(space)["name"]), space, decode(space, thing), thing)
    if isinstance(thing, Mapping):
        if "kind" in thing:
            return _architecture(thing)
        return _find(Genotype.from_json(thing))
    if isinstance(thing, str) and thing in NETWORKS:
        return _find(NETWORKS[thing]())
    return _find(_json(thing))


def _architecture(architecture: Mapping[str, Any]) -> _Found:
    kinds = {getattr(getattr(spaces, name), "kind", None): name for name in spaces.__all__}
    kinds.pop(None, None)
    name = kinds.get(architecture["kind"]) if isinstance(architecture["kind"], str) else None
    if name is None:
        raise UnknownName("kind of architecture", str(architecture["kind"])[:80], [str(kind) for kind in kinds])
    return _Found(name, getattr(spaces, name)(), architecture)


def _json(thing: object) -> Mapping[str, Any]:
    """The object in a JSON text, or in the file of that name."""
    if not isinstance(thing, str | os.PathLike):
        raise UsageError(f"a network is a name, a genotype or an architecture, got {type(thing).__name__}")
    text = os.fspath(thing)
    where = "this text"
    if isinstance(thing, os.PathLike) or not text.lstrip().startswith(("{", "[", '"')):
        path = Path(text)
        where = str(path)
        try:
            if not path.is_file():
                raise UnknownName("discovered network or file", text[:200], NETWORKS)
            if path.stat().st_size > _LARGEST_FILE:
                raise UsageError(f"{path} has {path.stat().st_size:,} bytes, which no genotype has")
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"cannot read {path}: {error}") from None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"a genotype must be JSON, and {where} is not: {error}") from None
    if not isinstance(value, Mapping):
        raise UsageError(f"a genotype must be a JSON object, and {where} holds a {type(value).__name__}")
    return value
