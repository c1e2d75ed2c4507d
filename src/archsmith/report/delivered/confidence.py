"""Whether the network's confidence can be taken at its word."""

from __future__ import annotations

from collections.abc import Sequence

from archsmith._page.figures import MUTED, RUN, axes_of, styled, svg
from archsmith._page.html import Html, figure, join, number, tag
from archsmith.metrics.calibration import Bin
from archsmith.metrics.outcome import CalibrationReport

GOOD, FAIR = 0.03, 0.08
FEW = 200  # test pictures, with which the error is measured roughly


def confidence(report: CalibrationReport | None) -> Html | None:
    """The calibration error in words and as a plot; None where it was not measured."""
    if report is None or report.error_after is None:
        return None
    error, before = report.error_after, report.error_before
    verdict = "can be taken at its word" if error <= GOOD else "is roughly right" if error <= FAIR else "needs caution"
    n = sum(group.count for group in report.after)
    said = [
        "The network says how sure it is. Of the pictures where it says 90 %, nine in ten should be right.",
        f"Its confidence {verdict}: on the test pictures it differs from the share that is right by {100 * error:.1f} points "
        f"on average{_direction(report.after, error)}.",
    ]
    if report.temperature != 1.0 and before is not None:
        said.append(
            f"The exported network divides its scores by {number(report.temperature, 3)} (the temperature, which makes it "
            f"{'less' if report.temperature > 1 else 'more'} sure and changes no decision); without that the difference would be "
            f"{100 * before:.1f} points."
        )
    if n < FEW:
        said.append(f"{number(n)} test pictures measure this only roughly.")
    return join([tag("p", " ".join(said)), _plot(report) if len(report.after) > 1 else None])


def _direction(groups: Sequence[Bin], error: float) -> str:
    n = sum(group.count for group in groups)
    over = sum(g.count * (g.confidence - g.accuracy) for g in groups) / n if n else 0.0
    if error <= GOOD or abs(over) < error / 2:
        return ""
    return " and is too high" if over > 0 else " and is too low"


def _plot(report: CalibrationReport) -> Html:
    with styled():
        drawn, axes = axes_of("confidence", "share that is right")
        axes.plot([0, 100], [0, 100], color=MUTED, linewidth=1, linestyle=(0, (3, 3)))
        parts = [(report.after, RUN)]
        if report.temperature != 1.0:
            parts.insert(0, (report.before, MUTED))
        for groups, colour in parts:
            x, y = [100 * g.confidence for g in groups], [100 * g.accuracy for g in groups]
            axes.plot(x, y, color=colour, linewidth=1.6, marker="o", markersize=4)
        least = min((min(g.confidence, g.accuracy) for groups, _ in parts for g in groups), default=0.0)
        low = max(0.0, min(90.0, 100 * least - 4))  # a wide enough scale for ticks at whole numbers
        axes.set_xlim(low, 101)
        axes.set_ylim(low, 101)
        axes.xaxis.set_major_formatter("{x:g} %")
        axes.yaxis.set_major_formatter("{x:g} %")
        picture = svg(drawn, "confidence", "share of right answers by confidence")
    key: list[Html | str] = [tag("span", cls="key"), "the exported network"]
    if report.temperature != 1.0:
        key += [", ", tag("span", cls="key muted"), "without its temperature"]
    text = join(
        [
            f"The test pictures in {len(report.after)} groups of equal size, by confidence. ",
            *key,
            ". On the dashed line, confidence would be exactly right; below it the network is too sure.",
        ]
    )
    return tag("div", figure(picture, text), cls="plots one")
