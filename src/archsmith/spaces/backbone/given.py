"""The module behind a space that comes from a record."""

from __future__ import annotations

from archsmith.core.errors import UsageError
from archsmith.core.shown import shown
from archsmith.core.space import Space
from archsmith.spaces.backbone.space import Backbone
from archsmith.spaces.product import Product


def backbone_of(space: Space) -> Backbone | None:
    """The backbone that a space is, or that is a part of it; None if there is none."""
    parts = space.parts if isinstance(space, Product) else (space,)
    return next((part for part in parts if isinstance(part, Backbone)), None)


def with_module(space: Space, given: Backbone) -> Space:
    """A space from a record, with the module of the backbone that was given.

    Raises UsageError, which names the difference, unless it is the backbone of the record.
    """
    recorded = backbone_of(space)
    if recorded is None:
        raise UsageError(f"a {type(given).__name__} was given, and the space of the record, {shown(space)}, has none")
    if recorded.sha256 != given.sha256:
        raise UsageError(
            f"the backbone {given.name!r} has other weights than that of the record: their SHA-256 is {given.sha256[:12]}..., not "
            f"{recorded.sha256[:12]}...; give the module that the run began with"
        )
    for name in ("name", "size", "mean", "deviation"):
        own, other = getattr(recorded, name), getattr(given, name)
        if own != other:
            raise UsageError(
                f"the backbone of the record has the {name} {own!r}, and the one given has {other!r}; give it with {name}={own!r}"
            )
    if not isinstance(space, Product):
        return given
    return Product(*(given if part is recorded else part for part in space.parts))
