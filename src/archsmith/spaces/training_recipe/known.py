"""Recipes that people know, as architectures."""

from __future__ import annotations

from typing import Any

from archsmith.spaces.training_recipe.architecture import KIND


def _recipe(
    *,
    learning_rate: float,
    weight_decay: float,
    schedule: str,
    decay_norms: bool = True,
    batch_size: int = 64,
    label_smoothing: float = 0.0,
    crop: dict[str, Any] | None = None,
    colour: float = 0.0,
    policy: str | None = None,
    average: float = 0.0,
    warmup: float = 0.0,
) -> dict[str, Any]:
    return {
        "kind": KIND,
        "optimizer": {
            "name": "sgd",
            "learning_rate": learning_rate,
            "weight_decay": weight_decay,
            "decay_norms": decay_norms,
            "momentum": 0.9,
        },
        "batch_size": batch_size,
        "label_smoothing": label_smoothing,
        "augmentation": {**(crop or {"crop": "shift"}), "flip": None, "colour": colour, "policy": policy, "mix": None},
        "size": {"train": 1.0, "first": 1.0},
        "average": average,
        "schedule": {"name": schedule, "warmup": warmup},
    }


def modern() -> dict[str, Any]:
    """What a competent person would take for small pictures and few minutes."""
    return _recipe(
        learning_rate=0.1,
        weight_decay=5e-4,
        decay_norms=False,
        label_smoothing=0.1,
        crop={"crop": "resized", "crop_area": 0.35},
        colour=0.3,
        average=0.998,
        schedule="cosine",
        warmup=0.15,
    )


def muon() -> dict[str, Any]:
    """The same with Muon (Jordan et al. 2024) in batches of 128: docs/decisions/0047-muon.md has what that brings."""
    optimizer = {"name": "muon", "learning_rate": 0.07, "weight_decay": 5e-4, "decay_norms": False, "momentum": 0.6}
    return modern() | {"optimizer": optimizer, "batch_size": 128}


def plain() -> dict[str, Any]:
    """He et al. 2016, section 4.2: shifts, steps, weight decay of everything. A batch of 128 has a learning rate of 0.1."""
    return _recipe(learning_rate=0.05, weight_decay=1e-4, batch_size=128, schedule="step")


def autoaugment() -> dict[str, Any]:
    """Cubuk et al. 2019, table 7 (wide residual networks, CIFAR-10), without its cutout: a batch of 128 has a learning rate of 0.1."""
    return _recipe(learning_rate=0.05, weight_decay=5e-4, batch_size=128, policy="cifar10", schedule="cosine")


KNOWN = {"modern": modern, "muon": muon, "plain": plain, "autoaugment": autoaugment}
"""The recipes by name, as functions."""
