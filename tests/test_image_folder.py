"""A folder of pictures: any size and mode, and every file either read or named."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from archsmith.core.errors import DataError
from archsmith.data import images as data
from archsmith.data.image_folder import read_picture, resize_arrays
from archsmith.training import ImageClassification

RNG = np.random.default_rng(0)


def picture(mode="RGB", size=(12, 10), seed=0):
    rng = np.random.default_rng(seed)
    if mode == "I;16":
        return Image.fromarray(rng.integers(0, 65536, size[::-1], dtype=np.uint16))
    bands = len(Image.new(mode, (1, 1)).getbands())
    shape = (*size[::-1], bands) if bands > 1 else size[::-1]
    values = rng.integers(0, 256, shape, dtype=np.uint8)
    return Image.fromarray(values, mode) if mode not in ("1", "P") else Image.fromarray(values).convert(mode)


def packed(image, form="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def folder_of(path, classes=("cat", "dog"), count=6, mode="RGB"):
    for k, name in enumerate(classes):
        (path / name).mkdir(parents=True)
        for i in range(count):
            picture(mode, (10 + i, 12), seed=10 * k + i).save(path / name / f"{i}.png")
    return path


def load(path, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return ImageClassification(str(path), **options).splits()


# --- one picture ---


@pytest.mark.parametrize(
    ("mode", "form", "channels"),
    [
        ("L", "PNG", 1),
        ("1", "PNG", 1),
        ("I;16", "PNG", 1),
        ("I;16", "TIFF", 1),
        ("LA", "PNG", 1),
        ("RGB", "PNG", 3),
        ("RGB", "JPEG", 3),
        ("RGB", "WEBP", 3),
        ("RGB", "BMP", 3),
        ("RGB", "GIF", 3),
        ("P", "PNG", 3),
        ("RGBA", "PNG", 3),
        ("CMYK", "JPEG", 3),
        ("CMYK", "TIFF", 3),
    ],
)
def test_every_mode_is_read_as_grey_or_colour(mode, form, channels):
    pixels = read_picture(packed(picture(mode), form), 8)
    assert pixels.shape == (8, 8, channels)
    assert pixels.dtype == np.uint8
    assert read_picture(packed(picture(mode), form), 8, 3).shape == (8, 8, 3)
    assert read_picture(packed(picture(mode), form), 8, 1).shape == (8, 8, 1)


def test_sixteen_bits_are_scaled_and_not_cut():
    levels = np.array([[0, 257], [32896, 65535]], np.uint16)
    assert read_picture(packed(Image.fromarray(levels)), 2)[..., 0].tolist() == [[0, 1], [128, 255]]


def test_transparent_parts_become_white():
    image = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert np.unique(read_picture(packed(image), 4)).tolist() == [255]


def test_a_palette_with_transparency_becomes_white_there():
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    assert read_picture(packed(image), 4)[0, 0].tolist() == [10, 20, 30]
    assert read_picture(packed(image, transparency=1), 4)[0, 0].tolist() == [255, 255, 255]


def test_pictures_are_turned_as_their_exif_says():
    image = Image.new("RGB", (8, 8))
    image.paste((255, 255, 255), (0, 0, 8, 4))  # white above
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter to the right
    pixels = read_picture(packed(image, "PNG", exif=exif), 8)
    assert pixels[:, 4:].mean() > 250  # white on the right
    assert pixels[:, :4].mean() < 5


def test_the_middle_is_kept_and_nothing_is_distorted():
    wide = np.zeros((10, 30), np.uint8)
    wide[:, 10:20] = 200
    assert np.unique(read_picture(packed(Image.fromarray(wide)), 10)).tolist() == [200]


def test_a_large_jpeg_is_decoded_at_a_fraction_and_looks_the_same():
    rows = np.linspace(0, 255, 800, dtype=np.uint8)
    image = Image.fromarray(np.stack([np.tile(rows, (800, 1))] * 3, -1))
    fast, exact = read_picture(packed(image, "JPEG", quality=95), 16), read_picture(packed(image), 16)
    assert np.abs(fast.astype(int) - exact).max() <= 4


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "zero bytes"),
        (b"not a picture at all", "no picture"),
        (packed(picture(size=(64, 64)), "JPEG")[:-700], "no picture"),
        (packed(picture(size=(64, 64)))[:-700], "no picture"),
        (packed(picture())[:40], "no picture"),
        (packed(Image.fromarray(np.full((4, 4), 0.5, np.float32)), "TIFF"), "floating-point"),
    ],
)
def test_what_cannot_be_read_says_why(content, words):
    with pytest.raises(DataError, match=words):
        read_picture(content, 8)


def test_a_decompression_bomb_is_refused_before_it_is_decoded():
    bomb = bytearray(packed(Image.new("1", (16, 16))))
    bomb[16:24] = (30_000).to_bytes(4, "big") * 2  # the size in the header
    import zlib

    bomb[29:33] = zlib.crc32(bytes(bomb[12:29])).to_bytes(4, "big")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(DataError, match=r"attack|no picture"):
            read_picture(bytes(bomb), 8)


def test_damaged_pictures_never_raise_anything_else():
    rng = np.random.default_rng(1)
    for form in ("PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP"):
        good = packed(picture(size=(24, 24)), form)
        for _ in range(25):
            bad = bytearray(good)
            for at in rng.integers(0, len(bad), 6):
                bad[at] = int(rng.integers(256))
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    assert read_picture(bytes(bad[: int(rng.integers(1, len(bad)))]), 8).shape[:2] == (8, 8)
            except DataError:
                pass


def test_arrays_are_resized_like_pictures():
    image = picture("RGB", (20, 14))
    array = np.asarray(image)[None]
    assert np.array_equal(resize_arrays(array, 8, None)[0], read_picture(packed(image), 8))
    grey = resize_arrays(array, None, 1)[0, ..., 0]
    assert np.array_equal(grey, np.asarray(image.convert("L")))
    assert np.array_equal(resize_arrays(grey[None, ..., None], None, 3)[0, ..., 2], grey)


# --- folders ---


def test_each_folder_is_a_class(tmp_path):
    splits = load(folder_of(tmp_path / "pets"))
    assert splits.data.class_names == ("cat", "dog")
    assert splits.data.images.shape[1:] == (32, 32, 3)
    assert len(splits.train) + len(splits.validation) + len(splits.test_labels) == 12
    assert splits.data.unreadable == ()


def test_pictures_are_resized_to_what_is_asked(tmp_path):
    folder = folder_of(tmp_path / "pets")
    assert ImageClassification(str(folder), size=16).task().input_shape == (3, 16, 16)
    assert ImageClassification(str(folder), size=16, channels=1).task().input_shape == (1, 16, 16)


def test_grey_pictures_stay_grey_and_a_mixture_becomes_colour(tmp_path):
    folder = folder_of(tmp_path / "pets", mode="L")
    assert load(folder).data.images.shape[3] == 1
    picture("RGB").save(folder / "cat" / "colour.png")
    images = load(folder).data.images
    assert images.shape[3] == 3
    assert (images[..., 0] == images[..., 1]).all(axis=(1, 2)).sum() >= 11  # the grey ones, in three equal channels


def test_unreadable_files_are_left_out_named_and_counted(tmp_path):
    folder = folder_of(tmp_path / "pets")
    (folder / "cat" / "empty.jpg").write_bytes(b"")
    (folder / "dog" / "broken.png").write_bytes(packed(picture(size=(64, 64)))[:200])
    (folder / "dog" / "notes.txt").write_text("good dogs")
    picture().save(folder / "stray.png")
    with pytest.warns(UserWarning, match="4 of 16 files") as caught:
        read = ImageClassification(str(folder)).splits().data
    for name in ("cat/empty.jpg", "dog/broken.png", "dog/notes.txt", "stray.png"):
        assert name in str(caught[0].message)
        assert any(line.startswith(f"{name}: ") for line in read.unreadable)
    told = ImageClassification(str(folder)).describe_data()
    assert told["unreadable"] == 4
    assert len(read.labels) + told["test"] >= 12


def test_hidden_and_system_files_are_no_pictures(tmp_path):
    folder = folder_of(tmp_path / "pets")
    (folder / ".git").mkdir()
    (folder / ".git" / "x.png").write_bytes(b"")
    (folder / "cat" / ".DS_Store").write_bytes(b"x")
    (folder / "cat" / "Thumbs.db").write_bytes(b"x")
    (folder / "README.md").write_text("pets")
    assert load(folder).data.class_names == ("cat", "dog")


def test_folders_in_a_class_belong_to_it(tmp_path):
    folder = folder_of(tmp_path / "pets")
    (folder / "cat" / "kittens" / "small").mkdir(parents=True)
    picture(seed=99).save(folder / "cat" / "kittens" / "small" / "a.png")
    splits = load(folder)
    assert splits.data.class_names == ("cat", "dog")
    assert len(splits.train) + len(splits.validation) + len(splits.test_labels) == 13


def test_a_folder_around_the_classes_is_looked_through(tmp_path):
    folder_of(tmp_path / "outer" / "inner")
    assert load(tmp_path / "outer").data.class_names == ("cat", "dog")


def test_a_train_and_a_test_folder_are_splits_and_not_classes(tmp_path):
    folder_of(tmp_path / "pets" / "train")
    folder_of(tmp_path / "pets" / "val", count=2)
    folder_of(tmp_path / "pets" / "test", count=3)
    with pytest.warns(UserWarning, match="6 of the 6 test images"):  # the three folders hold the same pictures
        splits = ImageClassification(str(tmp_path / "pets")).splits()
    assert splits.data.class_names == ("cat", "dog")
    assert splits.official_test
    assert (len(splits.test_labels), len(splits.data.labels)) == (6, 16)
    assert {splits.data.files[k].split("/")[0] for k in splits.validation} == {"val"}
    assert len(splits.validation) == 4
    assert "learned from" in splits.describe()["remarks"][0]
    assert "4 of the 4 validation images" in splits.describe()["remarks"][1]


def test_the_fingerprint_is_of_the_files_wherever_they_lie(tmp_path):
    a, b = (folder_of(tmp_path / name) for name in ("a", "b"))
    assert ImageClassification(str(a)).fingerprint() == ImageClassification(str(b)).fingerprint()
    before = ImageClassification(str(a)).fingerprint()
    picture(seed=77).save(a / "dog" / "new.png")
    assert ImageClassification(str(a)).fingerprint() != before
    assert ImageClassification(str(b), size=16).fingerprint() != before


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: p.mkdir(), "is empty"),
        (lambda p: (p / "cat").mkdir(parents=True), "no picture that can be read"),
        (lambda p: folder_of(p, ("cat",)), "one class, 'cat'"),
        (lambda p: folder_of(p, count=1), "too small.*'cat' has 1"),
        (lambda p: (folder_of(p) / "bird").mkdir(), "'bird' has 0"),
        (lambda p: (p.mkdir(), picture().save(p / "a.png"), picture().save(p / "b.png")), "in a folder of a class"),
    ],
)
def test_folders_that_cannot_be_used_are_refused(tmp_path, make, words):
    make(tmp_path / "data")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(DataError, match=words):
            ImageClassification(str(tmp_path / "data")).task()


def test_a_folder_of_which_nothing_can_be_read_names_files(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(4):
            (tmp_path / name / f"{i}.jpg").write_bytes(b"\xff\xd8\xff nonsense")
    with pytest.warns(UserWarning, match="8 of 8"), pytest.raises(DataError, match=r"cat/0\.jpg"):
        ImageClassification(str(tmp_path)).task()


def test_a_line_says_how_the_folder_was_read(tmp_path, capsys):
    folder = folder_of(tmp_path / "pets" / "train").parent
    folder_of(folder / "test", count=2)
    picture().save(folder / "cover.png")
    (folder / "test" / "labels.csv").write_text("")
    (folder / ".DS_Store").write_bytes(b"")
    with pytest.warns(UserWarning, match=r"cover.png: is in no class's folder"):
        described = ImageClassification(str(folder), size=9).describe_data()
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith(str(folder)))
    said = "2 classes (cat, dog); 16 pictures: 12 for train, 4 for test"
    assert line == f"{folder}: {said}; ignored: test/labels.csv (no picture), 1 hidden or system file"
    assert described["layout"] == line.removeprefix(f"{folder}: ")


def test_links_are_followed_at_every_depth(tmp_path):
    real = folder_of(tmp_path / "real")
    (tmp_path / "data" / "train").mkdir(parents=True)
    for name in ("cat", "dog"):
        (tmp_path / "data" / "train" / name).symlink_to(real / name)
    folder_of(tmp_path / "more", ("cat",), count=3)
    (real / "cat" / "more").symlink_to(tmp_path / "more" / "cat")
    (tmp_path / "more" / "cat" / "around").symlink_to(real)  # and round it goes
    found = data.load(str(tmp_path / "data"))
    assert found.class_names == ("cat", "dog")
    assert np.bincount(found.labels).tolist() == [15, 6]  # the dogs are among the cats as well
    assert "train/cat/more/around/cat (a link to a folder that it is in)" in found.layout


def test_a_picture_that_links_lead_to_as_well_counts_once(tmp_path):
    folder = folder_of(tmp_path / "pets")
    (folder / "cat" / "best.png").symlink_to(folder / "cat" / "0.png")
    (folder / "cat" / "again").symlink_to(".")
    (folder / "dog" / "all").symlink_to(tmp_path / "dogs")
    (tmp_path / "dogs").symlink_to(folder / "dog")
    assert len(data.load(str(folder)).labels) == 12
    (folder / "dog" / "gone.png").symlink_to("nothing")
    with pytest.warns(UserWarning, match=r"dog/gone.png: is a link to nothing"):
        ImageClassification(str(folder)).task()


def test_links_to_folders_of_links_come_to_an_end(tmp_path):
    folder = folder_of(tmp_path / "0", ("cat",))
    for depth in range(1, 30):  # a picture has a path for each number below 2 ** 29
        (tmp_path / f"{depth}").mkdir()
        for name in ("a", "b"):
            (tmp_path / f"{depth}" / name).symlink_to(folder)
        folder = tmp_path / f"{depth}"
    assert "more than 100 folders deep, or links to one folder" in data.load(str(folder)).layout


@pytest.mark.skipif(os.geteuid() == 0 and shutil.which("setpriv") is None, reason="no mode keeps root out")
@pytest.mark.parametrize(
    ("closed", "mode", "read", "words"),
    [
        ("cat/more", 0, "14", "1 of 15 files.*cat/more: the folder cannot be opened"),
        ("dog", 0o400, "9", "7 of 16 files.*dog/0.png: cannot be read"),  # it can be listed, and no more
        ("cat", 0, "", "the folder cat/ cannot be opened"),
        ("train", 0, "", "the folder train/ cannot be opened"),
        ("", 0, "", "cannot be"),
    ],
)
def test_what_may_not_be_read_is_named(tmp_path, closed, mode, read, words):
    folder_of(tmp_path / "pets", count=7)
    folder_of(tmp_path / "pets" / "cat" / "more", ("x",), count=2)
    (tmp_path / "pets" / "train").mkdir()
    (tmp_path / "pets" / "train" / "a.txt").write_text("")
    program = "from archsmith.data import images as data; import sys; print(len(data.load(sys.argv[1]).labels))"
    command = [sys.executable, "-c", program, str(tmp_path / "pets")]
    if os.geteuid() == 0:
        command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *command]
    (tmp_path / "pets" / closed).chmod(mode)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    (tmp_path / "pets" / closed).chmod(0o700)
    assert done.stdout.strip() == read, done.stderr
    assert re.search(f"(?s){words}.*Permission denied", done.stderr)
    assert ("DataError" in done.stderr) == (not read)


def test_what_archsmith_writes_into_the_data_changes_nothing(tmp_path):
    folder = folder_of(tmp_path / "pets")
    before = ImageClassification(str(folder)).fingerprint()
    for inside in (folder, folder / "cat"):
        (inside / "out" / "model").mkdir(parents=True)
        for name in ("model.json", "model.safetensors", "README.md"):
            (inside / "out" / "model" / name).write_bytes(b"{}")
        (inside / "runs.artifacts").mkdir()
        (inside / "runs.artifacts" / f"{0:064x}.safetensors").write_bytes(b"x")
        (inside / "runs.db").write_bytes(b"SQLite format 3")
        (inside / "page.html").write_text("<html>")
    splits = load(folder)
    assert splits.fingerprint == before
    assert splits.data.class_names == ("cat", "dog")


def test_pictures_without_a_suffix_are_known_by_their_content(tmp_path):
    folder = folder_of(tmp_path / "train")
    for file in list(folder.rglob("*.png")):
        file.rename(file.with_suffix(""))
    (folder.parent / "test").mkdir()
    (folder.parent / "test" / "LICENSE").write_text("All rights reserved")
    assert load(tmp_path).data.class_names == ("cat", "dog")


# --- archives ---


def archive_of(folder, target, prefix="pets"):
    if target.suffix == ".zip":
        with zipfile.ZipFile(target, "w") as archive:
            for file in sorted(folder.rglob("*.png")):
                archive.write(file, f"{prefix}/{file.relative_to(folder)}")
    else:
        with tarfile.open(target, "w:gz") as archive:
            archive.add(folder, prefix)
    return target


@pytest.mark.parametrize("name", ["pets.tar.gz", "pets.zip"])
def test_an_archive_is_as_good_as_its_folder(tmp_path, name):
    folder = folder_of(tmp_path / "pets")
    archive = archive_of(folder, tmp_path / name)
    before = sorted(tmp_path.rglob("*"))
    assert load(archive).fingerprint == load(folder).fingerprint
    assert sorted(tmp_path.rglob("*")) == before  # nothing was extracted


@pytest.mark.parametrize("name", ["../evil.png", "/etc/evil.png", "a/../../evil.png", "..\\evil.png"])
def test_paths_that_lead_out_of_an_archive_are_refused(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(name, packed(picture()))
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        info = tarfile.TarInfo(name)
        info.size = 4
        tar.addfile(info, io.BytesIO(b"evil"))
    for file in ("a.zip", "a.tar.gz"):
        with pytest.raises(DataError, match="leads out"):
            ImageClassification(str(tmp_path / file)).task()


def test_links_in_an_archive_are_not_followed(tmp_path):
    folder = folder_of(tmp_path / "pets")
    (folder / "cat" / "link.png").symlink_to("/etc/hostname")
    assert len(load(archive_of(folder, tmp_path / "pets.tar.gz")).data.unreadable) == 0


@pytest.mark.parametrize("name", ["pets.tar.gz", "pets.zip"])
def test_damaged_archives_are_refused(tmp_path, name):
    archive = archive_of(folder_of(tmp_path / "pets"), tmp_path / name)
    good = archive.read_bytes()
    for content in (good[: len(good) // 2], good[:20], b"", b"no archive"):
        archive.write_bytes(content)
        with pytest.raises(DataError, match=name):
            ImageClassification(str(archive)).task()


@pytest.mark.data
def test_real_photographs_from_an_archive():
    archive = Path(os.environ["ARCHSMITH_DATA"], "flowers5_128px.tar.gz")
    evaluator = ImageClassification(str(archive), size=32)
    splits = evaluator.splits()
    counts = np.bincount(splits.data.labels[np.concatenate([splits.train, splits.validation])])
    counts = counts + np.bincount(splits.test_labels)
    assert sorted(counts) == sorted([764, 1052, 784, 733, 984])
    assert evaluator.task().input_shape == (3, 32, 32)
    assert splits.data.mirrored_is_same
