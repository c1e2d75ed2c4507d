"""How well one number of models foretells another: accuracy where they were searched, and where they are used.

The analysis of Kornblith, Shlens and Le (2019, "Do Better ImageNet Models Transfer Better?"): accuracies go through
the logit, each data set's mean is subtracted, what a model has left is averaged over the data sets, and that is
correlated with its accuracy where it was searched. docs/decisions/0016-image-transfer.md has what the paper leaves open.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from random import Random
from statistics import fmean
from typing import Any

from archsmith.core.errors import UsageError

RESAMPLES = 2000
LEAST_FOR_R = 3  # two points always lie on a line
LEAST_FOR_AN_INTERVAL = 4  # Fisher's z has the deviation 1 / sqrt(n - 3)
_NORMAL = 1.959963984540054  # the two-sided 95 % quantile


@dataclass(frozen=True)
class Coefficient:
    """A coefficient of correlation.

    Args:
        value: from -1 to 1; None where there is none, and `why` says so.
        interval: the 95 % interval by Fisher's z; None below four models. It takes pairs as normally distributed; of
            ranks its deviation is that of Bonett and Wright (2000).
        bootstrap: the 95 % interval of percentiles over resampled models; None below four models.
        why: why there is no value, or None.
    """

    value: float | None
    interval: tuple[float, float] | None = None
    bootstrap: tuple[float, float] | None = None
    why: str | None = None


@dataclass(frozen=True)
class Correlation:
    """How accuracy where models were searched goes together with accuracy where they are used.

    Args:
        models: their names, those alone that have a number everywhere.
        x: what each had in the search, through the logit where it is an accuracy.
        y: what each has on the data sets: the mean over them of the logit less the data set's mean.
        pearson: of x and y.
        spearman: of their ranks, ties by their mean rank.
        left_out: models that lacked a number somewhere.
    """

    models: tuple[str, ...]
    x: tuple[float, ...]
    y: tuple[float, ...]
    pearson: Coefficient
    spearman: Coefficient
    left_out: tuple[str, ...] = ()

    @property
    def n(self) -> int:
        """How many models it is of."""
        return len(self.models)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {"n": self.n, **asdict(self)}


def correlate(
    searched: Mapping[str, float],
    used: Mapping[str, Mapping[str, float]],
    *,
    counts: Mapping[str, int] | None = None,
    searched_count: int | None = None,
    is_accuracy: bool = True,
    seed: int = 0,
) -> Correlation:
    """Correlate what models had in a search with their accuracies on other data sets.

    An accuracy of 0 or 1 has no logit. It counts as half an item away from there, so it needs the number of items.

    Args:
        searched: by model, the accuracy in the search (`is_accuracy`), or any other number, such as a reward.
        used: by data set and model, the accuracy there. Any number of models and of data sets.
        counts: by data set, how many items each accuracy is of.
        searched_count: likewise for the search.
        seed: of the bootstrap.

    Raises UsageError without data sets, for what is no accuracy, and for 0 or 1 of an unknown number of items.
    """
    if not used:
        raise UsageError("a correlation needs at least one data set that models were used on, got none")
    everywhere = [model for model in searched if all(model in scores for scores in used.values())]
    named = dict.fromkeys([*searched, *(model for scores in used.values() for model in scores)])
    left_out = tuple(model for model in named if model not in set(everywhere))
    x = [
        logit(searched[m], searched_count, f"{m} in the search") if is_accuracy else _finite(searched[m], m)
        for m in everywhere
    ]
    centred = []
    for data, scores in used.items():
        items = (counts or {}).get(data)
        odds = [logit(scores[m], items, f"{m} on {data}") for m in everywhere]
        mean = fmean(odds) if odds else 0.0
        centred.append([v - mean for v in odds])
    y = [round(fmean(values), 12) for values in zip(*centred, strict=True)]  # equal ones are to stay equal
    return Correlation(
        tuple(everywhere),
        tuple(x),
        tuple(y),
        pearson=_coefficient(x, y, pearson, seed),
        spearman=_coefficient(x, y, spearman, seed, ranked=True),
        left_out=left_out,
    )


def logit(accuracy: float, count: int | None = None, whose: str = "a model") -> float:
    """The log odds of an accuracy. One of 0 or 1 counts as half of one of `count` items away from there.

    Raises UsageError for what is no accuracy, and for 0 or 1 without a count.
    """
    if not 0 <= accuracy <= 1:  # also NaN
        raise UsageError(f"an accuracy must be from 0 to 1, and that of {whose} is {accuracy!r}")
    if accuracy in (0, 1):
        if count is None or count < 1:
            raise UsageError(
                f"the accuracy of {whose} is {accuracy:g}, which has no log odds; give how many items it is of"
            )
        accuracy = abs(accuracy - 0.5 / count)
    return math.log(accuracy) - math.log1p(-accuracy)


def pearson(x: Sequence[float], y: Sequence[float]) -> float | None:
    """The coefficient of linear correlation; None where one of them is constant, or below three pairs."""
    if len(x) != len(y):
        raise UsageError(f"a correlation needs pairs, got {len(x)} and {len(y)} numbers")
    if len(x) < LEAST_FOR_R:
        return None
    dx, dy = _centred(x), _centred(y)
    if dx is None or dy is None:
        return None
    r = sum(a * b for a, b in zip(dx, dy, strict=True)) / math.sqrt(sum(a * a for a in dx) * sum(b * b for b in dy))
    return max(-1.0, min(1.0, r))


def spearman(x: Sequence[float], y: Sequence[float]) -> float | None:
    """The coefficient of the ranks; None where one of them is constant, or below three pairs."""
    return pearson(ranks(x), ranks(y))


def ranks(values: Sequence[float]) -> list[float]:
    """The ranks from 1, those of equal values by their mean."""
    order = sorted(range(len(values)), key=values.__getitem__)
    found = [0.0] * len(values)
    start = 0
    while start < len(order):
        end = start
        while end + 1 < len(order) and values[order[end + 1]] == values[order[start]]:
            end += 1
        for k in range(start, end + 1):
            found[order[k]] = (start + end) / 2 + 1
        start = end + 1
    return found


def fisher_interval(r: float, n: int, *, ranked: bool = False) -> tuple[float, float] | None:
    """The 95 % interval of a coefficient of n pairs by Fisher's z; None below four. Of -1 or 1 it is that alone."""
    if n < LEAST_FOR_AN_INTERVAL:
        return None
    if abs(r) == 1:
        return (r, r)
    half = _NORMAL * math.sqrt(1 + r * r / 2 if ranked else 1) / math.sqrt(n - 3)
    z = math.atanh(r)
    return (math.tanh(z - half), math.tanh(z + half))


def _coefficient(
    x: Sequence[float],
    y: Sequence[float],
    of: Callable[[Sequence[float], Sequence[float]], float | None],
    seed: int,
    *,
    ranked: bool = False,
) -> Coefficient:
    n, value = len(x), of(x, y)
    if value is None:
        if n < LEAST_FOR_R:
            return Coefficient(None, why=f"a correlation needs at least {LEAST_FOR_R} models, and there are {n}")
        which = "in the search" if _centred(x) is None else "on the other data"
        return Coefficient(None, why=f"all {n} models are equally good {which}, so nothing can go together with it")
    return Coefficient(value, fisher_interval(value, n, ranked=ranked), _bootstrap(x, y, of, seed))


def _bootstrap(
    x: Sequence[float],
    y: Sequence[float],
    of: Callable[[Sequence[float], Sequence[float]], float | None],
    seed: int,
) -> tuple[float, float] | None:
    """Percentiles over models drawn with replacement; draws that have no coefficient are left out."""
    n = len(x)
    if n < LEAST_FOR_AN_INTERVAL:
        return None
    rng, found = Random(seed), list[float]()
    for _ in range(RESAMPLES):
        drawn = rng.choices(range(n), k=n)
        r = of([x[i] for i in drawn], [y[i] for i in drawn])
        if r is not None:
            found.append(r)
    if len(found) < RESAMPLES // 2:  # nearly all values are the same one
        return None
    found.sort()
    tail = round(0.025 * len(found))
    return (found[tail], found[-1 - tail])


def _centred(values: Sequence[float]) -> list[float] | None:
    """Less their mean, and divided by the largest that is left; None where they are the same but for rounding."""
    mean = fmean(values)
    differences = [v - mean for v in values]
    largest = max(map(abs, differences))
    if largest <= 1e-12 * max(map(abs, values)):
        return None
    return [d / largest for d in differences]


def _finite(value: float, whose: str) -> float:
    if not math.isfinite(value):
        raise UsageError(f"what is correlated must be finite, and that of {whose} is {value!r}")
    return float(value)
