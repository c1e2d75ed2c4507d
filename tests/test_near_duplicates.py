"""The same picture in two splits: found if it was scaled, compressed or lit anew, and not seen where pictures only look alike."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from sklearn.datasets import load_sample_images
from torch import nn

from archsmith.data.images import ImageData, ImageSplits, load, split
from archsmith.data.near_duplicates import near_duplicates
from archsmith.training import ImageClassification
from archsmith.training.near_duplicates import duplicates_across


def photographs(count: int, side: int = 64) -> list[Image.Image]:
    """Different parts of the two photographs that come with scikit-learn."""
    whole = [Image.fromarray(a) for a in load_sample_images().images]
    draws = np.random.default_rng(0)
    cut = []
    for k in range(count):
        left, top = int(draws.integers(0, 640 - 160)), int(draws.integers(0, 427 - 160))
        cut.append(whole[k % 2].crop((left, top, left + 160, top + 160)).resize((side, side)))
    return cut


def compressed(picture: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


CHANGES = {
    "compressed": lambda p: compressed(p, 40),
    "scaled": lambda p: p.resize((40, 40)).resize(p.size),
    "darker": lambda p: ImageEnhance.Brightness(p).enhance(0.8),
    "paler": lambda p: ImageEnhance.Contrast(p).enhance(0.7),
    "mirrored": ImageOps.mirror,
    "grey": lambda p: p.convert("L").convert("RGB"),
}


def splits_of(train: list[Image.Image], validation: list[Image.Image], test: list[Image.Image]) -> ImageSplits:
    pixels = [np.asarray(p) for p in (*train, *validation)]
    labels = np.arange(len(pixels)) % 2
    names = tuple(f"{k}.png" for k in range(len(pixels)))
    tests = np.stack([np.asarray(p) for p in test])
    test_labels = np.arange(len(test)) % 2
    data = ImageData("photographs", np.stack(pixels), labels, tests, test_labels, ("a", "b"), "0", files=names)
    n = len(train)
    return ImageSplits(data, np.arange(n), np.arange(n, len(pixels)), tests, test_labels, True, "0")


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_found(change: str) -> None:
    pictures = photographs(60)
    test = [*pictures[40:59], CHANGES[change](pictures[3])]
    pairs, n = duplicates_across(splits_of(pictures[:30], pictures[30:40], test))
    assert n == 1
    (pair,) = pairs
    assert (pair.first, pair.second, pair.splits) == ("3.png", "", ("training", "test"))
    assert not pair.exact
    assert pair.same_label  # both are at odd positions


def test_equal_pixels_are_exact_and_come_first() -> None:
    pictures = photographs(60)
    test = [*pictures[40:57], compressed(pictures[2], 60), pictures[5], pictures[32]]
    pairs, n = duplicates_across(
        splits_of(pictures[:30], [*pictures[30:39], pictures[7]], test), lambda image: str(image.shape)
    )
    assert n == 4
    assert [pair.exact for pair in pairs] == [True, True, True, False]
    assert {(pair.first, pair.splits) for pair in pairs} == {
        ("5.png", ("training", "test")),
        ("32.png", ("validation", "test")),
        ("7.png", ("training", "validation")),
        ("2.png", ("training", "test")),
    }
    assert pairs[0].pictures == ("(64, 64, 3)", "(64, 64, 3)")
    assert not pairs[0].same_label or not pairs[1].same_label  # 5 is at 18
    assert len(duplicates_across(splits_of(pictures[:30], pictures[30:40], test), most=1)[0]) == 1


def test_pictures_that_only_look_alike_are_not_the_same() -> None:
    splits = split(load("digits"), 0.1, 0)  # small, aligned, and of one kind
    assert duplicates_across(splits) == ((), 0)
    flat = [Image.new("RGB", (16, 16), (k, 200 - k, 100)) for k in range(40)]  # of one colour each
    assert duplicates_across(splits_of(flat[:20], flat[20:30], flat[30:]))[1] == 0


def test_pictures_of_noise_and_of_smooth_colours_are_not_the_same() -> None:
    draws = np.random.default_rng(0)
    noise = draws.integers(0, 256, (300, 20, 30, 3), dtype=np.uint8)
    assert near_duplicates(noise[:200], noise[200:]) == []
    assert near_duplicates(noise[:200], noise[150:]) == [(150 + k, k, pytest.approx(1.0)) for k in range(50)]
    slopes = np.linspace(0, draws.uniform(20, 250, 300), 32).T[:, None, :, None] * np.ones((1, 32, 1, 3))
    assert near_duplicates(slopes[:200].astype(np.uint8), slopes[200:].astype(np.uint8)) == []
    assert near_duplicates(noise[:0], noise) == near_duplicates(noise, noise[:0]) == []


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "size", "least", "most"),
    [("trash6_256px.tar", 32, 8, 20), ("flowers5_128px.tar.gz", 32, 8, 20), ("fashion-mnist", None, 0, 10)],
)
def test_real_data_have_few_pairs(data_folder: Path, name: str, size: int | None, least: int, most: int) -> None:
    images = load(str(data_folder / name), size).images[:20_000]
    assert least <= len(near_duplicates(images[np.arange(len(images)) % 5 > 0], images[::5])) <= most


@pytest.mark.parametrize("n", [1, 2, 7])
def test_few_pictures_of_few_pixels_are_compared(n: int) -> None:
    pictures = [p.resize((3, 5)) for p in photographs(3 * n)]
    pairs, found = duplicates_across(splits_of(pictures[:n], pictures[n : 2 * n], pictures[:n]))
    assert found == n
    assert all(pair.exact for pair in pairs)


def test_pictures_that_were_held_out_for_the_test_have_their_files(tmp_path: Path) -> None:
    pictures = photographs(24, 160)
    for k, picture in enumerate(pictures):
        folder = tmp_path / "pictures" / "ab"[k % 2]
        folder.mkdir(parents=True, exist_ok=True)
        picture.save(folder / f"{k}.png")
    before = split(load(str(tmp_path / "pictures"), 32), 0.2, 0)
    names = before.test_files
    assert len(names) == len(before.test_labels)
    evaluator = ImageClassification(str(tmp_path / "pictures"), size=32, validation=0.2)
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 2))
    assert evaluator.predictions(network, "test").files == names
    tested = int(Path(names[0]).stem)
    learned = int(Path(before.data.files[before.train[0]]).stem)
    compressed(pictures[tested], 80).save(tmp_path / "pictures" / "ab"[learned % 2] / f"{learned}.png")
    pairs, n = duplicates_across(split(load(str(tmp_path / "pictures"), 32), 0.2, 0))
    assert n == 1
    assert Path(pairs[0].first).name == f"{learned}.png"
    assert pairs[0].second == names[0]
