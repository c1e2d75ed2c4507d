"""Augmentation policies on whole batches against Pillow image by image: the same policies, batch 256 of 3x32x32.

    OMP_NUM_THREADS=1 python benchmarks/augmentation.py

Both begin with bytes [256, 3, 32, 32] and end with them. Pillow's way is the loop that a data set's `transform` runs: an image
from the array, the operations, an array from the image, and the batch stacked. Ratios are of the median times of one process,
taken in turns; in processor time of the calling thread where there is one thread, so that neighbours on the machine count for
nothing, and by the clock where there are two.
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from archsmith.discovered import autoaugment
from archsmith.nn.augmentation.module import AugmentationPolicy
from archsmith.nn.augmentation.operations import operate
from archsmith.nn.augmentation.policy import OPERATIONS, architecture_of, magnitude

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from test_augmentation import WITH_PILLOW, by_pillow

COUNT, SIDE, ROUNDS = 256, 32, 25


def batch_of_pictures() -> torch.Tensor:
    """Smooth noise, whose histograms are like those of pictures."""
    coarse = torch.rand(COUNT, 3, 8, 8, generator=torch.Generator().manual_seed(0)).mul_(255)
    return torch.nn.functional.interpolate(coarse, (SIDE, SIDE), mode="bilinear").to(torch.uint8)


def image_by_image(batch: torch.Tensor, change: Callable[[Image.Image], Image.Image]) -> torch.Tensor:
    arrays = batch.permute(0, 2, 3, 1).contiguous().numpy()
    out = [torch.from_numpy(np.array(change(Image.fromarray(array)))) for array in arrays]
    return torch.stack(out).permute(0, 3, 1, 2)


def policy_by_pillow(policy: AugmentationPolicy) -> Callable[[Image.Image], Image.Image]:
    amounts = {
        (name, level): magnitude(name, level, SIDE, SIDE) for name in OPERATIONS for level in range(10)
    }  # made once
    sub_policies = [
        [(e["operation"], e["probability"], e.get("magnitude", 0)) for e in sub_policy]
        for sub_policy in policy.architecture["sub_policies"]
    ]

    def change(image: Image.Image) -> Image.Image:
        for name, chance, level in random.choice(sub_policies):
            if random.random() < chance:
                amount = amounts[name, level]
                sign = -1 if OPERATIONS[name].signed and random.random() < 0.5 else 1
                image = by_pillow(image, name, sign * amount)
        return image

    return change


def compare(
    ours: Callable[[], object], theirs: Callable[[], object], clock: Callable[[], float]
) -> tuple[float, float]:
    """Median milliseconds of each, in turns."""
    taken: tuple[list[float], list[float]] = ([], [])
    for turn in range(ROUNDS + 3):
        for work, times in zip((ours, theirs), taken, strict=True):
            began = clock()
            work()
            if turn >= 3:
                times.append(1000 * (clock() - began))
    return statistics.median(taken[0]), statistics.median(taken[1])


def policies(threads: int, clock: Callable[[], float], batch: torch.Tensor) -> None:
    torch.set_num_threads(threads)
    for name in ("cifar10", "svhn", "imagenet"):
        policy = autoaugment(name)
        change = policy_by_pillow(policy)
        ours, theirs = compare(lambda p=policy: p(batch), lambda c=change: image_by_image(batch, c), clock)
        print(f"| policy {name} | {threads} | {ours:.2f} | {theirs:.2f} | {theirs / ours:.1f} |", flush=True)


def main() -> None:
    batch = batch_of_pictures()
    print(f"torch {torch.__version__}, Pillow {Image.__version__}, batch {COUNT} of 3x{SIDE}x{SIDE}\n")
    print("| what | threads | whole batch, ms | image by image, ms | ratio |\n|---|---|---|---|---|")
    policies(1, time.thread_time, batch)
    torch.set_num_threads(1)
    for name in WITH_PILLOW:
        if name == "SamplePairing":
            continue
        m = magnitude(name, 7, SIDE, SIDE)
        ours, theirs = compare(
            lambda n=name, m=m: operate(batch, n, m),
            lambda n=name, m=m: image_by_image(batch, lambda image: by_pillow(image, n, m)),
            time.thread_time,
        )
        print(f"| {name} on every image | 1 | {ours:.2f} | {theirs:.2f} | {theirs / ours:.1f} |", flush=True)
    around = AugmentationPolicy(architecture_of([], flip=True, pad=0.125, cutout=0.5))
    ours, _ = compare(lambda: around(batch), lambda: None, time.thread_time)
    print(f"| flips, crops and a cutout | 1 | {ours:.2f} | | |", flush=True)
    policies(2, time.perf_counter, batch)


if __name__ == "__main__":
    main()
