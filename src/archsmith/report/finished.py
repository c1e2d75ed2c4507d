"""What `finish` found: the winner beside a hand-designed network and random search's best, on the test set.

Read from the document that `finish` keeps with the run. A store may come from anywhere and be of another version, so
nothing is taken for granted of it: what is missing or of another type is left out.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from archsmith._page.html import Html, Piece, count, details, duration, join, number, table, tag
from archsmith.core.finish import Measure, epochs_of_finals, epochs_text
from archsmith.report.facts import Facts

Json = Mapping[str, Any]


def finished(facts: Facts) -> Html | None:
    """The test results with the claim they allow; None while there are none."""
    found = facts.finish
    if found is None:
        return None
    networks = _mappings(found.get("networks"))
    measure, items = _measure(found), _number(found.get("test_count"))
    cost = _mapping(found.get("cost"))
    on = f" on the test set of {_items(items, measure)}" if items else " on the test set"
    times = facts.looks
    note = (
        f"Mean and standard deviation over seeds{on}. The test set was looked at {count(times, 'time')} for this run"
        f"{'' if times == 1 else ', and later looks are optimistic'}. All trainings of the finish together: "
        f"{number(round(_number(cost.get('epochs')) or 0))} epochs, {duration(_number(cost.get('seconds')))}."
    )
    claim = found.get("claim")
    return join(
        [
            tag("blockquote", tag("p", str(claim))) if claim else None,
            _networks(networks, measure) if networks else None,
            tag("p", note, cls="quiet"),
            _comparisons(_mappings(found.get("comparisons")), measure),
            *(_trainings(network, measure) for network in networks),
            _model(_mapping(found.get("model"))),
            details("The plan", tag("pre", json.dumps(found.get("plan"), indent=1, ensure_ascii=False))),
        ]
    )


def test_score(found: Json) -> tuple[str, str] | None:
    """The found network's test score, and over what; None where it has none."""
    networks, measure = _mappings(found.get("networks")), _measure(found)
    if not networks or _number(networks[0].get("mean")) is None:
        return None
    items = _number(found.get("test_count"))
    seeds = count(len(_scores(networks[0])), "seed")
    return _mean(networks[0], measure), f"mean of {seeds}" + (f", {_items(items, measure)}" if items else "")


def trained_for(found: Json) -> str:
    """How long the found network was trained, and how long the plan asks for; empty if that was not recorded."""
    networks = _mappings(found.get("networks"))
    epochs = epochs_of_finals(networks[0]) if networks else None
    return epochs_text(epochs, _mapping(found.get("plan"))) if epochs is not None else ""


def found_network(found: Json) -> str:
    """Which trial it is that was tested, and its size: seldom those of the trial with the best reward."""
    networks = _mappings(found.get("networks"))
    if not networks:
        return ""
    trial = re.match(r"trial \d+", str(networks[0].get("origin", "")))
    parameters = _number(networks[0].get("parameters"))
    size = f"{number(parameters)} parameters" if parameters is not None else ""
    return ", ".join(part for part in (trial.group() if trial else "", size) if part)


def _networks(networks: Sequence[Json], measure: Measure) -> Html:
    every = [a for network in networks for a in _scores(network)]
    low, high = (min(every), max(every)) if every else (0.0, 1.0)
    rows: list[tuple[Piece, ...]] = []
    for network in networks:
        finals = _mappings(network.get("finals"))
        cost = _mapping(network.get("cost"))
        changed = ", ".join(f"{k} {v}" for k, v in _mapping(network.get("settings")).items())
        trainings = int(_number(network.get("trainings")) or 0) + len(finals)
        rows.append(
            (
                tag("strong", str(network.get("name", ""))),
                join([str(network.get("origin", "")), f"; changed: {changed}" if changed else ""]),
                _strip(_scores(network), low, high),
                _mean(network, measure),
                f"{len(_scores(network))} of {len(finals)}",
                number(epochs_of_finals(network)),
                number(_number(network.get("parameters"))),
                number(trainings),
                number(round(_number(cost.get("epochs")) or 0)),
                duration(_number(cost.get("seconds"))),
            )
        )
    tested = f"test {measure.label}"
    head = (
        "network",
        "what it is",
        "each seed",
        tested,
        "seeds",
        "epochs of each",
        "parameters",
        "trainings",
        "epochs",
        "time",
    )
    better = "to the right" if measure.higher_is_better else "to the left"
    note = tag(
        "p", f"One dot a seed, all on one scale from {measure.text(low)} to {measure.text(high)}; {better} is better."
    )
    return join([table(head, rows, left=3), tag("div", note, cls="quiet") if every else None])


def _mean(network: Json, measure: Measure) -> str:
    mean, deviation = _number(network.get("mean")), _number(network.get("deviation"))
    return "none finished" if mean is None else measure.text(mean, deviation)


def _scores(network: Json) -> list[float]:
    values = [_number(final.get("score")) for final in _mappings(network.get("finals"))]
    return [value for value in values if value is not None]


def _strip(values: Sequence[float], low: float, high: float) -> Html:
    """One dot a seed and a line at the mean, all networks on one scale."""
    width, span = 150.0, max(high - low, 1e-9)
    at = [10 + (width - 20) * (value - low) / span for value in values]
    dots = "".join(f'<circle cx="{x:.1f}" cy="10" r="4" fill="var(--run)" fill-opacity=".55"/>' for x in at)
    mean = sum(at) / len(at) if at else 0.0
    line = f'<path d="M{mean:.1f} 2V18" stroke="var(--ink)" stroke-width="1.5"/>' if at else ""
    rule = f'<path d="M4 10H{width - 4:.0f}" stroke="var(--rule)"/>'
    return Html(
        f'<svg class="strip" viewBox="0 0 {width:.0f} 20" role="img" aria-label="by seed">{rule}{dots}{line}</svg>'
    )


def _comparisons(comparisons: Sequence[Json], measure: Measure) -> Html | None:
    if not comparisons:
        return None
    rows: list[tuple[Piece, ...]] = []
    for c in comparisons:
        interval = c.get("interval")
        bounds = [_number(b) for b in interval] if isinstance(interval, list | tuple) else []
        between = (
            f"{_signed(bounds[0], measure)} to {_signed(bounds[1], measure)}"
            if len(bounds) == 2 and None not in bounds
            else "–"
        )
        rows.append(
            (
                f"found against {c.get('other', '')}",
                str(c.get("verdict", "")),
                _signed(_number(c.get("difference")), measure),
                between,
                number(_number(c.get("n"))),
            )
        )
    head = ("comparison", "verdict", f"difference, {_unit(measure)}", "its 95 % interval", "seeds")
    return table(head, rows, left=2)


def _unit(measure: Measure) -> str:
    return (
        "points" if measure.percent else f"{measure.label} ({'more' if measure.higher_is_better else 'less'} is better)"
    )


def _signed(difference: float | None, measure: Measure) -> str:
    if difference is None:
        return "–"
    shown = 100 * difference if measure.percent else difference
    return f"{shown:+.{measure.digits}f}".replace("-", "−")


def _trainings(network: Json, measure: Measure) -> Html | None:
    finals = _mappings(network.get("finals"))
    if not finals:
        return None
    rows: list[tuple[Piece, ...]] = []
    for final in finals:
        score, cost = _number(final.get("score")), _mapping(final.get("cost"))
        rows.append(
            (
                str(final.get("index", "")),
                str(final.get("failure") or ""),
                measure.text(score) if score is not None else "–",
                number(_number(final.get("loss"))),
                number(_number(final.get("validation"))),
                number(_number(cost.get("epochs"))),
                duration(_number(cost.get("seconds"))),
            )
        )
    head = ("seed", "failure", f"test {measure.label}", "test loss", "validation reward", "epochs", "time")
    failed = int(_number(network.get("failures")) or 0)
    note = tag("p", f"{count(failed, 'training')} of its tuning failed.", cls="quiet") if failed else None
    name = f"The final trainings of the network named {network.get('name', '')}"
    return details(name, table(head, rows, left=2), note)


def _model(model: Json) -> Html | None:
    if not model:
        return None
    text = f"`archsmith export` writes the training of seed {model.get('index', '')}: {model.get('why', '')}."
    return tag("p", text, cls="quiet")


def _items(n: float, measure: Measure) -> str:
    return f"{number(int(n))} {measure.items}"


# --- reading a document that may hold anything ------------------------------------------------------------------------


def _measure(found: Json) -> Measure:
    return Measure.from_json(found.get("measure"))


def _mapping(value: Any) -> Json:
    return value if isinstance(value, Mapping) else {}


def _mappings(value: Any) -> list[Json]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list | tuple) else []


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value
