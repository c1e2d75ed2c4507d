"""Decoding pictures: every kind of transparency, depth, orientation and size, the same everywhere."""

from __future__ import annotations

import io
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from archsmith.core.errors import DataError
from archsmith.data.image_folder import read_picture
from archsmith.training import ImageClassification
from picture_zoo import DEEP, TRANSPARENT, TURNED, packed, png, words


@pytest.mark.parametrize("name", [*TRANSPARENT, *DEEP])
def test_every_kind_is_read_by_its_transparency_and_its_depth(name: str) -> None:
    content, row = {**TRANSPARENT, **DEEP}[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pixels = read_picture(content, 4)[0].astype(int)
        grey = read_picture(content, 4, 1)[0]
    if pixels.shape[1] == 3 and len(row[0]) == 1:
        row = [level * 3 for level in row]
    assert np.abs(pixels - row).max() <= (1 if ".jp" in name or "lab" in name else 0), pixels.tolist()
    assert grey.shape == (4, 1)


def test_training_sees_transparency_as_predict_does(tmp_path: Path) -> None:
    for name, (content, _) in TRANSPARENT.items():
        for label in ("a", "b"):
            folder = tmp_path / label
            folder.mkdir(exist_ok=True)
            (folder / f"{name}{'' if '.' in name else '.png'}").write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of duplicates
        data = ImageClassification(str(tmp_path), size=4).splits().data
    seen = {image.tobytes() for images in (data.images, data.test_images) if images is not None for image in images}
    assert seen == {read_picture(content, 4, 3).tobytes() for content, _ in TRANSPARENT.values()}


@pytest.mark.parametrize("name", TURNED)
def test_every_orientation_of_every_format_is_turned(name: str) -> None:
    with Image.open(io.BytesIO(TURNED[name])) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    assert np.array_equal(read_picture(TURNED[name], 4), expected)


def test_damaged_metadata_do_not_cost_the_picture() -> None:
    exif = b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Pillow's, of the metadata
        assert read_picture(packed(Image.new("RGB", (8, 8), (1, 2, 3)), exif=exif), 4)[0, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    "content",
    [
        packed(Image.fromarray(np.array([[0, 1000], [2000, 4095]], np.uint16))),
        packed(Image.fromarray(np.array([[0, 1000], [2000, 16383]], np.uint16)), "TIFF"),
        packed(Image.fromarray(np.array([[0, 1], [2, 255]], np.int32)), "TIFF"),
        png(16, 2, words(*[0, 1000, 4095] * 4)),
        png(16, 4, words(*[4095, 65535] * 4)),
        png(16, 6, words(*[0, 1000, 4095, 65535] * 4)),
    ],
    ids=["12 of 16", "14 of 16", "8 of 32", "rgb", "grey with alpha", "rgb with alpha"],
)
def test_levels_that_use_little_of_sixteen_bits_are_warned_of(content: bytes) -> None:
    with pytest.warns(UserWarning, match="comes out dark"):
        assert read_picture(content, 2).max() <= 64


def test_photographs_of_100_megapixels_are_read_and_bombs_are_not() -> None:
    side = 10_100
    rows = np.linspace(0, 255, side).astype(np.uint8)
    image = Image.fromarray(np.broadcast_to(rows, (side, side)))
    expected = (np.arange(16) + 0.5) * 255 / 16
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of Pillow's, too
        jpeg, exif = packed(image, "JPEG"), Image.Exif()
        assert np.abs(read_picture(jpeg, 16)[5, :, 0] - expected).max() < 3
        exif[0x0112] = 6
        content = packed(image, "PNG", compress_level=1, exif=exif)  # in bands, then turned
        assert np.abs(read_picture(content, 16)[:, 5, 0] - expected).max() < 3
    at = jpeg.index(b"\xff\xc0") + 5  # the size in the header
    bomb = jpeg[:at] + struct.pack(">HH", 65_000, 65_000) + jpeg[at + 4 :]
    with pytest.raises(DataError, match=r"65000 x 65000 pixels; more than 268,435,456 are taken for an attack"):
        read_picture(bomb, 16)
