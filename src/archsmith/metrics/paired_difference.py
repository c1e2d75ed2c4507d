"""The interval of the difference of two accuracies on the same items (Newcombe 1998, "Improved confidence intervals for the
difference between binomial proportions based on paired data", method 10)."""

from __future__ import annotations

import math

from archsmith.metrics import wilson


def interval(both: int, first_only: int, second_only: int, neither: int) -> tuple[float, float]:
    """The 95 % interval of the first's accuracy minus the second's; -1 to 1 without items.

    Args:
        both: how many items both had right.
        first_only, second_only: how many items only one of them had right.
        neither: how many none had right.
    """
    n = both + first_only + second_only + neither
    if n == 0:
        return -1.0, 1.0
    first, second = (both + first_only) / n, (both + second_only) / n
    low1, high1 = wilson.interval(both + first_only, n)
    low2, high2 = wilson.interval(both + second_only, n)
    phi = _correlation(both, first_only, second_only, neither)
    down1, up1, down2, up2 = first - low1, high1 - first, second - low2, high2 - second
    below = math.sqrt(max(0.0, down1**2 - 2 * phi * down1 * up2 + up2**2))
    above = math.sqrt(max(0.0, up1**2 - 2 * phi * up1 * down2 + down2**2))
    return max(-1.0, first - second - below), min(1.0, first - second + above)


def _correlation(both: int, first_only: int, second_only: int, neither: int) -> float:
    """The correlation of the two, with Newcombe's correction of continuity where it is positive."""
    n = both + first_only + second_only + neither
    margins = (both + first_only) * (second_only + neither) * (both + second_only) * (first_only + neither)
    if margins == 0:
        return 0.0
    product = both * neither - first_only * second_only
    if product > 0:
        product = max(product - n / 2, 0)  # type: ignore[assignment]
    return product / math.sqrt(margins)
