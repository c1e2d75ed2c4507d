"""The contract suites: inherit one, return your space, searcher, evaluator, executor or store, and run pytest."""

from archsmith.testing.evaluator import EvaluatorContract as EvaluatorContract
from archsmith.testing.executor import ExecutorContract as ExecutorContract
from archsmith.testing.searcher import SearcherContract as SearcherContract
from archsmith.testing.space import SpaceContract as SpaceContract
from archsmith.testing.store import StoreContract as StoreContract
