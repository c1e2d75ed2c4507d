"""Decodes one picture, of any size, mode and depth, into grey levels or colours of eight bits.

The functions in `PORTABLE` need nothing but Pillow and numpy. Exports carry their source text, so that a deployed model
sees a picture exactly as training and `predict` saw it.
"""

from __future__ import annotations

import io
import threading
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archsmith.core.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from archsmith.data.images import Bytes

FILE_CAP = 1 << 27  # bytes of one picture
TOO_LARGE = f"has more than {FILE_CAP:,} bytes"
LARGE = 1 << 24  # pixels; larger pictures are decoded one at a time, so that threads do not add up their memory
_one_large_picture = threading.Lock()


# --- portable: exports carry the source text of what follows ----------------------------------------------------------


class PictureError(ValueError):
    """Says why a picture cannot be read."""


def open_picture(content: bytes) -> Image.Image:
    """The picture with its header read and nothing decoded. Raises PictureError.

    Formats that run programs (EPS is PostScript) are not tried. A size that no camera has is taken for an attack:
    more than 2**28 pixels of a JPEG, which is decoded at a fraction of its size, and more than 2**27 of others.
    """
    from PIL import Image

    if not content:
        raise PictureError("is empty (zero bytes)")
    Image.init()
    for name in ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "JPEG2000", "AVIF"):
        factory, accept = Image.OPEN.get(name, (None, None))
        accepted = factory is not None and (accept is None or accept(content[:16]))
        if isinstance(accepted, str):  # of a format that Pillow was built without
            raise PictureError(accepted)
        if factory is None or not accepted:
            continue
        try:  # not by Image.open, whose lower cap is a global setting
            picture: Image.Image = factory(io.BytesIO(content), "")
        except Exception as error:
            raise PictureError(f"is no picture that can be read ({error or type(error).__name__})") from None
        width, height = picture.size
        cap = 1 << (28 if picture.format in ("JPEG", "MPO") else 27)
        if width * height > cap:
            raise PictureError(f"has {width} x {height} pixels; more than {cap:,} are taken for an attack")
        return picture
    raise PictureError("is no picture that can be read (cannot identify image file)")


def decode_picture(content: bytes, width: int, height: int, channels: int | None = None) -> np.ndarray:
    """A picture as uint8 [height, width, channels]; channels=None is 1 for grey pictures and 3 for others.

    The picture is turned as its EXIF orientation says. It is scaled, with antialiasing, until it covers width x height,
    and the middle is kept, so nothing is distorted. Transparent parts become white. Levels of more than eight bits are
    scaled to eight. Raises PictureError.
    """
    import numpy as np
    from PIL import Image, ImageOps

    picture = open_picture(content)
    try:
        if picture.format in ("JPEG", "MPO"):
            side = 2 * max(width, height)
            picture.draft(None, (side, side))  # decode at a fraction of the size where that is enough
        picture.load()
        tags = tags_of(picture)  # after load(), which turns TIFFs and then drops the tag
        depth = tags.get(258, 8) if picture.format == "TIFF" else content[24] if picture.format == "PNG" else 8
        depth = max(depth) if isinstance(depth, tuple) else depth  # bits of one level in the file
        white_is_zero = picture.format == "TIFF" and tags.get(262) == 0
        dark = is_dark(picture, depth)
        image = shrink_to_eight_bits(picture, 4 * max(width, height), depth, white_is_zero)
        turns = {
            2: Image.Transpose.FLIP_LEFT_RIGHT,
            3: Image.Transpose.ROTATE_180,
            4: Image.Transpose.FLIP_TOP_BOTTOM,
            5: Image.Transpose.TRANSPOSE,
            6: Image.Transpose.ROTATE_270,
            7: Image.Transpose.TRANSVERSE,
            8: Image.Transpose.ROTATE_90,
        }
        if (turn := turns.get(tags.get(0x0112, 1))) is not None:
            image = image.transpose(turn)
        if channels is not None:
            image = image.convert("L" if channels == 1 else "RGB")
        if image.size != (width, height):
            image = ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR)
    except PictureError:
        raise
    except Exception as error:  # decoders fail in many ways on damaged files: all mean the same here
        said = str(error).replace("<_io.BytesIO object at", "<").split(" <")[0]
        raise PictureError(f"is no picture that can be read ({said or type(error).__name__})") from None
    if dark:
        warnings.warn(
            "a picture of 16 bits uses only the lowest quarter of its levels and comes out dark; if its levels have "
            "10, 12 or 14 bits, scale them to 16 bits first",
            stacklevel=2,
        )
    pixels = np.array(image, np.uint8)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def tags_of(picture: Image.Image) -> dict[int, Any]:
    """The TIFF and EXIF tags of a picture; none if they are damaged, which does not spoil the picture."""
    try:
        return dict(picture.getexif())
    except Exception:
        return {}


def is_dark(picture: Image.Image, depth: int) -> bool:
    """Whether a decoded picture of 16 bits has no level above a quarter of the range, and is not all black."""
    import numpy as np

    grey = picture.mode == "I" or picture.mode.startswith("I;16")
    if not grey and (depth != 16 or picture.mode not in ("RGB", "RGBA", "LA")):
        return False
    highest = np.array(picture.getextrema()).reshape(-1, 2)[: 1 if picture.mode == "LA" else 3, 1].max()
    most = (4095 if depth == 12 else 65535) if grey else 255  # Pillow keeps the upper eight bits of colours
    return bool(0 < highest <= most // 4)


def shrink_to_eight_bits(picture: Image.Image, side: int, depth: int, white_is_zero: bool) -> Image.Image:
    """The picture in mode L or RGB; a very large one is averaged down, in bands, to a shorter side of `side` pixels."""
    import math

    from PIL import Image

    width, height = picture.size
    scale = min(width, height) / side
    if width * height <= 1 << 24 or scale < 2:
        return to_eight_bits(picture, depth, white_is_zero)
    columns, rows = round(width / scale), round(height / scale)
    step = max(1, rows * (1 << 22) // (width * height))  # bands of some four million pixels
    small = None
    for first in range(0, rows, step):
        last = min(first + step, rows)
        top, bottom = first * height / rows, last * height / rows
        band = picture.crop((0, math.floor(top), width, min(height, math.ceil(bottom))))
        box = (0, top - math.floor(top), width, min(band.height, bottom - math.floor(top)))
        part = to_eight_bits(band, depth, white_is_zero).resize((columns, last - first), Image.Resampling.BOX, box)
        small = small or Image.new(part.mode, (columns, rows))
        small.paste(part, (0, first))
    assert small is not None
    return small


def to_eight_bits(picture: Image.Image, depth: int, white_is_zero: bool) -> Image.Image:
    """The picture in mode L (grey) or RGB; `depth` is the bits of one level in the file. Raises PictureError."""
    import numpy as np
    from PIL import Image

    mode, key = picture.mode, picture.info.get("transparency")
    if mode == "F":
        raise PictureError(
            "has floating-point grey levels, whose range is not known; save it with whole numbers of 8 or 16 bits"
        )
    if mode == "I" or mode.startswith("I;16"):
        most = 4095 if depth == 12 else 65535
        levels = np.asarray(picture)
        if levels.min() < 0 or levels.max() > most:
            raise PictureError(f"has grey levels from {levels.min()} to {levels.max()}; 0 to {most} are known")
        levels = levels.astype(np.uint32)
        eight = ((levels * 255 + most // 2) // most).astype(np.uint8)
        if white_is_zero:
            eight = 255 - eight
        if isinstance(key, int):
            eight[levels == key] = 255
        return Image.fromarray(eight)
    if mode in ("1", "L", "RGB") and isinstance(key, int | tuple):  # a colour key: that colour is transparent
        scale = {1: 255, 2: 85, 4: 17}.get(depth, 1) if mode == "L" else 1
        keys = [k >> 8 if depth == 16 else k * scale for k in (key if isinstance(key, tuple) else (key,))]
        pixels = np.array(picture.convert("L") if mode == "1" else picture)
        matches = pixels == np.array(keys)
        pixels[matches.all(-1) if mode == "RGB" else matches] = 255
        return Image.fromarray(pixels)
    if mode in ("LA", "La", "RGBA", "RGBa", "PA") or "transparency" in picture.info:
        over = (picture.convert("LA") if mode == "La" else picture).convert("RGBA")
        flat = Image.alpha_composite(Image.new("RGBA", over.size, "white"), over)
        return flat.convert("L" if mode in ("LA", "La") else "RGB")
    if mode in ("L", "RGB"):
        return picture
    return picture.convert("L" if mode == "1" else "RGB")  # palettes, CMYK, YCbCr, Lab, HSV


PORTABLE = (PictureError, open_picture, decode_picture, tags_of, is_dark, shrink_to_eight_bits, to_eight_bits)


# --- for archsmith ----------------------------------------------------------------------------------------------------


def read_some(path: Path) -> bytes:
    """The content of a file, device or pipe. Raises DataError if it is too large for a picture."""
    with open(path, "rb") as file:
        content = file.read(FILE_CAP + 1)
    if len(content) > FILE_CAP:
        raise DataError(TOO_LARGE)
    return content


def read_picture(content: bytes | str | Path, size: int, channels: int | None = None) -> Bytes:
    """One picture, from its bytes or its path, as uint8 [size, size, channels]; see `decode_picture`.

    Args:
        content: the bytes of the file, or its path.
        size: pixels a side.
        channels: 1 for grey, 3 for colour; None is 1 for grey pictures and 3 for others.

    Raises DataError that says why it cannot be read.
    """
    if isinstance(content, str | Path):
        path = Path(content)
        try:
            content = read_some(path)
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    try:
        pixels = open_picture(content).size
        with _one_large_picture if pixels[0] * pixels[1] > LARGE else nullcontext():
            return decode_picture(content, size, size, channels)
    except PictureError as error:
        raise DataError(str(error)) from None


def looks_like_picture(head: bytes) -> bool:
    """Whether a file that begins with these bytes, 16 or more, is in a format that `open_picture` tries."""
    from PIL import Image

    Image.init()
    formats = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "JPEG2000", "AVIF")
    accepts = [Image.OPEN[name][1] for name in formats if name in Image.OPEN]
    return any(accept is not None and accept(head[:16]) for accept in accepts)


def resize_arrays(images: Bytes, size: int | None, channels: int | None) -> Bytes:
    """Images [count, height, width, channels] resized as `read_picture` does, and turned grey or into colour."""
    import numpy as np
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
