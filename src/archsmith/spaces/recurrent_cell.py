"""Recurrent cells as complete binary trees (Zoph and Le 2017, "Neural Architecture Search with Reinforcement Learning",
sections 3.4 and 4.2).

A tree of base N has N leaves and 2N - 1 nodes; node N joins 0 and 1, node N + 1 joins 2 and 3, and so on; the last is
the root. For each node the space asks for a combination and an activation, then for those by which c_{t-1} is injected,
then for two nodes: c_out, whose value before its activation is c_t, and c_in, after whose activation c_{t-1} comes in.
With W a leaf's own two matrices:

    leaf k       p_k = combination(W_x x_t, W_h h_{t-1})        a_k = activation(p_k)
    inner node   p_k = combination(a_left, a_right)             a_k = activation(p_k)
    node c_in    a_k = activation_I(combination_I(a_k, c_{t-1}))
    c_t = p_{c_out}        h_t = a_root

An architecture is plain data, complete without the space it came from; this one is the worked example of figure 5:

    {"kind": "recurrent_cell", "nodes": [{"combination": "add", "activation": "tanh"},
        {"combination": "elem_mult", "activation": "relu"}, {"combination": "elem_mult", "activation": "sigmoid"}],
     "inject": {"combination": "add", "activation": "relu"}, "c_out": 1, "c_in": 0}

docs/decisions/0007-recurrent-cell.md has what the paper leaves open.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from archsmith.core.checks import plain_fields
from archsmith.core.child import AnyTask, Child, TextTask, TranslationTask
from archsmith.core.diagram import Diagram, Edge, Node
from archsmith.core.errors import IllegalGenotype, LimitExceeded, UsageError
from archsmith.core.genotype import Architecture, Genotype
from archsmith.core.shown import shown
from archsmith.core.space import decode, identity
from archsmith.core.walk import Choose
from archsmith.nn.cell_graph import ACTIVATIONS, COMBINATIONS, CellGraph, from_architecture

if TYPE_CHECKING:
    import torch

    from archsmith.nn.recurrent import GraphCell, GraphRNN

KIND = "recurrent_cell"
MAX_BASE = 64
MAX_PARAMETERS = 10**9  # 4 GB of weights
_LARGEST = {
    "parameters": MAX_PARAMETERS,
    "layers": 256,
    **dict.fromkeys(("hidden", "embedding", "vocabulary", "source_vocabulary", "target_vocabulary"), 2**24),
}


@dataclass(frozen=True)
class RecurrentCell:
    """The space. The defaults are the paper's: 6.3e16 cells; `enlarged()` is its control experiment.

    Args:
        base: how many leaves the tree has, a power of two from 2 to 64.
        combinations: the options of each node, of "add", "elem_mult" (the product) and "max".
        activations: the options of each node, of "identity", "tanh", "sigmoid", "relu" and "sin".
    """

    base: int = 8
    combinations: tuple[str, ...] = ("add", "elem_mult")
    activations: tuple[str, ...] = ("identity", "tanh", "sigmoid", "relu")

    version: ClassVar[int] = 1
    kind: ClassVar[str] = KIND
    task: ClassVar[TextTask] = TextTask(vocabulary=10_000, layers=2, parameters=20_000_000)
    """The paper's: a language model of Penn Treebank."""

    def __post_init__(self) -> None:
        plain_fields(self)
        base = self.base
        if isinstance(base, bool) or not isinstance(base, int) or not 2 <= base <= MAX_BASE or base & (base - 1):
            raise UsageError(f"base of RecurrentCell must be a power of two from 2 to {MAX_BASE}, got {shown(base)}")
        for name, known in (("combinations", COMBINATIONS), ("activations", ACTIVATIONS)):
            values = getattr(self, name)
            if not isinstance(values, list | tuple) or not values:
                raise UsageError(f"{name} of RecurrentCell must be a tuple of at least one, got {shown(values)}")
            for value in values:
                if not isinstance(value, str) or value not in known:
                    raise UsageError(f"{name} of RecurrentCell must be of {', '.join(known)}, got {shown(value)}")
            if len(set(values)) != len(values):
                raise UsageError(f"{name} of RecurrentCell must differ from each other, got {shown(values)}")
            object.__setattr__(self, name, tuple(values))  # JSON has lists

    @classmethod
    def enlarged(cls, base: int = 8) -> RecurrentCell:
        """The space of the control experiment (section 4.2): max and sin as well."""
        return cls(base, COMBINATIONS, ACTIVATIONS)

    # --- the questions ------------------------------------------------------------------------------------------------

    def architecture(self, choose: Choose) -> Architecture:
        """The architecture that the answers describe."""
        count = 2 * self.base - 1
        return {
            "kind": self.kind,
            "nodes": [self._operation(choose, str(k)) for k in range(count)],
            "inject": self._operation(choose, "inject"),
            "c_out": choose("c_out", range(count)),
            "c_in": choose("c_in", range(count)),
        }

    def _operation(self, choose: Choose, name: str) -> dict[str, str]:
        combination = choose(f"{name}.combination", self.combinations)
        return {"combination": combination, "activation": choose(f"{name}.activation", self.activations)}

    def tokens(self, genotype: Genotype) -> list[str | int]:
        """A genotype as the controller's sequence in figure 5: two words a node, two of the injection, two nodes."""
        architecture = decode(self, genotype)
        operations = [*architecture["nodes"], architecture["inject"]]
        words = [operation[key] for operation in operations for key in ("combination", "activation")]
        return [*words, architecture["c_out"], architecture["c_in"]]

    def from_tokens(self, tokens: str | Sequence[str | int]) -> Genotype:
        """The genotype of a sequence as `tokens` gives it, or of a text such as the paper's own:

            RecurrentCell(base=2).from_tokens("Add,Tanh | ElemMult,ReLU | ElemMult,Sigmoid | Add,ReLU | 1, 0")

        Raises IllegalGenotype when there are too few or too many, or one is not among the options of this space.
        """
        if isinstance(tokens, str):
            words = [word for word in re.split(r"[\s,|]+", tokens[:10_000]) if word]
            tokens = [int(word) if word.isdecimal() and len(word) < 10 else word for word in words]
        names = [
            f"{operation}.{what}"
            for operation in (*map(str, range(2 * self.base - 1)), "inject")
            for what in ("combination", "activation")
        ]
        names += ["c_out", "c_in"]
        if not isinstance(tokens, Sequence) or len(tokens) != len(names):
            got = len(tokens) if isinstance(tokens, Sequence) else type(tokens).__name__
            raise IllegalGenotype(f"a cell of base {self.base} has {len(names)} tokens, got {got}")
        spelling = {_plain(word): word for word in (*self.combinations, *self.activations)}
        answers: dict[str, Any] = {
            name: spelling.get(_plain(token), token) if isinstance(token, str) else token
            for name, token in zip(names, tokens, strict=True)
        }
        genotype = Genotype(identity(self), answers)
        decode(self, genotype)
        return genotype

    # --- the child and the modules ------------------------------------------------------------------------------------

    def build(self, architecture: Architecture, task: AnyTask) -> Child:
        """The child of any architecture of this kind: a language model for a `TextTask`, a translator for a
        `TranslationTask`.

        Raises UsageError when the architecture is not one, the task is of images or it fits no network, and
        LimitExceeded when the network is too large to be made.
        """
        graph = graph_of(architecture)
        if not isinstance(task, TextTask | TranslationTask):
            raise UsageError(
                f"RecurrentCell builds networks for text and translation, and the task is a {type(task).__name__}; "
                "search it with training.LanguageModel, or give a TextTask; for images there is spaces.ConvChain"
            )
        for name, most in _LARGEST.items():
            if (getattr(task, name, None) or 0) > most:
                raise _too_large(name.replace("_", " "), getattr(task, name), most)
        if isinstance(task, TextTask):
            from archsmith.nn.language import language_network, parameter_count, solve_hidden

            parameters = parameter_count(graph, task, task.hidden or solve_hidden(graph, task))
            make: Callable[[], torch.nn.Module] = partial(language_network, graph, task)
        else:
            import torch

            from archsmith.nn.count import count_parameters
            from archsmith.nn.translation import translator

            make = partial(translator, graph, task)
            with torch.device("meta"):  # takes no memory
                parameters = count_parameters(make())
        if parameters > MAX_PARAMETERS:
            raise _too_large("parameters", parameters, MAX_PARAMETERS)
        return Child(make())

    def cell(
        self,
        genotype_or_architecture: Genotype | Architecture,
        input_size: int,
        hidden_size: int,
        bias: bool = False,
        *,
        proj_size: int = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> GraphCell:
        """One step of a cell as a module, in place of `torch.nn.LSTMCell`; its arguments are those of `GraphCell`."""
        from archsmith.nn.recurrent import GraphCell

        graph = self.graph(genotype_or_architecture)
        return GraphCell(graph, input_size, hidden_size, bias, proj_size=proj_size, device=device, dtype=dtype)

    def rnn(
        self,
        genotype_or_architecture: Genotype | Architecture,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = False,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> GraphRNN:
        """A cell over sequences as a module, in place of `torch.nn.LSTM`; its arguments are those of `GraphRNN`."""
        from archsmith.nn.recurrent import GraphRNN

        return GraphRNN(
            self.graph(genotype_or_architecture),
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            proj_size,
            device=device,
            dtype=dtype,
        )

    def graph(self, genotype_or_architecture: Genotype | Architecture) -> CellGraph:
        """The operations of a cell, for the modules of `archsmith.nn` that take any. A genotype may be its JSON too."""
        thing = genotype_or_architecture
        if isinstance(thing, Mapping) and set(thing) == {"space", "answers"}:
            thing = Genotype.from_json(thing)
        return graph_of(decode(self, thing) if isinstance(thing, Genotype) else thing)

    # --- the drawing --------------------------------------------------------------------------------------------------

    def diagram(self, architecture: Architecture) -> Diagram:
        """The computation of one step, as in figures 5 and 8: a box for each operation, x, h and c in, h and c out."""
        check_architecture(architecture)
        operations, inject = architecture["nodes"], architecture["inject"]
        base = (len(operations) + 1) // 2
        nodes = [Node("x", "x(t)", role="input"), Node("h", "h(t-1)", role="input"), Node("c", "c(t-1)", role="input")]
        edges: list[Edge] = []

        def operation(name: str, what: Mapping[str, str], left: str, right: str) -> tuple[str, str]:
            """The boxes of one operation; gives the names of the values before and after its activation."""
            before, after = f"{name}.combination", f"{name}.activation"
            nodes.append(Node(before, what["combination"], role="combine"))
            nodes.append(Node(after, what["activation"], role="activation"))
            edges.extend((Edge(left, before), Edge(right, before), Edge(before, after)))
            return before, after

        before, current = [""] * len(operations), [""] * len(operations)
        for k, what in enumerate(operations):
            left, right = ("x", "h") if k < base else (current[2 * (k - base)], current[2 * (k - base) + 1])
            before[k], current[k] = operation(str(k), what, left, right)
            if k == architecture["c_in"]:
                current[k] = operation("inject", inject, current[k], "c")[1]
        nodes += [Node("h(t)", "h(t)", role="output"), Node("c(t)", "c(t)", role="output")]
        edges += [Edge(current[-1], "h(t)"), Edge(before[architecture["c_out"]], "c(t)")]
        return Diagram(f"A recurrent cell of base {base}", tuple(nodes), tuple(edges), "graph")


def graph_of(architecture: Architecture) -> CellGraph:
    """The operations of an architecture of this kind. Raises UsageError when it is none."""
    check_architecture(architecture)
    return from_architecture(architecture)


# --- what is refused --------------------------------------------------------------------------------------------------


def check_architecture(architecture: Architecture) -> None:
    """Raise UsageError unless this is the architecture of a recurrent cell, as the module's docstring has it."""
    keys = {"kind", "nodes", "inject", "c_out", "c_in"}
    if not isinstance(architecture, Mapping) or architecture.get("kind") != KIND:
        raise UsageError(f'an architecture of this space is an object with "kind": "{KIND}", got {shown(architecture)}')
    if set(architecture) != keys:
        raise UsageError(
            f"the architecture of a cell has the keys {', '.join(sorted(keys))}, got {shown(list(architecture))}"
        )
    nodes = architecture["nodes"]
    if not isinstance(nodes, list | tuple) or len(nodes) not in (2 * 2**k - 1 for k in range(1, 7)):
        raise UsageError(
            "the nodes of a cell must be a list of 2N - 1 for a base N, a power of two from 2 to "
            f"{MAX_BASE}, got {shown(nodes)}"
        )
    for name, operation in (*((f"node {k}", node) for k, node in enumerate(nodes)), ("inject", architecture["inject"])):
        if not isinstance(operation, Mapping) or set(operation) != {"combination", "activation"}:
            raise UsageError(f"{name} of a cell must have a combination and an activation, got {shown(operation)}")
        for what, known in (("combination", COMBINATIONS), ("activation", ACTIVATIONS)):
            if not isinstance(operation[what], str) or operation[what] not in known:
                raise UsageError(
                    f"the {what} of {name} of a cell must be of {', '.join(known)}, got {shown(operation[what])}"
                )
    for name in ("c_out", "c_in"):
        index = architecture[name]
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(nodes):
            raise UsageError(
                f"{name} of a cell must be the number of a node, from 0 to {len(nodes) - 1}, got {shown(index)}"
            )


def _too_large(what: str, number: int, most: int) -> LimitExceeded:
    return LimitExceeded(
        f"the network is too large to be built: {what} may be at most {most:,}, got {shown(number)}; "
        "give fewer hidden units or layers, or a smaller vocabulary",
        reason="parameters",
    )


def _plain(word: str) -> str:
    """A word as it is compared: the paper's ElemMult is elem_mult."""
    return word.replace("_", "").lower()
