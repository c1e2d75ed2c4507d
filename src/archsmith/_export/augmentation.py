"""An augmentation policy as one plain file that needs Pillow alone, equal to `archsmith.nn.augmentation` to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from archsmith import __version__
from archsmith._describe import Thing, find
from archsmith._export.cell import MARK, place_file
from archsmith._export.source import one_line
from archsmith._search import Run
from archsmith.core.errors import UsageError
from archsmith.core.genotype import canonical_json
from archsmith.core.space import decode
from archsmith.discovered import NETWORKS, Discovered
from archsmith.nn.augmentation.geometry import flip_and_move
from archsmith.nn.augmentation.operations import fill_of, operate
from archsmith.nn.augmentation.policy import KIND, LEVELS, OPERATIONS, canonical, check_architecture, joined, magnitude
from archsmith.spaces import Augmentation

JOINED = 5  # the paper joins the five best policies

_FILE = '''\
"""{title}

{about}

    augment = Augment()
    image = augment(image)         # a Pillow image of mode L or RGB
    image = augment(image, other)  # with another image of the same size, which SamplePairing mixes in

It draws from Python's `random`, which PyTorch's DataLoader seeds in each worker. Needs Pillow alone.
"""

import math
import random

from PIL import Image, ImageEnhance, ImageOps

FLIP = {flip}  # whether images are mirrored at random
PAD = {pad}  # how far they are moved at random, as a part of their sides
CUTOUT = {cutout}  # the side of the square that is cut out at the end, as a part of the image's smaller side
FILL = {fill}  # the colour of what is uncovered or cut out, and of grey images
RANGES = {{  # the magnitudes of levels 0 and {last}; translations and cutouts in pixels of an image of 331
{ranges}
}}
POLICY = (  # for each image one line is drawn; each operation is applied with its chance, at its level
{policy}
)


class Augment:
    """Flips and crops, one of the sub-policies, a cutout."""

    def __call__(self, image, other=None):
        """A new image of the same size and mode."""
        if image.mode not in ("L", "RGB"):
            raise ValueError(f"the image must be of mode L or RGB, got {{image.mode}}")
        width, height = image.size
        if FLIP or PAD:
            right, down = (random.randint(-most, most) for most in (round(PAD * width), round(PAD * height)))
            image = flip_and_move(image, FLIP and random.random() < 0.5, right, down)
        start = image
        for name, chance, level in random.choice(POLICY) if POLICY else ():
            if random.random() < chance:
                centre = random.randrange(width), random.randrange(height)
                image = apply(image, name, drawn(name, level, width, height), centre, other or start)
        side = round(CUTOUT * min(width, height))
        return cut_out(image, side, (random.randrange(width), random.randrange(height))) if side else image


def drawn(name, level, width, height):
    """The magnitude of an operation on an image of that size; of some the sign is drawn."""
    value = magnitude(name, level, width, height)
    return -value if name.startswith(("Shear", "Translate", "Rotate")) and random.random() < 0.5 else value


def magnitude(name, level, width, height):
    """The magnitude of a level; None for operations without."""
    if name not in RANGES:
        return None
    first, last = RANGES[name]
    value = first + (last - first) * level / {last}
    if name in ("TranslateX", "TranslateY", "Cutout"):
        return math.floor(value * {{"TranslateX": width, "TranslateY": height}}.get(name, min(width, height)) / 331)
    return round(value) if name == "Posterize" else value


def apply(image, name, m, centre, other):
    """The image after one operation of magnitude m."""
    if name == "ShearX":
        return affine(image, 1, m, 0, 0, 1, 0)
    if name == "ShearY":
        return affine(image, 1, 0, 0, m, 1, 0)
    if name == "TranslateX":
        return affine(image, 1, 0, m, 0, 1, 0)
    if name == "TranslateY":
        return affine(image, 1, 0, 0, 0, 1, m)
    if name == "Rotate":
        return image.rotate(m, fillcolor=fill(image))
    if name == "AutoContrast":
        return ImageOps.autocontrast(image)
    if name == "Invert":
        return ImageOps.invert(image)
    if name == "Equalize":
        return ImageOps.equalize(image)
    if name == "Solarize":
        return ImageOps.solarize(image, m)
    if name == "Posterize":
        return ImageOps.posterize(image, m)
    if name == "Cutout":
        return cut_out(image, m, centre)
    if name == "SamplePairing":
        return Image.blend(image, other, m)
    return getattr(ImageEnhance, name)(image).enhance(m)


def fill(image):
    return FILL[0] if image.mode == "RGB" else FILL[1]


def affine(image, *matrix):
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST, fillcolor=fill(image))


def flip_and_move(image, mirrored, right, down):
    """The image, mirrored or not, and the window of it that begins so many pixels off."""
    return affine(ImageOps.mirror(image) if mirrored else image, 1, 0, right, 0, 1, down)


def cut_out(image, side, centre):
    """The image with a square painted over, as much of it as lies inside."""
    left, top = (at - side // 2 for at in centre)
    box = max(left, 0), max(top, 0), min(left + side, image.width), min(top + side, image.height)
    image = image.copy()
    if box[0] < box[2] and box[1] < box[3]:
        image.paste(fill(image), box)
    return image
'''


def is_augmentation(architecture: Any) -> bool:
    """Whether an architecture is an augmentation."""
    return isinstance(architecture, dict) and architecture.get("kind") == KIND


def best_joined(run: Run, most: int = JOINED) -> tuple[dict[str, Any], list[int]]:
    """The sub-policies of a run's best policies as one policy, as the paper joins them, and the numbers of their trials.

    Policies that are the same count once. Raises UsageError where no trial was trained to its end.
    """
    best = run.different(
        most,
        lambda trial: canonical_json(canonical(decode(run.space, trial.genotype))),
        "there is nothing to export",
    )
    return joined([decode(run.space, trial.genotype) for trial in best]), [trial.number for trial in best]


def write_augmentation(thing: Run | Thing, path: Path | None, *, force: bool = False) -> Path:
    """Write the policy of a run, its five best joined, or a policy, as a file; run it, compare it, and give its path.

    A path that does not end with .py is a folder, and the file in it is called augmentation.py. An earlier export there is
    replaced. Raises UsageError when there is no policy, or the place is taken.
    """
    title = "An augmentation policy, with Pillow."
    if isinstance(thing, Run):
        assert isinstance(thing.space, Augmentation)
        architecture, numbers = best_joined(thing)
        trials = (
            f"trial {numbers[0]}" if len(numbers) == 1 else f"trials {', '.join(map(str, numbers))}, the best, joined"
        )
        title = f"The augmentation policy of the search {one_line(thing.name)!r}, with Pillow: {trials}."
        path = path or Path(f"{thing.name}-source")
    else:
        if isinstance(thing, str) and thing in NETWORKS:
            thing = NETWORKS[thing]()
        what = find(thing)
        architecture = what.architecture
        if not is_augmentation(architecture):
            raise UsageError(f"{what.name} is no augmentation")
        if isinstance(thing, Discovered):
            title = f"{thing.summary}, with Pillow."
        path = path or Path(f"{thing.name if isinstance(thing, Discovered) else 'augmentation'}.py")
    text = augmentation_file(architecture, title)
    _check(architecture, text)
    path = path if path.suffix == ".py" else path / "augmentation.py"
    place_file(text, path, force=force)
    return path


def augmentation_file(architecture: dict[str, Any], title: str) -> str:
    """The text of the file."""
    check_architecture(architecture)
    lines, used = [], set()
    for sub_policy in architecture["sub_policies"]:
        entries = [(e["operation"], float(e["probability"]), e.get("magnitude", 0)) for e in sub_policy]
        used |= {name for name, _, _ in entries}
        lines.append(
            f"    ({''.join(f'({name!r}, {chance:g}, {level}), ' for name, chance, level in entries).rstrip()}),"
        )
    ranges = []
    for name in OPERATIONS:
        if name in used and OPERATIONS[name].first is not None:
            ends = (_end(name, level, architecture["reading"]) for level in (0, LEVELS - 1))
            ranges.append(f'    "{name}": ({", ".join(f"{end:g}" for end in ends)}),')
    count = len(lines)
    colour = tuple(architecture["fill"])
    luma = int(fill_of(colour, torch.zeros(1, 1, 1, 1))[0])
    return _FILE.format(
        title=title,
        about=f"{MARK}{__version__}. {count} sub-polic{'y' if count == 1 else 'ies'} (Cubuk et al. 2019, AutoAugment).",
        flip=architecture["flip"],
        pad=float(architecture["pad"]),
        cutout=float(architecture["cutout"]),
        fill=(colour, luma),
        last=LEVELS - 1,
        ranges="\n".join(ranges),
        policy="\n".join(lines).replace("'", '"'),
    )


def _end(name: str, level: int, reading: str) -> float:
    return magnitude(name, level, 331, 331, reading)


# --- before it takes its place ----------------------------------------------------------------------------------------


def _check(architecture: dict[str, Any], text: str) -> None:
    """Raise UsageError unless every operation of the file gives our bytes, at each level that it is used with."""
    scope: dict[str, Any] = {"__name__": "written"}
    exec(compile(text, "augmentation.py", "exec"), scope)
    used = {(e["operation"], e.get("magnitude", 0)) for s in architecture["sub_policies"] for e in s}
    draws = torch.Generator().manual_seed(0)
    colour = tuple(architecture["fill"])
    for channels, height, width in ((3, 32, 32), (1, 28, 31)):
        batch = torch.randint(0, 256, (2, channels, height, width), generator=draws, dtype=torch.uint8)
        image, other = (_picture(one) for one in batch)
        pairs = []
        for name, level in sorted(used):
            ours = magnitude(name, level, height, width, architecture["reading"])
            theirs = scope["magnitude"](name, level, width, height)
            for sign in (1, -1) if OPERATIONS[name].signed else (1,):
                m = None if theirs is None else sign * theirs
                written = scope["apply"](image, name, m, (3, 20), other)
                centre = torch.tensor([[20, 3], [20, 3]])
                pairs.append((written, operate(batch, name, sign * ours, fill=colour, centre=centre)[0]))
        moves = torch.tensor([2]), torch.tensor([-3])
        for mirrored in (True, False):
            own = flip_and_move(batch[:1], torch.tensor([mirrored]), *moves, fill_of(colour, batch))
            pairs.append((scope["flip_and_move"](image, mirrored, -3, 2), own[0]))
        if any(not np.array_equal(np.array(written), np.array(_picture(own))) for written, own in pairs):
            raise UsageError(
                "the written file does not repeat the policy's bytes; this is a fault of archsmith's, or of this version "
                "of Pillow: please report it with the policy"
            )
        if scope["Augment"]()(image, other).size != image.size:
            raise UsageError("the written file changes the size of images; this is a fault of archsmith's")


def _picture(image: torch.Tensor) -> Image.Image:
    pixels = image[0] if len(image) == 1 else image.permute(1, 2, 0)
    return Image.fromarray(pixels.contiguous().numpy())
