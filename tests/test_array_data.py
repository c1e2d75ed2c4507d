"""Arrays as data, in an .npz or in memory: which is which by name, what they may be, and their splits."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import archsmith as smith
from archsmith.core.config import to_config
from archsmith.core.errors import DataError, UsageError
from archsmith.training import Arrays, ImageClassification

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (60, 9, 9, 3), dtype=np.uint8)
Y = np.arange(60) % 3
X_VAL, Y_VAL = RNG.integers(0, 256, (12, 9, 9, 3), dtype=np.uint8), np.arange(12) % 3
X_TEST, Y_TEST = RNG.integers(0, 256, (9, 9, 9, 3), dtype=np.uint8), np.arange(9) % 3
SPACE = smith.spaces.ConvChain(layers=1, filters=(2, 4), filter_heights=(1,), filter_widths=(1,))


def splits_of(data: Any, **settings: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return ImageClassification(data, **settings).splits()


def saved(folder: Path, **arrays: Any) -> str:
    np.savez(folder / "data.npz", **arrays)
    return str(folder / "data.npz")


# --- splits of the source's own ---


@pytest.mark.parametrize("part", ["val", "valid", "validation", "dev"])
def test_validation_arrays_are_the_validation_split(tmp_path: Path, part: str) -> None:
    path = saved(tmp_path, x_train=X, y_train=Y, **{f"x_{part}": X_VAL, f"y_{part}": Y_VAL})
    splits = splits_of(path)
    assert (len(splits.train), len(splits.validation), len(splits.test_labels)) == (48, 12, 12)
    assert np.array_equal(splits.data.images[splits.validation], X_VAL)
    assert np.array_equal(splits.data.labels[splits.validation], Y_VAL)
    assert splits.describe()["validation_split"] == "official"
    assert len(np.intersect1d(splits.train, splits.validation)) == 0


def test_all_three_official_splits_are_kept(tmp_path: Path) -> None:
    path = saved(tmp_path, x_train=X, y_train=Y, x_val=X_VAL, y_val=Y_VAL, x_test=X_TEST, y_test=Y_TEST)
    splits = splits_of(path)
    assert (len(splits.train), len(splits.validation), len(splits.test_labels)) == (60, 12, 9)
    other = splits_of(path, split_seed=5, validation=0.4)
    assert np.array_equal(other.validation, splits.validation), "nothing is drawn"
    one_each = {
        f"{a}_{b}": v[:3]
        for b, (x, y) in {"train": (X, Y), "val": (X_VAL, Y_VAL), "test": (X_TEST, Y_TEST)}.items()
        for a, v in (("x", x), ("y", y))
    }
    assert len(splits_of(saved(tmp_path, **one_each)).train) == 3


def test_fewer_images_are_of_both_own_splits(tmp_path: Path) -> None:
    path = saved(tmp_path, x_train=X, y_train=Y, x_val=X_VAL, y_val=Y_VAL, x_test=X_TEST, y_test=Y_TEST)
    splits = splits_of(path, max_train=30, validation=0.2)
    assert (len(splits.train), len(splits.validation)) == (24, 6)
    assert set(np.bincount(splits.data.labels[splits.train])) == {8}
    assert len(splits_of(path, max_train=1000).train) == 60
    with pytest.raises(DataError, match="max_train must be at least twice the 3 classes"):
        splits_of(path, max_train=4)


def test_a_finish_on_all_data_learns_from_own_validation_images_too(tmp_path: Path) -> None:
    data = {"x_train": X, "y_train": Y, "x_val": X_VAL, "y_val": Y_VAL, "x_test": X_TEST, "y_test": Y_TEST}
    evaluator = ImageClassification(data, epochs=1, batch_size=16, precision="fp32")
    run = smith.search(SPACE, evaluator, trials=1, store=f"sqlite:///{tmp_path / 'runs.db'}", seed=2)
    finished = smith.finish(run, plan=smith.FinishPlan(top=1, epochs=1, seeds=1, scale={}, all_data=True))
    assert finished.test_count == 9
    exported = smith.export(run, format="pytorch", path=tmp_path / "model")
    assert json.loads((exported / "model.json").read_text())["card"]["training"]["all_data"] is True


def test_a_class_that_validation_lacks_is_said(tmp_path: Path) -> None:
    path = saved(tmp_path, x_train=X, y_train=Y, x_val=X_VAL[:2], y_val=Y_VAL[:2])
    assert "no validation image" in splits_of(path).describe()["remarks"][-1]


@pytest.mark.parametrize(
    "names",
    [
        ("X_train", "Y_train"),
        ("train_images", "train_labels"),
        ("images", "labels"),
        ("x", "y"),
        ("X", "targets"),
        ("images_training", "label_training"),
        ("xtrain", "ytrain"),
        ("train-x", "train-y"),
        ("Train Images", "Train Labels"),
    ],
)
def test_arrays_are_known_by_many_names(tmp_path: Path, names: tuple[str, str]) -> None:
    plain = splits_of(saved(tmp_path, x_train=X, y_train=Y)).fingerprint
    assert splits_of(saved(tmp_path, **dict(zip(names, (X, Y), strict=True)))).fingerprint == plain


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x_train": X, "y_train": Y, "x_val": X}, "only one of x_val and y_val"),
        ({"x_train": X, "y_train": Y, "y_dev": Y}, "only one of x_val and y_val"),
        ({"x_train": X, "y_train": Y, "x_val": X, "y_val": Y, "x_valid": X}, "'x_val' and 'x_valid', which are both"),
        ({"x_train": X, "y_train": Y, "x_val": X[:, :5], "y_val": Y}, "x_val of .5, 9, 3.; they must agree"),
        ({"x_train": X, "y_train": Y, "x_val": X, "y_val": Y + 1}, "y_val has the label 3"),
        ({"x_train": X, "y_train": Y, "x_val": X, "y_val": Y[:5]}, "y_val has 5 labels for 60"),
        ({"x_train": X, "y_train": Y, "x_val": X, "y_val": Y.astype(str)}, "must be alike"),
        ({"x_train": X / 1.0, "y_train": Y}, "from 0 to 25.*astype"),
        ({"x_train": X / 16, "y_train": Y}, "use x / 15"),
        ({"x_train": X - 1.0, "y_train": Y}, "from -1 to"),
        ({"x_train": np.full(X.shape, np.inf), "y_train": Y}, "infinity"),
        ({"x_train": X.astype(np.uint16), "y_train": Y}, "got uint16"),
        ({"x_train": X, "y_train": Y, "class_names": np.array(["a"])}, "class_names names 0 to 0"),
        ({"x_train": X, "y_train": Y, "class_names": Y}, "must be a list of names"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path: Path, arrays: Any, words: str) -> None:
    for data in (saved(tmp_path, **arrays), arrays):
        with pytest.raises(DataError, match=words):
            ImageClassification(data).task()


def test_other_arrays_of_a_file_are_named(tmp_path: Path) -> None:
    told = splits_of(saved(tmp_path, x_train=X, y_train=Y, ids=Y)).describe()
    assert told["remarks"] == ["not used of data.npz: the arrays 'ids'"]
    with pytest.raises(DataError, match="'ids', whose name says nothing"):
        ImageClassification({"x_train": X, "y_train": Y, "ids": Y})


def test_labels_may_be_texts_and_classes_may_have_names(tmp_path: Path) -> None:
    names = np.array(["bee", "ant", "10"])
    data = splits_of(saved(tmp_path, x_train=X, y_train=names[Y], x_test=X_TEST, y_test=names[Y_TEST])).data
    assert data.class_names == ("10", "ant", "bee")
    assert data.test_labels[:3].tolist() == [2, 1, 0]
    assert splits_of((X, [str(10 - 4 * k) for k in Y])).data.class_names == ("2", "6", "10")
    assert splits_of(saved(tmp_path, x_train=X, y_train=Y, class_names=names)).data.class_names == ("bee", "ant", "10")
    with pytest.raises(DataError, match="y_test has the label 'cow'"):
        ImageClassification({"x_train": X, "y_train": names[Y], "x_test": X_TEST, "y_test": ["cow"] * 9})


# --- in memory ---

PICTURES = [Image.fromarray(image) for image in X]


@pytest.mark.parametrize(
    "images",
    [
        X,
        X.copy(order="F"),
        X[::-1][::-1],
        X.transpose(0, 3, 1, 2),
        X / 255,
        (X / 255).astype(np.float32),
        torch.from_numpy(X),
        torch.from_numpy(X).permute(0, 3, 1, 2),
        (torch.from_numpy(X).permute(0, 3, 1, 2) / 255).requires_grad_(),
        list(X),
        [torch.from_numpy(image).permute(2, 0, 1) / 255 for image in X],
        PICTURES,
        tuple(PICTURES),
    ],
    ids=lambda images: f"{type(images).__name__}-{getattr(images, 'dtype', '')}-{tuple(getattr(images, 'shape', ()))}",
)
def test_every_form_of_the_same_images_is_the_same_data(images: Any) -> None:
    splits = splits_of((images, torch.from_numpy(Y) if isinstance(images, torch.Tensor) else Y))
    assert splits.fingerprint == splits_of((X, Y)).fingerprint
    assert splits.data.name == "arrays"


def test_the_digest_is_that_of_a_file_with_the_same_arrays(tmp_path: Path) -> None:
    path = saved(tmp_path, x_train=X, y_train=Y, x_test=X_TEST, y_test=Y_TEST)
    assert splits_of(((X, Y), (X_TEST, Y_TEST))).fingerprint == splits_of(path).fingerprint


def test_pictures_of_several_modes_and_grey_arrays() -> None:
    mixed = [picture.convert("L") if k % 2 else picture for k, picture in enumerate(PICTURES)]
    assert splits_of((mixed, Y)).data.images.shape[1:] == (9, 9, 3)
    assert splits_of(([p.convert("RGBA") for p in PICTURES], Y)).fingerprint == splits_of((X, Y)).fingerprint
    grey = X[..., 0]
    one = splits_of((grey, Y)).fingerprint
    assert (
        one
        == splits_of((grey[..., None], Y)).fingerprint
        == splits_of((torch.from_numpy(grey[:, None]), Y)).fingerprint
    )
    assert np.array_equal(splits_of((grey > 100, Y)).data.images[..., 0], (grey > 100) * np.uint8(255))
    assert splits_of((X, Y), size=4, channels=1).data.images.shape[1:] == (4, 4, 1)


def test_what_is_changed_afterwards_changes_nothing() -> None:
    images, labels = X.copy(), Y.copy()
    evaluator = ImageClassification((images, labels))
    before = evaluator.splits().data.images.copy()
    images[:], labels[:] = 0, 0
    assert np.array_equal(evaluator.splits().data.images, before)
    assert evaluator.fingerprint() == ImageClassification((X, Y)).fingerprint()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (X, "got ndarray"),
        ((X,), "got tuple of 1"),
        ((X, Y, Y), "got tuple of 3"),
        (5, "got int"),
        (None, "got NoneType"),
        (torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(Y)), r"for image, _ in data"),
        (("a.npz", Y), "the text 'a.npz'"),
    ],
)
def test_what_is_no_data_says_what_is(data: Any, words: str) -> None:
    with pytest.raises(UsageError, match=f"data is the name of a data set, a path, or arrays.*{words}"):
        ImageClassification(data)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (([PICTURES[0], PICTURES[1].resize((4, 4))], [0, 1]), "different shapes.*resize"),
        ((X, Y[:5]), "5 labels for 60"),
        ((X.reshape(60, -1), Y), "must be .count, height, width"),
        ((X, torch.eye(3)[Y]), "one label for each image"),
        (([], []), "must be .count, height, width"),
        ({"x": X}, "no array 'y_train'"),
    ],
)
def test_arrays_that_cannot_be_used_say_why(data: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        ImageClassification(data)


def evaluator(**settings: Any) -> ImageClassification:
    return ImageClassification((X, Y), epochs=1, batch_size=16, precision="fp32", **settings)


def test_a_run_on_arrays_goes_on_where_they_are_given_again(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'runs.db'}"
    run = smith.search(SPACE, evaluator(), trials=1, store=store, name="r", seed=3)
    assert run.resume(trials=2).summary.counts["done"] == 2
    assert "Each was trained on 60 images, given as arrays" in run.report(tmp_path / "r.html").read_text()
    recorded = run.config["evaluator"]["data"]
    assert recorded == {"type": "training.Arrays", "sha256": evaluator().data.sha256, "images": 60}
    assert json.loads(json.dumps(to_config(evaluator()))) == run.config["evaluator"]
    script = (
        "import numpy as np, archsmith as smith\n"
        "from archsmith.core.errors import DataError, UsageError\n"
        f"run = smith.open_run({store!r}, 'r')\n"
        "try: run.resume(trials=3)\n"
        "except DataError as error: print(error)\n"
        "rng = np.random.default_rng(0); x = rng.integers(0, 256, (60, 9, 9, 3), dtype=np.uint8)\n"
        "y = np.arange(60) % 3\n"
        "try: run.resume(trials=3, data=(x[::-1], y))\n"
        "except UsageError as error: print(error)\n"
        "print(run.resume(trials=3, data=(x, y)).summary.counts['done'])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=True)
    missing, changed, last = done.stdout.splitlines()
    assert "the 60 images of this run were arrays in memory" in missing
    assert "has changed: 1 changed (x_train)" in changed
    assert last == "3"


def test_arrays_travel_to_worker_processes() -> None:
    run = smith.search(SPACE, evaluator(), trials=2, workers=2, store="memory://", seed=1)
    alone = smith.search(SPACE, evaluator(), trials=2, store="memory://", seed=1)
    assert [t.reward for t in run.trials()] == [t.reward for t in alone.trials()]


def test_arrays_of_a_record_are_none_to_read() -> None:
    with pytest.raises(DataError, match="give them again"):
        ImageClassification(Arrays("ab" * 32, 60)).task()
    assert ImageClassification(evaluator().data) == ImageClassification((X, Y))


# --- copies ---


def test_copies_and_contradicting_labels_are_counted(tmp_path: Path) -> None:
    x, y = X.copy(), Y.copy()
    x[3], x[6] = x[0], x[0]  # three times class 0
    x[1] = x[59]  # classes 1 and 2
    test = X_TEST.copy()
    test[1] = test[4]
    test[2] = x[0]  # class 2 in the test, class 0 in training
    x_val = X_VAL.copy()
    x_val[0] = x[9]
    data = {"x_train": x, "y_train": y, "x_val": x_val, "y_val": Y_VAL, "x_test": test, "y_test": Y_TEST}
    with pytest.warns(UserWarning, match="arrays") as caught:
        told = ImageClassification(data).describe_data()["remarks"]
    assert told == [
        "1 of the 9 test images of arrays are also among those learned from",
        "1 of the 12 validation images of arrays are also among those trained on",
        "4 of the 72 images learned from of arrays are exact copies of others",
        "1 of the 9 test images of arrays are exact copies of others",
        "6 images of arrays have exact copies in another class",
    ]
    warned = " ".join(str(one.message) for one in caught)
    for words in ("the test accuracy too high", "the validation accuracy too high", "correct their labels"):
        assert words in warned
    assert "copies of others" not in warned


def test_copies_that_a_drawn_split_divides_are_counted() -> None:
    x = np.concatenate([X, X])
    with pytest.warns(UserWarning, match="test images of arrays are also among those learned from"):
        told = ImageClassification((x, np.concatenate([Y, Y]))).describe_data()["remarks"]
    assert any("validation images of arrays are also among those trained on" in line for line in told)
