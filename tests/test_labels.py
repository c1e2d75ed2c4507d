"""Labels of pictures that are in no folders of classes: in a CSV, and in the names of the files."""

from __future__ import annotations

import shutil
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import archsmith as smith
from archsmith.cli.main import main
from archsmith.core.config import to_config
from archsmith.core.errors import DataError, UsageError
from archsmith.data.label_pattern import USUAL, checked_pattern
from archsmith.recipes import for_data
from archsmith.training import ImageClassification, LanguageModel

COUNT = 12


def picture(path: Path, seed: int, form: str = "PNG") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, form)


def flat(root: Path, folder: str = "", count: int = COUNT, first: int = 0) -> Path:
    for i in range(first, first + count):
        picture(root / folder / f"p{i}.png", i)
    return root


def label(i: int) -> str:
    return ("cat", "dog")[i % 2]


def table(row: str, head: str = "", count: int = COUNT) -> str:
    return head + "".join(row.format(i=i, label=label(i)) for i in range(count))


def splits_of(data: Any, **settings: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return ImageClassification(str(data), size=6, **settings).splits()


def labels_of(splits: Any) -> dict[str, str]:
    data = splits.data
    names = [*data.files, *data.test_files]
    numbers = [*data.labels, *(data.test_labels if data.test_labels is not None else ())]
    return {name.rpartition("/")[2]: data.class_names[k] for name, k in zip(names, numbers, strict=True)}


RIGHT = {f"p{i}.png": label(i) for i in range(COUNT)}


# --- a CSV ---


@pytest.mark.parametrize(
    ("folder", "content"),
    [
        ("", table("p{i}.png,{label}\n", "file,label\n")),
        ("", table("{label};p{i}.png\n", "Label;File Name\n")),
        ("", table("p{i}.png\t{label}\n")),
        ("", table("{label}|p{i}.png\n")),
        ("", table("p{i},{label}\n", "id,breed\n")),
        ("", table("p{i},{label}\n")),
        ("", table('"p{i}.png","{label}"\n', '"image","class"\n')),
        ("", "\ufeff" + table("p{i}.png,{label}\n", "file,label\n")),
        ("", table(".\\p{i}.PNG,{label}\r\n", "file,label\r\n")),
        ("", table("C:\\data\\img\\p{i}.png,{label}\n", "file,label\n")),
        ("", table("p{i}.png, {label}\n\n", "# file,label\n")),
        ("", table("{i},p{i}.png,6,6,{label}\n", ",filename,width,height,category\n")),
        ("", table("p{i}.png,{label}\n", "fichier,etiquette\n")),
        ("images", table("p{i}.png,{label}\n", "file,label\n")),
        ("images/more", table("images/more/p{i}.png,{label}\n", "path,y\n")),
        ("a/b", table("b\\p{i}.png,{label}\n")),
    ],
)
def test_a_csv_next_to_pictures_has_their_labels(tmp_path: Path, folder: str, content: str) -> None:
    root = flat(tmp_path / "data", folder)
    (root / "labels.csv").write_text(content, newline="")
    found = splits_of(root)
    assert labels_of(found) == RIGHT
    assert found.data.class_names == ("cat", "dog")
    assert labels_of(splits_of(root / "labels.csv")) == RIGHT
    (root / "labels.csv").rename(tmp_path / "elsewhere.txt")
    assert labels_of(splits_of(root, labels=tmp_path / "elsewhere.txt")) == RIGHT


def test_a_csv_in_another_encoding_and_in_an_archive_is_read(tmp_path: Path) -> None:
    root = flat(tmp_path / "data", "images")
    (root / "labels.csv").write_bytes(table("p{i}.png,{label}\n", "file,label\n").encode("utf-16"))
    assert labels_of(splits_of(root)) == RIGHT
    (root / "labels.csv").write_bytes(
        table("p{i}.png,{label}\n", "file,label\n").replace("cat", "chât").encode("cp1252")
    )
    assert splits_of(root).data.class_names == ("chât", "dog")
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        for file in sorted(root.rglob("*.*")):
            archive.write(file, f"data/{file.relative_to(root)}")
    assert splits_of(tmp_path / "data.zip").data.class_names == ("chât", "dog")


def test_a_csv_names_pictures_anywhere(tmp_path: Path) -> None:
    root = flat(tmp_path / "images")
    (tmp_path / "meta").mkdir()
    relative, absolute = tmp_path / "meta" / "relative.csv", tmp_path / "meta" / "absolute.csv"
    relative.write_text(table("../images/p{i}.png,{label}\n", "file,label\n"))
    absolute.write_text(table(f"{root}/p{{i}}.png,{{label}}\n", "file,label\n"))
    a, b = splits_of(relative), splits_of(absolute)
    assert labels_of(a) == labels_of(b) == RIGHT
    assert a.fingerprint == b.fingerprint, "wherever they lie"


def test_a_column_says_the_splits(tmp_path: Path) -> None:
    root = flat(tmp_path / "data", count=16)
    parts = ["train", "Training", "TRAIN", "train", "val", "dev", "test", "testing"]
    rows = "".join(f"p{i}.png,{label(i)},{parts[i % 8]}\n" for i in range(16))
    (root / "labels.csv").write_text("file,label,split\n" + rows)
    splits = splits_of(root)
    assert (len(splits.train), len(splits.validation), len(splits.test_labels)) == (8, 4, 4)
    assert splits.official_test
    assert splits.describe()["validation_split"] == "official"
    assert set(splits.data.test_files) == {f"p{i}.png" for i in (6, 7, 14, 15)}
    headless = splits.fingerprint
    without_train = "".join(f"p{i}.png,{label(i)},{'test' if i < 4 else 'val'}\n" for i in range(16))
    (root / "labels.csv").write_text("file,label,split\n" + without_train)
    assert set(splits_of(root).data.test_files) == {f"p{i}.png" for i in range(4)}, (
        "the test split is never learned from"
    )
    (root / "labels.csv").write_text(rows)
    assert splits_of(root).fingerprint == headless
    (root / "labels.csv").write_text("file,label,split\n" + rows.replace("dev", "holdout", 1))
    with pytest.raises(DataError, match=r"labels\.csv, line 7: the split is 'holdout'; it must be train, validation"):
        splits_of(root)


def test_folders_and_tables_of_splits(tmp_path: Path) -> None:
    root = flat(flat(tmp_path / "data", "train"), "test", 6, first=20)
    (root / "train.csv").write_text(table("p{i}.png,{label}\n", "file,label\n"))
    (root / "test.csv").write_text("file\n" + "".join(f"p{i}.png\n" for i in range(20, 26)))
    assert labels_of(splits_of(root)) == RIGHT, "a test without labels is none"
    (root / "test.csv").write_text("file,label\n" + "".join(f"p{i}.png,{label(i)}\n" for i in range(20, 26)))
    splits = splits_of(root)
    assert (len(splits.train) + len(splits.validation), len(splits.test_labels)) == (12, 6)
    both = flat(flat(tmp_path / "both", "train"), "test")
    (both / "train.csv").write_text(table("p{i}.png,{label}\n", "id,label\n"))
    files = splits_of(both).data.files
    assert all(name.startswith("train/") for name in files), "of equal names those in the folder of the same split"


def test_labels_that_are_numbers_keep_their_order(tmp_path: Path) -> None:
    root = flat(tmp_path / "data")
    (root / "labels.csv").write_text("image,class\n" + "".join(f"p{i}.png,{(10, 2, 9)[i % 3]}\n" for i in range(COUNT)))
    assert splits_of(root).data.class_names == ("2", "9", "10")


def test_rows_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    root = flat(tmp_path / "data")
    (root / "labels.csv").write_text(
        table("p{i}.png,{label}\n", "file,label\n", count=11) + "p3.png,cat\np4.png,cat\ngone.png,dog\np11.png,\n"
    )
    with pytest.warns(UserWarning, match="3 of 13 files") as caught:
        data = ImageClassification(str(root), size=6).splits().data
    assert set(data.unreadable) == {
        "gone.png (labels.csv, line 15): no such file",
        "p11.png (labels.csv, line 16): has no label",
        "p3.png: has several labels: 'dog' in line 5 and 'cat' in line 13",
    }
    assert "gone.png" in str(caught[0].message)
    assert "from labels.csv" in data.layout
    assert "ignored" not in data.layout


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (table("p{i}.png,{i}\n", "file,width\n", 0), "none of the 12 pictures"),
        ("text,label\nhello,1\nworld,2\n", "none of the 12 pictures"),
        (
            table("p{i}.png,6,7\n", "file,width,height\n"),
            r"labels\.csv names pictures, and any of width, height may be their labels: call the column that has them 'label'",
        ),
        (table("p{i}.png,1,0\n"), "any of column 2, column 3 may be their labels"),
        (table("p{i}.png,{label}\np{i}.png,other{i}\n", "file,label\n"), "several labels, such as p0.png"),
        ("", "none of the 12 pictures"),
        ("\0\0\0\1", "none of the 12 pictures"),
    ],
)
def test_a_csv_that_says_no_labels_is_refused(tmp_path: Path, content: str, words: str) -> None:
    root = flat(tmp_path / "data")
    (root / "labels.csv").write_text(content)
    with pytest.raises(DataError, match=words):
        splits_of(root, labels="labels.csv")


def test_folders_of_classes_go_before_a_csv_that_was_not_asked_for(tmp_path: Path) -> None:
    for i in range(COUNT):
        picture(tmp_path / "data" / f"{label(i)}s" / f"p{i}.png", i)
    (tmp_path / "data" / "meta.csv").write_text("file,colour\n" + "".join(f"p{i}.png,c{i % 3}\n" for i in range(COUNT)))
    assert splits_of(tmp_path / "data").data.class_names == ("cats", "dogs")
    assert splits_of(tmp_path / "data", labels="meta.csv").data.class_names == ("c0", "c1", "c2")


def test_two_tables_of_labels_are_not_guessed_between(tmp_path: Path) -> None:
    root = flat(tmp_path / "data")
    for name in ("a.csv", "b.csv"):
        (root / name).write_text(table("p{i}.png,{label}\n", "file,label\n"))
    with pytest.raises(DataError, match=r"a\.csv and b\.csv all name pictures and labels; say which.*--labels"):
        splits_of(root)
    assert labels_of(splits_of(root, labels="b.csv")) == RIGHT


@pytest.mark.parametrize(
    ("tables", "pictures"),
    [
        # The same names in both folders, as in the CIFAR-10 of Kaggle.
        ({"trainLabels.csv": table("{i},{label}\n", "id,label\n")}, ["train/{i}.png", "test/{i}.png"]),
        ({"labels.csv": table("p{i}.png,{label}\n", "id,breed\n")}, ["train/p{i}.png", "test/p{i}.png"]),
        # What to submit is no table of labels.
        (
            {
                "labels.csv": table("{i},{label}\n", "id,label\n"),
                "sampleSubmission.csv": table("{i},cat\n", "id,label\n"),
            },
            ["train/{i}.png", "test/{i}.png"],
        ),
        (
            {
                "labels.csv": table("p{i},{label}\n", "id,breed\n"),
                "sample_submission.csv": table("p{i},.5,.5\n", "id,a,b\n"),
            },
            ["p{i}.jpg"],
        ),
        # Tables of splits whose names say that they are of labels.
        (
            {
                "train_labels.csv": table("p{i},{label}\n", "id,label\n"),
                "test_labels.csv": table("q{i},cat\n", "id,label\n"),
            },
            ["train/p{i}.jpg", "test/q{i}.jpg"],
        ),
        # Columns with more than the label.
        (
            {"meta.csv": table("L{i},p{i},{label},histo,80,scalp\n", "lesion_id,image_id,dx,dx_type,age,site\n")},
            ["p{i}.jpg"],
        ),
    ],
)
def test_the_tables_of_competitions_are_read(tmp_path: Path, tables: dict[str, str], pictures: list[str]) -> None:
    for number, name in enumerate(pictures):
        for i in range(COUNT):
            picture(tmp_path / "data" / name.format(i=i), i + 100 * number)
    for name, content in tables.items():
        (tmp_path / "data" / name).write_text(content)
    data = splits_of(tmp_path / "data").data
    assert data.class_names == ("cat", "dog")
    known = [(name, data.class_names[k]) for name, k in zip(data.files, data.labels, strict=True)]
    assert sorted(known) == sorted((pictures[0].format(i=i), label(i)) for i in range(COUNT))


def test_a_sample_of_what_to_submit_is_no_table_of_labels(tmp_path: Path) -> None:
    for i in range(COUNT):
        picture(tmp_path / "train" / f"{label(i)}.{i}.png", i)
        picture(tmp_path / "test" / f"{i}.png", i + 100)
    (tmp_path / "sampleSubmission.csv").write_text(table("{i},0\n", "id,label\n"))
    with pytest.raises(DataError, match="file names seem to begin with labels"):
        splits_of(tmp_path)


def test_a_csv_that_divides_pictures_otherwise_than_their_folders_is_warned_of(tmp_path: Path) -> None:
    for i in range(COUNT):
        picture(tmp_path / f"part_{1 + i // 6}" / f"p{i}.png", i)
    (tmp_path / "meta.csv").write_text(table("p{i},{label},80\n", "image_id,dx,age\n"))
    with pytest.warns(
        UserWarning, match=r"meta\.csv has labels of the pictures.*give labels='meta\.csv' \(--labels 'meta\.csv'\)"
    ):
        ImageClassification(str(tmp_path), size=6).splits()
    assert labels_of(splits_of(tmp_path, labels="meta.csv")) == RIGHT
    (tmp_path / "meta.csv").write_text("image_id,label\n" + "".join(f"p{i},{i // 6}\n" for i in range(COUNT)))
    assert splits_of(tmp_path).data.class_names == ("part_1", "part_2"), "the same classes by other names"


def test_the_pattern_that_the_help_shows_is_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    assert main(["auto", "--help"]) == 0
    pattern = capsys.readouterr().out.partition("such as '")[2].partition("'")[0]
    assert checked_pattern(pattern).search("cat.1.jpg")["label"] == "cat"


def test_changed_labels_are_noticed_and_named(tmp_path: Path) -> None:
    root = flat(tmp_path / "data", "images")
    (root / "labels.csv").write_text(table("p{i}.png,{label}\n", "file,label\n"))
    inside, alone = ImageClassification(str(root), size=6), ImageClassification(str(root / "labels.csv"), size=6)
    outside = ImageClassification(str(root / "images"), size=6, labels=str(root / "labels.csv"))
    before = [evaluator.fingerprint() for evaluator in (inside, alone, outside)]
    (root / "labels.csv").write_text(table("p{i}.png,{label}\n", "file,label\n").replace("p3.png,dog", "p3.png,cat"))
    after = [evaluator.fingerprint() for evaluator in (inside, alone, outside)]
    assert all(a != b for a, b in zip(before, after, strict=True))
    picture(root / "images" / "p5.png", 99)
    assert all(e.fingerprint() != a for e, a in zip((inside, alone, outside), after, strict=True))


# --- the names of files ---


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("{label}.{i}.jpg", r"(?P<label>[a-z]+)\."),
        ("{label}_{i}.png", r"(?P<label>[a-z]+)_"),
        ("{label}_{i}.png", r"^([a-z]+)"),
        ("IMG-{i}-{label}.png", r"-(?P<label>\w+)\.png$"),
        ("{label} ({i}).png", USUAL),
        ("{label}-{i:03}.png", USUAL),
        ("golden {label} {i}.png", USUAL),
        ("{label}s/deep/{i}.png", r"^(?P<label>[a-z]+)s/"),
    ],
)
def test_labels_in_file_names_are_read_by_a_pattern(tmp_path: Path, name: str, pattern: str) -> None:
    for i in range(COUNT):
        picture(tmp_path / "data" / name.format(label=label(i), i=i), i)
    classes = splits_of(tmp_path / "data", label_pattern=pattern).data.class_names
    assert [text.removeprefix("golden ") for text in classes] == ["cat", "dog"]


def test_a_flat_folder_says_what_would_read_it(tmp_path: Path) -> None:
    for i in range(COUNT):
        picture(tmp_path / "data" / f"{label(i)}.{i}.jpg", i, "JPEG")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(DataError, match=r"begin with labels \('cat', 'dog'\).*--label-pattern '(.*)'\)") as caught:
            ImageClassification(str(tmp_path / "data")).splits()
    suggested = str(caught.value).rpartition("--label-pattern '")[2].removesuffix("')")
    assert splits_of(tmp_path / "data", label_pattern=suggested).data.class_names == ("cat", "dog")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(DataError, match="has a CSV with file and label"):
            ImageClassification(str(flat(tmp_path / "plain"))).splits()


def test_folders_say_the_splits_of_a_pattern(tmp_path: Path) -> None:
    for i in range(COUNT):
        picture(tmp_path / "data" / ("train", "train", "train", "test")[i // 2 % 4] / f"{label(i)}_{i}.png", i)
    picture(tmp_path / "data" / "train" / "unknown.png", 99)
    with pytest.warns(UserWarning, match=r"train/unknown\.png: its name does not fit the label pattern"):
        splits = ImageClassification(str(tmp_path / "data"), size=6, label_pattern="(?P<label>[a-z]+)_").splits()
    assert set(splits.data.test_files) == {"test/cat_6.png", "test/dog_7.png"}
    with pytest.raises(DataError, match="fits the name of none of the 13 pictures, such as"):
        splits_of(tmp_path / "data", label_pattern="(?P<label>[A-Z]+)")


def test_flat_folders_of_splits_are_no_classes_where_names_hold_labels(tmp_path: Path) -> None:
    for i in range(COUNT):
        picture(tmp_path / "data" / "train" / f"{label(i)}.{i}.png", i)
        picture(tmp_path / "data" / "test1" / f"{i}.png", 100 + i)
    with pytest.raises(DataError, match=r"test1 and train have no folders of classes in them\. The file names seem"):
        splits_of(tmp_path / "data")
    splits = splits_of(tmp_path / "data", label_pattern=USUAL)
    assert splits.data.class_names == ("cat", "dog")
    assert "12 pictures, without a label in its name" in splits.data.layout


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"label_pattern": "("}, "must be a regular expression, got '\\('"),
        ({"label_pattern": "cat"}, "must have a group for the label"),
        ({"label_pattern": "(a)(b)"}, "with 2 groups"),
        ({"label_pattern": 3}, "must be a regular expression, got 3"),
        ({"labels": 3}, "must be the path of a CSV, got 3"),
        ({"labels": "a.csv", "label_pattern": "(a)"}, "give either labels"),
    ],
)
def test_settings_that_say_nothing_are_refused(settings: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        ImageClassification("pictures", **settings)


def test_labels_are_for_pictures(tmp_path: Path) -> None:
    x, y = np.random.default_rng(0).integers(0, 256, (12, 6, 6), dtype=np.uint8), np.arange(12) % 2
    with pytest.raises(UsageError, match="data is arrays, which have their labels"):
        ImageClassification((x, y), labels="a.csv")
    np.savez(tmp_path / "x.npz", x_train=x, y_train=y)
    with pytest.raises(DataError, match="no folder or archive of pictures"):
        splits_of(tmp_path / "x.npz", labels="a.csv")
    with pytest.raises(DataError, match="digits has its own labels"):
        splits_of("digits", label_pattern="(a)")
    with pytest.raises(DataError, match=r"the labels gone\.csv cannot be read: No such file"):
        splits_of(flat(tmp_path / "data"), labels="gone.csv")


# --- runs, recipes and the command line ---


def test_what_was_recorded_before_there_were_labels_is_equal() -> None:
    assert not {"labels", "label_pattern"} & to_config(ImageClassification("digits")).keys()
    assert to_config(ImageClassification("pets", label_pattern="(a)"))["label_pattern"] == "(a)"


def test_a_csv_that_names_pictures_is_of_images_and_another_a_text(tmp_path: Path) -> None:
    root = flat(tmp_path / "data", "images")
    (root / "labels.csv").write_text(table("images/p{i}.png,{label}\n", "file,label\n"))
    (root / "reviews.csv").write_text("text,label\n" + "this was a good film,1\n" * 40)
    (root / "gone.csv").write_text(table("gone/q{i}.png,{label}\n", "file,label\n"))
    assert isinstance(for_data(str(root / "labels.csv")).evaluator, ImageClassification)
    assert isinstance(for_data(str(root / "reviews.csv")).evaluator, LanguageModel)
    gone = for_data(str(root / "gone.csv")).evaluator
    assert isinstance(gone, ImageClassification)
    with pytest.raises(DataError, match=r"gone\.csv names 'gone/q0\.png'.* no such picture is there"):
        gone.splits()
    flat_root = flat(tmp_path / "flat")
    (flat_root / "labels.csv").write_text(table("p{i}.png,{label}\n", "file,label\n"))
    assert isinstance(for_data(str(flat_root)).evaluator, ImageClassification)


def test_a_run_with_labels_moves_with_its_data(tmp_path: Path) -> None:
    root = flat(tmp_path / "data")
    (root / "labels.csv").write_text(table("p{i}.png,{label}\n", "file,label\n"))
    (root / "other.csv").write_text(table("p{i}.png,{label}\n", "file,label\n"))
    store = f"sqlite:///{tmp_path / 'runs.db'}"
    space = smith.spaces.ConvChain(layers=1, filters=(2, 4), filter_heights=(1,), filter_widths=(1,))
    evaluator = ImageClassification(str(root), epochs=1, batch_size=4, size=6, labels=str(root / "labels.csv"))
    smith.search(space, evaluator, trials=1, store=store, name="r")
    shutil.move(root, tmp_path / "moved")
    run = smith.open_run(store, "r")
    assert run.config["evaluator"]["labels"] == "labels.csv"
    assert run.resume(trials=2, data=tmp_path / "moved").summary.counts["done"] == 2


def test_the_command_line_says_where_the_labels_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for i in range(COUNT):
        picture(tmp_path / "data" / f"{label(i)}.{i}.png", i)
    (tmp_path / "labels.csv").write_text("".join(f"{label(i)}.{i}.png,n{i % 3}\n" for i in range(COUNT)))
    assert main(["search", "landscape", "--trials", "1", "--name", "taken", "--no-control"]) == 0
    for option, classes in (("--label-pattern=(?P<label>[a-z]+)\\.", 2), ("--labels=labels.csv", 3)):
        capsys.readouterr()
        assert main(["search", "images", "--data", "data", option, "--name", "taken"]) == 1
        assert f"{classes} classes" in capsys.readouterr().err
    assert main(["search", "landscape", "--labels", "labels.csv"]) == 2
    assert "are for images" in capsys.readouterr().err
    assert main(["auto", "digits", "--label-pattern", "(a)"]) != 0
    assert "digits has its own labels" in capsys.readouterr().err
