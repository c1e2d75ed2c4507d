"""A choice among spaces: every searcher takes it, and what a space offers is that of the one that was chosen."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest

import archsmith as smith
from archsmith import searchers
from archsmith.core.child import Task
from archsmith.core.config import from_config, to_config
from archsmith.core.errors import UsageError
from archsmith.core.space import FunctionSpace, decode, identity, mutate, sample
from archsmith.spaces import Activation, ConvChain, GrownGraph, NASNetCell, OneOf, Product, ResidualNetwork
from archsmith.testing.space import SpaceContract
from archsmith.training import Landscape

CHAIN = ConvChain(layers=2, filters=(2, 3), filter_heights=(1, 3), filter_widths=(1, 3))
RESIDUAL = ResidualNetwork(stages=(1, 2), depths=(1, 2), widths=(2, 4), kernels=(3,), stem_filters=(2, 4))
SPACE = OneOf(CHAIN, RESIDUAL)


class TestOneOf(SpaceContract):
    def space(self) -> OneOf:
        return SPACE

    def wrong_architectures(self) -> list[Any]:
        return [
            None,
            {},
            {"kind": "one_of", "space": "ConvChain"},
            {"kind": "one_of", "space": ["ConvChain"], "architecture": {}},
            {"kind": "one_of", "space": "QNet", "architecture": {}},
            {"kind": "one_of", "space": "ConvChain", "architecture": {}},
            {"kind": "product", "space": "ConvChain", "architecture": {}},
        ]


class TestOneOfWithAPart(SpaceContract):
    samples = 3

    def space(self) -> Product:
        return Product(SPACE, Activation())


def test_a_genotype_of_an_alternative_becomes_one_of_the_whole() -> None:
    own = sample(RESIDUAL, Random(3))
    whole = SPACE.of("ResidualNetwork", own)
    assert decode(SPACE, whole) == {
        "kind": "one_of",
        "space": "ResidualNetwork",
        "architecture": decode(RESIDUAL, own),
    }
    assert SPACE.genotype(decode(RESIDUAL, own)) == SPACE.genotype(decode(SPACE, whole)) == whole
    with pytest.raises(UsageError, match="ResidualNetwork: an architecture of this space is an object with"):
        SPACE.genotype(decode(CHAIN, sample(CHAIN, Random(0))))
    with pytest.raises(UsageError, match="none of ConvChain, NASNetCell can locate an architecture"):
        OneOf(CHAIN, NASNetCell()).genotype(decode(RESIDUAL, own))


def test_two_alternatives_of_one_kind_have_names_of_their_own() -> None:
    space = OneOf(ConvChain(layers=2), ConvChain(layers=3))
    assert space.names == ("ConvChain", "ConvChain2")
    lengths = {len(decode(space, sample(space, Random(seed)))["architecture"]["layers"]) for seed in range(12)}
    assert lengths == {2, 3}
    equal = OneOf(RESIDUAL, RESIDUAL)
    second = equal.of("ResidualNetwork2", sample(RESIDUAL, Random(0)))
    assert equal.genotype(decode(equal, second)) == second


def test_a_number_never_makes_a_name_that_another_space_has() -> None:
    def net(choose: Any) -> Any:
        return choose("x", (1, 2))

    def net2(choose: Any) -> Any:
        return choose("x", (3, 4))

    spaces = [FunctionSpace(function, lambda *_: None) for function in (net, net, net2, net)]
    assert OneOf(*spaces).names == ("net", "net3", "net2", "net4")
    assert OneOf(*spaces[:2], spaces[3]).names == ("net", "net2", "net3")


def test_mutation_mostly_stays_in_the_space_and_sometimes_leaves_it() -> None:
    rng = Random(0)
    genotype = SPACE.of("ResidualNetwork", sample(RESIDUAL, rng))
    moved = Counter(mutate(SPACE, genotype, rng).answers["space"] for _ in range(400))
    share = moved["ConvChain"] / 400
    assert abs(share - 1 / len(genotype.answers)) < 0.04


@pytest.mark.parametrize(
    "searcher",
    [
        searchers.Random(),
        searchers.Reinforce(minibatch=2),
        searchers.PPO(minibatch=2),
        searchers.RegularizedEvolution(population=4, sample=2),
        searchers.BayesianOptimization(),
    ],
    ids=lambda searcher: type(searcher).__name__,
)
def test_every_kind_of_searcher_takes_it(searcher: Any) -> None:
    run = smith.search(SPACE, Landscape(), searcher=searcher, trials=12, store="memory://")
    assert run.summary.counts["done"] == 12
    assert {trial.genotype.answers["space"] for trial in run.trials()} == {"ConvChain", "ResidualNetwork"}


def test_it_is_read_again_from_the_record() -> None:
    again = from_config(to_config(SPACE), lambda name: getattr(smith.spaces, name.rpartition(".")[2]))
    assert identity(again) == identity(SPACE)


def test_the_drawing_is_that_of_the_space(tmp_path: Path) -> None:
    genotype = SPACE.of("ResidualNetwork", sample(RESIDUAL, Random(1)))
    assert SPACE.diagram(decode(SPACE, genotype)) == RESIDUAL.diagram(decode(SPACE, genotype)["architecture"])


def _plain(choose: Any) -> Any:
    return choose("a", (1, 2))


@pytest.mark.parametrize(
    ("spaces", "message"),
    [
        ((), "two spaces or more, got 0"),
        ((CHAIN,), "two spaces or more, got 1"),
        ((CHAIN, ConvChain), "chooses among spaces, got"),
        ((CHAIN, _plain), "chooses among spaces, got"),
        ((CHAIN, Activation()), "put it beside the others with Product"),
        ((CHAIN, GrownGraph()), "GrownGraph grows by edits"),
    ],
)
def test_what_cannot_be_an_alternative_is_refused(spaces: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        OneOf(*spaces)


def test_a_plain_function_with_build_is_an_alternative() -> None:
    space = OneOf(CHAIN, FunctionSpace(_plain))
    assert space.names == ("ConvChain", "_plain")
    with pytest.raises(UsageError, match="nothing builds its children"):
        space.build({"kind": "one_of", "space": "_plain", "architecture": 1}, Task())
