"""The source text of the picture decoding that training uses, for exports that run without archsmith."""

from __future__ import annotations

import inspect

from archsmith._export.image_model import ImageModel
from archsmith._export.source import one_line
from archsmith.data.picture_decoding import PORTABLE

FILE = "read_image.py"

TYPES = """\
if TYPE_CHECKING:
    import numpy as np
    from PIL import Image
"""

_TEMPLATE = '''\
"""Reads a picture as {name} was trained to see it. Written by archsmith. Needs Pillow and numpy.

    from read_image import read_image
    (logits,) = session.run(["logits"], {{"images": read_image("picture.jpg")}})
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

{types}
CHANNELS, HEIGHT, WIDTH = {shape}


def read_image(path) -> np.ndarray:
    """A picture of any size and mode as pixels [1, CHANNELS, HEIGHT, WIDTH] from 0 to 1, float32."""
    import numpy as np

    pixels = decode_picture(Path(path).read_bytes(), WIDTH, HEIGHT, CHANNELS)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], np.float32) / np.float32(255.0)


{decoding}
'''


def decoding_source() -> str:
    """The functions that decode a picture, as Python source."""
    return "\n\n".join(inspect.getsource(part) for part in PORTABLE).rstrip()


def reads_pictures(model: ImageModel) -> bool:
    """Whether the model takes grey or colour pictures."""
    return len(model.task.input_shape) == 3 and model.task.input_shape[0] in (1, 3)


def read_image_file(model: ImageModel) -> str:
    """The text of `read_image.py`, which goes with a model in a format that is not a program."""
    return _TEMPLATE.format(
        name=one_line(model.name), types=TYPES, shape=tuple(model.task.input_shape), decoding=decoding_source()
    )
