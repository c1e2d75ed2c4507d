"""What may be said of two searchers that were each run with several seeds: an interval, an effect size and a test."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import fmean, variance

import numpy as np

from archsmith.core.comparison import t_quantile
from archsmith.core.finish import Measure

LEVEL = 0.05
MOST_SPLITS = 20_000
NO_DIFFERENCE = "no difference shown"


@dataclass(frozen=True)
class Difference:
    """How much better one group of runs came out than another, by one number of each run.

    Args:
        group, baseline: whose runs.
        outcome: the number that was taken of each run, such as "the best model".
        n, n_baseline: how many runs have it.
        improvement: the difference of the means in the measure's own unit, positive where the group is better; None
            where either has none.
        interval: its 95 % interval (Welch's t); None with fewer than two runs on either side.
        superiority: how often a run of the group beats one of the baseline's, ties as halves (Vargha and Delaney's A,
            an effect size: 0.5 is no difference; 2A - 1 is Cliff's delta); None likewise.
        superiority_interval: its 95 % interval (Newcombe 2006, method 5); None likewise.
        p: of a two-sided permutation test of the difference of means; None likewise.
        measure: what the outcome is measured by.
        verdict: "better", "worse" or `NO_DIFFERENCE`.
        sentence: the claim, for a person.
    """

    group: str
    baseline: str
    outcome: str
    n: int
    n_baseline: int
    improvement: float | None
    interval: tuple[float, float] | None
    superiority: float | None
    superiority_interval: tuple[float, float] | None
    p: float | None
    measure: Measure
    verdict: str
    sentence: str


def difference(
    values: Sequence[float], others: Sequence[float], measure: Measure, *, group: str, baseline: str, outcome: str
) -> Difference:
    """Compare one number of each run of a group with those of a baseline.

    "Better" or "worse" takes two things: the permutation test gives 5 % or less, and the interval excludes zero. Runs
    are not paired: that two have the same seed makes nothing of them alike.
    """
    sign = 1.0 if measure.higher_is_better else -1.0
    a, b = [sign * v for v in values], [sign * v for v in others]
    name = outcome[:1].upper() + outcome[1:]
    none = Difference(
        group, baseline, outcome, len(a), len(b), None, None, None, None, None, measure, NO_DIFFERENCE, ""
    )
    if not a or not b:
        return replace(none, sentence=f"{name}: no comparison of {group} with {baseline}, since one has none.")
    improvement, seeds = fmean(a) - fmean(b), _seeds(len(a), len(b))
    if len(a) < 2 or len(b) < 2:
        said = f"{group} came out {_by(improvement, measure)} {baseline}, with {seeds}: no difference is claimed"
        return replace(none, improvement=improvement, sentence=f"{name}: {said}.")
    half = _welch_half(a, b)
    low, high = improvement - half, improvement + half
    superiority = fmean((x > y) + 0.5 * (x == y) for x in a for y in b)
    least_superiority, most_superiority = between = superiority_interval(superiority, len(a), len(b))
    p = permutation_p(a, b)
    verdict = NO_DIFFERENCE
    said = f"no difference between {group} and {baseline} is shown"
    if p <= LEVEL and not low <= 0 <= high:
        verdict = "better" if improvement > 0 else "worse"
        said = f"{group} is {verdict} than {baseline}"
    evidence = (
        f"improvement {_text(improvement, measure)}, 95 % interval {_text(low, measure)} to {_text(high, measure)}, "
        f"p = {p:.2g}, ahead in {100 * superiority:.0f} % of pairs of runs "
        f"({100 * least_superiority:.0f} to {100 * most_superiority:.0f} %), {seeds}"
    )
    least = 2 / math.comb(len(a) + len(b), len(a))
    if least > LEVEL:
        evidence += f"; so few cannot show one: the least p that they can give is {least:.2g}"
    return replace(
        none,
        improvement=improvement,
        interval=(low, high),
        superiority=superiority,
        superiority_interval=between,
        p=p,
        verdict=verdict,
        sentence=f"{name}: {said} ({evidence}).",
    )


def permutation_p(a: Sequence[float], b: Sequence[float]) -> float:
    """How often runs dealt at random into two groups of these sizes differ in their means at least as much.

    Exact up to 20,000 ways to deal them; else from as many random ones, always the same.
    """
    together = [*a, *b]
    total, n, m = math.fsum(together), len(a), len(b)
    if math.comb(n + m, n) > MOST_SPLITS:
        return _random_p(np.asarray(together, dtype=np.float64), n)
    seen = abs(fmean(a) - fmean(b))
    slack = 1e-12 * max(1e-300, *map(abs, together))  # sums in another order differ in their last digit

    def apart(chosen: Sequence[float]) -> bool:
        mine = math.fsum(chosen)
        return abs(mine / n - (total - mine) / m) >= seen - slack

    return sum(map(apart, combinations(together, n))) / math.comb(n + m, n)


def _random_p(together: np.ndarray[tuple[int], np.dtype[np.float64]], n: int) -> float:
    """The same from random deals; the first `n` values are the one group."""
    m = len(together) - n
    dealt = together[np.random.default_rng(0).random((MOST_SPLITS, n + m)).argsort(axis=1)]
    apart = np.abs(dealt[:, :n].mean(axis=1) - dealt[:, n:].mean(axis=1))
    slack = 1e-12 * max(1e-300, float(np.abs(together).max()))
    seen = abs(together[:n].mean() - together[n:].mean())
    return (1 + int((apart >= seen - slack).sum())) / (1 + MOST_SPLITS)


def superiority_interval(superiority: float, n: int, m: int) -> tuple[float, float]:
    """The 95 % interval of how often one of `n` beats one of `m` (Newcombe 2006, "Confidence intervals for an effect size
    measure based on the Mann-Whitney statistic", part 2, method 5): the values whose own spread just reaches the seen one.

    It stays within 0 and 1, and has a width also where every run of the one beats every run of the other.
    """

    def beyond(true: float) -> float:
        half = (n + m) / 2 - 1
        spread = true * (1 - true) * (1 + half * ((1 - true) / (2 - true) + true / (1 + true))) / (n * m)
        return abs(superiority - true) - 1.959964 * math.sqrt(spread)

    ends = []
    for outer in (0.0, 1.0):
        inner = superiority
        for _ in range(60):
            middle = (inner + outer) / 2
            inner, outer = (inner, middle) if beyond(middle) > 0 else (middle, outer)
        ends.append(outer)
    return ends[0], ends[1]


def _welch_half(a: Sequence[float], b: Sequence[float]) -> float:
    """Half of Welch's 95 % interval, with Satterthwaite's degrees of freedom."""
    va, vb = variance(a) / len(a), variance(b) / len(b)
    if va + vb == 0:
        return 0.0
    degrees = (va + vb) ** 2 / (va**2 / (len(a) - 1) + vb**2 / (len(b) - 1))
    return t_quantile(degrees) * math.sqrt(va + vb)


def _seeds(n: int, m: int) -> str:
    return f"{n} and {m} seeds" if n != m else ("one seed each" if n == 1 else f"{n} seeds each")


def _by(improvement: float, measure: Measure) -> str:
    if improvement == 0:
        return "the same as"
    size = _text(abs(improvement), measure).lstrip("+")
    return f"{size} {'better' if improvement > 0 else 'worse'} than"


def _text(value: float, measure: Measure) -> str:
    """ "+5.00 points", "-0.83"."""
    return f"{100 * value:+.{measure.digits}f} points" if measure.percent else f"{value:+.{measure.digits}f}"
