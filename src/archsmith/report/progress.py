"""How the search went: rewards over trials, time and size, learning curves, and what the searcher learned."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from archsmith._page import figures
from archsmith._page.html import Html, Piece, count, duration, figure, join, number, table, tag
from archsmith.core.finish import Measure
from archsmith.report import curves
from archsmith.report.facts import DRAWN, Facts, Series
from archsmith.report.names import axis, readable, searcher_name, type_of


def progress(facts: Facts) -> Html:
    """Rewards over trials and over time, with random search beside them; reward against parameters."""
    s, beside = facts.series, facts.control_series
    if not len(s.number):
        return tag("p", "No trial has finished yet, so there is nothing to plot.")
    if not (s.reward == s.reward).any():
        return tag(
            "p", f"None of the {count(len(s.number), 'finished trial')} has a reward, so there is nothing to plot."
        )
    many = [s, beside] if beside is not None and len(beside.number) else [s]
    by_trial, low = curves.progress(many, "trials", over="trials")
    by_time, _ = curves.progress(many, "time", over="time")
    items = [_key("", f"{s.name}: best so far"), _key("mean", "moving mean"), _key("dot", "one trial")]
    if s.failed.any():
        items.append(_key("bad", "failed"))
    if len(many) == 2:
        items.insert(1, _key("control", f"{many[1].name} (random search): the same"))
    scores = _scores(many, facts.measure)
    plots = [
        *scores,
        figure(by_trial, _caption(many, low), title="Reward by trials" if scores else "By trials"),
        figure(
            by_time, "The same trials by the run's own clock, which stands still between sessions.", title="By time"
        ),
    ]
    usable = s.parameters[(s.parameters > 0) & (s.reward == s.reward)]
    if len(usable) and (facts.measure.percent or usable.max() > 1.05 * usable.min()):  # else all were made one size
        drawn, low = curves.reward_by_parameters(s, "size")
        note = _below(low)
        text = join(
            [tag("span", cls="key ink"), f"the Pareto front: those that no network as small or smaller beats.{note}"]
        )
        plots.append(figure(drawn, text, title="By size"))
    plots += _latency(facts)
    if facts.curves:
        plots.append(learning_curves(facts))
        absent = None
    else:
        absent = tag("p", "No trial told how it went epoch by epoch, so there are no learning curves.", cls="quiet")
    return join([tag("ul", *items, cls="legend"), tag("div", *plots, cls="plots"), absent, _comparison(facts)])


def _latency(facts: Facts) -> list[Html]:
    """The score against latency, where the trials have one."""
    s, measure = facts.series, facts.measure
    scored = bool((s.score == s.score).any())
    worth = s.score if scored else s.reward
    if not ((s.latency > 0) & (worth == worth)).any():
        return []
    reward = facts.summary.config.get("reward")
    target = reward.get("target") if type_of(reward) == "rewards.LatencyWeighted" else None  # type: ignore[union-attr]
    if not isinstance(target, int | float) or not 1e-6 < target < 1e9:  # a store may come from anywhere
        target = None
    what = f"validation {measure.label}" if scored else "reward"
    better, ylabel = measure.higher_is_better, axis(measure) if scored else "reward"
    drawn, outside = curves.score_by_latency(s, "latency", ylabel, higher_is_better=better, target=target)
    where = f" {count(outside, 'trial lies', 'trials lie')} outside the axis." if outside else ""
    line = f" The dashed line is the target of the reward, {number(target)} ms." if target is not None else ""
    text = join(
        [
            f"The {what} of each trial against the time that its network takes for an input, as its evaluator tells it. ",
            tag("span", cls="key ink"),
            f"the Pareto front: those that no network as fast or faster beats.{line}{where}",
        ]
    )
    return [figure(drawn, text, title="By latency")]


def _scores(many: Sequence[Series], measure: Measure) -> list[Html]:
    """The scores over trials, where a reader knows them better than the reward; an accuracy and its reward look alike."""
    if measure.percent or all((s.score != s.score).all() for s in many):
        return []
    better = measure.higher_is_better
    drawn, outside = curves.progress(many, "scores", over="trials", of=axis(measure), higher_is_better=better)
    which = "higher" if better else "lower"
    where = f" {count(outside, 'trial lies', 'trials lie')} outside the axis." if outside else ""
    text = f"Validation {measure.label} of each trial; {which} is better.{where}"
    return [figure(drawn, text, title=f"{measure.label[:1].upper()}{measure.label[1:]} by trials")]


def _key(cls: str, text: str) -> Html:
    return tag("li", tag("span", cls=f"key {cls}"), text)


def _caption(many: Sequence[Series], low: int) -> str:
    most = max(len(s.number) for s in many)
    parts = [f"The moving mean is over {figures.window_of(len(many[0].number))} trials."]
    if most > figures.MOST_POINTS:
        parts.append(
            f"Of {number(most)} trials an evenly spaced {number(figures.MOST_POINTS)} are drawn as dots; "
            "the lines are made from all."
        )
    return " ".join(parts) + _below(low)


def _below(low: int) -> str:
    return f" {count(low, 'reward lies', 'rewards lie')} below the axis." if low else ""


def _comparison(facts: Facts) -> Html:
    control, beside = facts.control, facts.control_series
    if control is None or beside is None:
        if type_of(facts.summary.config.get("searcher")) == "searchers.Random":
            return tag("p", "This run is random search itself, so no control stands beside it.", cls="quiet")
        return tag(
            "p",
            "No random search with the same space, evaluator and budget is in the store, so whether the searcher did "
            "better than chance cannot be seen here.",
            cls="quiet",
        )
    rows, measure = [], facts.measure
    scored = not measure.percent and facts.has_score
    for summary, s in ((facts.summary, facts.series), (control, beside)):
        with_reward = s.reward[s.reward == s.reward]
        mean = float(with_reward.mean()) if len(with_reward) else None
        late = with_reward[-max(1, len(with_reward) // 4) :]
        rows.append(
            (
                summary.name,
                searcher_name(summary.config.get("searcher")),
                number(len(s.number)),
                number(round(summary.epochs, 1)),
                duration(summary.seconds),
                number(mean),
                number(float(late.mean()) if len(late) else None),
                number(summary.best_reward),
                *([_best_score(s, measure)] if scored else []),
            )
        )
    head = (
        *("run", "searcher", "trials", "epochs", "time", "mean reward", "mean of the last quarter", "best reward"),
        *([f"best {measure.label}"] if scored else []),
    )
    unlike = (
        f" Mind that the two differ in: {', '.join(facts.unlike)}; their rewards may not be comparable."
        if facts.unlike
        else ""
    )
    note = (
        f"{number(len(facts.series.number))} and {number(len(beside.number))} trials, one seed each: "
        "this shows the machinery at work, and claims no difference between the searchers." + unlike
    )
    return join([table(head, rows, left=2), tag("p", note, cls="quiet")])


def _best_score(s: Series, measure: Measure) -> str:
    best = curves.best_so_far(s.score, higher_is_better=measure.higher_is_better)
    return measure.text(float(best[-1])) if len(best) and best[-1] == best[-1] else "–"


def learning(facts: Facts) -> Html | None:
    """What the searcher showed of its learning, over its updates."""
    if not facts.learned:
        if type_of(facts.summary.config.get("searcher")) == "searchers.Random":
            return None
        return tag("p", "The searcher has not shown anything of its learning yet.")
    names = list(dict.fromkeys(name for entry in facts.learned for name in entry.values if name != "updates"))
    pair: list[str] = [name for name in ("mean_reward", "baseline") if name in names]
    groups = [pair] if len(pair) == 2 else []
    groups += [[name] for name in names if not groups or name not in pair]
    plots = []
    for i, group in enumerate(groups[:8]):
        values = {n: np.array([e.values.get(n, np.nan) for e in facts.learned], dtype=np.float64) for n in group}
        if all(np.isnan(v).all() for v in values.values()):
            continue
        drawn = curves.lines(values, f"learned{i}", xlabel="update", ylabel="reward" if groups[i] == pair else "")
        plots.append(figure(drawn, *_learned_caption(group), title=" and ".join(map(readable, group))))
    n = len(facts.learned)
    text = f"{count(n, 'update')} of the searcher's parameters, after the trials that finished."
    if n > figures.MOST_STEPS:
        text += f" Each point is the mean of {-(-n // figures.MOST_STEPS)} updates."
    if len(groups) > 8:
        text += f" {len(groups) - 8} more quantities are in the store."
    return join([tag("p", text), tag("div", *plots, cls="plots")])


def _learned_caption(group: Sequence[str]) -> list[Piece]:
    if len(group) == 2:
        keys = (tag("span", cls="key"), "mean reward of the minibatch, ", tag("span", cls="key dashed"), "its baseline")
        return [*keys, ": what is above it is made more likely."]
    if group[0] == "entropy":
        return ["How undecided the controller is: falling entropy means that it has come to prefer some networks."]
    return []


def learning_curves(facts: Facts) -> Html:
    """The metric by epoch, of all trials faint and of the best strong."""
    name = facts.curve_metric
    top = [trial.number for trial in facts.top[:DRAWN]]
    by_number = {trial: (epochs, values) for trial, epochs, values in facts.curves}
    strong = [by_number[trial] for trial in top if trial in by_number]
    faint = [c for trial, c in by_number.items() if trial not in top]
    is_score = name == facts.measure.name
    drawn = curves.learning_curves(faint, strong, "curves", axis(facts.measure) if is_score else "value")
    what = f"validation {facts.measure.label}" if is_score else readable(name)
    shown = f"{number(len(facts.curves))} of {number(facts.with_curve)}, evenly spaced"
    which = "every trial" if len(facts.curves) == facts.with_curve else shown
    caption = join(
        [
            f"The {what} after each epoch, of {which}. ",
            tag("span", cls="key ink"),
            "the best, ",
            tag("span", cls="key"),
            f"the next {max(0, len(strong) - 1)}, ",
            tag("span", cls="key muted"),
            "the others.",
        ]
    )
    return figure(drawn, caption, title="By epoch")
