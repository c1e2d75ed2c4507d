"""NSGA-II: the contract, its sort, and fronts that are known."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import archsmith as smith
from archsmith.core.errors import UsageError
from archsmith.core.genotype import Genotype
from archsmith.core.pareto import pareto
from archsmith.core.space import FunctionSpace
from archsmith.core.walk import Choose
from archsmith.searchers import NSGA2
from archsmith.searchers.nsga2 import dominates, ordered
from archsmith.spaces import GrownGraph
from archsmith.testing import SearcherContract


class TestContract(SearcherContract):
    def searcher(self) -> NSGA2:
        return NSGA2(("reward", "latency"), population=8)

    def metrics(self, genotype: Genotype) -> Mapping[str, float]:
        return {"latency": int(genotype.key[6:12], 16) / 16**6}

    def wrong(self) -> Sequence[Callable[[], object]]:
        return (
            lambda: NSGA2(("reward",)),
            lambda: NSGA2("reward"),  # type: ignore[arg-type]
            lambda: NSGA2(("reward", "reward")),
            lambda: NSGA2(("reward", "nobody_knows")),
            lambda: NSGA2(population=1),
            lambda: NSGA2(crossover=1.5),
        )


class TestContractOfAGrownSpace(TestContract):
    def space(self) -> GrownGraph:
        return GrownGraph(stem=2.0)


points = st.lists(st.tuples(st.integers(0, 5).map(float), st.integers(0, 5).map(float)), min_size=1, max_size=12)


@given(points)
def test_fronts_follow_from_dominance(points: list[tuple[float, float]]) -> None:
    fronts = [front for front, _ in ordered(points)]
    for i, point in enumerate(points):
        above = [fronts[j] for j, other in enumerate(points) if dominates(other, point)]
        assert fronts[i] == (1 + max(above) if above else 0)


def test_ends_of_a_front_are_never_crowded() -> None:
    order = ordered([(0.0, 4.0), (1.0, 3.0), (1.1, 2.9), (4.0, 0.0), (5.0, 5.0)])
    assert [front for front, _ in order] == [0, 0, 0, 0, 1]
    assert order[0][1] == order[3][1] == -math.inf
    # Deb et al. 2002, section III-B: the sides of the cuboid of its neighbours, as parts of the front's extent.
    assert order[1][1] == pytest.approx(-((1.1 - 0) / 4 + (4 - 2.9) / 4))
    assert order[2][1] == pytest.approx(-((4 - 1.0) / 4 + (3 - 0.0) / 4))


def bits(choose: Choose) -> list[int]:
    """Twelve bits. Ones are worth something in the first six, and cost in all."""
    return [choose(f"{i}.bit", (0, 1)) for i in range(12)]


def judge(architecture: list[int]) -> dict[str, float]:
    return {
        "reward": float(sum(architecture[:6])),
        "value": float(sum(architecture[:6])),
        "latency": float(sum(architecture)),
    }


def test_it_finds_a_front_that_random_search_does_not(tmp_path: Path) -> None:
    """The front: k ones among the first six bits and none among the others."""

    def front(searcher: object, seed: int) -> set[tuple[float, float]]:
        run = smith.search(
            FunctionSpace(bits), judge, searcher=searcher, trials=150, seed=seed, store="memory://", name="run"
        )
        best = pareto(run.trials(), ("value", "latency"))
        return {(t.result.metrics["value"], t.result.metrics["latency"]) for t in best if t.result is not None}

    true = {(float(k), float(k)) for k in range(7)}
    found = [len(front(NSGA2(("value", "latency"), population=12), seed) & true) for seed in range(5)]
    by_chance = [len(front(smith.searchers.Random(), seed) & true) for seed in range(5)]
    assert min(found) >= 6
    assert sum(found) > sum(by_chance) + 10


def test_a_missing_metric_is_told(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"NSGA2 compares latency, and trial 0 has no such finite number; its metrics are"
    ):
        smith.search(
            FunctionSpace(bits), lambda _: 1.0, searcher=NSGA2(population=2), trials=3, store="memory://", name="run"
        )
