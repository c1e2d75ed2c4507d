"""A choice among spaces: a genotype is that of one of them, such as a residual network or a chain of convolutions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from random import Random
from typing import Any

from archsmith.core.child import AnyTask, Child, as_child
from archsmith.core.diagram import Diagram
from archsmith.core.errors import UsageError
from archsmith.core.genotype import Architecture, Genotype
from archsmith.core.grown import GrownSpace
from archsmith.core.parts import PartSpace
from archsmith.core.parts import canonical as canonical_text
from archsmith.core.shown import shown
from archsmith.core.space import LocatesArchitectures, Space, default_task, identity, mutate, sample
from archsmith.core.walk import Choose
from archsmith.spaces.prefixed import Prefixed, distinct_names

_QUESTION = "space"


@dataclass(frozen=True, init=False)
class OneOf:
    """Several spaces as alternatives: `OneOf(ResidualNetwork(), MobileBlocks())`.

    The first question is which space; the others are those of the space that was answered, with its name in front.

    Args:
        spaces: the alternatives, two or more, each of which builds networks.
        alternatives: the same as a list.

    Raises UsageError for fewer than two, and for spaces that edit a child or grow by edits.
    """

    alternatives: tuple[Space, ...]

    def __init__(self, *spaces: Space, alternatives: Sequence[Space] = ()) -> None:
        listed = (*spaces, *alternatives)
        object.__setattr__(self, "alternatives", listed)
        if len(listed) < 2:
            raise UsageError(f"OneOf chooses among two spaces or more, got {len(listed)}")
        for space in listed:
            if isinstance(space, type) or not isinstance(space, Space):
                raise UsageError(f"OneOf chooses among spaces, got {shown(space)}")
            if isinstance(space, PartSpace):
                raise UsageError(
                    f"OneOf chooses among spaces that build networks, and {type(space).__name__} edits one; "
                    "put it beside the others with Product"
                )
            if isinstance(space, GrownSpace):
                raise UsageError(
                    f"OneOf chooses among spaces that ask questions, and {type(space).__name__} grows by edits"
                )

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of the alternatives: those of their spaces, with a number if two are equal."""
        return distinct_names(self.alternatives)

    @property
    def task(self) -> AnyTask:
        """The default task of its children: that of the first alternative."""
        return default_task(self.alternatives[0])

    def architecture(self, choose: Choose) -> Architecture:
        """`{"kind": "one_of", "space": name, "architecture": architecture}`."""
        name = choose(_QUESTION, self.names)
        return {
            "kind": "one_of",
            "space": name,
            "architecture": self._named(name).architecture(Prefixed(choose, name)),
        }

    def genotype(self, architecture: Architecture) -> Genotype:
        """The genotype of an architecture of one of the alternatives, or of this space.

        Raises UsageError when it is a point of none of those alternatives that can locate architectures.
        """
        if isinstance(architecture, Mapping) and architecture.get("kind") == "one_of":
            name = architecture.get("space")
            space, architecture = self._read(architecture)
            candidates = [(str(name), space)]
        else:
            candidates = list(zip(self.names, self.alternatives, strict=True))
        reasons = []
        for name, space in candidates:
            if isinstance(space, LocatesArchitectures):
                try:
                    return self.of(name, space.genotype(architecture))
                except UsageError as error:
                    reasons.append(f"{name}: {error}")
        raise UsageError("; ".join(reasons) or f"none of {', '.join(self.names)} can locate an architecture")

    def of(self, name: str, genotype: Genotype) -> Genotype:
        """The genotype of this space for one of the alternative of that name."""
        answers = {f"{name}.{key}": answer for key, answer in genotype.answers.items()}
        return Genotype(identity(self), {_QUESTION: name, **answers})

    def build(self, architecture: Architecture, task: Any) -> Child:
        """The child, as its own space builds it. Raises UsageError for another shape of architecture."""
        space, own = self._read(architecture)
        return as_child(space.build(own, task))

    def mutate(self, genotype: Genotype, rng: Random) -> Genotype:
        """Another space with random answers, with a probability of one divided by the number of answers; otherwise a mutation by
        the genotype's own space."""
        name = str(genotype.answers[_QUESTION])
        if rng.random() * len(genotype.answers) < 1:
            other = rng.choice([option for option in self.names if option != name])
            return self.of(other, sample(self._named(other), rng))
        space = self._named(name)
        prefix = f"{name}."
        own = {key.removeprefix(prefix): value for key, value in genotype.answers.items() if key != _QUESTION}
        return self.of(name, mutate(space, Genotype(identity(space), own), rng))

    def canonical(self, architecture: Architecture) -> Any:
        """The canonical form of the architecture in its own space; None if that has none."""
        space, own = self._read(architecture)
        form = canonical_text(space, own)
        return None if form is None else {"space": architecture["space"], "form": form}

    def diagram(self, architecture: Architecture) -> Diagram:
        """The diagram of the architecture by its own space. Raises UsageError if that space draws none."""
        space, own = self._read(architecture)
        draw = getattr(space, "diagram", None)
        if draw is None:
            raise UsageError(f"{architecture['space']} has no drawing")
        diagram: Diagram = draw(own)
        return diagram

    def _named(self, name: Any) -> Space:
        return self.alternatives[self.names.index(name)]

    def _read(self, architecture: Architecture) -> tuple[Space, Architecture]:
        """The space of an architecture, and the architecture in that space."""
        keys = {"kind", "space", "architecture"}
        if not isinstance(architecture, Mapping) or set(architecture) != keys or architecture["kind"] != "one_of":
            raise UsageError(
                'the architecture of a OneOf must be {"kind": "one_of", "space": name, "architecture": {...}}, '
                f"got {shown(architecture)}"
            )
        if architecture["space"] not in self.names:
            raise UsageError(
                f"this OneOf chooses among {', '.join(self.names)}, and the architecture is of {shown(architecture['space'])}"
            )
        return self._named(architecture["space"]), architecture["architecture"]
