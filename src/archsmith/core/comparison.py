"""What may be said of two networks that were each trained over several seeds: an interval, and a claim by rule."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from archsmith.core.finish import ACCURACY, Measure

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Comparison:
    """The found network's test score minus another's, paired by seed, in the measure's own unit.

    Args:
        other: what it is compared with.
        n: how many seeds both finished.
        difference: the mean difference (of accuracies as a fraction); None without a pair. Whether a positive one
            is good depends on the measure; `verdict` knows.
        interval: its 95 % interval over seeds (Student's t); None with fewer than two pairs.
        margin: the 95 % margin that the test set's own size leaves; None without a pair, and where the measure is no
            share of the items, since their number does not tell it then.
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


def compare(
    found: Mapping[int, float],
    other: Mapping[int, float],
    name: str,
    count: int,
    *,
    measure: Measure = ACCURACY,
    subject: str = "found network",
    called: str | None = None,
    after: str = "",
) -> Comparison:
    """Compare test scores by seed on one test set of `count` items.

    "Better" or "worse" takes an interval over seeds that excludes zero. Where the measure is a share of the items it
    takes more: the difference must exceed what a test set of this size could show by chance (the 95 % margin of two
    proportions, taken as independent: a cautious bound, as both networks saw the same items). Other measures have no
    such margin, and the sentence says that the interval is over seeds only.

    Where seeds agree more closely than one item (without a share: than the last digit that is shown), their standard
    deviation is taken as that, since three equal scores do not make a certainty.

    Args:
        found, other: finite scores by seed.
        name: what the other is, for `Comparison.other`.
        count: how many items the test set has; 0 where that is not known.
        measure: what the scores are.
        subject: what the sentence calls the found one, after "the".
        called: what it calls the other one (default: "the" and its name).
        after: for how long both were trained, such as "after 3 epochs of each".
    """
    called = called if called is not None else f"the {name}"
    after = f" {after}" if after else ""
    seeds = sorted(found.keys() & other.keys())
    n = len(seeds)
    if n == 0:
        said = f"No comparison with {called}: no seed was finished by both."
        return Comparison(name, 0, None, None, None, "no difference shown", said)
    differences = [found[s] - other[s] for s in seeds]
    mean = fmean(differences)
    margin = _margin([found[s] for s in seeds], [other[s] for s in seeds], count) if measure.percent and count else None
    if n == 1:
        said = f"No difference from {called} is shown{after}: {_by(mean, measure)} on one seed, and one seed has no interval."
        return Comparison(name, 1, mean, None, margin, "no difference shown", said)
    least = 1 / count if measure.percent and count else 10.0 ** -(measure.digits + 2 * measure.percent)
    half = t_quantile(n - 1) * max(stdev(differences), least) / math.sqrt(n)
    interval = (mean - half, mean + half)
    between = f"{_signed(interval[0], measure)} to {_signed(interval[1], measure)}"
    evidence = _by(mean, measure) + (
        f" (95 % interval over {n} seeds {between})"
        if measure.percent
        else f" (95 % interval {between}, over {n} seeds only)"
    )
    if interval[0] <= 0 <= interval[1]:
        verdict, said = "no difference shown", f"No difference from {called} is shown{after}: {evidence}."
    elif margin is not None and abs(mean) <= margin:
        verdict = "no difference shown"
        said = (
            f"No difference from {called} is shown{after}: {evidence}, "
            f"within the ±{100 * margin:.2f} that a test set of {count:,} leaves open."
        )
    else:
        tested = f"; the test set has {count:,} {measure.items}" if count else ""
        verdict = "better" if (mean > 0) == measure.higher_is_better else "worse"
        said = f"The {subject} is {verdict} than {called}{after}: {evidence}{tested}."
    return Comparison(name, n, mean, interval, margin, verdict, said)


def t_quantile(degrees: float) -> float:
    """The quantile of Student's t for a two-sided 95 % interval."""
    from scipy.special import stdtrit  # type: ignore[import-untyped]  # scikit-learn brings scipy

    return float(stdtrit(degrees, (1 + CONFIDENCE) / 2))


def spread(values: Sequence[float]) -> tuple[float | None, float | None]:
    """The mean and the sample standard deviation; None where there are too few values."""
    return (fmean(values) if values else None, stdev(values) if len(values) > 1 else None)


def _by(difference: float, measure: Measure) -> str:
    """ "+5.00 points", "0.83 lower test perplexity"."""
    if measure.percent:
        return f"{100 * difference:+.2f} points"
    if difference == 0:
        return f"the same test {measure.label}"
    return f"{abs(difference):.{measure.digits}f} {'higher' if difference > 0 else 'lower'} test {measure.label}"


def _signed(value: float, measure: Measure) -> str:
    return f"{100 * value:+.2f}" if measure.percent else f"{value:+.{measure.digits}f}"


def _margin(found: Sequence[float], other: Sequence[float], count: int) -> float:
    # Agresti and Coull's two added successes and failures keep an accuracy of 1 from looking certain.
    shares = [(fmean(values) * count + 2) / (count + 4) for values in (found, other)]
    return 1.96 * math.sqrt(sum(p * (1 - p) for p in shares) / (count + 4))
