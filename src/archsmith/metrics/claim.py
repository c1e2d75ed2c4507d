"""What may be said of a delivered network: a claim by rule, and why its two accuracies differ."""

from __future__ import annotations

from dataclasses import dataclass

from archsmith.metrics.outcome import BASELINE, AutoOutcome, OtherNetwork, PairedCounts, Score

BETTER, WORSE, NO_DIFFERENCE, NOT_COMPARED = "better", "worse", "no difference shown", "not compared"
LEVEL = 0.05


@dataclass(frozen=True)
class Claim:
    """A verdict, "better" (than by hand), "worse", "no difference shown" or "not compared", and sentences for a person."""

    verdict: str
    text: str


def claim(outcome: AutoOutcome) -> Claim:
    """Whether the delivered network is better than the hand-designed one.

    "Better" takes three things: both networks had equal time; the 95 % interval of the paired difference on the test pictures
    lies above zero; and McNemar's exact test gives 5 % or less. "Worse" takes the latter two, below zero, and that the
    baseline had no more time than the delivered network.
    """
    delivered, baseline, paired = outcome.delivered, outcome.baseline, outcome.paired
    if delivered.source == BASELINE:
        return Claim(NOT_COMPARED, _baseline_delivered(outcome))
    if baseline is None:
        return Claim(NOT_COMPARED, "No network was trained by hand for comparison, so nothing is claimed.")
    if paired is None or paired.count == 0:
        reason = "was not tested" if baseline.test is None else "has no test pictures in common with it"
        return Claim(
            NOT_COMPARED,
            f"The network designed by hand, {baseline.name}, {reason}, so nothing is claimed about which is better.",
        )
    evidence, verdict = _evidence(paired, baseline), _verdict(paired)
    if baseline.equal_time:
        once = "Each was trained once; other trainings of the same networks could come out differently."
        said = {
            BETTER: f"In equal time it is better than the network designed by hand: {evidence}. {once}",
            WORSE: f"In equal time it is worse than the network designed by hand: {evidence}. {once}",
            NO_DIFFERENCE: f"With equal time for both, the test pictures show no difference: {evidence}.",
        }
        return Claim(verdict, said[verdict])
    minutes = minutes_text(baseline.seconds)
    if verdict == WORSE:
        return Claim(
            WORSE,
            f"It is worse than the network designed by hand, which was trained for {minutes}: {evidence}.",
        )
    return Claim(
        NOT_COMPARED,
        f"For orientation: {evidence}. The network designed by hand had less time ({minutes}), so this "
        "does not say which is better in equal time; --baseline-time gives it as much.",
    )


def accuracy_remark(outcome: AutoOutcome) -> str:
    """Why validation and test accuracy differ, in words for this network; empty unless it has both."""
    validation, test = outcome.delivered.validation, outcome.delivered.test
    if validation is None or test is None or validation.accuracy is None or test.accuracy is None:
        return ""
    shown = (
        f"{percent(validation.accuracy)} on the validation pictures and {percent(test.accuracy)} on the test pictures"
    )
    why = (
        "Networks and settings were chosen by the validation pictures, so the accuracy there is usually a little too high: "
        "among many, one that suits just these pictures comes out first. The test pictures played no part in any choice. "
        "Expect the test accuracy on new pictures of the same kind."
    )
    if validation.accuracy <= test.accuracy:
        return f"It reached {shown}. {why} Here chance made the test pictures no harder."
    return f"It reached {shown}. {why}"


def minutes_text(seconds: float) -> str:
    """A time as a person says it: "less than a second", "45 seconds", "1 minute", "12.5 minutes", "2.1 hours"."""
    if seconds < 1:
        return "less than a second"
    unit, factor = ("hour", 3600) if seconds >= 5400 else ("minute", 60) if round(seconds) >= 60 else ("second", 1)
    text = f"{seconds / factor:.{0 if factor == 1 else 1}f}".removesuffix(".0")
    return f"{text} {unit}{'' if text == '1' else 's'}"


def percent(share: float) -> str:
    """A share as "93.1 %"."""
    return f"{100 * share:.1f} %"


def points(difference: float) -> str:
    """A difference of two shares as "+1.2", or "0.0"."""
    text = f"{100 * difference:+.1f}".replace("-", "−")
    return "0.0" if text[1:] == "0.0" else text


def _verdict(paired: PairedCounts) -> str:
    low, high = paired.interval
    if paired.p > LEVEL or low <= 0 <= high:
        return NO_DIFFERENCE
    return BETTER if low > 0 else WORSE


def _evidence(paired: PairedCounts, baseline: OtherNetwork) -> str:
    low, high = paired.interval
    n = paired.count
    delivered, other = Score(paired.both + paired.delivered_only, n), Score(paired.both + paired.baseline_only, n)
    assert delivered.accuracy is not None
    assert other.accuracy is not None
    return (
        f"of {n:,} test picture{'' if n == 1 else 's'} it recognises {percent(delivered.accuracy)} and {baseline.name} "
        f"{percent(other.accuracy)}, a difference of {points(paired.difference)} points "
        f"(95 % interval {points(low)} to {points(high)})"
    )


def _baseline_delivered(outcome: AutoOutcome) -> str:
    found = outcome.found
    text = "The network designed by hand was chosen"
    if found is None:
        return f"{text}: the search found none that was better on the validation pictures. It claims nothing for the search."
    ours, theirs = outcome.delivered.validation, found.validation
    numbers = ""
    if ours is not None and theirs is not None and ours.accuracy is not None and theirs.accuracy is not None:
        numbers = f" ({percent(ours.accuracy)} against {percent(theirs.accuracy)})"
    return f"{text}: on the validation pictures it was at least as good as the best that the search found{numbers}."
