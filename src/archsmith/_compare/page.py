"""The page of a comparison: what may be said, figure 6, how the searches went, what each came to, what limits it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from archsmith._compare import plots
from archsmith._compare.compared import Compared
from archsmith._compare.difference import NO_DIFFERENCE, Difference
from archsmith._compare.outcomes import TOPS
from archsmith._compare.verdict import NOT_SHOWN, told
from archsmith._page.document import document
from archsmith._page.figures import SERIES, THEME
from archsmith._page.html import Html, Piece, duration, figure, join, number, section, table, tag
from archsmith.core.finish import Measure

MOST_HEADLINES = 5
DIFFERENCE_HEAD = ("improvement", "95 % interval", "ahead in pairs", "p", "seeds")


def page(compared: Compared) -> str:
    """The whole page as text."""
    parts = [
        ("claim", "The claim", _claim(compared)),
        ("improvement", f"Improvement over {compared.baseline}", _improvements(compared)),
        ("progress", "How the searches went", _progress(compared)),
        ("outcomes", "What they came to", _outcomes(compared)),
        ("differences", "Differences", _differences(compared)),
        ("runs", "The runs", _runs(compared)),
        ("words", "What the words mean", _words(compared)),
    ]
    shown = [(id, title, body) for id, title, body in parts if body is not None]
    nav = tag("nav", *(tag("a", title, href=f"#{id}") for id, title, _ in shown))
    *labels, last = (group.label for group in compared.groups)
    title = f"{', '.join(labels)} and {last}" if labels else last
    return document(title, _headline(compared, title), nav, *(section(*part) for part in shown))


def _headline(compared: Compared, title: str) -> Html:
    runs = [run for group in compared.groups for run in group.runs]
    said = f"{len(runs)} runs of {len(compared.groups)} configurations, judged by {_validation(compared)}."
    return tag(
        "header",
        tag("p", "A comparison of searches with archsmith", cls="eyebrow"),
        tag("h1", title[:1].upper() + title[1:]),
        tag("p", said, cls="lead"),
        *([tag("p", told(compared.verdicts))] if compared.verdicts else _headlines(compared)),
        *(tag("p", note, cls="note") for note in compared.notes),
    )


def _headlines(compared: Compared) -> list[Html]:
    """A sentence for each searcher, while they are few enough to be read."""
    said = [d.sentence for d in compared.differences if d.outcome == "the best model"]
    return [tag("p", sentence) for sentence in said[:MOST_HEADLINES]]


def _claim(compared: Compared) -> Html | None:
    """What the paper says, and what came of each thing that it leads one to expect."""
    if not compared.verdicts:
        return None
    head = ("expected", "verdict", *DIFFERENCE_HEAD)
    rows: list[Sequence[Piece]] = [
        (
            v.expected,
            tag("span", v.verdict, cls="unsure" if v.verdict == NOT_SHOWN else "sure"),
            *_difference(v.difference),
        )
        for v in compared.verdicts
    ]
    note = (
        "Agrees: the test and the interval both show it. Contradicts: they show the opposite. Improvements are of the "
        "first over the second, positive where the first is better."
    )
    return join([tag("p", compared.claimed), table(head, rows, left=2), tag("p", note, cls="quiet")])


def _validation(compared: Compared) -> str:
    measure = compared.measure
    if measure.name == "reward":
        return "reward"
    return f"validation {measure.label} ({'higher' if measure.higher_is_better else 'lower'} is better)"


def _improvements(compared: Compared) -> Html | None:
    if compared.baseline is None:
        return None
    unit = {"accuracy": "points of accuracy"}.get(compared.measure.name, compared.measure.label)
    drawn: list[Html] = []
    for i, group in enumerate(compared.groups):
        if group.label == compared.baseline:
            continue
        at, by_k = compared.improvements(group.label)
        if not any((values == values).any() for values in by_k.values()):
            continue
        if compared.measure.percent:
            by_k = {k: 100 * values for k, values in by_k.items()}
        ends = [
            f"top {k}: {values[-1]:+.{compared.measure.digits}f}"
            for k, values in by_k.items()
            if not math.isnan(values[-1])
        ]
        caption = (
            f"Above zero {group.label} is ahead of {compared.baseline}. After {at[-1]:,} models: {', '.join(ends)}."
        )
        svg = plots.improvement(at, by_k, f"improvement{i}", f"improvement, {unit}")
        drawn.append(figure(svg, caption, title=group.label))
    if not drawn:
        return None
    keys = [_key(i, f"mean of the {k} best different models" if k > 1 else "best model") for i, k in enumerate(TOPS)]
    told = tag(
        "p",
        "As the search goes: the best models found so far, less those of the baseline after as many. "
        "This is figure 6 of Zoph and Le (2017).",
    )
    width = "max-width: 40rem" if len(drawn) == 1 else ""
    return join([told, tag("ul", *keys, cls="legend"), tag("div", *drawn, cls="plots", style=width)])


def _progress(compared: Compared) -> Html:
    keys = [_key(i, f"{group.label}{_seeds(len(group.runs))}") for i, group in enumerate(compared.groups)]
    most = max(len(group.runs) for group in compared.groups)
    few = [len(group.runs) for group in compared.groups if len(group.runs) <= plots.MOST_SINGLE]
    band = " Single runs are faint." if few and max(few) > 1 else ""
    if most >= plots.LEAST_FOR_A_BAND:
        band += " The band is a 95 % interval of the mean over runs (Student's t), point by point."
    found = f"The best {compared.measure.label} so far, the mean over runs.{band}"
    rewards = "The moving mean of the rewards: what the searcher has learned to propose, whatever its best is."
    regrets = (
        "How far the best so far, chosen by validation, is from the best there is, by what it is judged by in the end. "
        "No searcher sees this."
    )
    quantities = [("best", "The best", found), ("reward", "The mean reward", rewards)]
    if compared.has_regret:
        quantities.append(("regret", "Regret", regrets))
    overs = [("trials", "trials"), ("seconds", "time")]
    if all(len(run) and not math.isnan(run.spent[-1]) for group in compared.groups for run in group.runs):
        overs.append(("multiply-adds", "multiply-adds"))
    told_of = {
        "seconds": f"By seconds {plots.seconds_said(compared)}.",
        "multiply-adds": "By multiply-adds of the networks trained, each times its epochs: a cost that no machine decides.",
    }
    figures = [
        figure(
            plots.curves(compared, f"{quantity}-{over}", quantity=quantity, over=over),
            told_of.get(over, text),
            title=f"{title}, by {by}",
        )
        for quantity, title, text in quantities
        for over, by in overs
    ]
    return join([tag("ul", *keys, cls="legend"), tag("div", *figures, cls="plots")])


def _key(i: int, text: str) -> Html:
    broken = " broken" if i >= len(SERIES) else ""
    return tag("li", tag("span", cls=f"key {THEME[SERIES[i % len(SERIES)]]}{broken}"), text)


def _seeds(n: int) -> str:
    return f", mean of {n} seeds" if n > 1 else ""


def _outcomes(compared: Compared) -> Html:
    head, *rows = compared.table()
    several = any(len(group.runs) > 1 for group in compared.groups)
    note = "Means over seeds, with sample standard deviations" if several else "One seed each, so no spread is known"
    note += f"; after {compared.cost} of each run, as are the differences below."
    return join([table(head, rows), tag("p", note, cls="quiet")])


def _differences(compared: Compared) -> Html | None:
    if not compared.differences:
        return None
    head = ("searcher", "outcome", *DIFFERENCE_HEAD, "verdict")
    rows: list[Sequence[Piece]] = [
        (
            d.group,
            d.outcome,
            *_difference(d),
            tag("span", d.verdict, cls="unsure" if d.verdict == NO_DIFFERENCE else "sure"),
        )
        for d in compared.differences
    ]
    note = (
        f"From {compared.baseline}, positive where the searcher is better, after {compared.cost} of each run. p is of a permutation test; "
        f"{len(rows)} of them stand here, and of twenty without any difference one is expected below 0.05."
    )
    return join([table(head, rows, left=2), tag("p", note, cls="quiet")])


def _difference(d: Difference) -> tuple[str, ...]:
    """What `DIFFERENCE_HEAD` names."""
    pairs = "–"
    if d.superiority is not None and d.superiority_interval is not None:
        least, most = d.superiority_interval
        pairs = f"{100 * d.superiority:.0f} % ({100 * least:.0f} to {100 * most:.0f})"
    return (
        "–" if d.improvement is None else signed(d.improvement, d.measure, unit=True),
        "–" if d.interval is None else " to ".join(signed(end, d.measure) for end in d.interval),
        pairs,
        "–" if d.p is None else f"{d.p:.2g}",
        f"{d.n} : {d.n_baseline}",
    )


def signed(value: float, measure: Measure, *, unit: bool = False) -> str:
    """ "+5.00 points", "-0.83"."""
    factor, name = (100, " points") if measure.percent else (1, "")
    return f"{factor * value:+.{measure.digits}f}{name if unit else ''}"


def _runs(compared: Compared) -> Html:
    head = ("run", "searcher", "seed", "status", "trials", "failed", "epochs", "time", "best", "different models")
    rows = [
        (
            run.name,
            group.label,
            str(run.summary.config.get("seed", "–")),
            run.summary.status,
            number(len(run)),
            number(run.summary.counts.get("failed", 0)),
            number(round(run.summary.epochs, 1)),
            duration(float(run.at[-1]) if run.looked_up else run.summary.seconds),
            _best(compared, compared.outcomes(run)["best"]),
            number(len(set(run.keys))),
        )
        for group in compared.groups
        for run in group.runs
    ]
    return table(head, rows, left=2)


def _best(compared: Compared, value: float) -> str:
    return "–" if math.isnan(value) else compared.measure.text(value)


def _words(compared: Compared) -> Html:
    said = [
        (
            "Model",
            "an architecture; one that was trained more than once counts once, with the mean of what it came to.",
        ),
        ("Best, mean of top 5", f"by {_validation(compared)}, of short trainings; the test set has no part in it."),
        (
            "Equal cost",
            "runs are held against each other after as many epochs of training each; wall time is told beside.",
        ),
        (
            "Ahead in pairs",
            "how often a run of the one beats a run of the other, ties as halves (Vargha and Delaney's A): 50 % is no "
            "difference. Its interval is Newcombe's (2006).",
        ),
    ]
    if compared.has_regret:
        regret = (
            "how much better than the best found the best there is would be, by what models are judged by in the end."
        )
        said.append(("Regret", regret))
    return tag("dl", *(piece for word, text in said for piece in (tag("dt", word), tag("dd", text))))
