"""One rule for rewards that lie far from all others, for every searcher that computes with rewards and not with ranks.

A penalty of -1e100 for what is infeasible, or a division by almost nothing, must neither turn weights into NaN nor be
remembered by baselines and moments for thousands of updates. So of the last 256 rewards, or as many as there are,

- a reward below -10 times the good ones counts as the worst that is not; the good ones are what 95 % of the rewards are
  at most, by magnitude, or 1 where that is less;
- a reward above 100 times the usual ones counts as the best that is not; the usual ones are the median of the magnitudes
  other than 0, or 1 where that is less;
- a reward beyond 1e15 is always one of these, and where there was none within, it counts as 0.

Rewards from -10 to 100, those of all the papers among them, stay what they are to the bit. The rule is applied when a
reward is learned from, so that what came before the first usual reward is judged by what came after.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

WINDOW = 256
"""The rule looks at this many rewards, the last ones."""

LOW, HIGH, BEYOND = -10.0, 100.0, 1e15


@dataclass(frozen=True)
class RewardRange:
    """The range of usual rewards, and the values that replace those outside.

    Args:
        low, high: the range.
        worst, best: the lowest and the highest reward within the range.
    """

    low: float = LOW
    high: float = HIGH
    worst: float = 0.0
    best: float = 0.0

    def clip(self, reward: float) -> float:
        """The reward, or its replacement if it is outside."""
        if reward < self.low:
            return self.worst
        return self.best if reward > self.high else reward


def is_usual(rewards: Iterable[float]) -> bool:
    """Whether these rewards are within every possible range, so that it need not be computed."""
    return all(LOW <= reward <= HIGH for reward in rewards)


def range_of(rewards: Sequence[float]) -> RewardRange:
    """The range that follows from these rewards, or from the last WINDOW of them."""
    recent = [float(reward) for reward in rewards[-WINDOW:] if abs(reward) <= BEYOND]
    magnitudes = sorted(abs(reward) for reward in recent if reward)
    usual = magnitudes[len(magnitudes) // 2] if magnitudes else 1.0
    high = min(HIGH * max(1.0, usual), BEYOND)
    below = sorted(reward for reward in recent if reward <= high)
    good = abs(below[math.ceil(0.95 * (len(below) - 1))]) if below else 1.0
    low = max(LOW * max(1.0, good), -BEYOND)
    within = [reward for reward in below if reward >= low]
    return RewardRange(low, high, min(within, default=0.0), max(within, default=0.0))


def within_range(rewards: Sequence[float]) -> list[float]:
    """These rewards, each clipped to the range of all."""
    if is_usual(rewards):
        return list(rewards)
    clip = range_of(rewards).clip
    return [clip(reward) for reward in rewards]


def mean(rewards: Sequence[float]) -> float:
    """The mean of finite numbers, which is finite too, also where their sum is not."""
    total = sum(rewards)
    return total / len(rewards) if math.isfinite(total) else sum(reward / len(rewards) for reward in rewards)
