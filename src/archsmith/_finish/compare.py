"""What may be said of two networks that were each trained over several seeds: an interval, and a claim by rule."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Comparison:
    """The found network's test accuracy minus another's, paired by seed.

    Args:
        other: what it is compared with.
        n: how many seeds both finished.
        difference: the mean difference, as a fraction; None without a pair.
        interval: its 95 % interval over seeds (Student's t); None with fewer than two pairs.
        margin: the 95 % margin that the test set's own size leaves, as a fraction; None without a pair.
        verdict: "better", "worse" or "no difference shown".
        sentence: the claim, for a person.
    """

    other: str
    n: int
    difference: float | None
    interval: tuple[float, float] | None
    margin: float | None
    verdict: str
    sentence: str


def compare(found: Mapping[int, float], other: Mapping[int, float], name: str, count: int) -> Comparison:
    """Compare accuracies by seed on one test set of `count` images.

    "Better" or "worse" takes two things: the interval over seeds excludes zero, and the difference exceeds what a test
    set of this size could show by chance (the 95 % margin of two proportions, taken as independent: a cautious
    bound, as both networks saw the same images). Where seeds agree more closely than one image, their standard
    deviation is taken as one image, since three equal accuracies do not make a certainty.
    """
    seeds = sorted(found.keys() & other.keys())
    n = len(seeds)
    if n == 0:
        said = f"No comparison with the {name}: no seed was finished by both."
        return Comparison(name, 0, None, None, None, "no difference shown", said)
    differences = [found[s] - other[s] for s in seeds]
    mean = fmean(differences)
    margin = _margin([found[s] for s in seeds], [other[s] for s in seeds], count)
    points = f"{100 * mean:+.2f} points"
    if n == 1:
        said = f"No difference from the {name} is shown: {points} on one seed, and one seed has no interval."
        return Comparison(name, 1, mean, None, margin, "no difference shown", said)
    half = t_quantile(n - 1) * max(stdev(differences), 1 / count) / math.sqrt(n)
    interval = (mean - half, mean + half)
    evidence = f"{points} (95 % interval over {n} seeds {100 * interval[0]:+.2f} to {100 * interval[1]:+.2f})"
    if interval[0] <= 0 <= interval[1]:
        verdict, said = "no difference shown", f"No difference from the {name} is shown: {evidence}."
    elif abs(mean) <= margin:
        verdict = "no difference shown"
        said = (
            f"No difference from the {name} is shown: {evidence}, "
            f"within the ±{100 * margin:.2f} that a test set of {count:,} leaves open."
        )
    else:
        verdict = "better" if mean > 0 else "worse"
        said = f"The found network is {verdict} than the {name}: {evidence}; the test set has {count:,} images."
    return Comparison(name, n, mean, interval, margin, verdict, said)


def t_quantile(degrees: int) -> float:
    """The quantile of Student's t for a two-sided 95 % interval."""
    from scipy.special import stdtrit  # type: ignore[import-untyped]  # scikit-learn brings scipy

    return float(stdtrit(degrees, (1 + CONFIDENCE) / 2))


def spread(values: Sequence[float]) -> tuple[float | None, float | None]:
    """The mean and the sample standard deviation; None where there are too few values."""
    return (fmean(values) if values else None, stdev(values) if len(values) > 1 else None)


def _margin(found: Sequence[float], other: Sequence[float], count: int) -> float:
    # Agresti and Coull's two added successes and failures keep an accuracy of 1 from looking certain.
    shares = [(fmean(values) * count + 2) / (count + 4) for values in (found, other)]
    return 1.96 * math.sqrt(sum(p * (1 - p) for p in shares) / (count + 4))
