"""What the parts of a run are called on the page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

SEARCHERS = {
    "searchers.Random": "random search",
    "searchers.Reinforce": "a controller that learns by policy gradient (REINFORCE)",
}


def type_of(config: Any) -> str:
    """The type of a part as recorded, such as "spaces.ConvChain"."""
    return str(config.get("type", "")) if isinstance(config, Mapping) else ""


def short_type(config: Any) -> str:
    """The type's own name; of a function space or evaluator, the function's."""
    if isinstance(config, Mapping):
        inner = config.get("function")
        if isinstance(inner, Mapping):
            return short_type(inner)
    return type_of(config).rpartition(":")[2].rpartition(".")[2] or "unknown"


def searcher_name(config: Any) -> str:
    """The searcher in words where archsmith knows it, else its type."""
    return SEARCHERS.get(type_of(config), short_type(config))


def readable(name: str) -> str:
    """A metric or a kind of choice as words."""
    return name.replace("_", " ")


def in_order(metrics: Iterable[str]) -> list[str]:
    """Metrics' names, those first that a reader looks for first."""
    first = ("accuracy", "parameters", "multiply_adds", "loss")
    return sorted(metrics, key=lambda name: first.index(name) if name in first else len(first))
