"""The best architectures: drawn where their space can draw them, else as JSON, each with what is known of it."""

from __future__ import annotations

import json
from typing import Any

from archsmith._page.html import Html, Piece, details, duration, join, number, table, tag
from archsmith.core.errors import IllegalGenotype, UsageError
from archsmith.core.finish import Measure
from archsmith.core.shown import command_text
from archsmith.core.space import decode
from archsmith.core.trial import Trial
from archsmith.nn.augmentation.policy import check_architecture
from archsmith.report import curves
from archsmith.report.augmented import augmented
from archsmith.report.draw import draw
from archsmith.report.facts import DRAWN, Facts, curve
from archsmith.report.names import axis, in_order, metric_text, readable


def architectures(facts: Facts) -> Html:
    """The best few that differ."""
    if not facts.top:
        return tag("p", "No trial has a reward yet, so there is no best architecture.")
    distinct: dict[str, Trial] = {}
    for trial in facts.top:
        distinct.setdefault(trial.genotype.key, trial)
    shown = list(distinct.values())[:DRAWN]
    return join([_one(facts, trial, i) for i, trial in enumerate(shown)])


def _one(facts: Facts, trial: Trial, i: int) -> Html:
    rank = "The best" if i == 0 else f"Number {i + 1}"
    side: list[Piece] = [_metrics(trial, facts.measure)]
    if facts.curve_metric:
        epochs, values = curve(trial, facts.curve_metric)
        if len(epochs):
            what = axis(facts.measure) if facts.curve_metric == facts.measure.name else "value"
            drawn = curves.one_curve(epochs, values, f"curve{i}", what)
            side.append(tag("figure", drawn))
    genotype = json.dumps(trial.genotype.to_json(), indent=1, ensure_ascii=False)
    side.append(details("Its genotype, as JSON", tag("pre", genotype), _describe(facts, trial)))
    side.append(_formula(facts, trial))
    return tag(
        "article",
        tag("h3", f"{rank}: trial {trial.number}, reward {number(trial.reward)}"),
        tag("div", _picture(facts, trial), tag("div", *side), cls="beside"),
        _example_images(facts, trial),
    )


def _describe(facts: Facts, trial: Trial) -> Html | None:
    """The command that describes a trial's network; None for a run in memory, which no command can open."""
    if facts.url is None:
        return None
    command = command_text("describe", facts.summary.name, "--trial", str(trial.number), "--store", facts.url)
    return tag("p", "Describe it: ", tag("code", command))


def _formula(facts: Facts, trial: Trial) -> Html | None:
    """The formula of an update rule or another expression, to be read and for TeX; None where there is none."""
    if facts.space is None or not hasattr(facts.space, "formula") or not hasattr(facts.space, "latex"):
        return None
    try:
        architecture = decode(facts.space, trial.genotype)
        text, latex = facts.space.formula(architecture), facts.space.latex(architecture)
    except UsageError:
        return None
    if text is None or latex is None:
        return None
    return details("Its formula, also for TeX", tag("pre", text), tag("pre", latex))


def _metrics(trial: Trial, measure: Measure) -> Html:
    result = trial.result
    rows: list[tuple[Piece, Piece]] = []
    metrics = result.metrics if result is not None else {}
    for name in in_order(metrics, measure)[:24]:
        rows.append((readable(name), metric_text(name, metrics[name], measure)))
    if result is not None:
        rows.append(("epochs trained", number(result.cost.epochs)))
        rows.append(("time", duration(result.cost.seconds)))
    if trial.parent is not None:
        rows.append(("made from trial", number(trial.parent)))
    rows.append(("key", tag("code", trial.genotype.key)))
    return table(("what was measured", ""), rows)


def _picture(facts: Facts, trial: Trial) -> Html:
    """The drawing; JSON where there is none. A space of the user's own may err here, which must not cost the page."""
    if facts.space is None:
        note = "The space is not part of archsmith and was not at hand, so its answers stand here instead of a drawing."
        return _json(dict(trial.genotype.answers), note)
    try:
        architecture = decode(facts.space, trial.genotype)
    except IllegalGenotype as error:
        return _json(dict(trial.genotype.answers), f"It cannot be drawn: {error}")
    diagram = getattr(facts.space, "diagram", None)
    if diagram is None:
        return _json(architecture, "The space has no drawing, so the architecture stands here as JSON.")
    try:
        drawing = draw(diagram(architecture))
    except Exception as error:
        return _json(architecture, f"It could not be drawn: {type(error).__name__}: {error}")
    # A page needs no namespaces; `draw` escapes what it writes.
    return tag("div", Html(drawing.replace(' xmlns="http://www.w3.org/2000/svg"', "", 1)), cls="drawing")


def _example_images(facts: Facts, trial: Trial) -> Html | None:
    """What an augmentation does to images, alone or as a part of a product; None where there is none."""
    if facts.space is None:
        return None
    try:
        architecture = decode(facts.space, trial.genotype)
    except IllegalGenotype:
        return None
    parts = architecture.get("parts") if isinstance(architecture, dict) else None
    for own in (architecture, *(parts.values() if isinstance(parts, dict) else ())):
        try:
            check_architecture(own)
        except UsageError:
            continue
        return augmented(own)
    return None


def _json(value: Any, note: str) -> Html:
    text = json.dumps(value, indent=1, ensure_ascii=False, default=str)
    return tag("div", tag("p", note, cls="quiet"), tag("pre", text))
