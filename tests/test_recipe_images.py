"""The recipe for a person's own images: the sizes, the space and the known networks that suit them, and what stands beside."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

import numpy as np
import pytest
from PIL import Image

import archsmith as smith
from archsmith._search.known_points import genotypes_of
from archsmith._search.run import resolve
from archsmith._transfer.contest import Asked, evaluator_on
from archsmith._transfer.found import source_of
from archsmith.cli.main import main
from archsmith.cli.searching import known_points
from archsmith.core.child import Task
from archsmith.core.config import from_config, to_config
from archsmith.core.errors import UsageError
from archsmith.core.genotype import Genotype
from archsmith.core.space import build, decode, identity, sample
from archsmith.discovered import RESIDUAL
from archsmith.nn.count import count
from archsmith.recipes import Recipe, for_data, get_recipe
from archsmith.recipes.data import with_size
from archsmith.recipes.residual import PictureKind, light_space
from archsmith.recipes.residual import known_points as points_for
from archsmith.spaces import ConvChain, ResidualNetwork
from archsmith.training import ImageClassification


def arrays(path: Path, side: int = 8, channels: int = 1, count: int = 60) -> str:
    rng, labels = np.random.default_rng(0), np.arange(count) % 2
    images = rng.integers(0, 90, (count, side, side, channels)).astype(np.uint8)
    images[labels == 1, : side // 2] += 150
    np.savez(path, x_train=images, y_train=labels)
    return str(path)


def photos(folder: Path, side: int = 96) -> str:
    rng = np.random.default_rng(0)
    for k in range(40):
        (folder / "ab"[k % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (side, side, 3)).astype(np.uint8)).save(folder / "ab"[k % 2] / f"{k}.png")
    return str(folder)


def suited(data: str, size: int | None = None) -> tuple[Recipe, ImageClassification]:
    recipe = with_size(for_data(data), size).suited()
    assert isinstance(recipe.evaluator, ImageClassification)
    return recipe, recipe.evaluator


def crops(recipe: Recipe) -> set[str]:
    return {point["parts"]["TrainingRecipe"]["augmentation"]["crop"] for point in recipe.first}


def test_large_pictures_are_cropped_and_grow(tmp_path: Path) -> None:
    recipe, evaluator = suited(photos(tmp_path / "photos"))
    sides = (evaluator.source_size, evaluator.size, evaluator.train_size, evaluator.first_size)
    assert sides == (96, 80, 64, 32)
    assert recipe.first[0]["parts"]["ResidualNetwork"] == RESIDUAL["resnet10_narrow"]().architecture
    assert crops(recipe) == {"resized", "shift"}
    assert evaluator.epochs == 8  # few pictures are seen more often
    assert recipe.suited() is recipe


def test_small_grey_pictures_are_shifted(tmp_path: Path) -> None:
    recipe, evaluator = suited(arrays(tmp_path / "grey.npz"))
    assert (evaluator.source_size, evaluator.size, evaluator.train_size, evaluator.first_size) == (None, 8, None, None)
    assert crops(recipe) == {"shift", "affine"}
    assert evaluator.task() == Task((1, 8, 8), 2)
    assert not evaluator.flip  # they may be of characters


def test_a_size_that_was_asked_for_is_taken(tmp_path: Path) -> None:
    _, evaluator = suited(photos(tmp_path / "photos"), 48)
    assert (evaluator.source_size, evaluator.size) == (77, 48)


def test_the_first_points_lie_in_the_space_and_the_evaluator_trains_as_the_first(tmp_path: Path) -> None:
    for data in (photos(tmp_path / "photos"), arrays(tmp_path / "grey.npz")):
        recipe, evaluator = suited(data)
        first = genotypes_of(recipe.space, recipe.first)
        assert len({genotype.key for genotype in first}) == 7
        assert decode(recipe.space, first[0]) == recipe.first[0]
        child = build(recipe.space, first[0], evaluator.task())
        assert evaluator.with_settings(child.settings) == evaluator
        assert evaluator.learning_rate == child.learning_rate


def test_the_recipe_is_as_fashion_mnist_wants_it_before_it_knows_any_pictures() -> None:
    recipe = get_recipe("images")
    assert len(genotypes_of(recipe.space, recipe.first)) == 7
    assert isinstance(recipe.evaluator, ImageClassification)
    assert recipe.evaluator.data == "fashion-mnist"


def test_what_a_person_changed_stays(tmp_path: Path) -> None:
    data = photos(tmp_path / "photos")
    usual = for_data(data)
    assert isinstance(usual.evaluator, ImageClassification)
    longer = replace(usual, evaluator=replace(usual.evaluator, epochs=5), first=usual.first[:1]).suited()
    assert longer.evaluator.epochs == 5  # type: ignore[attr-defined]
    assert longer.first == usual.first[:1]
    space = ConvChain(layers=2)
    own = replace(usual, space=space, first=()).suited()
    assert (own.space, own.first) == (space, ())
    assert own.evaluator.size == 80  # type: ignore[attr-defined]
    digits = get_recipe("digits")
    assert digits.suited() is digits


def test_pictures_of_many_channels_are_refused(tmp_path: Path) -> None:
    recipe = for_data(arrays(tmp_path / "four.npz", channels=4))
    with pytest.raises(UsageError, match="with 1 or 3 channels, and these have 4"):
        recipe.suited()
    assert replace(recipe, space=ConvChain(layers=1), first=()).suited().space == ConvChain(layers=1)


@pytest.mark.parametrize(("small", "side"), [(False, 64), (True, 32)])
def test_no_network_of_the_space_takes_much_longer_than_the_known_ones(small: bool, side: int) -> None:
    kind, task = PictureKind(1000, 3, small, True), Task((3, side, side), 5)
    space = light_space(kind)

    def work(point: Any) -> int:
        genotype = point if isinstance(point, Genotype) else space.genotype(point)
        return count(build(space, genotype, task).model, task.input_shape).multiply_adds

    known = [work(point) for point in points_for(kind, 1)]
    others = [work(sample(space, Random(seed))) for seed in range(40)]
    assert median(others) <= known[0]
    assert max(others) < 8 * known[0]


def test_the_first_stage_may_have_strides_of_its_own() -> None:
    space = ResidualNetwork(strides=(2,), first_strides=(1, 2))
    strides = {tuple(s["stride"] for s in decode(space, sample(space, Random(k)))["stages"]) for k in range(40)}
    assert strides == {(first, *(2,) * more) for first in (1, 2) for more in (2, 3)}
    assert from_config(to_config(space), resolve) == space
    assert "first_strides" not in identity(ResidualNetwork())["options"]  # as in genotypes of before
    with pytest.raises(UsageError, match="first_strides of ResidualNetwork must be a whole number"):
        ResidualNetwork(first_strides=(0,))


@pytest.mark.parametrize(("size", "sides"), [(64, (96, 48, 24)), (128, (192, 96, 48)), (10, (15, 8, 8))])
def test_all_sides_stay_in_proportion(size: int, sides: tuple[int, int, int]) -> None:
    evaluator = ImageClassification("digits", size=64, source_size=96, train_size=48, first_size=24)
    for on in (evaluator.at_size(size), evaluator_on("digits", evaluator, Asked(size=size), None)):
        assert (on.size, on.source_size, on.train_size, on.first_size) == (size, *sides)
    free = evaluator.at_size(None)
    assert (free.size, free.source_size, free.train_size, free.first_size) == (None, None, None, None)


def test_a_network_that_is_named_is_trained_as_the_known_ones(tmp_path: Path) -> None:
    recipe, _ = suited(photos(tmp_path / "photos"))
    (genotype,) = known_points(["resnet18_narrow"], recipe, "memory://")
    parts = decode(recipe.space, genotype)["parts"]
    assert parts["ResidualNetwork"] == RESIDUAL["resnet18_narrow"]().architecture
    assert parts["TrainingRecipe"] == recipe.first[0]["parts"]["TrainingRecipe"]
    with pytest.raises(UsageError, match="ResidualNetwork: this network is no point of the space"):
        known_points(["resnet50"], recipe, "memory://")


def test_a_finish_has_the_first_known_network_beside_what_was_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    data = arrays(tmp_path / "tiny.npz")
    assert main(["auto", data, "--trials", "2", "--seeds", "1", "--name", "t", "--workers", "1"]) == 0
    out = capsys.readouterr()
    assert "and the first known network, trained on over several seeds" in out.err
    run = smith.open_run("runs.db", "t")
    document: Any = run.reader.document("finish")
    found, baseline, random = document["networks"]
    assert [found["name"], baseline["name"], random["name"]] == ["found", "baseline", "random search"]
    first = run.config["first"][0]
    assert baseline["genotype"] == first
    assert baseline["finals"][0]["cost"]["epochs"] == 3 * run.evaluator.epochs  # type: ignore[attr-defined]
    assert "the baseline" in document["claim"].casefold()
    assert ("The baseline is the found network itself." in document["claim"]) == (found["genotype"] == first)
    page = Path("out/t.html").read_text()
    assert "the first of the known points" in page
    assert "the best of 2 known points" in page  # of seven
    model = smith.load(smith.export(run, "baseline", network="baseline"))
    assert model.task == Task((1, 8, 8), 2)
    source = source_of(run)
    assert source.known
    beside = {c.name: c for c in source.candidates}
    assert not any(c.is_hand_designed for c in beside.values())
    if found["genotype"] != first:
        assert beside["baseline"].called == "baseline"
        assert beside["baseline"].weights
