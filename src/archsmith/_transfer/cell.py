"""The cell that is carried over, and the LSTM beside it, as networks of one size each."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from archsmith._describe import Thing, find
from archsmith._search import Run
from archsmith.core.child import AnyTask, TextTask, TranslationTask
from archsmith.core.errors import UsageError
from archsmith.core.finish import Finishable
from archsmith.core.genotype import Architecture, Genotype, canonical_json
from archsmith.core.space import decode, identity
from archsmith.core.walk import Choose
from archsmith.nn.cell_graph import CellGraph, lstm
from archsmith.nn.count import count_parameters
from archsmith.nn.language import language_network
from archsmith.nn.language import solve_hidden as solve_language
from archsmith.nn.translation import hidden_of_equal_computation, translator
from archsmith.nn.translation import solve_hidden as solve_translator
from archsmith.spaces.recurrent_cell import KIND, graph_of

BASELINE = "LSTM"


@dataclass(frozen=True)
class FoundCell:
    """A cell of `archsmith.spaces.RecurrentCell` and where it comes from.

    Args:
        name: "nas_cell", or "cell" and the beginning of its digest.
        origin: for a person.
        architecture: as plain data.
    """

    name: str
    origin: str
    architecture: Mapping[str, Any]

    @property
    def graph(self) -> CellGraph:
        """Its operations."""
        return graph_of(self.architecture)


@dataclass(frozen=True)
class OneCell:
    """A network of one cell and one size, as a space in which nothing is left to choose.

    Args:
        graph: the cell.
        bias: whether it has one.
        hidden: units of each layer.
    """

    graph: CellGraph
    bias: bool
    hidden: int

    def architecture(self, choose: Choose) -> Architecture:
        return {"hidden": self.hidden}

    def build(self, architecture: Architecture, task: Any) -> Any:
        """The language model or the translator, as the task asks."""
        sized = replace(task, hidden=self.hidden, parameters=None)
        if isinstance(sized, TextTask):
            return language_network(self.graph, sized, bias=self.bias)
        return translator(self.graph, sized, bias=self.bias)

    @property
    def genotype(self) -> Genotype:
        """The only one."""
        return Genotype(identity(self), {})


def cell_of(thing: Run | Thing) -> FoundCell:
    """The cell of a run (the one that `finish` found, else the best by validation), of a name or of a genotype.

    Raises UsageError when it is no recurrent cell.
    """
    if isinstance(thing, Run):
        finished = thing.reader.document("finish")
        if finished is not None:
            genotype, where = Genotype.from_json(finished["networks"][0]["genotype"]), "as finished"
        else:
            best = thing.needed_best("there is no cell to carry over")
            genotype, where = best.genotype, f"trial {best.number}, the best by validation"
        architecture, origin, named = decode(thing.space, genotype), f"run {thing.name!r}, {where}", None
    else:
        found = find(thing)
        architecture, origin = found.architecture, found.name
        named = found.name if found.task is not None else None  # a discovered one
    if not isinstance(architecture, Mapping) or architecture.get("kind") != KIND:
        raise UsageError(
            f"transfer carries recurrent cells over, and {origin} is none: search one with spaces.RecurrentCell, or name "
            "nas_cell"
        )
    graph_of(architecture)
    digest = hashlib.sha256(canonical_json(dict(architecture)).encode()).hexdigest()
    return FoundCell(named or f"cell-{digest[:8]}", origin, dict(architecture))


def sized(cell: FoundCell, evaluator: Finishable) -> dict[str, OneCell]:
    """The found cell's network, as large as the evaluator's task says, and the LSTM's beside it.

    Language models have equal numbers of parameters; translators equal multiply-adds for a pair of sentences of mean
    length, as Zoph and Le (2017, section 4.2) compare cells in GNMT. The LSTM has a bias, as it always has; the found
    cell has none, as the paper's has none.
    """
    task: AnyTask = evaluator.task()
    graph = cell.graph
    if isinstance(task, TextTask):
        hidden = solve_language(graph, task) if task.hidden is None else task.hidden
        parameters = count_parameters(_built(OneCell(graph, False, hidden), task))
        free = replace(task, hidden=None, parameters=parameters)
        return {
            cell.name: OneCell(graph, False, hidden),
            BASELINE: OneCell(lstm(), True, solve_language(lstm(), free, bias=True)),
        }
    if isinstance(task, TranslationTask):
        hidden = solve_translator(graph, task) if task.hidden is None else task.hidden
        steps = evaluator.mean_lengths()  # type: ignore[attr-defined]
        computation = _built(OneCell(graph, False, hidden), task).multiply_adds(*steps)
        other = hidden_of_equal_computation(lstm(), task, computation, steps, bias=True)
        return {cell.name: OneCell(graph, False, hidden), BASELINE: OneCell(lstm(), True, other)}
    raise UsageError(
        f"a recurrent cell is carried over to text or translation, and {type(evaluator).__name__} has a {type(task).__name__}"
    )


def parameters_of(network: OneCell, evaluator: Finishable) -> int:
    """How many it has."""
    return count_parameters(_built(network, evaluator.task()))


def multiply_adds_of(network: OneCell, evaluator: Finishable) -> int:
    """Of a symbol for a language model, of a pair of sentences of mean length for a translator."""
    import torch

    from archsmith.nn.count import count

    task = evaluator.task()
    model = _built(network, task)
    if isinstance(task, TextTask):
        return count(model, torch.zeros(1, 1, dtype=torch.int64, device="meta")).multiply_adds
    return int(model.multiply_adds(*evaluator.mean_lengths()))  # type: ignore[attr-defined]


def _built(network: OneCell, task: AnyTask) -> Any:
    """The network without its numbers, to count by."""
    import torch

    with torch.device("meta"):
        return network.build({}, task)
