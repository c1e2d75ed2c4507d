"""Child training against two loops that people write: the same network, data, augmentation and epochs, on one thread.

    python benchmarks/child_training.py                  the table on stdout
    python benchmarks/child_training.py --out benchmarks/results/child_training.md

- plain: a well-written loop over tensors in memory, in fp32: images whitened once, shuffled by index, every batch
  padded, cropped and flipped as a whole, `torch.optim.SGD`, validation after every epoch. No loader.
- loader: the usual `Dataset` with per-image transforms (Pillow and tensors) and `DataLoader`, in fp32.

Each case is trained by all of them in turn, several times over; the ratios are medians of what the rounds gave. Seconds
are processor time, to which other work on the machine adds little.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import copy
import dataclasses
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from archsmith.core.child import Child
from archsmith.core.space import build, sample
from archsmith.data.images import ImageSplits
from archsmith.nn.count import count
from archsmith.spaces import ConvChain
from archsmith.testing.evaluator import RecordingContext
from archsmith.training import ImageClassification

sys.path.insert(0, str(Path(__file__).parent))
from machine import machine, tell


def learning_rate(config: ImageClassification, epoch: int) -> float:
    return config.learning_rate * 0.1 ** sum(epoch >= round(at * config.epochs) for at in config.decay_at)


def flips(config: ImageClassification, splits: ImageSplits) -> bool:
    return splits.data.mirrored_is_same if config.flip is None else config.flip


def pixels_of(config: ImageClassification, splits: ImageSplits) -> int:
    """How many pixels of zeros go around a (square) image."""
    return round(config.pad * splits.data.images.shape[1])


# --- the plain loop ---------------------------------------------------------------------------------------------------


def plain(config: ImageClassification, splits: ImageSplits, model: nn.Module) -> float:
    """Trains in place; gives the last validation accuracy."""

    def floats(positions: np.ndarray) -> tuple[Tensor, Tensor]:
        x = torch.from_numpy(splits.data.images[positions]).permute(0, 3, 1, 2).float().div(255).contiguous()
        x = (x - x.mean((1, 2, 3), keepdim=True)) / x.std((1, 2, 3), keepdim=True).clamp_min(1e-3)
        if config.upsample > 1:
            x = F.interpolate(x, scale_factor=config.upsample, mode="bilinear")
        return F.pad(x, [pixels_of(config, splits)] * 4), torch.from_numpy(splits.data.labels[positions])

    train_x, train_y = floats(splits.train)
    valid_x, valid_y = floats(splits.validation)
    height, width = splits.data.images.shape[1:3]
    slack_y, slack_x = train_x.shape[2] - height, train_x.shape[3] - width
    top, left = slack_y // 2, slack_x // 2
    valid_x = valid_x[:, :, top : top + height, left : left + width].contiguous()
    optimizer = torch.optim.SGD(
        model.parameters(), config.learning_rate, config.momentum, weight_decay=config.weight_decay, nesterov=True
    )
    accuracy = 0.0
    for epoch in range(config.epochs):
        model.train()
        optimizer.param_groups[0]["lr"] = learning_rate(config, epoch)
        for chosen in torch.randperm(len(train_y)).split(config.batch_size):
            n = len(chosen)
            rows = (torch.randint(0, slack_y + 1, (n, 1)) + torch.arange(height))[:, None, :, None]
            columns = (torch.randint(0, slack_x + 1, (n, 1)) + torch.arange(width))[:, None, None, :]
            planes = torch.arange(train_x.shape[1])[None, :, None, None]
            x = train_x[chosen[:, None, None, None], planes, rows, columns]
            if flips(config, splits):
                x = torch.where(torch.rand(n, 1, 1, 1) < 0.5, x.flip(3), x)
            optimizer.zero_grad()
            F.cross_entropy(model(x), train_y[chosen]).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            right = sum(
                (model(x).argmax(1) == y).sum().item()
                for x, y in zip(valid_x.split(500), valid_y.split(500), strict=True)
            )
        accuracy = right / len(valid_y)
    return accuracy


# --- the loop with a loader -------------------------------------------------------------------------------------------


# The transforms do what torchvision's of the same names do to a Pillow image, operation by operation (its own package
# does not install beside every torch).


class Resize:
    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size

    def __call__(self, picture: Image.Image) -> Image.Image:
        return picture.resize(self.size[::-1], Image.Resampling.BILINEAR)


class Crop:
    """RandomCrop with padding, or CenterCrop."""

    def __init__(self, size: tuple[int, int], pad: int, at_random: bool) -> None:
        self.size, self.pad, self.at_random = size, pad, at_random

    def __call__(self, picture: Image.Image) -> Image.Image:
        if self.pad:
            picture = ImageOps.expand(picture, border=self.pad)
        height, width = self.size
        slack_y, slack_x = picture.height - height, picture.width - width
        if self.at_random:
            top = int(torch.randint(0, slack_y + 1, size=(1,)).item())
            left = int(torch.randint(0, slack_x + 1, size=(1,)).item())
        else:
            top, left = slack_y // 2, slack_x // 2
        return picture.crop((left, top, left + width, top + height))


class RandomHorizontalFlip:
    def __call__(self, picture: Image.Image) -> Image.Image:
        return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if torch.rand(1) < 0.5 else picture


class ToTensor:
    def __call__(self, picture: Image.Image) -> Tensor:
        x = torch.from_numpy(np.array(picture, np.uint8, copy=True))
        x = x.view(picture.size[1], picture.size[0], len(picture.getbands()))
        return x.permute((2, 0, 1)).contiguous().to(dtype=torch.float32).div(255)


class Whiten:
    def __call__(self, x: Tensor) -> Tensor:
        return (x - x.mean()) / x.std().clamp_min(1e-3)


class Pictures(Dataset[tuple[Tensor, int]]):
    """Arrays as torchvision's own data sets serve them: one Pillow image at a time, transformed when asked for."""

    def __init__(self, config: ImageClassification, splits: ImageSplits, positions: np.ndarray, training: bool) -> None:
        self.arrays = splits.data.images[positions]
        self.labels = splits.data.labels[positions].tolist()
        height, width = size = (self.arrays.shape[1], self.arrays.shape[2])
        self.transforms: list[Callable[[Any], Any]] = []
        if config.upsample > 1:
            self.transforms.append(Resize((round(height * config.upsample), round(width * config.upsample))))
        if config.pad or config.upsample > 1:
            self.transforms.append(Crop(size, pixels_of(config, splits), training))
        if training and flips(config, splits):
            self.transforms.append(RandomHorizontalFlip())
        self.transforms.append(ToTensor())
        if config.whiten:
            self.transforms.append(Whiten())

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        array = self.arrays[index]
        x: Any = Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)
        for transform in self.transforms:
            x = transform(x)
        return x, self.labels[index]


def loader(config: ImageClassification, splits: ImageSplits, model: nn.Module) -> float:
    """Trains in place; gives the last validation accuracy."""
    training = DataLoader(Pictures(config, splits, splits.train, True), config.batch_size, shuffle=True)
    validation = DataLoader(Pictures(config, splits, splits.validation, False), 500)
    optimizer = torch.optim.SGD(
        model.parameters(), config.learning_rate, config.momentum, weight_decay=config.weight_decay, nesterov=True
    )
    accuracy = 0.0
    for epoch in range(config.epochs):
        model.train()
        optimizer.param_groups[0]["lr"] = learning_rate(config, epoch)
        for x, y in training:
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            right = sum((model(x).argmax(1) == y).sum().item() for x, y in validation)
        accuracy = right / len(splits.validation)
    return accuracy


# --- the comparison ---------------------------------------------------------------------------------------------------


def child_of(config: ImageClassification, parameters: int) -> nn.Module:
    """Of 200 random chains of four layers with small filters, the one nearest to so many parameters."""
    space = ConvChain(layers=4, filter_heights=(1, 3, 5), filter_widths=(1, 3, 5), filters=(16, 24, 36))
    torch.manual_seed(0)
    children = (build(space, sample(space, random.Random(seed)), config.task()).model for seed in range(200))
    return min(children, key=lambda m: abs(sum(p.numel() for p in m.parameters()) - parameters))


def compare(name: str, config: ImageClassification, rounds: int) -> str:
    splits = config.splits()
    fresh = child_of(config, 50_000)
    size = count(fresh, config.task().input_shape)

    def ours(precision: str) -> Callable[[nn.Module], float]:
        settings = dataclasses.replace(config, precision=precision)
        return lambda model: settings.train(Child(model), RecordingContext()).metrics["final_accuracy"]

    loops: dict[str, Callable[[nn.Module], float]] = {
        "archsmith": ours("auto"),
        "archsmith, fp32": ours("fp32"),
        "plain": lambda model: plain(config, splits, model),
        "loader": lambda model: loader(config, splits, model),
    }
    warm = dataclasses.replace(config, epochs=1)
    warm.train(Child(copy.deepcopy(fresh)), RecordingContext())
    seconds: dict[str, list[float]] = {k: [] for k in loops}
    accuracy: dict[str, list[float]] = {k: [] for k in loops}
    for _ in range(rounds):
        for key, loop in loops.items():
            model = copy.deepcopy(fresh)
            began = time.process_time()
            accuracy[key].append(loop(model))
            seconds[key].append(time.process_time() - began)
        print(name, {k: round(v[-1], 2) for k, v in seconds.items()}, file=sys.stderr, flush=True)
    images = len(splits.train) * config.epochs
    lines = [
        f"### {name}",
        "",
        f"{size.parameters:,} parameters, {size.multiply_adds:,} multiply-adds, images {config.task().input_shape}, "
        f"{len(splits.train):,} of them, {config.epochs} epochs, batch {config.batch_size}, {rounds} rounds.",
        "",
        "| loop | seconds | images/s | archsmith is faster by | archsmith in fp32 is | validation accuracy |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for key in loops:
        ratios = [
            statistics.median(theirs / mine for theirs, mine in zip(seconds[key], seconds[own], strict=True))
            for own in ("archsmith", "archsmith, fp32")
        ]
        middle = statistics.median(seconds[key])
        lines.append(
            f"| {key} | {middle:.2f} | {images / middle:,.0f} | {ratios[0]:.2f} | {ratios[1]:.2f} "
            f"| {statistics.mean(accuracy[key]):.3f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--data", help="another data set, by name or path")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    desk = ImageClassification.desk(epochs=options.epochs)
    paper = ImageClassification(epochs=options.epochs, flip=True)
    cases = {
        "digits, desk settings": desk,
        "digits, the paper's pipeline (whiten, enlarge, crop, flip)": paper,
        "digits at 28 by 28": dataclasses.replace(desk, size=28, epochs=max(1, options.epochs // 3), max_train=600),
    }
    if options.data:
        cases[options.data] = dataclasses.replace(paper, data=options.data, epochs=1, max_train=1000)
    parts = ["# Child training", "", machine(), "", "`python benchmarks/child_training.py`", ""]
    parts += [compare(name, config, options.rounds) for name, config in cases.items()]
    text = "\n".join(parts)
    tell(text, options.out)


if __name__ == "__main__":
    main()
