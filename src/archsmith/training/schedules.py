"""How far a training of images has come, and what follows from it: the learning rate, and the side of the training pictures."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from archsmith.core.evaluator import Context, MayEndEarly

if TYPE_CHECKING:
    from archsmith.training.image_classification import ImageClassification

GROWING = 0.8  # the part of a training during which the pictures grow
SIDE_STEP = 8  # pixels by which they grow at once
_FIRST_FACTOR = 0.01  # of the learning rate's peak, at the first step of a warm-up that is a part of the training


@dataclass(frozen=True)
class Progress:
    """The progress of one training: by its epochs, and by the clock where the training has `seconds`.

    Args:
        config: the settings.
        spent: the seconds that this training took before it was paused, if it was.
        began: when it went on, by `time.perf_counter`.
        context: asked for the moment by which a training of given seconds is to end earlier; None: nobody can ask.
    """

    config: ImageClassification
    spent: float
    began: float
    context: Context | None = None

    def elapsed(self) -> float:
        """The seconds of this training so far."""
        return self.spent + time.perf_counter() - self.began

    def is_over(self) -> bool:
        """Whether its time is up."""
        return self.config.seconds is not None and self.elapsed() >= self._seconds()

    def share(self, epochs: float) -> float:
        """The part of the training that is done after so many epochs, 0 to 1. What comes first ends it: epochs or seconds."""
        by_epochs = epochs / self.config.epochs
        if self.config.seconds is None:
            return by_epochs
        return min(1.0, max(by_epochs, self.elapsed() / self._seconds()))

    def _seconds(self) -> float:
        """How long the training lasts, as far as is known now."""
        assert self.config.seconds is not None
        ends_at = self.context.ends_at if isinstance(self.context, MayEndEarly) else None
        if ends_at is None:
            return self.config.seconds
        return max(1e-9, min(self.config.seconds, self.elapsed() + ends_at - time.monotonic()))


def learning_rate_factor(config: ImageClassification, epochs: float, share: float | None = None) -> float:
    """The learning rate over its peak.

    Args:
        config: the settings.
        epochs: how many epochs are done, with fractions.
        share: the part of the training that is done; None: that of the epochs.
    """
    done = epochs if share is None else share * config.epochs
    share = done / config.epochs
    factor = 1.0
    if config.schedule == "step":
        if config.seconds is None:
            falls = sum(int(done) >= round(at * config.epochs) for at in config.decay_at)
        else:
            falls = sum(share >= at for at in config.decay_at)
        factor = config.decay_factor**falls
    elif config.schedule == "cosine":
        factor = 0.5 * (1 + math.cos(math.pi * done / config.epochs))
    elif config.schedule == "linear":
        factor = 1 - share
    elif config.schedule == "trapezoid":
        factor = min(1.0, (1 - share) / (1 - config.decay_from))
    if config.warmup_share:
        factor *= min(1.0, _FIRST_FACTOR + share / config.warmup_share)
    return factor * min(1.0, (epochs + 0.1) / config.warmup) if config.warmup else factor


def area_share(first: int, last: int) -> float:
    """The mean area of the training pictures while they grow from `first` to `last` pixels a side, as a part of that at the end."""
    steps = math.ceil((last - first) / SIDE_STEP)
    grown = [min(last, first + SIDE_STEP * k) for k in range(steps)]
    growing = GROWING * sum((side / last) ** 2 for side in grown) / steps if steps else GROWING
    return growing + 1 - GROWING


def side_at(share: float, first: int, last: int) -> int:
    """The side of the training pictures when `share` of the training is done (Tan and Le 2021, "EfficientNetV2: Smaller Models
    and Faster Training", section 4).

    It grows from `first` to `last` in steps of 8 pixels of equal duration, during the first 80 % of the training.
    """
    steps = math.ceil((last - first) / SIDE_STEP)
    grown = min(steps, int(share * steps / GROWING + 1e-9))  # 0.6 / 0.8 is a little less than 3 / 4
    return min(last, first + SIDE_STEP * grown)
