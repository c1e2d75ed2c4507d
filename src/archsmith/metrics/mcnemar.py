"""The exact test of two classifiers on the same items (McNemar 1947, "Note on the sampling error of the difference between
correlated proportions or percentages"; exact by the binomial distribution)."""

from __future__ import annotations

import math


def p_value(first_only: int, second_only: int) -> float:
    """The two-sided p of the items that only one of the two had right; 1 where there are none.

    Args:
        first_only: how many items only the first had right.
        second_only: how many only the second had right.
    """
    n, least = first_only + second_only, min(first_only, second_only)
    if n == 0:
        return 1.0
    # By logarithms, since 0.5**n underflows for tests of a thousand differences.
    terms = [
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) - n * math.log(2) for k in range(least + 1)
    ]
    top = max(terms)
    return min(1.0, 2 * math.exp(top) * math.fsum(math.exp(t - top) for t in terms))
