"""Small pictures inside a page, as `data:` addresses: the page loads nothing."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import numpy.typing as npt

from archsmith._page.html import Html, Piece, escape, tag

SIDE = 112  # pixels of the longer side
MOST_CHARACTERS = 60_000

_JPEG = re.compile(r"data:image/jpeg;base64,[A-Za-z0-9+/]+={0,2}")


def data_address(pixels: npt.NDArray[np.uint8]) -> str:
    """A picture [height, width, channels] as a JPEG of at most 112 pixels a side, in a `data:` address.

    Pictures of one channel are grey; of more than three, the first three are shown, and of two the first. Small pictures are
    enlarged by a whole factor, so that their pixels stay sharp.
    """
    from PIL import Image

    channels = pixels.shape[2]
    picture = Image.fromarray(np.ascontiguousarray(pixels[..., :3] if channels >= 3 else pixels[..., 0]))
    factor = SIDE // max(picture.size)
    if factor > 1:
        picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    picture.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def shown(address: str, description: str) -> Html:
    """The picture of a `data:` address as an element; a frame with the description where it is no such address."""
    if len(address) > MOST_CHARACTERS or not _JPEG.fullmatch(address):
        return tag("span", description, cls="picture")
    return Html(f'<img class="picture" src="{address}" alt="{escape(description)}">')


def card(address: str, description: str, *caption: Piece) -> Html:
    """A picture with what is said of it below."""
    return tag("figure", shown(address, description), tag("figcaption", *caption), cls="card")
