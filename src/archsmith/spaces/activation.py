"""Activation functions (Ramachandran, Zoph and Le 2017, "Searching for Activation Functions", section 2).

The space asks for core units b(u1(x1), u2(x2)): a function of each of two inputs, and one of both. The inputs are x, what goes
into the activation, or earlier units' results; the last unit's is the activation.

    {"kind": "activation", "language": {"name": "activation functions", "version": 1},
     "function": ["mul", "x", ["sigmoid", ["mul", "beta", "x"]]]}

What the functions are, `archsmith.nn.activation_language` says. A function that is the same for every x is a legal genotype and
no child: building it fails, so that a searcher is told of it and no training is spent.
docs/decisions/0020-activations.md has what the paper leaves open.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from archsmith.core.checks import plain_fields, whole_number
from archsmith.core.child import AnyTask, Child, Task
from archsmith.core.diagram import Curve, Diagram, Edge, Node, Plot
from archsmith.core.errors import ChildFailed, UsageError
from archsmith.core.expression import Expression
from archsmith.core.genotype import Architecture
from archsmith.core.walk import Choose
from archsmith.nn.activation_language import ACTIVATIONS, BINARY, UNARY, is_constant, slope_at, value_at
from archsmith.spaces.formulas import Formulas, check_model, check_options, network_of

if TYPE_CHECKING:
    from torch import nn

MAX_UNITS = 4  # of more, a result that is used every time would be a deeper expression than is read


@dataclass(frozen=True)
class Activation:
    """The space. With one unit it has 6,250 genotypes, some of which are the same function.

    Args:
        model: the network whose ReLUs are replaced, by name (`archsmith.nn.models`); "resnet20" is the paper's.
        units: how many core units, from 1 to 4.
        unary, binary: the options of each question, by the names of `archsmith.nn.activation_language`; empty: all 25
            and all 10.
    """

    model: str = "resnet20"
    units: int = 1
    unary: tuple[str, ...] = ()
    binary: tuple[str, ...] = ()

    version: ClassVar[int] = 1
    kind: ClassVar[str] = "activation"

    def __post_init__(self) -> None:
        plain_fields(self)
        check_model(self)
        whole_number(self.units, "units of Activation", 1, MAX_UNITS)
        check_options(self, {"unary": UNARY, "binary": BINARY})

    # --- the questions ------------------------------------------------------------------------------------------------

    def architecture(self, choose: Choose) -> Architecture:
        """The function that the answers describe. The first unit has no other input than x, so it is asked for none."""
        known = {"x": ACTIVATIONS.make("x")}
        result = known["x"]
        for unit in range(self.units):
            inputs = tuple(known)
            first = choose(f"{unit}.input1", inputs) if unit else "x"
            second = choose(f"{unit}.input2", inputs) if unit else "x"
            u1 = choose(f"{unit}.u1", self.unary or tuple(UNARY))
            u2 = choose(f"{unit}.u2", self.unary or tuple(UNARY))
            both = choose(f"{unit}.binary", self.binary or tuple(BINARY))
            result = BINARY[both](UNARY[u1](known[first]), UNARY[u2](known[second]))
            known[f"unit {unit}"] = result
        return self.from_expression(result)

    def from_expression(self, function: Expression | str) -> Architecture:
        """The architecture of a function, or of its text such as "x * sigmoid(beta * x)", also of one that no genotype has.

        Raises IllegalExpression, with the place, for what is none.
        """
        return _FORMULAS.write(function)

    def expression(self, architecture: Architecture) -> Expression:
        """The function of an architecture. Raises UsageError where it is none, or is written in another language."""
        return function_of(architecture)

    def canonical(self, architecture: Architecture) -> Any:
        """Plain JSON that is equal for two architectures when they are the same function: the simplified expression."""
        return ACTIVATIONS.simplify(function_of(architecture)).to_json()

    # --- the child ----------------------------------------------------------------------------------------------------

    def build(self, architecture: Architecture, task: AnyTask) -> Child:
        """The hand-designed network with this function in place of every ReLU.

        Raises UsageError when the architecture is none or the task not of images, and ChildFailed for a constant.
        """
        function_of(architecture)  # refused before a network is made
        return self.edit(architecture, self.baseline(task), task)

    def baseline(self, task: AnyTask) -> Child:
        """The network with its ReLUs. Raises UnknownName when there is none of that name."""
        return network_of(self, task)

    def edit(self, architecture: Architecture, child: Child, task: AnyTask) -> Child:
        """The child with this function in place of every ReLU of its model, each with betas of its own for every channel.

        A network of `GrownGraph` that has grown no ReLU yet stays as it is.

        Raises ChildFailed for a function that is the same for every x, and UsageError for a model without ReLU modules.
        """
        function = function_of(architecture)
        if not isinstance(task, Task):
            raise UsageError(f"Activation has networks for images, and the task is a {type(task).__name__}")
        if is_constant(function):
            raise ChildFailed(
                f"the activation {ACTIVATIONS.show(function)} is the same for every x, so no network learns through it",
                reason="constant",
            )
        from archsmith.nn.activation import ActivationFunction, with_activation
        from archsmith.nn.grown import GrownNetwork

        def made(channels: int, dims: int) -> nn.Module:
            return ActivationFunction(function, channels, dims=dims)

        if not isinstance(child.model, GrownNetwork) or child.model.relus:
            with_activation(child.model, made, task.input_shape)
        return child

    def standards(self) -> Mapping[str, Architecture | None]:
        """What a found function is held against: ReLU, which is the network as it is, and SiLU."""
        return {"ReLU": None, "SiLU": self.from_expression("x * sigmoid(x)")}

    def layers_and_depth(self, architecture: Architecture, task: Task) -> tuple[int, int]:
        """The layers of the network, and the most of them on one way through it; an activation has none."""
        from archsmith.nn.models import layers_and_depth

        return layers_and_depth(self.model, task)

    # --- the drawing --------------------------------------------------------------------------------------------------

    def formula(self, architecture: Architecture) -> str:
        """The function as text."""
        return ACTIVATIONS.show(function_of(architecture))

    def latex(self, architecture: Architecture) -> str:
        """The function for TeX."""
        return rf"f(x) = {ACTIVATIONS.latex(function_of(architecture))}"

    def diagram(self, architecture: Architecture) -> Diagram:
        """The function as a graph, equal parts as one box, over a plot of it and of its derivative, betas as they begin."""
        function = function_of(architecture)
        nodes, edges, last = _FORMULAS.draw(function)
        nodes.append(Node("f(x)", "f(x)", "in place of every ReLU", "output"))
        edges.append(Edge(last, "f(x)"))
        formula = ACTIVATIONS.show(function)
        return Diagram(f"Activation: f(x) = {formula}", tuple(nodes), tuple(edges), "graph", _plot(function))


def _plot(function: Expression) -> Plot:
    points = [i / 20 for i in range(-100, 101)]
    simple = ACTIVATIONS.simplify(function)
    return Plot(
        "x",
        (
            Curve("f(x)", tuple((x, value_at(simple, x)) for x in points)),
            Curve("f'(x)", tuple((x, slope_at(simple, x)) for x in points)),
        ),
    )


_MEANINGS = {
    "x": "what goes in",
    "beta": "trained, 1 at first",
    "sqrt": "of the absolute value",
    "log": "of |x| + 1e-8",
    "sinc": "sin(x) / x",
    "relu": "max(x, 0)",
    "min0": "min(x, 0)",
    "sigmoid": "1 / (1 + exp(-x))",
    "softplus": "log(1 + exp(x))",
    "div": "with 1e-8",
    "mix": "beta left + (1 - beta) right",
}


_FORMULAS = Formulas(Activation.kind, "function", "an activation", ACTIVATIONS, _MEANINGS)


def function_of(architecture: Any) -> Expression:
    """The function of an architecture.

    Raises UsageError when that is none, or in another version of the language; IllegalExpression for a function that is
    none.
    """
    return _FORMULAS.read(architecture)
