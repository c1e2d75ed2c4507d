"""Optuna's samplers: the contract of all searchers for each, and what the adapter adds."""

from __future__ import annotations

import pytest

from archsmith.searchers import Optuna
from archsmith.testing import SearcherContract


class TestTPE(SearcherContract):
    def searcher(self):
        return Optuna("tpe", n_startup_trials=4)


class TestNSGA2(SearcherContract):
    def searcher(self):
        return Optuna("nsga2", population_size=4)


class TestCMAES(SearcherContract):
    def searcher(self):
        return Optuna("cmaes", population_size=4)


class TestGP(SearcherContract):
    def searcher(self):
        return Optuna("gp", n_startup_trials=28)
