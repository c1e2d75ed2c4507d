"""How large pictures are, and how much detail they hold: on made pictures whose detail is known, and on real ones."""

from __future__ import annotations

import io
import os
import tarfile
import threading
import warnings
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from sklearn.datasets import load_digits

from archsmith.core.errors import DataError
from archsmith.data.images import Bytes, load
from archsmith.data.picture_size import PictureSize, detail, picture_size

RNG = np.random.default_rng(0)
ENLARGING = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)


def scene(side: int, rng: np.random.Generator) -> Image.Image:
    """Patches of random places, sizes and colours: edges at every scale, as in photographs."""
    image = Image.new("RGB", (4 * side, 4 * side), tuple(rng.integers(40, 216, 3).tolist()))
    draw = ImageDraw.Draw(image)
    for _ in range(400):
        x, y = rng.uniform(0, 4 * side, 2)
        r = 4 * side * 0.006 / rng.uniform(0.03, 1)
        draw.ellipse((x - r, y - r, x + r, y + r), fill=tuple(rng.integers(40, 216, 3).tolist()))
    return image.resize((side, side), Image.Resampling.BOX)


SCENES = [scene(128, RNG) for _ in range(12)]


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return Image.open(stream)


def arrays(images: list[Image.Image]) -> list[Bytes]:
    return [np.asarray(image).reshape(*image.size[::-1], -1) for image in images]


def enlarged(m: int, how: Image.Resampling, side: int = 128) -> list[Image.Image]:
    return [image.resize((m, m), Image.Resampling.BILINEAR).resize((side, side), how) for image in SCENES]


def test_sharp_pictures_hold_as_much_detail_as_pixels() -> None:
    assert detail(arrays(SCENES)) > 90
    for quality in (95, 75, 50):
        assert detail(arrays([jpeg(image, quality) for image in SCENES])) > 90


@pytest.mark.parametrize("how", ENLARGING)
@pytest.mark.parametrize("m", [16, 32, 64])
def test_an_enlarged_picture_has_the_detail_of_the_one_it_was_made_from(m: int, how: Image.Resampling) -> None:
    images = enlarged(m, how)
    for compressed in (images, [jpeg(image, 85) for image in images], [jpeg(image, 70) for image in images]):
        assert 0.7 * m <= detail(arrays(compressed)) <= 1.55 * m


@pytest.mark.parametrize("m", [8, 16, 32, 50])
def test_repeated_pixels_are_no_detail(m: int) -> None:
    images = enlarged(m, Image.Resampling.NEAREST)
    assert detail(arrays(images)) == m
    assert detail(arrays([jpeg(image, 90) for image in images])) == m


def test_blur_and_the_noise_of_a_sensor_are_no_detail() -> None:
    blurred = arrays([image.filter(ImageFilter.GaussianBlur(2)) for image in SCENES])
    assert detail(blurred) < 45
    noisy = [np.clip(image + RNG.normal(0, 4, image.shape), 0, 255).astype(np.uint8) for image in blurred]
    assert detail(noisy) < 50


def test_pictures_of_noise_are_taken_for_what_they_are() -> None:
    assert detail([RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8) for _ in range(8)]) == 64


def test_small_grey_and_empty_pictures() -> None:
    digits = (load_digits().images[:40] * 15.9).astype(np.uint8)
    assert detail(digits[..., None]) == 8
    grown = [Image.fromarray(each).resize((64, 64), Image.Resampling.BICUBIC) for each in digits]
    assert 8 <= detail(arrays(grown)) <= 16
    grey = [image.convert("L").convert("RGB") for image in SCENES]
    assert detail(arrays(grey)) == detail(arrays([image.convert("L") for image in SCENES]))
    assert detail([np.full((40, 30, 3), value, np.uint8) for value in (0, 9, 255)]) == 1
    assert detail([]) == 1
    for side in (1, 2, 3, 5):
        assert 1 <= detail([RNG.integers(0, 256, (side, side, 1), dtype=np.uint8) for _ in range(9)]) <= side


@pytest.mark.parametrize("side", [28, 64, 200])
def test_letters_are_sharp(side: int) -> None:
    font = ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"), round(0.7 * side))
    letters = []
    for letter in "ABCDEFGHIJKLM":
        letters.append(Image.new("L", (side, side), 255))
        ImageDraw.Draw(letters[-1]).text((side // 2, side // 2), letter, font=font, anchor="mm")
    assert 0.8 * side < detail(arrays(letters)) <= side


def test_the_sizes_of_files_are_read_from_their_headers(tmp_path: Path) -> None:
    for i, image in enumerate(SCENES):
        wide = Image.new("RGB", (200 + i, 128))
        wide.paste(image.resize((200 + i, 128)))
        exif = Image.Exif()
        exif[0x0112] = 6 if i % 2 else 1  # every other one is stored on its side
        (tmp_path / "ab"[i % 2]).mkdir(exist_ok=True)
        wide.save(tmp_path / "ab"[i % 2] / f"{i}.jpg", quality=95, exif=exif)
    (tmp_path / "a" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    found = picture_size(str(tmp_path))
    assert (found.own, found.pictures) == (128, 12)
    assert 80 < found.detail <= 128
    with tarfile.open(tmp_path / "all.tar.gz", "w:gz") as archive:
        for name in "ab":
            archive.add(tmp_path / name, name)
    assert picture_size(str(tmp_path / "all.tar.gz")) == found


def test_the_size_of_data_in_arrays(tmp_path: Path) -> None:
    assert picture_size("digits") == PictureSize(8, 8, 64, 1797, colour=False) == picture_size(load("digits"))
    labels = np.arange(12) % 2
    np.savez(tmp_path / "a.npz", x_train=np.stack(arrays(SCENES))[:, :96], y_train=labels)
    assert picture_size(str(tmp_path / "a.npz")).own == 96


def test_pictures_that_cannot_be_read_have_no_size(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match="none of the 2 pictures"):
        picture_size(str(tmp_path))
    with pytest.raises(DataError, match="no file or folder"):
        picture_size(str(tmp_path / "c"))


@pytest.mark.data
def test_the_detail_of_real_photographs() -> None:
    folder = Path(os.environ["ARCHSMITH_DATA"])
    flowers = picture_size(str(folder / "flowers5_128px.tar.gz"))
    assert flowers.own == 128
    assert 26 <= flowers.detail <= 42  # stored blurred, with the detail of 32 pixels
    trash = picture_size(str(folder / "trash6_256px.tar"))
    assert trash.own == 256
    assert trash.detail > 180


def test_a_folder_without_pictures_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "texts" / "a").mkdir(parents=True)
    (tmp_path / "texts" / "a" / "1.txt").write_text("no picture")
    with pytest.raises(
        DataError, match="has no picture that can be read in a folder of a class; data is a folder with one"
    ):
        picture_size(str(tmp_path / "texts"))


def test_the_filters_of_warnings_are_set_in_the_main_thread_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They belong to the process: two threads that restore them in turn may leave all warnings ignored."""

    class Caught(warnings.catch_warnings):  # type: ignore[type-arg]
        def __enter__(self) -> Any:
            assert threading.current_thread() is threading.main_thread()
            return super().__enter__()

    for k, image in enumerate(SCENES):
        (tmp_path / "ab"[k % 2]).mkdir(exist_ok=True)
        image.save(tmp_path / "ab"[k % 2] / f"{k}.png")
    monkeypatch.setattr(warnings, "catch_warnings", Caught)
    before = list(warnings.filters)
    assert picture_size(str(tmp_path)).own == 128
    assert list(warnings.filters) == before
