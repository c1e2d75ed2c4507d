"""Data that change after they were read are noticed: in the same process, in another one, and by a run that goes on."""

from __future__ import annotations

import dataclasses
import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import archsmith as smith
from archsmith.cli.runs import beside
from archsmith.cli.where import Where
from archsmith.core import loaded
from archsmith.core.data_changes import MOST_FILES, changes, contents_of
from archsmith.core.errors import UsageError
from archsmith.data.file_versions import version
from archsmith.store import open_store
from archsmith.training import ImageClassification, LanguageModel, Tabular, Translation

SPACE = smith.spaces.ConvChain(layers=1, filters=(2, 4), filter_heights=(1,), filter_widths=(1,))


def picture(path: Path, seed: int) -> None:
    """Pictures of equal length for all seeds: they are not compressed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, "BMP")


def folder_of(root: Path) -> Path:
    for part in ("train", "test"):
        for k, name in enumerate(("cat", "dog")):
            for i in range(6):
                picture(root / part / name / f"{i}.bmp", 1000 * k + 10 * i + (part == "test"))
    return root


def images(data: Any) -> ImageClassification:
    return ImageClassification(str(data), epochs=1, batch_size=8, size=6, precision="fp32")


def add(root: Path) -> None:
    picture(root / "train" / "cat" / "new.bmp", 77)


def remove(root: Path) -> None:
    (root / "train" / "cat" / "0.bmp").unlink()


def overwrite(root: Path) -> None:
    picture(root / "train" / "dog" / "0.bmp", 78)


def overwrite_with_times_restored(root: Path) -> None:
    before = (root / "train" / "dog" / "0.bmp").stat()
    overwrite(root)
    os.utime(root / "train" / "dog" / "0.bmp", ns=(before.st_atime_ns, before.st_mtime_ns))


def replace_by_rename(root: Path) -> None:
    before = (root / "train" / "dog" / "0.bmp").stat()
    picture(root.parent / "other.bmp", 79)
    os.utime(root.parent / "other.bmp", ns=(before.st_atime_ns, before.st_mtime_ns))
    os.replace(root.parent / "other.bmp", root / "train" / "dog" / "0.bmp")


def move_to_another_class(root: Path) -> None:
    (root / "train" / "dog" / "0.bmp").rename(root / "train" / "cat" / "from-dog.bmp")


def retarget_a_link(root: Path) -> None:
    link = root / "train" / "dog" / "link.bmp"
    link.unlink(missing_ok=True)
    link.symlink_to(root / "test" / "cat" / "1.bmp")


CHANGES = [
    add,
    remove,
    overwrite,
    overwrite_with_times_restored,
    replace_by_rename,
    move_to_another_class,
    retarget_a_link,
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_folder_is_read_again_in_the_same_process(tmp_path: Path, change: Any) -> None:
    root = folder_of(tmp_path / "pets")
    (root / "train" / "dog" / "link.bmp").symlink_to(root / "test" / "cat" / "0.bmp")
    before = images(root).splits()
    assert images(root).splits() is before, "what has not changed is read once"
    change(root)
    after = images(root).splits()
    assert after.fingerprint != before.fingerprint
    shutil.copytree(root, tmp_path / "copy", symlinks=True)
    assert after.fingerprint == images(tmp_path / "copy").fingerprint()


def test_two_writes_at_the_same_moment_are_told_apart_by_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a file system whose times are seconds: all that a scan sees is the same."""
    file = tmp_path / "train.npz"
    file.write_bytes(b"one")
    now = time.time_ns()
    real = os.stat_result

    def whole_seconds(result: Any) -> tuple[int, int, int, int]:
        assert isinstance(result, real)
        return result.st_size, now, now, result.st_ino

    monkeypatch.setattr("archsmith.data.file_versions._state", whole_seconds)
    first = version(file)
    assert version(file) == first
    file.write_bytes(b"two")
    second = version(file)
    assert second != first
    assert version(file) == second


def test_what_a_reader_skips_changes_nothing(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "pets")
    first = version(root, skipped=lambda name, is_folder: name.startswith("."))
    (root / "train" / ".DS_Store").write_bytes(b"x")
    assert version(root, skipped=lambda name, is_folder: name.startswith(".")) == first
    (root / "loop").symlink_to(root)
    second = version(root, skipped=lambda name, is_folder: name.startswith("."))
    assert second != first


def text(folder: Path) -> Any:
    (folder / "data.txt").write_text("one two three four\n" * 400)
    return LanguageModel.desk(str(folder / "data.txt")), lambda: (folder / "data.txt").write_text(
        "one two three five\n" * 400
    )


def three_texts(folder: Path) -> Any:
    for part in ("train", "valid", "test"):
        (folder / f"{part}.txt").write_text("one two three four\n" * 400)
    return LanguageModel.desk(str(folder)), lambda: (folder / "valid.txt").write_text("one two four four\n" * 400)


def pairs(folder: Path) -> Any:
    for end in ("en", "de"):
        (folder / f"train.{end}").write_text("".join(f"{end} house {n:02}\n" for n in range(40)))
    return Translation.desk((str(folder / "train.en"), str(folder / "train.de"))), lambda: (
        folder / "train.de"
    ).write_text("".join(f"ed house {n:02}\n" for n in range(40)))


def table(folder: Path) -> Any:
    (folder / "data.csv").write_text("x,value\n1,0.5\n2,0.25\n")
    return Tabular(str(folder / "data.csv"), "value"), lambda: (folder / "data.csv").write_text(
        "x,value\n1,0.6\n2,0.25\n"
    )


def arrays(folder: Path) -> Any:
    x = np.random.default_rng(0).integers(0, 255, (40, 8, 8, 1), dtype=np.uint8)
    np.savez(folder / "data.npz", x_train=x, y_train=np.arange(40) % 2)
    return ImageClassification.desk(str(folder / "data.npz")), lambda: np.savez(
        folder / "data.npz", x_train=x[::-1], y_train=np.arange(40) % 2
    )


def archive(folder: Path) -> Any:
    root = folder_of(folder / "pets")
    shutil.make_archive(str(folder / "pets"), "zip", root)

    def change() -> None:
        overwrite(root)
        shutil.make_archive(str(folder / "pets"), "zip", root)

    return images(folder / "pets.zip"), change


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (archive, "1 changed (train/dog/0.bmp)"),
        (text, "the train text"),
        (three_texts, "1 changed (the validation text)"),
        (pairs, "the target sentences of the train part"),
        (table, "data.csv"),
        (arrays, "1 changed (x_train)"),
    ],
)
def test_every_kind_of_data_is_read_again_and_says_what_changed(tmp_path: Path, make: Any, named: str) -> None:
    evaluator, change = make(tmp_path)
    fingerprint, contents = evaluator.fingerprint(), contents_of(evaluator)
    change()
    assert evaluator.fingerprint() != fingerprint
    assert named in changes(contents, contents_of(evaluator))


def test_children_of_one_search_learn_from_the_same_data(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "pets")
    evaluator = images(root)
    before = evaluator.fingerprint()
    seen = []

    def watch(event: Any) -> None:
        add(root)
        seen.append(evaluator.fingerprint())

    smith.search(SPACE, evaluator, trials=2, store="memory://", watch=watch)
    assert set(seen) == {before}
    assert evaluator.fingerprint() != before


def test_resume_and_finish_refuse_changed_data_and_name_them(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "pets")
    store = f"sqlite:///{tmp_path / 'runs.db'}"
    smith.search(SPACE, images(root), trials=1, store=store, name="r")
    assert smith.open_run(store, "r").resume(trials=2).summary.counts["done"] == 2
    add(root)
    overwrite(root)
    for go_on in (lambda run: run.resume(trials=3), lambda run: smith.finish(run)):
        with pytest.raises(UsageError, match=r"1 added \(train/cat/new\.bmp\), 1 changed \(train/dog/0\.bmp\)"):
            go_on(smith.open_run(store, "r"))
    (root / "train" / "cat" / "new.bmp").unlink()
    picture(root / "train" / "dog" / "0.bmp", 1000)
    assert smith.open_run(store, "r").resume(trials=3).summary.counts["done"] == 3


def test_random_search_beside_a_search_has_the_same_data(tmp_path: Path) -> None:
    data, store = folder_of(tmp_path / "data"), f"sqlite:///{tmp_path / 'runs.db'}"
    run = smith.search(SPACE, images(data), trials=1, store=store, name="a")
    add(data)
    with pytest.raises(
        UsageError, match=r"the data of run 'a' has changed: 1 added \(train/cat/new\.bmp\)\. Random search is"
    ):
        beside(run, store=store, where=Where("in-process"), go_on="archsmith resume a", always=True)
    (data / "train" / "cat" / "new.bmp").unlink()
    control = beside(run, store=store, where=Where("in-process"), go_on="archsmith resume a", always=True)
    assert control is not None
    assert control.config["data"] == run.config["data"]


def test_pinned_data_end_with_their_block_in_any_order() -> None:
    class Reads:
        def __init__(self, value: str) -> None:
            self.value = value

        def loaded(self) -> dict[str, str]:
            return {"data": self.value}

    first, second = loaded.pinned(Reads("one")), loaded.pinned(Reads("two"))
    first.__enter__()
    second.__enter__()
    assert loaded.given("data") == "two"
    first.__exit__(None, None, None)
    assert loaded.given("data") == "two"
    second.__exit__(None, None, None)
    assert loaded.given("data") is None


def test_data_that_cannot_be_listed_leave_no_run_behind(tmp_path: Path) -> None:
    class Gone:
        def evaluate(self, space: Any, genotype: Any, context: Any) -> smith.Result:
            raise AssertionError("no child is trained")

        def data_contents(self) -> dict[str, str]:
            raise UsageError("the disk is gone")

    store = open_store(tmp_path / "runs.db")
    with pytest.raises(UsageError, match="the disk is gone"):
        smith.search(SPACE, Gone(), trials=1, store=store, name="r")
    assert store.runs() == []


def test_of_very_many_files_the_folders_are_named() -> None:
    class Many:
        def __init__(self, count: int) -> None:
            self.count = count

        def data_contents(self) -> dict[str, str]:
            return {f"train/{k % 2}/{k}.png": "0" for k in range(self.count)}

    before, after = contents_of(Many(MOST_FILES + 2)), contents_of(Many(MOST_FILES + 3))
    assert changes(before, after) == "1 changed (train/0/)"
    assert len(before) == 2


def test_a_search_pins_what_a_final_training_on_more_images_needs(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "pets")
    few = dataclasses.replace(images(root), max_train=8)
    everything = images(root).fingerprint()
    with loaded.pinned(few):
        add(root)
        assert dataclasses.replace(few, max_train=None).fingerprint() == everything
    assert dataclasses.replace(few, max_train=None).fingerprint() != everything
