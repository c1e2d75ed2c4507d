"""Faster networks beside the delivered one: what accuracy they have for how many milliseconds."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from archsmith._page.figures import MUTED, RUN, axes_of, styled, svg
from archsmith._page.html import Html, figure, join, number, percent, table, tag
from archsmith.metrics.outcome import AutoOutcome, Score


@dataclass(frozen=True)
class _Point:
    """A network: what `export --network` calls it (None: the delivered one), milliseconds for a picture, test score."""

    name: str
    network: str | None
    latency: float
    test: Score


def faster(outcome: AutoOutcome, run: str) -> Html | None:
    """The networks as a plot and a table, with the command that exports each; None if there are none, or no latency is known."""
    d = outcome.delivered
    if not outcome.faster or d.latency is None or d.test is None:
        return None
    points = [_Point(f"{d.name} (delivered)", None, d.latency, d.test)]
    points += [_Point(each.name, each.network, each.latency, each.test) for each in outcome.faster]
    text = (
        "The same network on smaller pictures takes less time for each. These went on from its weights, for a while, on pictures of "
        "their own size. If your application needs an answer sooner, export one of them."
    )
    head = ("network", "for a picture", "of the time", "test accuracy", "95 % interval", "export it")
    rows = [
        (
            point.name,
            f"{number(point.latency, 2)} ms",
            f"{number(100 * point.latency / d.latency, 2)} %",
            percent(point.test.accuracy) if point.test.accuracy is not None else "–",
            _interval(point.test),
            "" if point.network is None else tag("code", _export(run, point.network)),
        )
        for point in points
    ]
    return join([tag("p", text), _plot(points), table(head, rows, left=1)])


def _plot(points: Sequence[_Point]) -> Html:
    with styled():
        drawn, axes = axes_of("milliseconds for a picture", "test accuracy")
        for point in points:
            axes.plot([point.latency] * 2, [100 * end for end in point.test.interval], color=MUTED, linewidth=1)
        x, y = [point.latency for point in points], [100 * (point.test.accuracy or 0.0) for point in points]
        axes.plot(x, y, color=RUN, linewidth=1.6, marker="o", markersize=4)
        axes.set_xlim(0, 1.1 * max(x))
        axes.yaxis.set_major_formatter("{x:g} %")
        picture = svg(drawn, "faster", "test accuracy by milliseconds for a picture")
    caption = "Vertical lines are 95 % intervals. The point on the right is the delivered network."
    return tag("div", figure(picture, caption), cls="plots one")


def _export(run: str, network: str) -> str:
    return f"archsmith export {shlex.quote(run)} --network {shlex.quote(network)}"


def _interval(score: Score) -> str:
    low, high = score.interval
    return f"{100 * low:.1f} to {percent(high)}"
