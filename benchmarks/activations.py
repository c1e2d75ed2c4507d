"""Found activations beside torch's ReLU and SiLU: milliseconds forward and backward, alone and in a step of ResNet-20.

    python benchmarks/activations.py                     the table on stdout
    python benchmarks/activations.py --device cuda
    python benchmarks/activations.py --compiled          torch.compile as well; needs a compiler
    python benchmarks/activations.py --out benchmarks/results/activations.md

All take turns, round after round; ratios are medians of what the rounds gave.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from archsmith.core.child import Task
from archsmith.discovered import ACTIVATIONS, Swish, activation
from archsmith.nn.activation import ActivationFunction, with_activation
from archsmith.nn.models import model_named

sys.path.insert(0, str(Path(__file__).parent))
from machine import machine, tell

LONG = "max(mix(cos(x), x ^ 2), atan(beta * x) * erf(x)) - softplus(x)"


def _published(name: str, channels: int, dims: int) -> nn.Module:
    return activation(name)


Make = Callable[[int, int], nn.Module]
MAKERS: dict[str, Make] = {
    "nn.ReLU": lambda channels, dims: nn.ReLU(),
    "nn.SiLU": lambda channels, dims: nn.SiLU(),
    "Swish, beta 1 for good": lambda channels, dims: Swish(trainable=False),
    "Swish, one beta": lambda channels, dims: Swish(),
    "Swish, a beta for each channel": lambda channels, dims: Swish(channels, dims=dims),
    **{name: partial(_published, name) for name in ACTIVATIONS if name != "swish"},
    LONG: lambda channels, dims: ActivationFunction(LONG, channels, dims=dims),
}
COMPILED: dict[str, Make] = {
    "Swish, a beta for each channel, compiled": lambda channels, dims: Swish(channels, dims=dims, compile=True),
    f"{LONG}, compiled": lambda channels, dims: ActivationFunction(LONG, channels, dims=dims, compile=True),
}


def alone(make: Make, device: str) -> Callable[[], None]:
    module = make(16, 2).to(device)
    x = torch.randn(64, 16, 32, 32, device=device).contiguous(memory_format=torch.channels_last).requires_grad_()
    gradient = torch.randn_like(x)

    def step() -> None:
        x.grad = None
        torch.autograd.backward(module(x), gradient)

    return step


def in_network(make: Make, device: str) -> Callable[[], None]:
    torch.manual_seed(0)
    model = with_activation(model_named("resnet20", Task()), make, (3, 32, 32))
    model = model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = torch.randn(64, 3, 32, 32, device=device).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(10, (64,), device=device)

    def step() -> None:
        model.zero_grad()
        torch.autograd.backward(F.cross_entropy(model(images), labels))

    return step


def milliseconds(step: Callable[[], None], times: int, device: str) -> float:
    """Of the processor's time, which other programs do not add to; on a GPU of the clock's."""
    clock = time.perf_counter if device == "cuda" else time.process_time
    if device == "cuda":
        torch.cuda.synchronize()
    began = clock()
    for _ in range(times):
        step()
    if device == "cuda":
        torch.cuda.synchronize()
    return (clock() - began) / times * 1e3


def compare(
    title: str, kind: Callable[[Make, str], Callable[[], None]], makers: dict[str, Make], rounds: int, device: str
) -> str:
    steps = {name: kind(make, device) for name, make in makers.items()}
    times = 20 if device == "cuda" else 1 if kind is in_network else 3
    for step in steps.values():
        milliseconds(step, 2, device)
    took: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            took[name].append(milliseconds(step, times, device))
    lines = [f"### {title}", "", "| activation | ms | over ReLU | over SiLU |", "| --- | --- | --- | --- |"]
    for name, mine in took.items():
        over = [
            statistics.median(a / b for a, b in zip(mine, took[other], strict=True)) for other in ("nn.ReLU", "nn.SiLU")
        ]
        lines.append(f"| {name} | {statistics.median(mine):.2f} | {over[0]:.2f} | {over[1]:.2f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    makers = {**MAKERS, **COMPILED} if options.compiled else MAKERS
    some = {name: make for name, make in makers.items() if name not in ACTIVATIONS}
    where = torch.cuda.get_device_name() if options.device == "cuda" else "one thread of the processor"
    given = [f" --device {options.device}" * (options.device != "cpu"), " --compiled" * options.compiled]
    parts = [f"# Activations: {where}", "", machine(), "", f"`python benchmarks/activations.py{''.join(given)}`", ""]
    parts.append(compare("Alone, forward and backward of 64x16x32x32", alone, makers, options.rounds, options.device))
    parts.append(
        compare(
            "A forward and backward pass of ResNet-20 of 64 images", in_network, some, options.rounds, options.device
        )
    )
    text = "\n".join(parts)
    tell(text, options.out)


if __name__ == "__main__":
    main()
