"""The contract suites: inherit one, return your space, searcher, evaluator, executor or store, and run pytest."""

from archsmith.testing.searcher import SearcherContract as SearcherContract
