"""The contract suites: inherit one, return your space, searcher, evaluator, executor, rule or store, and run pytest."""

from __future__ import annotations

from archsmith.testing.artifacts import ArtifactsContract
from archsmith.testing.evaluator import EvaluatorContract
from archsmith.testing.executor import ExecutorContract
from archsmith.testing.grown_space import GrownSpaceContract
from archsmith.testing.rule import RuleContract
from archsmith.testing.searcher import SearcherContract
from archsmith.testing.space import SpaceContract
from archsmith.testing.store import StoreContract

__all__ = [
    "ArtifactsContract",
    "EvaluatorContract",
    "ExecutorContract",
    "GrownSpaceContract",
    "RuleContract",
    "SearcherContract",
    "SpaceContract",
    "StoreContract",
]
