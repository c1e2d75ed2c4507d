"""Small pictures of every kind of transparency and depth, as the bytes of files, each with what it should be read as."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image, ImageCms

Row = list[list[int]]


def packed(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def png(depth: int, kind: int, row: bytes, trns: bytes | None = None, palette: bytes | None = None) -> bytes:
    """A PNG of 4 x 4 pixels, all rows alike, written by hand: Pillow does not write every kind."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, depth, kind, 0, 0, 0))
        + (chunk(b"PLTE", palette) if palette else b"")
        + (chunk(b"tRNS", trns) if trns else b"")
        + chunk(b"IDAT", zlib.compress((b"\0" + row) * 4))
        + chunk(b"IEND", b"")
    )


def words(*numbers: int) -> bytes:
    return struct.pack(f">{len(numbers)}H", *numbers)


def tiff_of_twelve_bits(*levels: int) -> bytes:
    bits = "".join(f"{level:012b}" for level in levels) * 4
    data = bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))
    tags = ((256, 4), (257, 4), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1), (278, 4), (279, len(data)))
    entries = b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in tags)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries + b"\0" * 4


def _key(mode: str, form: str, hidden: Any, shown: Any, **options: Any) -> bytes:
    image = Image.new(mode, (4, 4), hidden)
    image.paste(shown, (1, 0, 2, 4))
    if mode == "P":
        image.putpalette([9, 9, 9, 10, 20, 30])
    return packed(image, form, **options)


def _turned(form: str, orientation: int) -> bytes:
    image = Image.new("RGB", (4, 4), (0, 0, 0))
    image.paste((255, 0, 0), (0, 0, 4, 1))
    image.paste((0, 0, 255), (0, 0, 1, 4))
    exif = Image.Exif()
    exif[0x0112] = orientation
    return packed(image, form, exif=exif, **({"lossless": True} if form == "WEBP" else {}))


_LEVELS = np.array([[0, 257, 32768, 65535]] * 4, np.uint16)
_SRGB, _LAB = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
_IN_LAB = ImageCms.applyTransform(
    Image.new("RGB", (4, 4), (200, 30, 40)), ImageCms.buildTransform(_SRGB, _LAB, "RGB", "LAB")
)
_W, _WHITE, _BLUE = [255], [255, 255, 255], [0, 0, 255]

TRANSPARENT: dict[str, tuple[bytes, Row]] = {
    "key-1-bit-black": (png(1, 0, b"\x40", words(0)), [_W, _W, _W, _W]),
    "key-1-bit-white": (png(1, 0, b"\x40", words(1)), [[0], _W, [0], [0]]),
    "key-2-bit": (png(2, 0, b"\x1b", words(1)), [[0], _W, [170], _W]),
    "key-4-bit": (png(4, 0, b"\x05\xaf", words(5)), [[0], _W, [170], _W]),
    "key-8-bit": (png(8, 0, bytes([0, 5, 100, 255]), words(5)), [[0], _W, [100], _W]),
    "key-16-bit": (png(16, 0, words(0, 257, 32768, 65535), words(257)), [[0], _W, [128], _W]),
    "key-rgb": (
        png(8, 2, bytes([1, 2, 3, 4, 5, 6, 1, 2, 4, 0, 0, 0]), words(1, 2, 3)),
        [_WHITE, [4, 5, 6], [1, 2, 4], [0, 0, 0]],
    ),
    "key-rgb-16-bit": (
        png(16, 2, words(0, 9000, 0, 65535, 5, 6, 0, 0, 0, 0, 0, 65535), words(0, 9000, 0)),
        [_WHITE, [255, 0, 0], [0, 0, 0], _BLUE],
    ),
    "palette-index": (
        png(8, 3, bytes([0, 1, 2, 3]), bytes([255, 0]), bytes(range(12))),
        [[0, 1, 2], _WHITE, [6, 7, 8], [9, 10, 11]],
    ),
    "palette-bytes": (
        png(8, 3, bytes([0, 1, 2, 3]), bytes([255, 128, 0]), bytes(range(12))),
        [[0, 1, 2], [129, 129, 130], _WHITE, [9, 10, 11]],
    ),
    "palette-4-bit": (
        png(4, 3, b"\x01\x23", bytes([255, 0]), bytes(range(12))),
        [[0, 1, 2], _WHITE, [6, 7, 8], [9, 10, 11]],
    ),
    "la-16-bit": (
        png(16, 4, words(0, 65535, 0, 0, 65535, 65535, 0, 65535)),
        [[0, 0, 0], _WHITE, _WHITE, [0, 0, 0]],
    ),
    "rgba-16-bit": (
        png(16, 6, words(0, 0, 0, 65535, 0, 0, 0, 0, 65535, 0, 0, 65535, 0, 0, 65535, 65535)),
        [[0, 0, 0], _WHITE, [255, 0, 0], _BLUE],
    ),
    "rgba.png": (_key("RGBA", "PNG", (255, 0, 0, 0), (0, 0, 255, 255)), [_WHITE, _BLUE, _WHITE, _WHITE]),
    "rgba.tiff": (_key("RGBA", "TIFF", (255, 0, 0, 0), (0, 0, 255, 255)), [_WHITE, _BLUE, _WHITE, _WHITE]),
    "rgba.webp": (
        _key("RGBA", "WEBP", (255, 0, 0, 0), (0, 0, 255, 255), lossless=True, exact=True),
        [_WHITE, _BLUE, _WHITE, _WHITE],
    ),
    "rgba.jp2": (_key("RGBA", "JPEG2000", (255, 0, 0, 0), (0, 0, 255, 255)), [_WHITE, _BLUE, _WHITE, _WHITE]),
    "la.png": (_key("LA", "PNG", (0, 0), (7, 255)), [_W, [7], _W, _W]),
    "la.tiff": (_key("LA", "TIFF", (0, 0), (7, 255)), [_W, [7], _W, _W]),
    "p.gif": (_key("P", "GIF", 1, 0, transparency=1), [_WHITE, [9, 9, 9], _WHITE, _WHITE]),
    "l.gif": (_key("L", "GIF", 100, 7, transparency=100), [_WHITE, [7, 7, 7], _WHITE, _WHITE]),
}
"""Files with transparency, and the first row of what they should be read as. Grey ones in a format that gives colours
may be read as colours."""

DEEP: dict[str, tuple[bytes, Row]] = {
    "16-bit.png": (packed(Image.fromarray(_LEVELS)), [[0], [1], [128], _W]),
    "16-bit.tiff": (packed(Image.fromarray(_LEVELS), "TIFF"), [[0], [1], [128], _W]),
    "16-bit-white-is-zero.tiff": (
        packed(Image.fromarray(_LEVELS), "TIFF", tiffinfo={262: 0}),
        [_W, [254], [127], [0]],
    ),
    "32-bit.tiff": (packed(Image.fromarray(_LEVELS.astype(np.int32)), "TIFF"), [[0], [1], [128], _W]),
    "12-bit.tiff": (tiff_of_twelve_bits(0, 2048, 16, 4095), [[0], [128], [1], _W]),
    "10-bit.pgm": (b"P5 4 4 1023\n" + words(0, 4, 512, 1023) * 4, [[0], [1], [128], _W]),
    "1-bit.png": (packed(Image.fromarray(_LEVELS > 0)), [[0], _W, _W, _W]),
    "lab.tiff": (packed(_IN_LAB, "TIFF"), [[200, 28, 39]] * 4),
    "cmyk.tiff": (packed(Image.new("RGB", (4, 4), (200, 30, 40)).convert("CMYK"), "TIFF"), [[200, 30, 40]] * 4),
    "cmyk.jpg": (packed(Image.new("RGB", (4, 4), (200, 30, 40)).convert("CMYK"), "JPEG"), [[200, 30, 40]] * 4),
    "ycbcr.tiff": (packed(Image.new("RGB", (4, 4), (200, 30, 40)).convert("YCbCr"), "TIFF"), [[198, 29, 38]] * 4),
}
"""Files of every depth and colour space, likewise."""

TURNED = {f"{o}.{form.lower()}": _turned(form, o) for o in range(1, 9) for form in ("PNG", "TIFF", "WEBP", "JPEG")}
"""Files that their EXIF orientation says to turn."""
