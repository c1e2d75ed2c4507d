"""Update rules of optimizers (Bello et al. 2017, "Neural Optimizer Search with Reinforcement Learning", section 3).

The space asks for groups of five: two operands, a function of each, and a function of both. A later group may have earlier
groups' results as operands; the last group's is the step that is taken off the weights, times the learning rate.

    {"kind": "update_rule", "language": {"name": "update rules", "version": 1},
     "update": ["mul", ["exp", ["mul", ["sign", "g"], ["sign", "m"]]], "g"]}

What the operands and functions are, `archsmith.nn.update_language` says. A rule that does not follow the gradient is a legal
genotype and no child: building it fails, so that a searcher is told of it and no training is spent.
docs/decisions/0018-update-rules.md has what the paper leaves open.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from archsmith.core.checks import plain_fields, whole_number
from archsmith.core.child import AnyTask, Child, Task
from archsmith.core.diagram import Diagram, Edge, Node
from archsmith.core.errors import ChildFailed, UsageError
from archsmith.core.expression import Expression
from archsmith.core.genotype import Architecture
from archsmith.core.shown import shown
from archsmith.core.walk import Choose
from archsmith.nn.update_language import BINARY, DECAYS, OPERANDS, UNARY, UPDATE_RULES, follows_gradient
from archsmith.spaces.formulas import Formulas, check_model, check_options, network_of

if TYPE_CHECKING:
    import torch

MAX_GROUPS = 7  # of more, a result that is used twice every time would be a larger expression than is read


@dataclass(frozen=True)
class UpdateRule:
    """The space. With one group and no decays it has 249,696 genotypes, many of which are the same rule.

    Args:
        model: the network that is trained by the rules, by name (`archsmith.nn.models`); "convnet2" is the paper's.
        groups: how many groups of two operands, from 1 to 7.
        decays: whether the operands have those that change with time: linear, cosine and restart decay, annealed noise.
        operands, unary, binary: the options of each question, by the names of `archsmith.nn.update_language`; empty:
            all of them.
    """

    model: str = "convnet2"
    groups: int = 1
    decays: bool = False
    operands: tuple[str, ...] = ()
    unary: tuple[str, ...] = ()
    binary: tuple[str, ...] = ()

    version: ClassVar[int] = 1
    kind: ClassVar[str] = "update_rule"

    def __post_init__(self) -> None:
        plain_fields(self)
        check_model(self)
        whole_number(self.groups, "groups of UpdateRule", 1, MAX_GROUPS)
        if not isinstance(self.decays, bool):
            raise UsageError(f"decays of UpdateRule must be True or False, got {shown(self.decays)}")
        check_options(self, {"operands": {**OPERANDS, **DECAYS}, "unary": UNARY, "binary": BINARY})

    # --- the questions ------------------------------------------------------------------------------------------------

    def architecture(self, choose: Choose) -> Architecture:
        """The rule that the answers describe."""
        operands = self.operands or (*OPERANDS, *(DECAYS if self.decays else ()))
        known = {**OPERANDS, **DECAYS}
        result = OPERANDS["g"]
        for group in range(self.groups):
            first = choose(f"{group}.op1", operands)
            second = choose(f"{group}.op2", operands)
            u1 = choose(f"{group}.u1", self.unary or tuple(UNARY))
            u2 = choose(f"{group}.u2", self.unary or tuple(UNARY))
            both = choose(f"{group}.binary", self.binary or tuple(BINARY))
            result = BINARY[both](UNARY[u1](known[first]), UNARY[u2](known[second]))
            name = f"group {group}"
            known[name] = result
            operands = (*operands, name)
        return self.from_expression(result)

    def from_expression(self, rule: Expression | str) -> Architecture:
        """The architecture of a rule, or of its text such as "exp(sign(g) * sign(m)) * g", also of one that no genotype has.

        Raises IllegalExpression, with the place, for what is none.
        """
        return _FORMULAS.write(rule)

    def expression(self, architecture: Architecture) -> Expression:
        """The rule of an architecture. Raises UsageError where it is none, or is written in another language."""
        return rule_of(architecture)

    def canonical(self, architecture: Architecture) -> Any:
        """Plain JSON that is equal for two architectures when they are the same rule: the simplified expression."""
        return UPDATE_RULES.simplify(rule_of(architecture)).to_json()

    # --- the child ----------------------------------------------------------------------------------------------------

    def build(self, architecture: Architecture, task: AnyTask) -> Child:
        """The hand-designed network with an optimizer of this rule.

        Raises UsageError when the architecture is no rule or the task not of images, and ChildFailed for a rule that
        does not follow the gradient.
        """
        rule_of(architecture)  # refused before a network is made
        return self.edit(architecture, self.baseline(task), task)

    def baseline(self, task: AnyTask) -> Child:
        """The network, with the evaluator's own optimizer. Raises UnknownName when there is none of that name."""
        return network_of(self, task)

    def edit(self, architecture: Architecture, child: Child, task: AnyTask) -> Child:
        """The child with an optimizer of this rule. Raises ChildFailed where it does not follow the gradient."""
        rule = rule_of(architecture)
        if not follows_gradient(rule):
            written, simple = UPDATE_RULES.show(rule), UPDATE_RULES.show(UPDATE_RULES.simplify(rule))
            is_ = "" if simple == written else f" is {simple}, which"
            raise ChildFailed(
                f"the rule {written}{is_} does not follow the gradient, so nothing is learned by it",
                reason="no gradient",
            )
        from archsmith.nn.update_rule import RuleOptimizer

        def optimizer(parameters: Iterable[Any], learning_rate: float) -> torch.optim.Optimizer:
            return RuleOptimizer(parameters, rule, learning_rate)

        return dataclasses.replace(child, optimizer=optimizer)

    def standards(self) -> Mapping[str, Architecture | None]:
        """What a found rule is held against: the evaluator's own optimizer, stochastic gradient descent with momentum
        in its recipes, and Adam."""
        return {"SGD with momentum": None, "Adam": self.from_expression(OPERANDS["adam"])}

    def layers_and_depth(self, architecture: Architecture, task: Task) -> tuple[int, int]:
        """The layers of the network, and the most of them on one way through it; a rule has none."""
        from archsmith.nn.models import layers_and_depth

        return layers_and_depth(self.model, task)

    # --- the drawing --------------------------------------------------------------------------------------------------

    def formula(self, architecture: Architecture) -> str:
        """The rule as text."""
        return UPDATE_RULES.show(rule_of(architecture))

    def latex(self, architecture: Architecture) -> str:
        """The step for TeX."""
        return rf"w \leftarrow w - \lambda \left( {UPDATE_RULES.latex(rule_of(architecture))} \right)"

    def diagram(self, architecture: Architecture) -> Diagram:
        """The rule as a graph, from what it reads to the step; equal parts are one box, random ones are not."""
        rule = rule_of(architecture)
        nodes, edges, last = _FORMULAS.draw(rule)
        nodes.append(Node("step", "step", "w ← w − learning rate × step", "output"))
        edges.append(Edge(last, "step"))
        return Diagram(f"Update rule: step = {UPDATE_RULES.show(rule)}", tuple(nodes), tuple(edges), "graph")


_MEANINGS = {
    "g": "gradient",
    "m": "average of g",
    "v": "average of g²",
    "gamma": "average of g³",
    "w": "weights",
    "noise": "variance 0.01",
    "linear_decay": "from 1 to 0",
    "cosine_decay": "from 1 to 0",
    "restart_decay": "from 1 to 0, again",
    "annealed_noise": "variance (1 + t)^-0.55",
    "log": "of the absolute value",
    "sqrt": "of the absolute value",
    "div": "with 1e-8",
}


_FORMULAS = Formulas(UpdateRule.kind, "update", "an update rule", UPDATE_RULES, _MEANINGS)


def rule_of(architecture: Any) -> Expression:
    """The rule of an architecture.

    Raises UsageError when that is none, or in another version of the language; IllegalExpression for a rule that is
    none.
    """
    return _FORMULAS.read(architecture)
