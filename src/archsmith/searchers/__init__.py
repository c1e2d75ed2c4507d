"""Searchers: what proposes genotypes and learns from results. One algorithm, one file.

Loaded when first used: random search needs no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from archsmith.searchers.random import Random
    from archsmith.searchers.reinforce import Reinforce

__all__ = ["Random", "Reinforce"]


def __getattr__(name: str) -> Any:
    if name == "Random":
        from archsmith.searchers.random import Random

        return Random
    if name == "Reinforce":
        from archsmith.searchers.reinforce import Reinforce

        return Reinforce
    raise AttributeError(f"module 'archsmith.searchers' has no attribute {name!r}")
