"""Where the time went: what was planned for each stage, and what it took."""

from __future__ import annotations

from archsmith._page.html import Html, Piece, count, duration, join, number, tag
from archsmith.metrics.outcome import AutoOutcome, Stage

STAGES = {
    "reading": "reading the pictures",
    "search": "trying networks",
    "choosing": "training the best few on",
    "baseline": "the network designed by hand",
    "final": "the final training",
    "faster": "faster networks made from it",
    "testing": "testing",
    "closing": "testing, exporting, this page",
}


def time_plan(outcome: AutoOutcome) -> Html | None:
    """The stages as pairs of bars; None if none are on record."""
    if not outcome.stages:
        return None
    used = sum(s.used or 0.0 for s in outcome.stages)
    text = f"All stages together took {duration(used)}"
    if outcome.time_budget is not None:
        over = used - outcome.time_budget
        text += f" of {duration(outcome.time_budget)}"
        text += f", {duration(over)} too long" if over > 0.05 * outcome.time_budget else ""
    text += f". {count(outcome.children, 'network was', 'networks were')} tried"
    text += (
        f", with {number(round(outcome.epochs, 1))} passes over the training pictures in all trainings together."
        if outcome.epochs
        else "."
    )
    longest = max(max(s.planned or 0.0, s.used or 0.0) for s in outcome.stages)
    planned = any(s.planned is not None for s in outcome.stages)
    rows = [piece for s in outcome.stages for piece in _row(s, longest)]
    legend = tag(
        "ul",
        tag("li", tag("span", cls="key bar"), "used"),
        tag("li", tag("span", cls="key plan"), "planned"),
        cls="legend",
    )
    return join([tag("p", text), legend if planned else None, tag("div", *rows, cls="stages")])


def _row(stage: Stage, longest: float) -> tuple[Piece, ...]:
    bars = [
        tag("div", cls=cls, style=f"width: {100 * seconds / longest if longest > 0 else 0:.1f}%")
        for seconds, cls in ((stage.used, "used"), (stage.planned, "planned"))
        if seconds is not None
    ]
    took = duration(stage.used) if stage.used is not None else "not reached"
    of = f" of {duration(stage.planned)}" if stage.planned is not None else ""
    return (
        tag("div", STAGES.get(stage.name, stage.name), cls="stage"),
        tag("div", f"{took}{of}", cls="took"),
        tag("div", *bars, cls="bars"),
    )
