"""Random resized crops, flips and colours of whole batches: against Pillow one by one, grid_sample, and kornia if it is installed.

    OMP_NUM_THREADS=1 python benchmarks/augmentation_speed.py [--threads 1] [--out FILE]

All begin with bytes [count, 3, source, source] in memory and end with floats [count, 3, size, size]. All draw areas of 0.35 to 1,
aspects of 3/4 to 4/3, flips, and factors of 0.7 to 1.3 for brightness, contrast and saturation, each image its own. Pillow's way is
the loop of a data set's `transform`. The way by hand is the short code that a person writes with `affine_grid` and `grid_sample`.
Times are medians in turns within one process, of the calling thread's processor time where there is one thread, so that
neighbours on the machine count for little, and by the clock where there are two.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from machine import machine, tell
from PIL import Image, ImageEnhance, __version__
from torch import Tensor
from torch.nn import functional as F

from archsmith.nn.batch_augmentation import colour_jitter, resized_crops, trivial_augment

AREA, STRENGTH, ROUNDS = 0.35, 0.3, 15
CASES = ((64, 96, 64), (64, 128, 96), (64, 256, 96), (128, 32, 32))  # pictures, source side, side of the crops


def pictures(count: int, side: int) -> Tensor:
    """Smooth noise."""
    coarse = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(0)).mul_(255)
    return F.interpolate(coarse, (side, side), mode="bilinear").to(torch.uint8)


def whole_batch(images: Tensor, size: int, generator: torch.Generator) -> Tensor:
    crops = resized_crops(images, size, area=AREA, flip=True, generator=generator)
    return colour_jitter(crops, STRENGTH, generator=generator)


def by_pillow(images: Tensor, size: int) -> Tensor:
    def change(image: Image.Image) -> Image.Image:
        side = image.width
        area, aspect = random.uniform(AREA, 1), math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
        width, height = min(1, math.sqrt(area * aspect)) * side, min(1, math.sqrt(area / aspect)) * side
        left, top = random.uniform(0, side - width), random.uniform(0, side - height)
        image = image.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, left + width, top + height))
        if random.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        for enhancer in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
            image = enhancer(image).enhance(random.uniform(1 - STRENGTH, 1 + STRENGTH))
        return image

    arrays = images.permute(0, 2, 3, 1).contiguous().numpy()
    out = [torch.from_numpy(np.array(change(Image.fromarray(array)))) for array in arrays]
    return torch.stack(out).permute(0, 3, 1, 2).float().div_(255)


def by_hand(images: Tensor, size: int) -> Tensor:
    count = len(images)
    area = torch.empty(count).uniform_(AREA, 1)
    aspect = torch.empty(count).uniform_(math.log(3 / 4), math.log(4 / 3)).exp()
    width, height = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = width * torch.where(torch.rand(count) < 0.5, -1.0, 1.0), height
    theta[:, 0, 2] = (torch.rand(count) * 2 - 1) * (1 - width)
    theta[:, 1, 2] = (torch.rand(count) * 2 - 1) * (1 - height)
    grid = F.affine_grid(theta, [count, 3, size, size], align_corners=False)
    x = F.grid_sample(images.float() / 255, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    brightness, contrast, saturation = (
        torch.empty(count, 1, 1, 1).uniform_(1 - STRENGTH, 1 + STRENGTH) for _ in range(3)
    )
    x = x * brightness
    mean = x.mean((1, 2, 3), keepdim=True)
    x = (x - mean) * contrast + mean
    grey = x.mean(1, keepdim=True)
    return ((x - grey) * saturation + grey).clamp(0, 1)


def by_kornia(size: int) -> Callable[[Tensor], Tensor] | None:
    """None where kornia is not installed."""
    if importlib.util.find_spec("kornia") is None:
        return None
    import kornia.augmentation as kornia

    factors = (1 - STRENGTH, 1 + STRENGTH)
    change = torch.nn.Sequential(
        kornia.RandomResizedCrop((size, size), scale=(AREA, 1.0)),
        kornia.RandomHorizontalFlip(),
        kornia.ColorJiggle(brightness=factors, contrast=factors, saturation=factors, p=1.0),
    )
    return lambda images: change(images.float() / 255)


def medians(ways: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Milliseconds of each, in turns."""
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            start = clock()
            way()
            times[name].append(1000 * (clock() - start))
    return {name: statistics.median(values[2:]) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    has_kornia = importlib.util.find_spec("kornia") is not None
    if has_kornia:
        import kornia

        versions = f"Pillow {__version__}, kornia {kornia.__version__}"
    else:
        versions = f"Pillow {__version__}, no kornia"
    lines = [f"{machine()}, {versions}", ""]
    lines += [
        "| pictures | threads | archsmith, ms | Pillow | grid_sample by hand | kornia | pictures a second |",
        "|---|---|---|---|---|---|---|",
    ]
    for threads in given.threads:
        torch.set_num_threads(threads)
        for count, source, size in CASES:
            images = pictures(count, source)
            ways: dict[str, Callable[[], object]] = {
                "ours": lambda images=images, size=size: whole_batch(images, size, generator),  # type: ignore[misc]
                "Pillow": lambda images=images, size=size: by_pillow(images, size),  # type: ignore[misc]
                "hand": lambda images=images, size=size: by_hand(images, size),  # type: ignore[misc]
            }
            if (kornia_way := by_kornia(size)) is not None:
                ways["kornia"] = lambda images=images, way=kornia_way: way(images)  # type: ignore[misc]
            of = medians(ways)
            others = [
                f"{of[name]:.2f} ({of[name] / of['ours']:.1f}×)" if name in of else ""
                for name in ("Pillow", "hand", "kornia")
            ]
            lines.append(
                f"| {count} of {source}², crops of {size}² | {threads} | {of['ours']:.2f} | {' | '.join(others)} "
                f"| {1000 * count / of['ours']:,.0f} |"
            )
    lines += ["", "TrivialAugment of bytes, 64 pictures of 96²:", ""]
    torch.set_num_threads(1)
    images = pictures(64, 96)
    of = medians({"trivial": lambda: trivial_augment(images, generator=generator)})
    lines.append(f"{of['trivial']:.2f} ms, {64000 / of['trivial']:,.0f} pictures a second with one thread.")
    tell("\n".join(lines) + "\n", given.out)


if __name__ == "__main__":
    main()
