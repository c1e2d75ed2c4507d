"""The recipes of recurrent cells: the paper's numbers at paper scale, and the right recipe for a person's data."""

from __future__ import annotations

import gzip
import random
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from archsmith.core.child import Child
from archsmith.core.errors import DataError, UnknownName, UsageError
from archsmith.core.space import build, sample
from archsmith.recipes import RECIPES, for_data, get_recipe
from archsmith.recipes.data import with_size
from archsmith.searchers import Random, Reinforce
from archsmith.spaces import RecurrentCell
from archsmith.store.payload import check_name
from archsmith.testing.evaluator import RecordingContext
from archsmith.training import ImageClassification, LanguageModel

PAPER = ("ptb-cell", "ptb-cell-max-sin")
PROSE = "the quick brown fox jumps over the lazy dog .\n" * 400


@pytest.mark.parametrize("name", PAPER)
def test_paper_scale_has_the_papers_numbers(name: str) -> None:
    recipe = get_recipe(name)
    assert recipe.scale == "paper"
    assert recipe.budget.trials == 15_000
    assert recipe.control
    evaluator, searcher = recipe.evaluator, recipe.searcher
    assert isinstance(evaluator, LanguageModel)
    assert isinstance(searcher, Reinforce)
    assert (evaluator.epochs, evaluator.layers, evaluator.parameters) == (35, 2, 20_000_000)
    assert (evaluator.batch_size, evaluator.unroll, evaluator.vocabulary) == (20, 35, 10_000)
    assert (evaluator.learning_rate, evaluator.decay, evaluator.decay_after, evaluator.clip) == (1.0, 0.8, 6, 5.0)
    assert (searcher.learning_rate, searcher.minibatch, searcher.hidden, searcher.layers) == (5e-4, 10, 35, 2)
    assert recipe.finish is not None
    points = recipe.finish.fitting(evaluator).points(evaluator)
    varied = {key for point in points for key in point}
    assert {"learning_rate", "initialisation", "dropout", "recurrent_dropout", "decay_after"} <= varied


def test_the_two_control_experiments_are_the_enlarged_space_and_random_search_with_as_many_trials() -> None:
    assert get_recipe("ptb-cell-max-sin").space == RecurrentCell.enlarged(8)
    assert get_recipe("ptb-cell").space == RecurrentCell(8)
    for name in PAPER:
        assert get_recipe(name).control_searcher in (None, Random())


@pytest.mark.data
def test_a_child_at_paper_scale_has_537_units_and_learns_for_a_step() -> None:
    from dataclasses import replace

    recipe = get_recipe("ptb-cell")
    assert isinstance(recipe.evaluator, LanguageModel)
    genotype = sample(recipe.space, random.Random(0))
    task = recipe.evaluator.task()
    assert task.vocabulary == 10_000
    with torch.device("meta"):
        model = build(recipe.space, genotype, task).model
    n, vocabulary = 537, 10_000
    parameters = sum(p.numel() for p in model.parameters())
    assert parameters == 2 * vocabulary * n + vocabulary + 2 * 8 * n * 2 * n == 19_977_808
    # One step is 20 streams of 35 words; a word costs its matrix products, once forward and about twice backward.
    one_step = replace(recipe.evaluator, epochs=1, max_train=20 * 36, max_validation=20, max_test=20)
    result = one_step.train(Child(build(recipe.space, genotype, task).model), RecordingContext())
    assert result.metrics["parameters"] == parameters
    assert result.metrics["multiply_adds"] == 2 * 8 * n * 2 * n + n * vocabulary
    assert 9_000 < result.curve[0]["train_perplexity"] < 11_000  # nothing is known yet: about the vocabulary


@pytest.mark.parametrize("name", ["text", "text-chars", "ptb-cell-desk", "ptb-cell-desk-max-sin"])
def test_desk_scale_says_what_it_shrinks_and_finishes_on_more(name: str) -> None:
    recipe = get_recipe(name)
    evaluator = recipe.evaluator
    assert recipe.scale == "desk"
    assert isinstance(evaluator, LanguageModel)
    assert evaluator.max_train is not None
    assert f"{evaluator.max_train:,}" in recipe.summary or "max and sin" in recipe.summary
    assert recipe.finish is not None
    assert recipe.finish.fitting(evaluator) == recipe.finish  # the evaluator has every setting that is varied
    learned = recipe.finish.final["max_train"]
    assert learned is None or learned > evaluator.max_train
    assert recipe.finish.epochs is not None
    assert recipe.finish.epochs > evaluator.epochs
    assert name in RECIPES


# --- the recipe for a person's data -----------------------------------------------------------------------------------


def image_folder(folder: Path) -> Path:
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        (folder / name / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    return folder


def test_data_of_a_name_have_their_own_recipe(tmp_path: Path) -> None:
    assert for_data("digits") == get_recipe("digits")
    assert isinstance(for_data("fashion-mnist").evaluator, ImageClassification)
    recipe = for_data("python-docs")
    assert recipe.name == "python-docs"
    assert recipe.space == RecurrentCell(4)
    assert recipe.summary.startswith("python-docs, by words")
    assert isinstance(for_data("ptb").evaluator, LanguageModel)
    with pytest.raises(UnknownName, match="'python-docs'"):
        for_data("python-doc")
    with pytest.raises(UnknownName, match="'digits'"):
        for_data("digit")
    with pytest.raises(DataError, match="no file or folder"):
        for_data("~no-such-user/pictures")


def test_text_is_told_from_images_by_looking(tmp_path: Path) -> None:
    texts = [tmp_path / "book.txt", tmp_path / "README", tmp_path / "code.py"]
    for file in texts:
        file.write_text(PROSE)
    packed = tmp_path / "book.txt.gz"
    packed.write_bytes(gzip.compress(PROSE.encode()))
    folder = tmp_path / "corpus"
    folder.mkdir()
    for part in ("train", "valid", "test"):
        (folder / f"ptb.{part}.txt").write_text(PROSE)
    archive, zipped = tmp_path / "corpus.tar.xz", tmp_path / "one.zip"
    with tarfile.open(archive, "w:xz") as file:
        file.add(folder, "corpus")
    with zipfile.ZipFile(zipped, "w") as made:
        made.writestr("book.txt", PROSE)
    for path in (*texts, packed, folder, archive, zipped):
        recipe = for_data(str(path))
        assert isinstance(recipe.evaluator, LanguageModel), path
        assert recipe.evaluator.level == "word"
        assert recipe.name == path.name.split(".")[0]
        assert len(recipe.evaluator.corpus().vocabulary) == 10, path

    pictures = image_folder(tmp_path / "pictures")
    with tarfile.open(tmp_path / "pictures.tgz", "w:gz") as file:
        file.add(pictures, "pictures")
    np.savez(tmp_path / "arrays.npz", x_train=np.zeros((4, 8, 8), np.uint8), y_train=np.arange(4))
    for path in (pictures, tmp_path / "pictures.tgz", tmp_path / "arrays.npz"):
        assert isinstance(for_data(str(path)).evaluator, ImageClassification), path


def test_lists_of_files_beside_classes_make_no_text_of_pictures(tmp_path: Path) -> None:
    pictures = image_folder(tmp_path / "pictures")
    for part in ("train", "val", "test"):
        (pictures / f"{part}.txt").write_text("a/0.png\n")
    with tarfile.open(tmp_path / "pictures.tgz", "w:gz") as file:
        file.add(pictures, "pictures")
    for path in (pictures, tmp_path / "pictures.tgz"):
        assert isinstance(for_data(str(path)).evaluator, ImageClassification), path
    (tmp_path / "text" / "figures").mkdir(parents=True)
    (tmp_path / "text" / "figures" / "1.png").write_bytes(b"")
    (tmp_path / "text" / "train.txt").write_text(PROSE)
    assert isinstance(for_data(str(tmp_path / "text")).evaluator, LanguageModel)


@pytest.mark.parametrize(
    ("folder", "name"),
    [("donn\udce9es", "donn_es"), ("a\nb", "a_b"), ("x" * 200, "x" * 60), ("\u202ex", "_x"), ("a\\b", "a_b")],
)
def test_a_run_is_named_after_any_data(tmp_path: Path, folder: str, name: str) -> None:
    assert for_data(str(image_folder(tmp_path / folder))).name == check_name(name)


def test_a_text_without_spaces_is_read_by_characters(tmp_path: Path) -> None:
    path = tmp_path / "dream.txt"
    path.write_text("红楼梦第一回甄士隐梦幻识通灵贾雨村风尘怀闺秀\n" * 400, encoding="utf-8")
    evaluator = for_data(str(path)).evaluator
    assert isinstance(evaluator, LanguageModel)
    assert evaluator.level == "char"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        ("caf\xe9 ".encode("latin1") * 999, "not UTF-8"),
        (PROSE.encode("utf-16"), "UTF-16"),
        (b"word", "tokens|symbols|words"),
    ],
    ids=["empty", "latin1", "utf-16", "tiny"],
)
def test_what_is_wrong_with_a_text_is_told_as_of_a_text(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "book.txt"
    path.write_bytes(content)
    evaluator = for_data(str(path)).evaluator
    assert isinstance(evaluator, LanguageModel)
    with pytest.raises(UsageError, match=said):
        evaluator.describe_data()


def test_what_is_neither_is_refused(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "one.txt").write_text(PROSE)
    with pytest.raises(DataError, match=r"neither one folder of images a class nor train\.txt"):
        for_data(str(tmp_path / "texts"))
    with pytest.raises(DataError, match="no file or folder"):
        for_data(str(tmp_path / "nothing.txt"))
    (tmp_path / "bad.zip").write_bytes(b"PK\x03\x04 not a zip")
    with pytest.raises(DataError, match="damaged"):
        for_data(str(tmp_path / "bad.zip"))


def test_the_size_of_the_input_is_a_setting_of_recipes_for_images() -> None:
    recipe = with_size(for_data("digits"), 12)
    assert isinstance(recipe.evaluator, ImageClassification)
    assert recipe.evaluator.task().input_shape == (1, 12, 12)
    assert with_size(recipe, None) == recipe
    with pytest.raises(UsageError, match="is for images"):
        with_size(get_recipe("text"), 12)
    for size in (-1, 0, 3, 1025):
        with pytest.raises(UsageError, match=f"from 4 to 1024 pixels a side, got {size}"):
            with_size(recipe, size)
