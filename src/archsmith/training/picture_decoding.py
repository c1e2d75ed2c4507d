"""Decodes one picture, of any size and mode, into grey levels or colours of eight bits."""

from __future__ import annotations

import functools
import io
from pathlib import Path
from typing import Any

import numpy as np

from archsmith.core.errors import DataError
from archsmith.training.data import Bytes

FILE_CAP = 1 << 27  # bytes of one picture
TOO_LARGE = f"has more than {FILE_CAP:,} bytes"
_PIXEL_CAP = 89_478_485  # Pillow's own bound: more is taken for a decompression bomb
_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")


def read_some(path: Path) -> bytes:
    """The content of a file, a device or a pipe that a person named, as long as it may be a picture's. Raises DataError."""
    with open(path, "rb") as file:
        content = file.read(FILE_CAP + 1)
    if len(content) > FILE_CAP:
        raise DataError(TOO_LARGE)
    return content


def read_picture(content: bytes | str | Path, size: int, channels: int | None = None) -> Bytes:
    """One picture, from its bytes or its path, as [size, size, channels]; None is 1 for grey pictures, 3 for others.

    The shorter side is scaled to `size` (with antialiasing) and the middle kept, so that nothing is distorted. Turned
    as its EXIF orientation says; transparent parts become white; 16-bit grey levels are scaled to 8 bits.
    Raises DataError that says why it cannot be read.
    """
    from PIL import Image, ImageOps

    if isinstance(content, str | Path):
        path = Path(content)
        try:
            content = read_some(path)
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    if not content:
        raise DataError("is empty (zero bytes)")
    try:
        with Image.open(io.BytesIO(content), formats=_formats()) as picture:
            width, height = picture.size
            if width * height > _PIXEL_CAP:
                raise DataError(f"has {width} x {height} pixels; more than {_PIXEL_CAP:,} are taken for an attack")
            if picture.format == "JPEG":
                picture.draft(None, (2 * size, 2 * size))  # decode at a fraction of the size where that is enough
            image = _eight_bit(ImageOps.exif_transpose(picture))
            if channels is not None:
                image = image.convert("L" if channels == 1 else "RGB")
            if image.size != (size, size):
                image = ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)
            pixels = np.asarray(image, np.uint8)
    except DataError:
        raise
    except Exception as error:  # decoders fail in many ways on damaged files: all mean the same here
        said = str(error).replace("<_io.BytesIO object at", "<").split(" <")[0]
        raise DataError(f"is no picture that can be read ({said or type(error).__name__})") from None
    return pixels[..., None] if pixels.ndim == 2 else pixels


@functools.cache
def _formats() -> tuple[str, ...]:
    """The formats of pictures, as far as Pillow was built with them. Of the others some run programs: EPS is PostScript."""
    from PIL import Image

    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _eight_bit(picture: Any) -> Any:
    """The picture in mode L (grey) or RGB, eight bits a channel."""
    from PIL import Image

    mode = picture.mode
    if mode in ("L", "RGB"):
        return picture
    if mode == "1":
        return picture.convert("L")
    if mode == "I" or mode.startswith("I;16"):
        levels = np.asarray(picture).astype(np.int64)
        if levels.min() < 0 or levels.max() > 65535:
            raise DataError(f"has grey levels from {levels.min()} to {levels.max()}; 0 to 65535 are known")
        return Image.fromarray(((levels * 255 + 32767) // 65535).astype(np.uint8))
    if mode == "F":
        raise DataError("has floating-point grey levels, whose range is not known")
    if mode in ("LA", "La", "RGBA", "RGBa", "PA") or "transparency" in picture.info:
        over = picture.convert("RGBA")
        flat = Image.alpha_composite(Image.new("RGBA", over.size, "white"), over)
        return flat.convert("L" if mode in ("LA", "La") else "RGB")
    return picture.convert("RGB")  # palettes, CMYK, YCbCr, Lab, HSV


def resize_arrays(images: Bytes, size: int | None, channels: int | None) -> Bytes:
    """Images [count, height, width, channels] resized as `read_picture` does, and turned grey or into colour."""
    from PIL import Image, ImageOps

    depth = images.shape[3]
    if channels == 3 and depth == 1:
        images = np.repeat(images, 3, axis=3)
    elif channels == 1 and depth == 3:
        grey = images.astype(np.uint32) @ np.array([19595, 38470, 7471], np.uint32)  # Pillow's weights, ITU-R 601
        images = ((grey + 0x8000) >> 16).astype(np.uint8)[..., None]
    if size is None or images.shape[1:3] == (size, size):
        return images
    out = np.empty((len(images), size, size, images.shape[3]), np.uint8)
    for i, image in enumerate(images):
        for c in range(images.shape[3]):
            plane = Image.fromarray(image[..., c])
            out[i, ..., c] = np.asarray(ImageOps.fit(plane, (size, size), Image.Resampling.BILINEAR))
    return out
