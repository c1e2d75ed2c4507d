"""What a competent person would do without archsmith: a narrow ResNet-18 in plain PyTorch, trained for so many minutes.

    python benchmarks/by_hand.py FOLDER --minutes 10         FOLDER/train/CLASS/*.jpg and FOLDER/test/CLASS/*.jpg

The minutes include everything from the first import to the predictions for the test set. Pictures are decoded once and
stay in memory. Prints one line of JSON: the test accuracy, what it did, and for each test picture (in the order of the
sorted classes, and in them of the sorted files) whether the answer is correct and how confident it is.

What a person knows about the data is given as options: whether mirrored pictures are the same (not for letters), and how
pictures vary: `crop` (parts of a photograph at any scale), `shift` (by a few pixels), or `affine` (turned, scaled and
shifted a little).
"""

# ruff: noqa: E402
from __future__ import annotations

import time

BEGAN = time.monotonic()

import argparse
import copy
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

WIDTHS = (40, 32, 24, 16)  # filters of the first stage: the largest that sees all pictures often enough is taken
EPOCHS = 12  # often enough
BATCH, LARGE_BATCH, LARGE_SET = 64, 128, 10_000  # large batches for large sets
LEARNING_RATE, WARMUP, WEIGHT_DECAY, SMOOTHING, AVERAGE = 0.1, 0.15, 5e-4, 0.1, 0.998
EVALUATION_BATCH = 128


# --- data -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pictures:
    """Pictures in memory: uint8 [n, channels, side, side], and their classes."""

    images: Tensor
    labels: Tensor


def listing(folder: Path) -> list[tuple[Path, int]]:
    """The files of a split with their classes, in the order in which results are given."""
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    return [(file, label) for label, folder in enumerate(classes) for file in sorted(folder.iterdir())]


def look_at(files: list[Path]) -> tuple[int, str]:
    """The side and the mode in which pictures are kept: up to 128 pixels, grey if all of a sample are grey."""
    sides, modes = [], set()
    for file in files[:: max(1, len(files) // 200)]:
        with Image.open(file) as picture:
            sides.append(min(picture.size))
            modes.add(picture.mode)
    return min(128, int(median(sides))), "L" if modes <= {"1", "L", "LA"} else "RGB"


def read(files: list[tuple[Path, int]], side: int, mode: str) -> Pictures:
    """Decodes the central square of each picture."""

    def decode(file: Path) -> np.ndarray:
        with Image.open(file) as opened:
            picture = opened.convert(mode)
        width, height = picture.size
        short = min(width, height)
        left, top = (width - short) // 2, (height - short) // 2
        picture = picture.crop((left, top, left + short, top + short))
        if short != side:
            picture = picture.resize((side, side), Image.Resampling.BICUBIC)
        return np.asarray(picture).reshape(side, side, -1)

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        images = np.stack(list(threads.map(decode, (file for file, _ in files))))
    labels = torch.tensor([label for _, label in files])
    return Pictures(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), labels)


# --- augmentation, a whole batch at a time ----------------------------------------------------------------------------


def uniform(n: int, low: float, high: float) -> Tensor:
    return torch.empty(n).uniform_(low, high)


def signs(n: int, mirror: bool) -> Tensor:
    return torch.where(torch.rand(n) < 0.5, -1.0, 1.0) if mirror else torch.ones(n)


def crop(images: Tensor, side: int, mirror: bool) -> Tensor:
    """Random resized crops, with other colours."""
    return jitter(resized_crops(images, side, mirror))


def resized_crops(images: Tensor, side: int, mirror: bool) -> Tensor:
    """Random resized crops: 35 to 100 % of the area, sides of 3:4 to 4:3."""
    n = len(images)
    area, ratio = uniform(n, 0.35, 1.0), uniform(n, math.log(3 / 4), math.log(4 / 3)).exp()
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    matrices = torch.zeros(n, 2, 3)
    matrices[:, 0, 0], matrices[:, 1, 1] = width * signs(n, mirror), height
    matrices[:, 0, 2], matrices[:, 1, 2] = uniform(n, -1, 1) * (1 - width), uniform(n, -1, 1) * (1 - height)
    return sample(images, matrices, side)


def affine(images: Tensor, side: int, mirror: bool) -> Tensor:
    """Turned by up to 10 degrees, scaled by up to 15 %, shifted by up to 10 %."""
    n = len(images)
    angle, scale = uniform(n, -math.pi / 18, math.pi / 18), uniform(n, 0.85, 1.15)
    cos, sin, sign = angle.cos() * scale, angle.sin() * scale, signs(n, mirror)
    shift_x, shift_y = uniform(n, -0.2, 0.2), uniform(n, -0.2, 0.2)  # coordinates go from -1 to 1
    rows = torch.stack((cos * sign, -sin, shift_x), 1), torch.stack((sin * sign, cos, shift_y), 1)
    return jitter(sample(images, torch.stack(rows, 1), side))


def sample(images: Tensor, matrices: Tensor, side: int) -> Tensor:
    grid = F.affine_grid(matrices, [len(images), images.shape[1], side, side], align_corners=False)
    return F.grid_sample(images.float() / 255, grid, padding_mode="reflection", align_corners=False)


def shift(images: Tensor, side: int, mirror: bool) -> Tensor:
    """Shifted by up to an eighth of the side; what comes in from outside repeats the edge."""
    n, channels = images.shape[:2]
    pad = max(1, side // 8)
    padded = F.pad(images.float() / 255, [pad] * 4, mode="replicate")
    span = torch.arange(side)
    rows = (torch.randint(0, 2 * pad + 1, (n, 1)) + span)[:, None, :, None]
    columns = torch.randint(0, 2 * pad + 1, (n, 1)) + span
    columns = torch.where(signs(n, mirror)[:, None] < 0, columns.flip(1), columns)[:, None, None, :]
    return padded[torch.arange(n)[:, None, None, None], torch.arange(channels)[None, :, None, None], rows, columns]


def jitter(images: Tensor) -> Tensor:
    """Brightness, contrast and, of colours, saturation, each by up to 30 %."""
    brightness, contrast, saturation = (uniform(len(images), 0.7, 1.3).view(-1, 1, 1, 1) for _ in range(3))
    images = images * brightness
    mean = images.mean((1, 2, 3), keepdim=True)
    images = (images - mean) * contrast + mean
    if images.shape[1] == 3:
        grey = images.mean(1, keepdim=True)
        images = (images - grey) * saturation + grey
    return images.clamp(0, 1)


VIEWS: dict[str, Callable[[Tensor, int, bool], Tensor]] = {"crop": crop, "shift": shift, "affine": affine}


# --- the network ------------------------------------------------------------------------------------------------------


class Block(nn.Module):
    """A basic block of a ResNet-D: the shortcut of a block with stride 2 averages before its convolution."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        nn.init.zeros_(self.norm2.weight)
        self.shortcut = nn.Sequential()
        if stride == 2:
            self.shortcut.append(nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False))
        if stride == 2 or inputs != outputs:
            self.shortcut.append(nn.Conv2d(inputs, outputs, 1, bias=False)).append(nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(inner)) + self.shortcut(x))


def resnet18(channels: int, classes: int, width: int, stem_stride: int) -> nn.Module:
    """A ResNet-18 with a first stage of `width` filters, a stem of 3 by 3, and no max-pooling."""
    layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, stem_stride, 1, bias=False), nn.BatchNorm2d(width)]
    layers.append(nn.ReLU())
    inputs = width
    for stage in range(4):
        outputs = width * 2**stage
        layers += [Block(inputs, outputs, 1 if stage == 0 else 2), Block(outputs, outputs, 1)]
        inputs = outputs
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.1), nn.Linear(inputs, classes)]
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


# --- training ---------------------------------------------------------------------------------------------------------


def seconds_per_step(model: nn.Module, batch: Tensor, bfloat16: bool) -> float:
    """Measured on a copy, so that the model stays as it was."""
    model = copy.deepcopy(model)
    labels = torch.zeros(len(batch), dtype=torch.long)
    began = 0.0
    for step in range(3):
        if step == 1:
            began = time.monotonic()
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            outputs = model(batch)
        F.cross_entropy(outputs.float(), labels).backward()  # type: ignore[no-untyped-call]
    return (time.monotonic() - began) / 2


def learning_rate(progress: float, peak: float = LEARNING_RATE, warmup: float = WARMUP, least: float = 1e-5) -> float:
    """A warm-up, then half a cosine."""
    if progress < warmup:
        return peak * progress / warmup + least
    return peak * 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup))) + least


def batches(pictures: int, size: int) -> Iterator[Tensor]:
    """The positions of random pictures, without end: all of them once, but for a last batch that would be smaller, then again."""
    while True:
        order = torch.randperm(pictures)
        yield from order[: pictures - pictures % size].split(size)  # type: ignore[no-untyped-call]


def follow(states: Iterable[tuple[Tensor, Tensor]], steps: int, most: float) -> None:
    """Moves the average of each weight towards its value after so many steps; an average of few steps is a short one."""
    decay = min(most, (2 + steps) / (11 + steps))
    with torch.no_grad():
        for average, current in states:
            average.lerp_(current, 1 - decay) if average.is_floating_point() else average.copy_(current)


class Recipe:
    """All that is decided before the training: sizes, the network's width, the precision."""

    def __init__(self, train: Pictures, classes: int, view: str | None, mirror: bool, deadline: float) -> None:
        n, channels, self.held = train.images.shape[:3]
        photographs = self.held > 64
        self.view, self.mirror = view or ("crop" if photographs else "shift"), mirror
        self.train_side = min(64, self.held)
        self.test_side = min(80, self.held) if photographs and self.view == "crop" else self.train_side
        self.batch = min(n, LARGE_BATCH if n > LARGE_SET else BATCH)
        few = train.images[:: max(1, n // 5000)].float() / 255
        self.mean = few.mean((0, 2, 3)).view(1, -1, 1, 1)
        self.std = few.std((0, 2, 3)).clamp_min(1e-3).view(1, -1, 1, 1)
        probe = self.normalise(torch.rand(self.batch, channels, self.train_side, self.train_side))
        self.bfloat16 = False
        for self.width in WIDTHS:
            self.model = resnet18(channels, classes, self.width, 1 if self.train_side <= 32 else 2)
            step = seconds_per_step(self.model, probe, self.bfloat16)
            if self.width == WIDTHS[0]:
                faster = seconds_per_step(self.model, probe, True)
                self.bfloat16, step = faster < step, min(faster, step)
            if self.batch / step * (deadline - time.monotonic()) >= EPOCHS * n:
                break

    def normalise(self, images: Tensor) -> Tensor:
        return ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)


def train(recipe: Recipe, data: Pictures, deadline: float) -> tuple[nn.Module, float]:
    """Trains until the deadline: the moving average of the weights, and how many epochs there were."""
    model, n = recipe.model, len(data.images)
    weights = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": weights, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, LEARNING_RATE, momentum=0.9, nesterov=True)
    averaged = copy.deepcopy(model).eval()
    states = list(zip(averaged.state_dict().values(), model.state_dict().values(), strict=True))
    view = VIEWS[recipe.view]
    began, steps = time.monotonic(), 0
    model.train()
    for steps, chosen in enumerate(batches(n, recipe.batch)):
        progress = (time.monotonic() - began) / max(1e-3, deadline - began)
        if progress >= 1:
            break
        if steps % 200 == 0:
            print(f"{progress:.0%}, epoch {steps * recipe.batch / n:.1f}", file=sys.stderr, flush=True)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(progress)
        images = recipe.normalise(view(data.images[chosen], recipe.train_side, recipe.mirror))
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bfloat16):
            outputs = model(images)
        loss = F.cross_entropy(outputs.float(), data.labels[chosen], label_smoothing=SMOOTHING)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        follow(states, steps, AVERAGE)
    return averaged, steps * recipe.batch / n


@torch.inference_mode()
def probabilities(recipe: Recipe, model: nn.Module, images: Tensor) -> Tensor:
    model.eval()
    answers = []
    for batch in images.split(EVALUATION_BATCH):  # type: ignore[no-untyped-call]
        pixels = batch.float() / 255
        if pixels.shape[2] != recipe.test_side:
            pixels = F.interpolate(pixels, [recipe.test_side] * 2, mode="bilinear", antialias=True)
        answers.append(model(recipe.normalise(pixels)).softmax(1))
    return torch.cat(answers)


def run(folder: Path, seconds: float, seed: int = 0, view: str | None = None, mirror: bool = True) -> dict[str, object]:
    """Reads, trains and tests within so many seconds since the process began to import."""
    torch.manual_seed(seed)
    files = {split: listing(folder / split) for split in ("train", "test")}
    side, mode = look_at([file for file, _ in files["train"]])
    data, test = read(files["train"], side, mode), read(files["test"], side, mode)
    classes = int(data.labels.max()) + 1
    end = BEGAN + seconds
    recipe = Recipe(data, classes, view, mirror, end)
    began = time.monotonic()
    probabilities(recipe, recipe.model, test.images[:EVALUATION_BATCH])
    testing = 1.0 + 1.2 * (time.monotonic() - began) * math.ceil(len(test.images) / EVALUATION_BATCH)
    reading = time.monotonic() - BEGAN
    model, epochs = train(recipe, data, end - testing)
    confidence, answers = probabilities(recipe, model, test.images).max(1)
    correct = (answers == test.labels).tolist()
    return {
        "test_accuracy": sum(correct) / len(correct),
        "seconds": round(time.monotonic() - BEGAN, 1),
        "seconds_before_training": round(reading, 1),
        "epochs": round(epochs, 1),
        "settings": {
            "network": f"ResNet-18 of width {recipe.width}",
            "parameters": sum(p.numel() for p in model.parameters()),
            "precision": "bfloat16" if recipe.bfloat16 else "float32",
            "view": recipe.view,
            "mirror": recipe.mirror,
            "sides": [recipe.held, recipe.train_side, recipe.test_side],
            "batch": recipe.batch,
        },
        "correct": "".join("01"[each] for each in correct),
        "confidence": [round(each, 4) for each in confidence.tolist()],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--view", choices=tuple(VIEWS), help="default: crop above 64 pixels, else shift")
    parser.add_argument("--mirror", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args()
    print(json.dumps(run(options.folder, 60 * options.minutes, options.seed, options.view, options.mirror)))


if __name__ == "__main__":
    main()
