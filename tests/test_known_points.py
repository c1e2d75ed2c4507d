"""Known points first: they are proposed before the searcher is asked, it learns from them, and a kill loses none."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
from typer.testing import CliRunner

import archsmith as smith
from archsmith import discovered, searchers
from archsmith._search.known_points import improvement
from archsmith.cli.main import app
from archsmith.core.errors import UnknownName, UsageError
from archsmith.core.genotype import Genotype
from archsmith.core.space import decode, identity, sample
from archsmith.spaces import ConvChain, OneOf, ResidualNetwork

SPACE = ResidualNetwork()
RESNETS = [discovered.NETWORKS[name]() for name in ("resnet20", "resnet18", "wrn_16_8")]


def depth(architecture: Any) -> float:
    """The reward of these tests: more blocks are better."""
    return float(sum(stage["depth"] for stage in architecture["stages"]))


def plain(choose: Any) -> Any:
    return {"a": choose("a", (1, 2, 3)), "b": choose("b", (1, 2, 3))}


def total(architecture: Any) -> float:
    return float(architecture["a"] + architecture["b"])


def genotypes(run: Any) -> list[Genotype]:
    return [trial.genotype for trial in run.trials()]


def test_known_networks_are_the_first_trials_in_order() -> None:
    run = smith.search(SPACE, depth, first=RESNETS, trials=6, store="memory://")
    assert genotypes(run)[:3] == [network.genotype for network in RESNETS]
    assert [trial.reward for trial in run.trials()][:3] == [9.0, 8.0, 6.0]
    assert len({genotype.key for genotype in genotypes(run)}) == 6


def test_every_form_of_a_point_is_taken() -> None:
    network = RESNETS[0]
    other = smith.search(SPACE, depth, first=[RESNETS[2]], trials=1, store="memory://")
    points = [network.architecture, network.genotype, network.genotype.to_json(), next(other.trials()), other]
    run = smith.search(SPACE, depth, first=points, trials=2, store="memory://")
    assert genotypes(run) == [RESNETS[0].genotype, RESNETS[2].genotype], "each point is proposed once"


def test_a_network_of_another_configuration_of_the_space_is_found_in_this_one() -> None:
    space = ResidualNetwork.desk()
    network = discovered.NETWORKS["resnet10_narrow"]()
    run = smith.search(space, depth, first=[network], trials=1, store="memory://")
    assert decode(space, genotypes(run)[0]) == network.architecture
    either = OneOf(ConvChain(layers=2), space)
    run = smith.search(either, lambda a: 1.0, first=[network], trials=1, store="memory://")
    assert decode(either, genotypes(run)[0])["architecture"] == network.architecture


@pytest.mark.parametrize(
    ("first", "message"),
    [
        ([discovered.NETWORKS["mobilenet_v2"]()], r"first\[0\], mobilenet_v2, is no point .*stages is 7"),
        ([discovered.NETWORKS["nas_conv_v1"]()], r"first\[0\], nas_conv_v1, is no point of the space ResidualNetwork"),
        ([RESNETS[0], 3], r"first\[1\] must be a genotype"),
        ([{"kind": "residual_network"}], "is no point of the space"),
        ("resnet20", "first must be a list"),
        (RESNETS[0].genotype.to_json(), "first must be a list"),
        (7, "first must be a list"),
        ([Genotype(identity(SPACE), {"stages": 3})], r"first\[0\] is no point of the space ResidualNetwork"),
    ],
)
def test_what_is_no_point_is_refused_before_anything_is_recorded(first: Any, message: str, tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/runs.db"
    with pytest.raises(UsageError, match=message):
        smith.search(SPACE, depth, first=first, trials=2, store=store)
    assert not (tmp_path / "runs.db").exists()


def test_an_architecture_of_a_space_that_cannot_locate_it_is_refused() -> None:
    with pytest.raises(UsageError, match="cannot tell which answers give it; give its genotype"):
        smith.search(plain, total, first=[{"a": 1, "b": 2}], trials=1, store="memory://")


@pytest.mark.parametrize(
    "searcher",
    [
        searchers.Random(),
        searchers.Reinforce.small(),
        searchers.PPO(minibatch=3),
        searchers.RegularizedEvolution(population=4, sample=2),
        searchers.QLearning(),
        searchers.BayesianOptimization(initial=3),
        searchers.Optuna("tpe"),
        searchers.Asynchronous(searchers.Reinforce(minibatch=2), shards=1, replicas=2),
    ],
    ids=lambda searcher: type(searcher).__name__,
)
def test_a_run_that_was_killed_goes_on_the_same(searcher: Any, tmp_path: Path) -> None:
    space = smith.core.space.FunctionSpace(plain)
    first = [sample(space, Random(seed)) for seed in range(3)]

    def go(store: str, trials: int) -> Any:
        return smith.search(plain, total, searcher=searcher, first=first, trials=trials, store=store, name="run")

    whole = go("memory://", 14)
    for cut in (1, 2, 3, 5):
        store = f"sqlite:///{tmp_path}/{cut}.db"
        go(store, cut)
        resumed = smith.open_run(store, "run").resume(space=plain, evaluator=total, searcher=searcher, trials=14)
        assert genotypes(resumed) == genotypes(whole), f"cut after {cut} trials"


def test_several_workers_train_known_points_side_by_side(tmp_path: Path) -> None:
    run = smith.search(SPACE, depth, first=RESNETS, trials=8, workers=2, store=f"sqlite:///{tmp_path}/r.db", name="r")
    assert genotypes(run)[:3] == [network.genotype for network in RESNETS]
    assert run.summary.counts["done"] == 8


def test_a_searcher_learns_from_known_points() -> None:
    """Evolution has its first parents among them: without them the best of as many trials is far from it."""

    def space(choose: Any) -> Any:
        return {f"{i}": choose(f"{i}", tuple(range(10))) for i in range(8)}

    def score(architecture: Any) -> float:
        return float(sum(architecture.values()))

    good = Genotype(identity(smith.core.space.FunctionSpace(space)), {f"{i}": 9 if i else 0 for i in range(8)})
    evolution = searchers.RegularizedEvolution(population=5, sample=5, aging=False)
    told = smith.search(space, score, searcher=evolution, first=[good], trials=40, store="memory://")
    alone = smith.search(space, score, searcher=evolution, trials=40, store="memory://")
    assert told.best.reward > 63 > alone.best.reward
    assert str(improvement(told.reader)).startswith(
        "the known point (trial 0) has reward 63; the search improved on it"
    )
    assert improvement(alone.reader) is None


def test_the_page_and_show_tell_what_the_search_added(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/runs.db"
    run = smith.search(
        SPACE, depth, first=RESNETS, trials=4, searcher=searchers.RegularizedEvolution(2, 2), store=store, name="r"
    )
    said = str(improvement(run.reader))
    assert said.startswith("the best of 3 known points (trial 0) has reward 9;")
    assert said in run.report(tmp_path / "page.html").read_text()
    result = CliRunner().invoke(app, ["show", "r", "--store", store])
    assert said in result.output
    as_json = json.loads(CliRunner().invoke(app, ["show", "r", "--store", store, "--json"]).output)
    assert as_json["improvement"]["points"] == 3


def test_the_command_line_takes_names_files_and_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(
        "import archsmith as smith\n"
        "from archsmith.core.budget import Budget\n"
        "from archsmith.recipes import Recipe\n"
        "def depth(architecture):\n"
        "    return float(sum(stage['depth'] for stage in architecture['stages']))\n"
        "recipe = Recipe('mine', 'mine', smith.spaces.ResidualNetwork(), depth, smith.searchers.Random(), Budget(trials=3))\n"
    )
    (tmp_path / "wide.json").write_text(json.dumps(RESNETS[2].architecture))

    def archsmith(*words: str) -> Any:
        return CliRunner().invoke(app, list(words))

    begun = archsmith("search", "mine.py", "--name", "a", "--first", "resnet20", "--first", "wide.json")
    assert begun.exit_code == 0, begun.output
    run = smith.open_run("sqlite:///runs.db", "a")
    assert genotypes(run)[:2] == [RESNETS[0].genotype, RESNETS[2].genotype]
    control = smith.open_run("sqlite:///runs.db", "a-random")
    assert genotypes(control)[:2] == genotypes(run)[:2], "both sides start from the same networks"
    again = archsmith("search", "mine.py", "--name", "b", "--first", "a", "--no-control")
    assert again.exit_code == 0, again.output
    assert genotypes(smith.open_run("sqlite:///runs.db", "b"))[0] == run.best.genotype
    unknown = archsmith("search", "mine.py", "--first", "resnet21")
    assert isinstance(unknown.exception, UnknownName)
    assert "did you mean 'resnet20'" in str(unknown.exception)
    other = archsmith("search", "mine.py", "--name", "b", "--resume", "--first", "resnet18", "--no-control")
    assert isinstance(other.exception, UsageError)
    assert "another list of known points" in str(other.exception)
