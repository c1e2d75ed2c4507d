"""A product of spaces: a genotype holds several parts at once, such as a network, its activation and its update rule.

"Controller proposes architecture / optimizer / nonlinearity / augmentation": each space as it is, side by side. The names of
a part's choices begin with the part's name, so that a controller learns for each part by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from random import Random
from typing import Any

from archsmith.core.child import AnyTask, Child, as_child
from archsmith.core.diagram import Diagram, Edge, Node
from archsmith.core.errors import IllegalGenotype, UsageError
from archsmith.core.genotype import Answer, Architecture, Genotype
from archsmith.core.grown import Edit, GrownSpace
from archsmith.core.parts import PartSpace, canonical
from archsmith.core.space import LocatesArchitectures, Space, decode, default_task, identity, mutate
from archsmith.core.walk import Choose, RecordingWalk
from archsmith.spaces.prefixed import Prefixed, distinct_names


@dataclass(frozen=True, init=False)
class Product:
    """Several spaces as one: `Product(ConvChain(), Activation(), UpdateRule())`.

    At most one part builds networks; the others, of the kind of `core.parts.PartSpace`, change what it built, in order.
    Without a builder they change the hand-designed network that they share. A product with a grown space is a grown space.

    Args:
        spaces: the parts, two or more.
        parts: the same as a list.

    Raises UsageError for fewer than two parts, two builders, or parts with different hand-designed networks.
    """

    parts: tuple[Space, ...]

    def __new__(cls, *spaces: Space, parts: Sequence[Space] = ()) -> Product:
        grown = any(isinstance(part, GrownSpace) for part in (*spaces, *parts))
        return object.__new__(GrownProduct if grown else cls)

    def __init__(self, *spaces: Space, parts: Sequence[Space] = ()) -> None:
        listed = (*spaces, *parts)
        object.__setattr__(self, "parts", listed)
        if len(listed) < 2:
            raise UsageError(f"a product is of two spaces or more, got {len(listed)}")
        for part in listed:
            if isinstance(part, type) or not isinstance(part, Space) or isinstance(part, Product):
                raise UsageError(
                    "the parts of a product are spaces that build or edit a child, and no products themselves, "
                    f"got {part!r}"
                )
        builders = [type(part).__name__ for part in listed if not isinstance(part, PartSpace)]
        if len(builders) > 1:
            raise UsageError(
                f"one part of a product builds the network, and {' and '.join(builders)} would each build one"
            )
        models = {str(getattr(part, "model", None)) for part in listed}
        if not builders and len(models) > 1:
            raise UsageError(
                f"the parts of a product change one network, and these are of {' and '.join(sorted(models))}; "
                "give each the same model"
            )

    @cached_property
    def names(self) -> tuple[str, ...]:
        """What each part is called: its space's name, with a number where two are the same."""
        return distinct_names(self.parts)

    @property
    def task(self) -> AnyTask:
        """What its children are built for where nobody says: the builder's."""
        return default_task(next((part for part in self.parts if not isinstance(part, PartSpace)), self.parts[0]))

    def architecture(self, choose: Choose) -> Architecture:
        """`{"kind": "product", "parts": {name: architecture}}`."""
        return _whole(
            {name: part.architecture(Prefixed(choose, name)) for name, part in zip(self.names, self.parts, strict=True)}
        )

    def genotype(self, architecture: Architecture) -> Genotype:
        """The genotype of an architecture of this product, or of a network alone.

        A network is trained with the first of the standards of each other part, such as the "modern" `TrainingRecipe`.

        Raises UsageError when it is no point of the product, or a part cannot locate architectures.
        """
        is_product = isinstance(architecture, Mapping) and architecture.get("kind") == "product"
        own = self._parts_of(architecture if is_product or not self._builds() else self._completed(architecture))
        located = {}
        for name, part in zip(self.names, self.parts, strict=True):
            if not isinstance(part, LocatesArchitectures):
                raise UsageError(f"the part {name} cannot tell which answers give an architecture; give a genotype")
            try:
                located[name] = part.genotype(own[name]).answers
            except UsageError as error:
                raise UsageError(f"{name}: {error}") from None
        return self._joined(located)

    def build(self, architecture: Architecture, task: Any) -> Child:
        """The builder's child, with each other part in order. Raises UsageError for another shape of architecture."""
        own = self._parts_of(architecture)
        pairs = list(zip(self.parts, own.values(), strict=True))
        builder = next((pair for pair in pairs if not isinstance(pair[0], PartSpace)), None)
        if builder is not None:
            child = as_child(builder[0].build(builder[1], task))
        else:
            assert isinstance(self.parts[0], PartSpace)
            child = self.parts[0].baseline(task)
        for part, its in pairs:
            if isinstance(part, PartSpace):
                child = part.edit(its, child, task)
        return child

    def mutate(self, genotype: Genotype, rng: Random) -> Genotype:
        """One part is mutated as its own space has it, drawn with a chance that grows with the number of its answers."""
        split = self._split(genotype.answers)
        weights = [len(answers) for answers in split.values()]
        (name,) = rng.choices(list(split), weights if any(weights) else None)
        return self._changed(name, genotype, rng) or genotype

    def canonical(self, architecture: Architecture) -> Any:
        """The parts' canonical forms; None where no part has one."""
        own = self._parts_of(architecture)
        forms = {name: canonical(part, its) for part, (name, its) in zip(self.parts, own.items(), strict=True)}
        if not any(forms.values()):
            return None
        return {name: own[name] if form is None else form for name, form in forms.items()}

    def formula(self, architecture: Architecture) -> str | None:
        """The formulas of the parts that have one, a line each; None where none has."""
        return "\n".join(f"{name}: {text}" for name, text in self._formulas(architecture, "formula")) or None

    def latex(self, architecture: Architecture) -> str | None:
        """The same for TeX, lines of an environment such as gather; None where no part has a formula."""
        return " \\\\\n".join(text for _, text in self._formulas(architecture, "latex")) or None

    def _formulas(self, architecture: Architecture, method: str) -> list[tuple[str, str]]:
        own = self._parts_of(architecture)
        return [
            (name, tell(own[name]))
            for name, part in zip(self.names, self.parts, strict=True)
            if (tell := getattr(part, method, None)) is not None
        ]

    def diagram(self, architecture: Architecture) -> Diagram:
        """The parts' diagrams below one another, each in a frame. A part without one is a box that follows a child."""
        nodes: list[Node] = []
        edges: list[Edge] = []
        plot = None
        for part, (name, own) in zip(self.parts, self._parts_of(architecture).items(), strict=True):
            if not hasattr(part, "diagram"):
                nodes.append(Node(f"{name}.child", "child", role="input", group=name))
                nodes.append(Node(name, name, role="output", group=name))
                edges.append(Edge(f"{name}.child", name))
                continue
            drawn = part.diagram(own)
            plot = plot or drawn.plot
            nodes.extend(Node(f"{name}.{n.id}", n.label, n.detail, n.role, name) for n in drawn.nodes)
            edges.extend(Edge(f"{name}.{e.source}", f"{name}.{e.target}", e.skip, e.label) for e in _all_edges(drawn))
        return Diagram(" and ".join(self.names), tuple(nodes), tuple(edges), layout="graph", plot=plot)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _builds(self) -> bool:
        return any(not isinstance(part, PartSpace) for part in self.parts)

    def _completed(self, network: Architecture) -> Architecture:
        """A network of the builder with the first standard of each other part."""
        own = {}
        for name, part in zip(self.names, self.parts, strict=True):
            standard = next(iter(part.standards().values()), None) if isinstance(part, PartSpace) else network
            if standard is None:
                raise UsageError(
                    f"this architecture is of a network alone, and does not say what {name} is; "
                    'give {"kind": "product", "parts": {...}} with every part'
                )
            own[name] = standard
        return _whole(own)

    def _parts_of(self, architecture: Architecture) -> dict[str, Architecture]:
        if not isinstance(architecture, Mapping) or set(architecture) != {"kind", "parts"}:
            raise UsageError('the architecture of a product must be {"kind": "product", "parts": {...}}')
        own = architecture["parts"]
        if architecture["kind"] != "product" or not isinstance(own, Mapping) or set(own) != set(self.names):
            raise UsageError(f"the architecture of this product has the parts {', '.join(self.names)}")
        return {name: own[name] for name in self.names}

    def _split(self, answers: Mapping[str, Answer]) -> dict[str, dict[str, Answer]]:
        """The answers by part, without its name. Raises IllegalGenotype for one of no part."""
        split: dict[str, dict[str, Answer]] = {name: {} for name in self.names}
        for name, answer in answers.items():
            part, _, rest = name.partition(".")
            if part not in split or not rest:
                raise IllegalGenotype(f"the product has no choice {name!r}; its parts are {', '.join(self.names)}")
            split[part][rest] = answer
        return split

    def _joined(self, parts: Mapping[str, Mapping[str, Answer]]) -> Genotype:
        answers = {f"{part}.{name}": answer for part, own in parts.items() for name, answer in own.items()}
        return Genotype(identity(self), answers)

    def _changed(
        self,
        name: str,
        genotype: Genotype,
        rng: Random,
        edit: Callable[[Genotype, Random], Genotype | None] | None = None,
    ) -> Genotype | None:
        """The genotype with one part edited, by default mutated; None where the edit cannot be made."""
        split = self._split(genotype.answers)
        part = self.parts[self.names.index(name)]
        own = Genotype(identity(part), split[name])
        changed = edit(own, rng) if edit is not None else mutate(part, own, rng)
        if changed is None:
            return None
        split[name] = dict(changed.answers)
        return self._joined(split)


class GrownProduct(Product, GrownSpace):
    """A product that contains a grown space: `Product(...)` makes it by itself.

    Its edits are those of its grown parts, and for each other part one that mutates it.
    """

    def seed(self) -> Genotype:
        """The grown parts' seeds; the others with the first option of each choice, and no member of a subset."""
        own = {}
        for name, part in zip(self.names, self.parts, strict=True):
            if isinstance(part, GrownSpace):
                own[name] = part.seed().answers
                continue
            walk = RecordingWalk(lambda question: () if question.subset else 0)
            part.architecture(walk)
            own[name] = walk.answers
        return self._joined(own)

    @cached_property
    def edits(self) -> Mapping[str, Edit]:
        """The edits of every part, named after it."""
        found: dict[str, Edit] = {}
        for name, part in zip(self.names, self.parts, strict=True):
            if isinstance(part, GrownSpace):
                found |= {f"{name}.{own}": partial(_edited, self, name, edit) for own, edit in part.edits.items()}
            else:
                found[f"{name}.mutate"] = partial(_edited, self, name, None)
        return found

    def read(self, answers: Mapping[str, Answer]) -> Architecture:
        """The parts' architectures. Raises IllegalGenotype for answers that no edit could have made."""
        split = self._split(answers)
        return _whole(
            {
                name: decode(part, Genotype(identity(part), split[name]))
                for name, part in zip(self.names, self.parts, strict=True)
            }
        )

    architecture = GrownSpace.architecture
    mutate = None  # type: ignore[assignment]  # one of its edits, as of every grown space


def _edited(product: Product, name: str, edit: Edit | None, genotype: Genotype, rng: Random) -> Genotype | None:
    changed = product._changed(name, genotype, rng, edit)
    return None if changed == genotype else changed


def _all_edges(diagram: Diagram) -> Iterator[Edge]:
    """A diagram's edges, and of a chain those of all that stand beside each other: the chain has them of the ends alone."""
    own = {node.id: node.group for node in diagram.nodes}
    inside = {own[edge.source] for edge in diagram.edges if own[edge.source] == own[edge.target]}
    beside: dict[str, list[str]] = {}
    for node in diagram.nodes:
        if diagram.layout == "chain" and node.group and node.group not in inside:
            beside.setdefault(node.group, []).append(node.id)
    for edge in diagram.edges:
        for source in beside.get(own[edge.source], [edge.source]):
            for target in beside.get(own[edge.target], [edge.target]):
                yield replace(edge, source=source, target=target)


def _whole(parts: dict[str, Architecture]) -> Architecture:
    return {"kind": "product", "parts": parts}
