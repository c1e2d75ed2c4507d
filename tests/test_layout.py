"""What the folders of a tree of pictures mean: by names alone, without a picture on the disk."""

from __future__ import annotations

import re
from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archsmith.core.errors import DataError
from archsmith.data.layout import Layout, Parts, layout_of
from archsmith.data.split_names import SplitName, split_name


def read(tree: str) -> Layout:
    """The layout of a tree: `cat:3` is a folder with three pictures, `a/README` a file, `bird/` an empty folder."""
    pictures: list[Parts] = []
    others: list[Parts] = []
    folders: list[Parts] = []
    for entry in tree.split():
        path, colon, count = entry.rpartition(":")
        if colon:
            inside = tuple(filter(None, path.split("/")))
            pictures += [(*inside, f"{'_'.join(inside[-1:])}{i}.png") for i in range(int(count))]
        elif entry.endswith("/"):
            folders.append(tuple(entry[:-1].split("/")))
        else:
            others.append(tuple(entry.split("/")))
    return layout_of(pictures, others, folders)


def counts(layout: Layout) -> dict[str, int]:
    return dict(Counter(picture.split for picture in layout.pictures))


SPLITS = "train/cat:8 train/dog:8 test/cat:2 test/dog:3"


@pytest.mark.parametrize(
    ("tree", "train", "validation", "test"),
    [
        ("cat:8 dog:8", 16, 0, 0),
        (SPLITS, 16, 0, 5),
        (f"{SPLITS} val/cat:1 val/dog:1", 16, 2, 5),
        ("train/cat:8 train/dog:8 val/cat:1 val/dog:1", 16, 2, 0),
        ("val/cat:8 val/dog:8 test/cat:2 test/dog:3", 16, 0, 5),  # nothing else to learn from
        ("train/cat:8 train/dog:8", 16, 0, 0),
        # files that are no pictures decide nothing, wherever they are
        (f"{SPLITS} labels.csv README.md model.pt run.ipynb", 16, 0, 5),
        (f"{SPLITS} train/labels.csv test/labels.csv train/cat/notes.txt", 16, 0, 5),
        (f"{SPLITS} docs/index.md docs/more/x.txt annotations/train/cat/0.xml", 16, 0, 5),
        ("flowers/cat:8 flowers/dog:8 flowers/LICENSE.txt", 16, 0, 0),
        ("a/b/c/cat:8 a/b/c/dog:8 a/README a/b/x.csv", 16, 0, 0),
        # pictures that have no class, next to the splits
        ("train/cat:8 train/dog:8 test:6 sample_submission.csv", 16, 0, 0),
        ("train/cat:8 train/dog:8 test/images:6", 16, 0, 0),
        ("train/cat:8 train/dog:8 test/test:6", 16, 0, 0),
        ("train/cat:8 train/dog:8 pred:6", 16, 0, 0),
        (f"{SPLITS} cover:1 :1", 16, 0, 5),
        ("train/cat:8 train/dog:8 train:1 test/cat:2 test/dog:3", 16, 0, 5),
        # names with more than the split in them, and one more level
        ("seg_train/seg_train/cat:8 seg_train/seg_train/dog:8 seg_test/seg_test/cat:5 seg_pred/seg_pred:9", 16, 0, 5),
        ("training_set/training_set/cat:8 training_set/training_set/dog:8 test_set/test_set/cat:5", 16, 0, 5),
        ("images_train/cat:8 images_train/dog:8 test_images/cat:2 test_images/dog:3", 16, 0, 5),
        ("Dataset-TRAIN/cat:8 Dataset-TRAIN/dog:8 Dataset-TEST/cat:5 Dataset-Valid/dog:3", 16, 3, 5),
        ("pets/TrainData/cat:8 pets/TrainData/dog:8 pets/DevData/cat:1 pets/x.txt", 16, 1, 0),
        ("data/images/train/cat:8 data/images/train/dog:8 data/images/test/cat:5 data/labels/train/0.txt", 16, 0, 5),
        # a copy within
        (f"{SPLITS} pets/train/cat:8 pets/train/dog:8 pets/test/cat:2", 16, 0, 5),
        ("x/train/cat:8 x/train/dog:8 x/x/train/cat:8 x/x/train/dog:8", 16, 0, 0),
        ("cat:8 dog:8 pets/cat:8 pets/dog:8", 16, 0, 0),
        ("A/A/train/cat:8 A/A/train/dog:8 A/A/valid/dog:2 a/A/train/cat:8 a/A/train/dog:8 a/A/valid/dog:2 test/test:9", 16, 2, 0),
        ("x/train/cat:8 x/train/dog:8 x/test/cat:1 y/x/train/cat:8 y/x/train/dog:8", 16, 0, 1),
        ("pets/train/cat:8 pets/train/dog:8 pets/val/cat:1 test:9 pred:2", 16, 1, 0),
        ("training_data/train/cat:8 training_data/train/dog:8 training_data/val/cat:2 testing_data:5", 16, 2, 0),
        ("data/train/cat:8 data/train/dog:8 data_test/test:5", 16, 0, 0),
        # classes above splits
        ("cat/train:8 cat/test:2 dog/train:8 dog/test:3", 16, 0, 5),
        ("cat/train/images:8 cat/test/images:2 dog/train/images:8 dog/test/images:3", 16, 0, 5),
        ("train/cat:8 train/dog:8 test/", 16, 0, 0),
    ],
)  # fmt: skip
def test_classes_and_splits_are_found(tree: str, train: int, validation: int, test: int) -> None:
    layout = read(tree)
    assert layout.classes == ("cat", "dog")
    found = counts(layout)
    assert (found.get("train", 0), found.get("validation", 0), found.get("test", 0)) == (train, validation, test)


@pytest.mark.parametrize(
    ("tree", "classes"),
    [
        ("bus:8 car:8 train:8", ("bus", "car", "train")),
        ("bus:8 train:8", ("bus", "train")),
        ("bus:8 test:8 train:8", ("bus", "test", "train")),
        ("bus:8 car:8 train/steam:4 train/electric:4", ("bus", "car", "train")),
        ("bus:8 car:8 train/steam:4 train/electric:4 test:3", ("bus", "car", "test", "train")),
        ("train_station:8 test_tube:8 car:8", ("car", "test_tube", "train_station")),
        ("train/bus:8 train/train:8 test/bus:2 test/train:2", ("bus", "train")),
        ("train/test:8 train/train:8", ("test", "train")),
        ("cat:8 dog:8 bird/", ("bird", "cat", "dog")),
        ("train/cat:8 train/dog:8 train/bird/ test/cat:1", ("bird", "cat", "dog")),
        ("cat:8 cat/kittens:3 cat/kittens/small:2 dog:8", ("cat", "dog")),
        ("only:8", ("only",)),
        ("cafe\u0301:4 caf\u00e9:4 dog:8", ("caf\u00e9", "dog")),  # one name, written in two ways
        ("train/cafe\u0301:4 train/dog:4 test/caf\u00e9:4", ("caf\u00e9", "dog")),
        ("caf\udce9:4 caf\u00e9:4", ("caf\\xe9", "caf\u00e9")),
    ],
)
def test_a_class_may_have_any_name(tree: str, classes: tuple[str, ...]) -> None:
    assert read(tree).classes == classes


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ("train:8 test:8", "test/, train/ may be meant as splits.*read as classes"),
        (
            "bus:8 car:8 train/steam:4 train/electric:4",
            "train/ may be meant as splits, but bus/ next to them is a class",
        ),
        ("raw/cat:8 raw/dog:8 small/cat:8 small/dog:8", "raw/, small/ have the same folders in them, 'cat', 'dog'"),
        ("trainA:8 trainB:8 testA:8", "testA/, trainA/, trainB/ may be meant as splits"),
        ("train/cat:8 train/dog:8 train2/cat:5 train2/dog:2", "train/, train2/ are all read as one split, train"),
        (
            "pets/cat:8 pets/dog:8 screenshots:4",
            "pictures of pets/ are in folders inside it, 'cat', 'dog'.*as one class",
        ),
        ("train_images/cat:8 train_images/dog:3 train_masks/cat:5", "the 5 pictures in train_masks/ are not read"),
        ("train/cat:8 train/dog:8 test/cat:5", "test/ has no pictures of 'dog'"),
        (
            "a/train/cat:8 a/train/dog:8 a/test/cat:5 b/train/cow:8 b/train/pig:8 b/test/pig:1",
            "a/, b/ have splits in them, and are read as classes",
        ),
        (
            "pets/train/cat:8 pets/train/dog:8 pets/val/cat:1 screens:9",
            "the 9 pictures in screens/ are not read: it is not in pets/",
        ),
        ("train/cat:8 train/dog:8 samples:3", "the 3 pictures in samples/ are not read: it is not one of the splits"),
        (f"{SPLITS} extra/cat:3 extra/dog:1", "the 4 pictures in extra/ are not read"),
        ("cat:8 dog:8 more/cat:8 more/dog:9", "the 17 pictures in more/ are not read"),
    ],
)
def test_what_may_be_meant_otherwise_is_warned_of(tree: str, words: str) -> None:
    (warning,) = read(tree).warnings
    assert re.search(words, warning)


@pytest.mark.parametrize(
    "tree",
    [
        "cat:8 dog:8",
        "cat:8 dog:8 train/cat:8 train/dog:8",
        f"{SPLITS} val/cat:1",
        "bus:8 car:8 train:8",
        "a/cat:8 a/dog:8 a/x",
    ],
)
def test_what_is_clear_is_not_warned_of(tree: str) -> None:
    assert read(tree).warnings == ()


@pytest.mark.parametrize(
    "tree", ["train/cat:8 train/dog:8 test/cat:1 test/bird:1", "train/cat:8 train/dog:8 val/bird:1 val/cow:2"]
)
def test_a_class_that_nothing_is_learned_of_is_refused(tree: str) -> None:
    with pytest.raises(DataError, match=r"(test|val)/ has folders that train/ lacks: 'bird'"):
        read(tree)


def test_all_that_is_not_read_is_named_with_the_reason() -> None:
    layout = read(
        f"{SPLITS} pred:4 labels.csv docs/a.md old/ cat.png train/cat/x.xml :1 train/cat/runs.db runs.artifacts/a.st"
    )
    assert {("/".join(each.path), each.reason, each.pictures) for each in layout.ignored} == {
        ("pred", "not in folders of classes", 4),
        ("labels.csv", "no picture", 0),
        ("cat.png", "no picture", 0),
        ("docs", "no pictures", 0),
        ("old", "empty", 0),
        ("train/cat/runs.db", "no picture", 0),
        ("runs.artifacts", "written by archsmith", 0),
    }
    assert dict(layout.left_out) == {("train", "cat", "x.xml"): "is no picture", ("0.png",): "is in no class's folder"}


def test_what_archsmith_has_written_is_no_class() -> None:
    layout = read(
        "cat:8 dog:8 out/model/model.json out/model/model.safetensors out/model/README.md out/page.html runs.db "
        "cat/out/model.json cat/out/model.onnx cat/out:2 runs.artifacts/00.safetensors runs.db-wal"
    )
    assert layout.classes == ("cat", "dog")
    assert (counts(layout), layout.left_out) == ({"train": 16}, ())


def test_a_picture_is_known_by_its_class_and_file_wherever_the_classes_are() -> None:
    assert {p.key for p in read("a/b/cat:2 a/b/dog/x:1").pictures} == {p.key for p in read("cat:2 dog/x:1").pictures}
    assert {p.key[:2] for p in read("Train/cat:1 Train/dog:1 val/cat:1").pictures} == {
        ("Train", "cat"),
        ("Train", "dog"),
        ("val", "cat"),
    }


@pytest.mark.parametrize(
    ("name", "split", "word"),
    [
        ("train", "train", "train"),
        ("TRAINING", "train", "TRAINING"),
        ("Train2", "train", "Train"),
        ("train_val", "train", "train"),
        ("val", "validation", "val"),
        ("valid", "validation", "valid"),
        ("dev-set", "validation", "dev"),
        ("ImagesEval", "validation", "Eval"),
        ("testset", "test", "test"),
        ("pets test", "test", "test"),
        ("seg_pred", "unlabelled", "pred"),
        ("unlabeled_train", "unlabelled", "unlabeled"),
    ],
)
def test_a_name_stands_for_a_split(name: str, split: str, word: str) -> None:
    assert split_name(name) == SplitName(split, word)


@pytest.mark.parametrize(
    "name", ["cat", "trainer", "contest", "values", "latest", "train_test", "evaluator", "valley", "train_masks", "1"]
)
def test_another_name_stands_for_none(name: str) -> None:
    assert split_name(name) is None


NAMES = st.sampled_from(
    ("train", "test", "val", "pred", "cat", "dog", "model.json", "model.onnx", "runs.artifacts", "x")
)
PATHS = st.lists(st.lists(NAMES, min_size=1, max_size=5).map(tuple), max_size=30)


@given(PATHS, PATHS, st.randoms())
@settings(max_examples=100, deadline=None)
def test_every_picture_of_any_tree_is_accounted_for_once(
    pictures: list[Parts], others: list[Parts], rng: Random
) -> None:
    pictures = [(*path[:-1], f"{path[-1]}.png") for path in pictures]
    try:
        layout = layout_of(pictures, others)
    except DataError:
        return
    ignored = {each.path for each in layout.ignored if each.is_folder}
    left_out = {path for path, _ in layout.left_out}
    for path in pictures:
        known = [picture.path == path for picture in layout.pictures].count(True)
        around = [path[:end] in ignored for end in range(1, len(path) + 1)].count(True)
        assert known + around + (path in left_out) == 1
    assert len({(*picture.key, picture.split) for picture in layout.pictures}) == len(layout.pictures)
    assert {picture.label for picture in layout.pictures} == set(layout.classes)
    rng.shuffle(pictures)
    assert layout_of(pictures[::-1], others[::-1]) == layout


def test_copies_of_pictures_that_are_not_read_are_warned_of() -> None:
    splits = [(split, label, f"{i}.png") for split in ("train", "test") for label in ("cat", "dog") for i in range(3)]
    more = [(folder, f"{folder}{i}.png") for folder in ("one", "other") for i in range(3)]
    sources = {path: f"elsewhere/{path[1][-5:]}" for path in more}  # each folder has links to the same three files
    warnings = layout_of([*splits, *more], sources=sources).warnings
    assert [w.split(":")[0] for w in warnings] == [
        f"the 3 pictures in {folder}/ are not read" for folder in ("one", "other")
    ]
