"""Example images before and after an augmentation: two photographs that come with scikit-learn, not the run's own data.

A page is made to be passed on, and its reader may not be meant to see the data; the store has no images either.
"""

from __future__ import annotations

import base64
import functools
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from archsmith._page.html import Html, escape, table, tag
from archsmith.nn.augmentation.policy import said

if TYPE_CHECKING:
    from torch import Tensor

SIDE = 64  # pixels of an example
SHOWN = 6  # times that a sub-policy is applied
MOST = 25  # sub-policies
GAP = 4


def augmented(architecture: Mapping[str, Any]) -> Html:
    """A table: each sub-policy in words, and a strip of an image as it came and as it comes out, drawn again and again."""
    rows = []
    sub_policies = architecture["sub_policies"]
    for i, sub_policy in enumerate(sub_policies[:MOST]):
        words = said(sub_policy)
        rows.append((words, _strip(_examples({**architecture, "sub_policies": [sub_policy]}, i), words)))
    if not rows:
        rows.append(("no policy", _strip(_examples(architecture, 0), "no policy")))
    more = f" The first {MOST} of {len(sub_policies)} sub-policies." if len(sub_policies) > MOST else ""
    note = (
        "At the left an image as it comes, then drawn again and again what the network learns from: "
        f"{_around(architecture)}In words: operation at magnitude (chance).{more}"
    )
    head = ("one of these, drawn for each image", "before, and after")
    return tag("div", table(head, rows, left=2, cls="augmented"), tag("p", note, cls="quiet"))


def _around(architecture: Mapping[str, Any]) -> str:
    usual = [word for word, there in (("flips", architecture["flip"]), ("crops", architecture["pad"])) if there]
    first = f"{' and '.join(usual)}, then the sub-policy" if usual else "the sub-policy"
    return f"{first}, then a cutout. " if architecture["cutout"] else f"{first}. "


def _examples(architecture: Mapping[str, Any], index: int) -> Tensor:
    """One photograph as it is and `SHOWN` times augmented, uint8 [1 + SHOWN, 3, SIDE, SIDE]; the same for the same policy."""
    import torch

    from archsmith.nn.augmentation.module import AugmentationPolicy

    pair = photographs()
    image, other = pair[index % 2], pair[1 - index % 2]
    # The other photograph stands at the end, so that there is something to pair with.
    batch = torch.stack([image] * SHOWN + [other] * SHOWN)
    draws = torch.Generator().manual_seed(index)
    return torch.cat([image[None], AugmentationPolicy(architecture)(batch, draws)[:SHOWN]])


@functools.cache
def photographs() -> Tensor:
    """scikit-learn's two photographs (china.jpg, flower.jpg), their middles, uint8 [2, 3, SIDE, SIDE]."""
    import numpy as np
    import torch
    from PIL import Image, ImageOps
    from sklearn.datasets import load_sample_image

    fitted = [
        ImageOps.fit(Image.fromarray(load_sample_image(f"{name}.jpg")), (SIDE, SIDE)) for name in ("china", "flower")
    ]
    return torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in fitted])


def _strip(images: Tensor, words: str) -> Html:
    """The images beside each other as one PNG, the first a little apart, inside the page."""
    import torch
    from PIL import Image

    count = len(images)
    width = count * SIDE + count * GAP
    strip = torch.zeros(SIDE, width, 4, dtype=torch.uint8)
    for k, image in enumerate(images):
        left = k * (SIDE + GAP) + (GAP if k else 0)
        strip[:, left : left + SIDE, :3] = image.permute(1, 2, 0)
        strip[:, left : left + SIDE, 3] = 255
    file = io.BytesIO()
    Image.fromarray(strip.numpy()).save(file, "png", optimize=True)
    data = base64.b64encode(file.getvalue()).decode("ascii")
    alt = escape(f"A photograph before and after: {words}")
    return Html(f'<img src="data:image/png;base64,{data}" width="{width}" height="{SIDE}" alt="{alt}">')
