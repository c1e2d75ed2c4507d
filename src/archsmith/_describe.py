"""Describe: how large a network is, for anyone who holds its name, its genotype or its architecture."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from archsmith import discovered, spaces
from archsmith._search.data_check import recorded_data
from archsmith._search.run import Run
from archsmith.core import loaded
from archsmith.core.child import AnyTask, Child, Task, TextTask, TranslationTask
from archsmith.core.diagram import Diagram
from archsmith.core.errors import UnknownName, UsageError
from archsmith.core.genotype import Architecture, Genotype, read_json
from archsmith.core.global_state import generators_kept
from archsmith.core.shown import shown
from archsmith.core.space import Space, as_space, build, decode, default_task, identity
from archsmith.discovered import NETWORKS, Discovered, published
from archsmith.training import Latency, Measured

_LARGEST_FILE = 64 * 2**20  # bytes; a genotype has a few thousand


@dataclass(frozen=True)
class Description:
    """How large a network is.

    Args:
        name: of the discovered network, or of the space.
        task: what it was built for; where its hidden units were solved for, they stand here.
        parameters: numbers that training may change.
        multiply_adds: of one forward pass of one input, by `rule`; None where it is not known what one input is.
        rule: what was counted.
        layers: of images: convolutions and fully connected layers; the classifier, pooling and normalisation are not
            counted. Of text: recurrent layers. None of a space that does not tell them.
        depth: the most of them on one way from the input to the classifier.
        genotype: the genotype's key; None for a bare architecture.
        learning_rate: the peak learning rate, where the genotype decides it.
        formula, latex: of an update rule or another expression: as text, and for TeX.
        latency: how long it takes for an input on this machine, where that was asked for.
    """

    name: str
    task: AnyTask
    parameters: int
    multiply_adds: int | None
    rule: str
    layers: int | None
    depth: int | None
    genotype: str | None = None
    learning_rate: float | None = None
    latency: Measured | None = None
    formula: str | None = None
    latex: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, the fields of the task among the others."""
        own = {**vars(self)}
        name, task, latency = own.pop("name"), own.pop("task"), own.pop("latency")
        fields = vars(task) if isinstance(task, Task | TextTask | TranslationTask) else {"task": repr(task)}
        given = {k: list(v) if isinstance(v, tuple) else v for k, v in fields.items() if v is not None}
        formula = {key: text for key in ("formula", "latex") if (text := own.pop(key)) is not None}
        measured = {} if latency is None else {"latency": latency.to_json()}
        return {"name": name, **formula, **given, **own, **measured}


@generators_kept()
def describe(
    thing: Thing,
    *,
    space: Space | Callable[..., Architecture] | None = None,
    build: Callable[[Architecture, Any], Any] | None = None,
    input_shape: Sequence[int] | None = None,
    num_classes: int | None = None,
    vocabulary: int | None = None,
    hidden: int | None = None,
    layers: int | None = None,
    tied: bool | None = None,
    task: AnyTask | None = None,
    cells: int | None = None,
    filters: int | None = None,
    form: str | None = None,
    width: float | None = None,
    latency: Latency | None = None,
) -> Description:
    """The exact parameters, multiply-adds and depth of a network, found by building it (without its memory).

    Args:
        thing: the name of a discovered network, or a genotype or architecture: the object, JSON text, or a JSON file; or
            a run, which stands for its best network.
        space, build: of a genotype or an architecture of a space of your own, as of `search`.
        input_shape, num_classes: of images: one input, and the classes (default: what the network was published for,
            else 3x32x32 and 10).
        vocabulary, hidden, layers, tied: of a recurrent cell in a language model: symbols, units of each layer, layers,
            and whether the softmax uses the embedding's weights (default: what the cell was published for, else
            10,000 symbols and two layers of as many units as 20 million parameters allow).
        task: in place of all of these, such as a `TranslationTask`.
        cells, filters, form: another size of a network of NASNet's cells: N, F, and "cifar" or "imagenet".
        width: of MnasNet.
        latency: what to measure its latency with, of networks for images, which are then built in memory. None: it is
            not measured.

    Raises UsageError when the thing is none of these, or its space does not allow it; LimitExceeded when it is too
    large to be built.
    """
    from archsmith.nn.count import count_parameters

    found = find(thing, {"cells": cells, "filters": filters, "form": form, "width": width}, space, build)
    images = {"input_shape": input_shape, "num_classes": num_classes}
    text = {"vocabulary": vocabulary, "hidden": hidden, "layers": layers, "tied": tied}
    task = _task(found, task, images, text)
    child = found.child(task)
    try:
        multiply_adds, rule = _multiply_adds(child.model, task)
    except (
        NotImplementedError,
        RuntimeError,
    ):  # a forward pass that looks at values, which weights without memory lack
        child = found.child(task, device="cpu")
        multiply_adds, rule = _multiply_adds(child.model, task)
    measured = _latency(found, task, latency) if latency is not None else None
    count, depth = _layers(found, task)
    return Description(
        name=found.name,
        task=_solved(task, child.model),
        parameters=count_parameters(child.model),
        multiply_adds=multiply_adds,
        rule=rule,
        layers=count,
        depth=depth,
        genotype=found.genotype.key if found.genotype is not None else None,
        learning_rate=child.learning_rate,
        latency=measured,
        **{key: tell(found.architecture) for key in ("formula", "latex") if (tell := getattr(found.space, key, None))},
    )


def _latency(found: Found, task: AnyTask, latency: Latency) -> Measured:
    """The latency of the network, built in memory. Raises UsageError for networks that read no images."""
    if not isinstance(task, Task):
        raise UsageError(f"latency is measured of networks for images, and {found.name} reads text")
    return latency.measure(found.child(task, device="cpu").model, task.input_shape)


def diagram_of(thing: Thing) -> Diagram:
    """The diagram of a network, for `archsmith.report.draw`: as its space draws it, else as its layers are connected.

    Whatever cannot be built is refused, as by `describe`.
    """
    found = find(thing)
    child = found.child(found.task or default_task(found.space))
    if hasattr(found.space, "diagram"):
        return found.diagram()
    from archsmith.nn.module_diagram import module_diagram

    return module_diagram(child.model, found.name)


def network_of(run: Run, number: int | None = None) -> Found:
    """The network of one of a run's trials (default: its best); what it needs of the data is on record.

    Raises UsageError where there is none.
    """
    trial = run.needed_best("there is no network") if number is None else run.reader.trial(number)
    with loaded.installed(recorded_data(run, run.evaluator)):
        return _network(run.space, trial.genotype, task_of(run.evaluator))


def task_of(evaluator: object) -> AnyTask | None:
    """What an evaluator's children are built for; None of one that says nothing of it."""
    task = getattr(evaluator, "task", None)
    return task() if callable(task) else None


def _network(space: Space, what: Genotype | Architecture, task: AnyTask | None = None) -> Found:
    name = str(identity(space)["name"])
    if isinstance(what, Genotype):
        return Found(name, space, decode(space, what), what, task)
    return Found(name, space, what, None, task)


def space_of(genotype: Genotype) -> Space:
    """The space of `archsmith.spaces` that a genotype belongs to, made from the name and options it carries.

    Raises UsageError when archsmith ships no such space, or its options do not fit.
    """
    return _space(genotype.space)


def _space(known: Mapping[str, Any]) -> Space:
    name, options = str(known["name"]), known.get("options")
    home = discovered if name == "Published" else spaces
    if name not in home.__all__:
        raise UnknownName(
            "space",
            name,
            spaces.__all__,
            "(a space of your own is given too: space=..., or --recipe FILE.py)",
        )
    if not isinstance(options, Mapping):
        raise UsageError(f'the "space" of a genotype must have "options", got {sorted(known)}')
    parts = options.get("parts")  # of a product: spaces, as it carries them
    if isinstance(parts, list) and all(isinstance(part, Mapping) and "name" in part for part in parts):
        options = {**options, "parts": [_space(part) for part in parts]}
    try:
        space: Space = getattr(home, name)(**options)
    except TypeError as error:
        raise UsageError(f"the options of this genotype's space do not fit {name}: {error}") from None
    return space


# --- from what the caller has to a space and an architecture ----------------------------------------------------------


@dataclass(frozen=True)
class Found:
    """A network with its space, before it is built; its genotype and task where they are known."""

    name: str
    space: Any
    architecture: Architecture
    genotype: Genotype | None = None
    task: AnyTask | None = None

    def child(self, task: AnyTask, device: str = "meta") -> Child:
        """The child for a task; on the device "meta" its weights take no memory, where the space can build it so."""
        import torch

        try:
            with torch.device(device):
                return build(self.space, self.architecture, task)
        except (NotImplementedError, RuntimeError):  # such as a build that computes with the weights
            if device != "meta":
                raise
            return build(self.space, self.architecture, task)

    def diagram(self) -> Diagram:
        diagram: Diagram = self.space.diagram(self.architecture)
        return diagram


Thing: TypeAlias = str | os.PathLike[str] | Mapping[str, Any] | Genotype | Discovered | Run | Found
"""The name of a discovered network, a genotype or an architecture (as object, as JSON text, or in a JSON file), or a run,
which stands for its best network."""


def _task(found: Found, task: AnyTask | None, images: Mapping[str, Any], text: Mapping[str, Any]) -> AnyTask:
    """The task that was given, whole or as a few fields of what the network is for."""
    images, text = ({k: v for k, v in fields.items() if v is not None} for fields in (images, text))
    default = found.task or default_task(found.space)
    if task is not None:
        if images or text:
            raise UsageError(f"give either a task or its fields, got a task and {', '.join([*images, *text])}")
        return task
    reads, given, other = ("images", images, text) if isinstance(default, Task) else ("text", text, images)
    if other:
        raise UsageError(f"{found.name} reads {reads}, and {next(iter(other))} is of another task")
    if "hidden" in given:
        given["parameters"] = None  # which the default may have in its place
    try:
        return replace(default, **given)
    except (ValueError, TypeError) as error:
        raise UsageError(str(error)) from None


def _multiply_adds(model: Any, task: AnyTask) -> tuple[int | None, str]:
    """The multiply-adds of one forward pass of one input, and what was counted."""
    import torch

    from archsmith.nn.count import RULE, RULE_OF_TEXT, RULE_OF_TRANSLATION, count

    if isinstance(task, Task):
        return count(model, task.input_shape).multiply_adds, RULE
    if isinstance(task, TextTask):
        return count(model, torch.zeros(1, 1, dtype=torch.int64)).multiply_adds, RULE_OF_TEXT
    if not isinstance(task, TranslationTask):
        return None, f"multiply-adds are not counted: nothing is known of the inputs of a {type(task).__name__}"
    return model.multiply_adds(1, 1), RULE_OF_TRANSLATION


def _solved(task: AnyTask, model: Any) -> AnyTask:
    """The task with the hidden units that were solved for."""
    if isinstance(task, TextTask):
        hidden = getattr(model, "hidden", task.hidden)
    elif isinstance(task, TranslationTask):
        hidden = model.task.hidden
    else:
        return task
    return replace(task, hidden=hidden, parameters=None)


def _layers(found: Found, task: AnyTask) -> tuple[int | None, int | None]:
    """How many layers a network has, and the most of them on one way through it; of recurrent ones in one step. None of a
    space that does not tell them."""
    if not isinstance(task, TextTask | TranslationTask):
        if not hasattr(found.space, "diagram") and not hasattr(found.space, "layers_and_depth"):
            return None, None
        # A diagram of cells is not one of the network, so the spaces of cells count by themselves.
        own = getattr(found.space, "layers_and_depth", None)
        counted: tuple[int, int] = _depth(found.diagram()) if own is None else own(found.architecture, task)
        return counted
    count = task.layers if isinstance(task, TextTask) else 2 * task.layers
    return count, count


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


def find(
    thing: Thing,
    size: Mapping[str, Any] | None = None,
    space: Space | Callable[..., Architecture] | None = None,
    build: Callable[[Architecture, Any], Any] | None = None,
) -> Found:
    """What a name, a genotype or an architecture stands for, in another size where it comes in several.

    `size` is what `discovered.published` takes; of a genotype or an architecture of NASNet's cells its cells, filters and
    form. `space` and `build` are those of a genotype or an architecture of a user's own space. Raises UsageError when the
    thing is none of these, or has no such size.
    """
    size = {name: value for name, value in (size or {}).items() if value is not None}
    if size:
        return (
            find(published(thing, size))
            if isinstance(thing, str) and thing in NETWORKS
            else _sized(find(thing, None, space, build), size)
        )
    if isinstance(thing, Run):
        return network_of(thing)
    if space is not None:
        what = thing if isinstance(thing, Genotype | Mapping) else _json(thing)
        if isinstance(what, Mapping) and set(what) == {"space", "answers"}:
            what = Genotype.from_json(what)
        return _network(as_space(space, build), what)
    if build is not None:
        raise UsageError("build= is for a space that is a plain function; give space= as well")
    if isinstance(thing, Found):
        return thing
    if isinstance(thing, Discovered):
        return Found(thing.name, thing.space, thing.architecture, thing.genotype, thing.task)
    if isinstance(thing, Genotype):
        space = space_of(thing)
        return Found(str(identity(space)["name"]), space, decode(space, thing), thing)
    if isinstance(thing, Mapping):
        if "kind" in thing:
            return _architecture(thing)
        return find(Genotype.from_json(thing))
    if isinstance(thing, str) and thing in NETWORKS:
        return find(NETWORKS[thing]())
    return find(_json(thing))


def _sized(found: Found, size: Mapping[str, Any]) -> Found:
    """The same cells in another network."""
    from archsmith.spaces.nasnet_cell import scaled

    architecture = found.architecture
    unknown = [name for name in size if name not in ("cells", "filters", "form")]
    if not isinstance(architecture, Mapping) or architecture.get("kind") != spaces.NASNetCell.kind or unknown:
        raise UsageError(
            f"{', '.join(unknown or size)} cannot be chosen of {found.name}: networks of NASNet's cells come in other "
            "cells, filters and form, MnasNet in other widths"
        )
    return replace(found, architecture=scaled(architecture, **size), genotype=None)


def _architecture(architecture: Mapping[str, Any]) -> Found:
    kinds = {getattr(getattr(spaces, name), "kind", None): name for name in spaces.__all__}
    kinds.pop(None, None)
    name = kinds.get(architecture["kind"]) if isinstance(architecture["kind"], str) else None
    if name is None:
        raise UnknownName("kind of architecture", str(architecture["kind"])[:80], [str(kind) for kind in kinds])
    return Found(name, getattr(spaces, name)(), architecture)


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
            said = getattr(error, "strerror", None) or error  # a text that is no path is not told at length
            raise UsageError(f"cannot read {shown(where)}: {said}") from None
    try:
        value = read_json(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"a genotype must be JSON, and {where} is not: {error}") from None
    if not isinstance(value, Mapping):
        raise UsageError(f"a genotype must be a JSON object, and {where} holds a {type(value).__name__}")
    return value
