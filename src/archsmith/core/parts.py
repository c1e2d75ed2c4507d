"""Spaces of parts: of what changes a child that is there, such as its activation, its optimizer or its augmentation.

Beside what every space has, such a space edits a child, so that it can be searched alone, on a network designed by hand, or
in a product with a space of networks. Any space may say which of its architectures are the same child.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from archsmith.core.child import AnyTask, Child
from archsmith.core.genotype import Architecture, canonical_json
from archsmith.core.space import Space


@runtime_checkable
class PartSpace(Space, Protocol):
    """A space whose architectures change a child. Its `build` is `edit(architecture, baseline(task), task)`."""

    def baseline(self, task: AnyTask) -> Child:
        """The child that is edited where the part is searched alone, freshly initialised: a network designed by hand."""
        ...

    def edit(self, architecture: Architecture, child: Child, task: AnyTask) -> Child:
        """The child with this part. The model may be changed in place; what else the child decided stays."""
        ...

    def standards(self) -> Mapping[str, Architecture | None]:
        """What a person would take without a search, by the name that a person calls it: what `finish` holds the found
        part against. None is the baseline unchanged."""
        ...


def canonical(space: Space, architecture: Architecture) -> str | None:
    """One text for all architectures that are the same child, where the space has `canonical(architecture)`: plain JSON
    that is equal exactly then; None where it has none, or gives None."""
    own = getattr(space, "canonical", None)
    form: Any = own(architecture) if own is not None else None
    return None if form is None else canonical_json(form)
