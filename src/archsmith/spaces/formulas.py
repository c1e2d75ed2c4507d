"""What the spaces of formulas share: options by name, an architecture that is plain JSON, and a drawing.

{"kind": "update_rule", "language": {"name": "update rules", "version": 1}, "update": ["sign", "g"]}
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from archsmith.core.child import AnyTask, Child, Task
from archsmith.core.diagram import Edge, Node
from archsmith.core.errors import UsageError
from archsmith.core.expression import Expression
from archsmith.core.genotype import Architecture
from archsmith.core.language import Language
from archsmith.core.shown import shown


@dataclass(frozen=True)
class Formulas:
    """How a space writes its formulas.

    Args:
        kind: what an architecture says it is.
        field: where its formula stands.
        called: what a message calls it, with its article.
        language: what it is written in.
        meanings: a line about a symbol, by name, for drawings.
    """

    kind: str
    field: str
    called: str
    language: Language
    meanings: Mapping[str, str]

    @property
    def _written_in(self) -> dict[str, Any]:
        return {"name": self.language.name, "version": self.language.version}

    def write(self, formula: Expression | str) -> Architecture:
        """The architecture of a formula or of its text. Raises IllegalExpression, with the place, for what is none."""
        expression = self.language.parse(formula) if isinstance(formula, str) else formula
        return {"kind": self.kind, "language": self._written_in, self.field: expression.to_json()}

    def read(self, architecture: Any) -> Expression:
        """The formula of an architecture.

        Raises UsageError when that is none, or in another version of the language; IllegalExpression for a formula that
        is none.
        """
        if not isinstance(architecture, Mapping) or set(architecture) != {"kind", "language", self.field}:
            raise UsageError(
                f'{self.called} must be {{"kind": "{self.kind}", "language": {{...}}, "{self.field}": ...}}, got '
                + (shown(sorted(map(str, architecture))) if isinstance(architecture, Mapping) else shown(architecture))
            )
        if architecture["kind"] != self.kind:
            raise UsageError(f"the kind of {self.called} must be {self.kind!r}, got {shown(architecture['kind'])}")
        own, given = self._written_in, architecture["language"]
        if given != own or isinstance(given["version"], bool):
            raise UsageError(
                f"this is {self.called} in the language {shown(given)}, and what is read here is {own}; symbols may mean "
                "something else there, so it is not guessed at"
            )
        return self.language.from_json(architecture[self.field])

    def draw(self, formula: Expression) -> tuple[list[Node], list[Edge], str]:
        """The boxes and arrows of a formula, from what it reads on, and the last box's id. Equal parts are one box,
        fresh ones are not."""
        nodes: list[Node] = []
        edges: list[Edge] = []
        known: dict[Expression, str] = {}

        def drawn(part: Expression) -> str:
            if part in known:
                return known[part]
            sources = [drawn(operand) for operand in part.operands]
            name = str(len(nodes))
            nodes.append(Node(name, *self._caption(part)))
            commutes = not part.is_number and self.language.symbols[str(part.name)].commutative
            for i, source in enumerate(sources):
                edges.append(Edge(source, name, label="" if commutes or len(sources) == 1 else ["left", "right"][i]))
            if not self.language.is_fresh(part):
                known[part] = name
            return name

        last = drawn(formula)
        return nodes, edges, last

    def _caption(self, part: Expression) -> tuple[str, str, str]:
        """Label, detail and role of the box of an operand or a function."""
        if part.is_number:
            return str(part.name), "constant", "input"
        symbol = self.language.symbols[str(part.name)]
        label = {"-": "−", "*": "×", "/": "÷"}.get(symbol.text, symbol.text)
        label = "negative" if symbol.name == "negative" else " ".join([label, *symbol.literals])
        return label, self.meanings.get(symbol.name, ""), ("input", "activation", "combine")[symbol.arity]


def check_model(space: Any) -> None:
    """Raise UsageError unless the space's `model` may be the name of a network."""
    if not isinstance(space.model, str) or not space.model:
        raise UsageError(f"model of {type(space).__name__} must be the name of a network, got {shown(space.model)}")


def check_options(space: Any, every: Mapping[str, Mapping[str, Any]]) -> None:
    """Make tuples of a frozen space's lists of options, and raise UsageError for one that is not known or stands twice.

    Args:
        space: the dataclass.
        every: by field, the options there are.
    """
    what = type(space).__name__
    for name, known in every.items():
        given = getattr(space, name)
        if isinstance(given, str) or not isinstance(given, Iterable):
            raise UsageError(f"{name} of {what} must be a tuple of names, got {shown(given)}")
        options = tuple(given)
        object.__setattr__(space, name, options)
        for option in options:
            if option not in known:
                raise UsageError(f"{name} of {what} must be of {', '.join(known)}, got {shown(option)}")
        if len(set(options)) != len(options):
            raise UsageError(f"{name} of {what} must differ from each other, got {shown(given)}")


def network_of(space: Any, task: AnyTask) -> Child:
    """The hand-designed network that a space's `model` names, for a task of images.

    Raises UsageError for another task, and UnknownName when there is no network of that name.
    """
    if not isinstance(task, Task):
        raise UsageError(f"{type(space).__name__} has networks for images, and the task is a {type(task).__name__}")
    from archsmith.nn.models import model_named

    return Child(model_named(space.model, task))
