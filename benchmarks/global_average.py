"""Three ways to write global average pooling, by what a step of training a small child takes with each.

    python benchmarks/global_average.py
    python benchmarks/global_average.py --out benchmarks/results/global_average.md

The ways take turns in every round, so that other work on the machine meets all of them; each figure is the best of the
rounds. One thread, batch 128, forward and backward, a child of four layers.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import torch
from torch import Tensor, nn

from archsmith.core.child import Task
from archsmith.core.space import build, sample
from archsmith.nn.conv import GlobalAverage
from archsmith.spaces import ConvChain

sys.path.insert(0, str(Path(__file__).parent))
from machine import machine


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


class AvgPool(nn.Module):
    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(size)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.pool(x).flatten(1)
        return out


def milliseconds(shape: tuple[int, int, int], channels_last: bool, bf16: bool, rounds: int) -> list[float]:
    ways: list[Callable[[], nn.Module]] = [GlobalAverage, Mean, lambda: AvgPool(shape[1:])]
    space, layout = ConvChain(layers=4), torch.channels_last if channels_last else torch.contiguous_format
    models = []
    for way in ways:
        torch.manual_seed(0)
        model = build(space, sample(space, Random(2)), Task(shape, 10)).model
        model.pool = way()
        models.append(model.to(memory_format=layout))
    images, labels = torch.rand(128, *shape).to(memory_format=layout), torch.randint(10, (128,))
    best = [float("inf")] * len(ways)
    for _ in range(rounds):
        for k, model in enumerate(models):
            begun = time.perf_counter()
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                loss = nn.functional.cross_entropy(model(images), labels)
            loss.backward()
            best[k] = min(best[k], (time.perf_counter() - begun) * 1e3)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    lines = [
        "# Global average pooling: milliseconds a step of training", "", machine(), "",
        "| image | layout | precision | permute, flatten, mean (ours) | mean((2, 3)) | AvgPool2d |",
        "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for shape in ((1, 8, 8), (1, 28, 28)):
        for channels_last in (True, False):
            for bf16 in (False, True):
                row = milliseconds(shape, channels_last, bf16, arguments.rounds)
                layout, precision = "channels-last" if channels_last else "contiguous", "bf16" if bf16 else "fp32"
                shown = " | ".join(f"{ms:.1f}" for ms in row)
                lines.append(f"| {'x'.join(map(str, shape))} | {layout} | {precision} | {shown} |")
                print(lines[-1], file=sys.stderr)
    text = "\n".join(lines) + "\n"
    if arguments.out:
        arguments.out.write_text(text, encoding="utf-8")
    print(text, end="")


if __name__ == "__main__":
    main()
