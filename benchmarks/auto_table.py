"""The table of benchmarks/auto.py: what its lines say, with intervals and verdicts. Plain functions of the lines."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

import numpy as np

Line = Mapping[str, Any]
Key = tuple[str, str, float, int, int]

AUTO, BY_HAND, EARLIER = "auto", "by-hand", "auto-ce2ea73"
PRETRAINED, FINE_TUNED, PROBE = "auto-pretrained", "fine-tuned", "probe"  # these begin with ImageNet weights
NAMES = {BY_HAND: "by hand"}  # of methods, where the table calls them otherwise
DRAWS = 10_000
MARGIN = 0.5  # points by which a mean that is "at least as good" may be below
OVERRUN = 5.0  # per cent that a command may take longer than its time
BUSY = 0.2  # cores that other programs took, on average, during a measurement
TOLERANCE = 1.0  # points by which the hand-made network may miss the figures that it must reach
REQUIRED = {("trash6", 10.0, 0, 0): 89.1, ("flowers5", 20.0, 0, 0): 77.2}  # data, minutes, seed, fold: per cent
REQUIRED_FINE_TUNED = {("trash6", 10.0, 0, 0): 93.6}
# Faster networks: at most such a part of the delivered one's latency, and so many points that they may lose.
FASTER = {1 / 2: 1.0, 1 / 4: 3.0}
NOISE = 0.05  # by which a latency may seem higher than it is: two measurements of one network differ by some per cent


def key_of(line: Line) -> Key:
    """What a line measures: data, method, minutes, seed and fold."""
    return line["data"], line["method"], float(line["minutes"]), line["seed"], line["fold"]


def latest(lines: Iterable[Line]) -> dict[Key, Line]:
    """The last line of each key that did not fail."""
    return {key_of(line): line for line in lines if "error" not in line}


def pack(correct: Sequence[bool]) -> str:
    """Bits as base64, eight pictures a byte."""
    return base64.b64encode(np.packbits(np.asarray(correct, bool)).tobytes()).decode()


def unpack(text: str, count: int) -> np.ndarray:
    """What `pack` packed."""
    return np.unpackbits(np.frombuffer(base64.b64decode(text), np.uint8), count=count).astype(bool)


def calibration_error(confidence: Sequence[float], correct: Sequence[bool], bins: int = 15) -> float:
    """The expected calibration error (Naeini et al. 2015): bins of equal width, weighted by their pictures."""
    sure, right = np.asarray(confidence, float), np.asarray(correct, float)
    which = np.minimum((sure * bins).astype(int), bins - 1)
    gaps = (abs((sure - right)[which == each].sum()) for each in range(bins))
    return float(sum(gaps)) / len(sure)


@dataclass(frozen=True)
class Pair:
    """Two methods on the same test pictures.

    Args:
        fold: pairs of one fold have the same pictures.
        ours, theirs: which pictures each got right.
    """

    fold: int
    ours: np.ndarray
    theirs: np.ndarray


@dataclass(frozen=True)
class Difference:
    """A mean paired difference in points, with a 95 % interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:+.1f} | {self.low:+.1f} to {self.high:+.1f}"


def difference(pairs: Sequence[Pair], draws: int = DRAWS, seed: int = 0) -> Difference:
    """The mean over pairs of the difference in accuracy, and its interval by a hierarchical bootstrap.

    Each draw takes as many pairs (seeds or folds) with replacement, and of each fold as many test pictures with
    replacement, the same ones for all pairs of the fold.
    """
    rng = np.random.default_rng(seed)
    drawn = np.empty((draws, len(pairs)))
    means = np.empty(len(pairs))
    for fold in sorted({pair.fold for pair in pairs}):
        members = [i for i, pair in enumerate(pairs) if pair.fold == fold]
        gaps = np.stack([pairs[i].ours.astype(int) - pairs[i].theirs for i in members], 1)  # pictures, pairs
        patterns, counts = np.unique(gaps, axis=0, return_counts=True)  # equal pictures are drawn together
        resampled = rng.multinomial(len(gaps), counts / len(gaps), size=draws)
        drawn[:, members] = resampled @ patterns / len(gaps)
        means[members] = gaps.mean(0)
    chosen = rng.integers(0, len(pairs), drawn.shape)
    low, high = np.quantile(np.take_along_axis(drawn, chosen, 1).mean(1), (0.025, 0.975))
    return Difference(100 * float(means.mean()), 100 * float(low), 100 * float(high))


def verdict(result: Difference) -> str:
    """Better: the interval is above zero. At least as good: the mean is -0.5 or more and the interval reaches zero."""
    if result.low > 0:
        return "better"
    return "at least as good" if result.mean >= -MARGIN and result.high >= 0 else "worse"


def pairs_of(
    lines: Mapping[Key, Line], data: str, minutes: float, methods: tuple[str, str] = (AUTO, BY_HAND)
) -> list[tuple[Line, Line]]:
    """The lines of two methods that differ in nothing else, by seed and fold."""
    both = []
    for (name, method, budget, seed, fold), line in sorted(lines.items()):
        other = lines.get((name, methods[1], budget, seed, fold))
        if (name, method, budget) == (data, methods[0], minutes) and other is not None:
            if line["pictures"] != other["pictures"]:
                raise ValueError(f"{key_of(line)} and {key_of(other)} were tested on different pictures; measure again")
            both.append((line, other))
    return both


def compare(both: Sequence[tuple[Line, Line]]) -> Difference:
    """The paired difference of what `pairs_of` gives."""
    return difference(
        [Pair(a["fold"], unpack(a["correct"], a["pictures"]), unpack(b["correct"], b["pictures"])) for a, b in both]
    )


def spread(values: Sequence[float], digits: int = 1) -> str:
    """A mean, with the standard deviation where there are several values."""
    mean = f"{fmean(values):.{digits}f}"
    return f"{mean} ({stdev(values):.{digits}f})" if len(values) > 1 else mean


def accuracy(lines: Iterable[Line]) -> str:
    return spread([100 * line["test_accuracy"] for line in lines])


def overrun(line: Line) -> float:
    """Per cent of the allowed time."""
    return 100 * (float(line["seconds"]) / (60 * float(line["minutes"])) - 1)


def rows(*columns: str) -> list[str]:
    """The head of a table."""
    return ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]


def columns_of(methods: Sequence[str]) -> list[str]:
    """The heads of the columns with accuracies."""
    return [f"{NAMES.get(method, method)}, %" for method in methods]


def main_table(
    lines: Mapping[Key, Line], wanted: Mapping[str, int], methods: tuple[str, str] = (AUTO, BY_HAND)
) -> list[str]:
    """10 minutes on each data set: both methods and the verdict. `wanted` is how many pairs a data set should have."""
    text = rows("data", "pairs", *columns_of(methods), "difference, points", "95 % interval", "verdict")
    verdicts = []
    for data, number in wanted.items():
        both = pairs_of(lines, data, 10.0, methods)
        if not both:
            text.append(f"| {data} | 0 of {number} | | | | | not measured |")
            continue
        result = compare(both)
        said = verdict(result)
        complete = len(both) >= number
        verdicts += [said] if complete else []
        ours, theirs = zip(*both, strict=True)
        text.append(
            f"| {data} | {len(both)} of {number} | {accuracy(ours)} | {accuracy(theirs)} | {result} "
            f"| {said if complete else f'so far {said}'} |"
        )
    good, better = len(verdicts) - verdicts.count("worse"), verdicts.count("better")
    return [
        *text,
        "",
        f"Of {len(wanted)} data sets, {len(verdicts)} are complete: at least as good on {good}, better on {better}.",
    ]


def pretrained(lines: Mapping[Key, Line], wanted: Mapping[str, int]) -> list[str]:
    """`auto` with ImageNet weights against what a person does with them in the same minutes."""
    fine_tuned, probe = (main_table(lines, wanted, (PRETRAINED, other)) for other in (FINE_TUNED, PROBE))
    return [*fine_tuned, "", "Against a logistic regression on the network's features, which ends earlier:", "", *probe]


def curve(lines: Mapping[Key, Line], data: str = "trash6", methods: tuple[str, str] = (AUTO, BY_HAND)) -> list[str]:
    """Accuracy over the minutes, on the folds that all budgets share."""
    pairs = {minutes: pairs_of(lines, data, minutes, methods) for minutes in sorted({key[2] for key in lines})}
    budgets = {minutes: both for minutes, both in pairs.items() if both}
    if not budgets:
        return ["Not measured."]
    folds = set.intersection(*({a["fold"] for a, _ in both} for both in budgets.values()))
    text = rows("minutes", *columns_of(methods), "difference, points", "95 % interval")
    for minutes, measured in budgets.items() if folds else ():
        both = [(a, b) for a, b in measured if a["fold"] in folds]
        ours, theirs = zip(*both, strict=True)
        text.append(f"| {minutes:g} | {accuracy(ours)} | {accuracy(theirs)} | {compare(both)} |")
    return [f"{data}, folds {', '.join(map(str, sorted(folds))) or 'none'}.", "", *text]


def within(line: Line, part: float) -> Line | None:
    """What a line has of the slowest network that takes at most this part of the delivered one's latency; None without one."""
    allowed = part * (1 + NOISE) * float(line["latency"])
    networks = [network for network in line["faster"] if network["latency"] <= allowed]
    return max(networks, key=lambda network: float(network["latency"]), default=None)


def faster(lines: Mapping[Key, Line]) -> list[str]:
    """What is lost by the networks that take a part of the delivered one's latency, by data and minutes."""
    groups: dict[tuple[str, float], list[Line]] = {}
    for key in sorted(lines):
        if key[1] == PRETRAINED:
            groups.setdefault((key[0], key[2]), []).append(lines[key])
    if not groups:
        return ["Not measured."]
    text = rows(
        *(
            "data",
            "minutes",
            "latency",
            "networks",
            "delivered, %",
            "this, %",
            "difference, points",
            "may lose",
            "holds",
        ),
        *("ms: delivered", "this", "ratio: mean", "highest"),
    )
    for (data, minutes), group in groups.items():
        for part, allowed in FASTER.items():
            found = [(line, network) for line in group if (network := within(line, part)) is not None]
            begins = f"| {data} | {minutes:g} | at most 1/{1 / part:.0f} | {len(found)} of {len(group)} |"
            if not found:
                text.append(f"{begins} | | | | no network | | | | |")
                continue
            ours = [100 * line["test_accuracy"] for line, _ in found]
            theirs = [100 * network["test"]["correct"] / network["test"]["count"] for _, network in found]
            gaps = [b - a for a, b in zip(ours, theirs, strict=True)]
            ratios = [network["latency"] / line["latency"] for line, network in found]
            holds = "yes" if fmean(gaps) >= -allowed else "no"
            whole, this = (spread([each[k]["latency"] for each in found], 2) for k in (0, 1))
            text.append(
                f"{begins} {spread(ours)} | {spread(theirs)} | {fmean(gaps):+.1f} | {allowed:g} "
                f"| {holds if len(found) == len(group) else f'{holds}, where there is one'} "
                f"| {whole} | {this} | {fmean(ratios):.2f} | {max(ratios):.2f} |"
            )
    return [
        *text,
        "",
        f"A latency counts as a part of another if it is at most {100 * NOISE:g} % above it: so much do measurements differ.",
        "Of several such networks the slowest is taken. Their accuracies are those that `auto` reports.",
    ]


def earlier(lines: Mapping[Key, Line]) -> list[str]:
    """`auto` as it was at commit ce2ea73, on the same test pictures."""
    both = pairs_of(lines, "trash6", 10.0, (AUTO, EARLIER))
    if not both:
        return ["Not measured."]
    ours, theirs = zip(*both, strict=True)
    text = rows("trash6, fold", "auto, %", "auto of ce2ea73, %", "difference, points", "95 % interval")
    folds = ", ".join(str(line["fold"]) for line in ours)
    return [*text, f"| {folds} | {accuracy(ours)} | {accuracy(theirs)} | {compare(both)} |"]


def costs(lines: Mapping[Key, Line]) -> list[str]:
    """Calibration and time by data, method and minutes."""
    groups: dict[tuple[str, str, float], list[Line]] = {}
    for key in sorted(lines):
        groups.setdefault(key[:3], []).append(lines[key])
    text = rows("data", "method", "minutes", "calibration error, %", "overrun, %: mean", "worst", "others' cores")
    for (data, method, minutes), group in groups.items():
        late = [overrun(line) for line in group]
        calibration = spread([100 * line["calibration_error"] for line in group])
        busy = max(line["other_cores"] for line in group)
        text.append(
            f"| {data} | {method} | {minutes:g} | {calibration} | {fmean(late):+.1f} | {max(late):+.1f} | {busy:.2f} |"
        )
    return text


def requirements(
    lines: Mapping[Key, Line],
    method: str = BY_HAND,
    required: Mapping[tuple[str, float, int, int], float] = REQUIRED,
) -> list[str]:
    """Whether the hand-made network reaches the figures without which the comparison does not count."""
    text = rows("data", "minutes", "must reach, %", "reaches, %", "")
    for (data, minutes, seed, fold), figure in required.items():
        line = lines.get((data, method, minutes, seed, fold))
        reached = None if line is None else 100 * line["test_accuracy"]
        said = "not measured" if reached is None else "yes" if reached >= figure - TOLERANCE else "no"
        text.append(
            f"| {data} | {minutes:g} | {figure} - {TOLERANCE:g} | {'' if reached is None else f'{reached:.1f}'} | {said} |"
        )
    return text


def remarks(lines: Sequence[Line]) -> list[str]:
    """What limits the numbers: failures, busy machines, commands that overran, more than one commit or machine."""
    last = latest(lines)
    text = []
    failures = [line for line in lines if "error" in line]
    if failures:
        open_ = sorted({key_of(line) for line in failures} - set(last))
        text.append(f"- {len(failures)} runs failed; {len(open_)} of these are still missing.")
    if busy := [line for line in last.values() if line["other_cores"] > BUSY]:
        text.append(f"- {len(busy)} of {len(last)} lines: other programs took more than {BUSY} cores meanwhile.")
    if late := [line for line in last.values() if line["method"] in (AUTO, PRETRAINED) and overrun(line) > OVERRUN]:
        text.append(f"- {len(late)} runs of auto took more than {OVERRUN:g} % longer than they were allowed.")
    said = [(line.get("reported_accuracy"), line["test_accuracy"]) for line in last.values()]
    if other := sum(own is not None and abs(own - measured) > 1e-6 for own, measured in said):
        text.append(f"- In {other} lines, auto reported another test accuracy than its exported model has.")
    for method in (AUTO, BY_HAND, PRETRAINED, FINE_TUNED, PROBE):
        commits = sorted({line["commit"] for line in last.values() if line["method"] == method})
        if commits:
            text.append(f"- {method}: commit{'s' if len(commits) > 1 else ''} {', '.join(commits)}.")
    text += [f"- {machine}" for machine in sorted({line["machine"] for line in last.values()})]
    return text


def table(lines: Sequence[Line], wanted: Mapping[str, int], pretrained_wanted: Mapping[str, int]) -> str:
    """The page. How many pairs each data set should have is said for what is from scratch, and for what has ImageNet weights."""
    last = latest(lines)
    sections = {
        "Ten minutes": main_table(last, wanted),
        "A curve": curve(last),
        "Before": earlier(last),
        "The hand-made network": requirements(last),
        "Pretrained": pretrained(last, pretrained_wanted),
        "A curve, pretrained": curve(last, methods=(PRETRAINED, FINE_TUNED)),
        "Faster networks": faster(last),
        "The fine-tuned network": requirements(last, FINE_TUNED, REQUIRED_FINE_TUNED),
        "Calibration and time": costs(last) if last else ["Not measured."],
        "Remarks": remarks(lines),
    }
    text = [
        "# `archsmith auto` against a network made by hand",
        "",
        "`python benchmarks/auto.py --scratch FOLDER`, then `python benchmarks/auto.py --table`. benchmarks/README.md explains it.",
        "",
        "`auto` is from scratch; `auto-pretrained` begins with ImageNet weights, as `fine-tuned` and `probe` do.",
        "Numbers in parentheses are standard deviations. Differences are auto minus the other on the same test pictures;",
        f'their intervals resample pairs (seeds or folds) and test pictures, {DRAWS:,} draws. "At least as good" is a mean of',
        f'-{MARGIN} points or more with an interval that reaches zero; "better" is an interval above zero.',
    ]
    for title, body in sections.items():
        text += ["", f"## {title}", "", *body]
    return "\n".join(text) + "\n"
