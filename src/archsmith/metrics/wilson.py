"""The score interval of a proportion (Wilson 1927, "Probable inference, the law of succession, and statistical inference")."""

from __future__ import annotations

import math

Z95 = 1.959963984540054
"""The quantile of the normal distribution for a two-sided 95 % interval."""


def interval(correct: int, count: int, z: float = Z95) -> tuple[float, float]:
    """The interval of the true proportion after `correct` of `count`; 0 to 1 without items.

    It lies within 0 and 1, contains the observed proportion, and has a width also where all or none are correct.
    """
    if not 0 <= correct <= count:
        raise ValueError(f"correct must be from 0 to {count}, got {correct}")
    if count == 0:
        return 0.0, 1.0
    share = correct / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    low = 0.0 if correct == 0 else max(0.0, middle - half)
    high = 1.0 if correct == count else min(1.0, middle + half)
    return low, high
