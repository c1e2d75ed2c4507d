"""The page's tables: what was chosen, what failed and why, the best trials."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from archsmith._page.html import (
    Html,
    Piece,
    count,
    details,
    duration,
    join,
    number,
    table,
    tag,
)
from archsmith.core.finish import Measure
from archsmith.core.trial import Trial
from archsmith.report.facts import SHOWN_TRIALS, Answers, Facts, redacted
from archsmith.report.names import in_order, metric_text, readable

SHOWN_KINDS = 24
SHOWN_OPTIONS = 14
SHOWN_MESSAGE = 600
SHOWN_TRACEBACK = 6000  # characters, from its end

REASONS = {
    "error": "an exception was raised",
    "diverged": "the loss became NaN or infinite",
    "seconds": "it went over its time",
    "parameters": "it had more parameters than allowed",
    "memory": "it went over its memory",
    "worker": "the process that trained it died",
    "reward": "no reward could be made of its result",
}


# --- what was chosen --------------------------------------------------------------------------------------------------


def choices(facts: Facts) -> Html | None:
    """How often each option was taken at first and at last, for each kind of choice."""
    if not facts.kinds:
        return tag("p", "Not applicable yet: it takes at least 8 trials to compare the first quarter with the last.")
    quarter = facts.trials // 4
    text = (
        f"Of each kind of choice, how often its options were taken in the first {number(quarter)} trials proposed and "
        f"in the last {number(quarter)}. A searcher that learns comes to prefer some; random search stays as it began. "
        "Changes of more than two standard errors stand out."
    )
    kinds = list(facts.kinds.items())
    tables = [_kind(name, answers) for name, answers in kinds[:SHOWN_KINDS]]
    left = len(kinds) - SHOWN_KINDS
    more = tag("p", f"And {count(left, 'more kind')} of choice.", cls="quiet") if left > 0 else None
    return join([tag("p", text), tag("div", *tables, cls="kinds"), more])


def _kind(name: str, answers: Answers) -> Html:
    both = answers.first + answers.last
    options = sorted(both, key=lambda text: _natural(answers.order[text]))
    cut = ""
    if len(options) > SHOWN_OPTIONS:
        kept = {text for text, _ in both.most_common(SHOWN_OPTIONS)}
        cut = f" The {SHOWN_OPTIONS} most frequent of {number(len(options))} are shown."
        options = [text for text in options if text in kept]
    rows = []
    for text in options:
        first, last = (
            counts[text] / n if n else 0.0
            for counts, n in zip((answers.first, answers.last), answers.answers, strict=True)
        )
        rows.append((text or "(empty text)", _heat(first), _heat(last), _shift(first, last, answers.answers)))
    head = {"answer": "option", "number": "how many taken", "member": "taken among others"}[answers.counted]
    body = table((head, "first quarter", "last quarter", "points"), rows)
    n = answers.answers
    caption = f"{number(n[0])} and {number(n[1])} answers.{cut}"
    return tag("figure", tag("h3", readable(name)), body, tag("figcaption", caption))


def _shift(first: float, last: float, n: list[int]) -> Html:
    """The change in points; coloured where it is more than chance would often bring (two standard errors)."""
    change = 100 * (last - first)
    if not round(change):
        return tag("span", "·")
    share = (first * n[0] + last * n[1]) / max(1, sum(n))
    error = math.sqrt(max(0.0, share * (1 - share)) * (1 / max(1, n[0]) + 1 / max(1, n[1])))
    return tag("span", f"{change:+.0f}".replace("-", "−"), cls="sure" if abs(last - first) > 2 * error else "unsure")


def _heat(share: float) -> Html:
    return tag("span", f"{100 * share:.0f} %", cls="heat", style=f"background: rgb(var(--heat) / {0.75 * share:.2f})")


def _natural(option: Any) -> tuple[int, float, str]:
    """Numbers by size, then everything else by name."""
    if isinstance(option, int | float) and not isinstance(option, bool):
        return (0, float(option), "")
    return (1, 0.0, str(option))


# --- failures ---------------------------------------------------------------------------------------------------------


def failures(facts: Facts) -> Html:
    """Counts by reason, then each failed trial with its message and traceback."""
    stopped = f" {count(facts.stopped, 'trial was', 'trials were')} stopped on purpose." if facts.stopped else ""
    total = sum(facts.reasons.values())
    if not total:
        return tag("p", "No trial failed." + stopped)
    head = ("reason", "what it means", "trials")
    reasons = [(reason, REASONS.get(reason, ""), number(n)) for reason, n in facts.reasons.items()]
    each = table(
        ("trial", "reason", "what was said"), [_failure(trial) for trial in facts.failures], left=3, cls="each"
    )
    left = total - len(facts.failures)
    more = tag("p", f"And {number(left)} more; the store has them all.", cls="quiet") if left else None
    first = f"{count(total, 'trial')} of {number(facts.trials)} failed. They count, and the searcher was told.{stopped}"
    return join([tag("p", first), table(head, reasons, left=2), each, more])


def _failure(trial: Trial) -> tuple[Piece, ...]:
    failure = trial.result.failure if trial.result else None
    if failure is None:
        return (str(trial.number), "unknown", "no reason was recorded")
    message, text = redacted(failure.message), redacted(failure.traceback)
    if len(text) > SHOWN_TRACEBACK:
        text = "[its beginning is left out]\n" + text[-SHOWN_TRACEBACK:]
    said = details(message[:SHOWN_MESSAGE], tag("pre", text)) if text else message[:SHOWN_MESSAGE]
    return (str(trial.number), failure.reason, said)


# --- trials -----------------------------------------------------------------------------------------------------------


def trials(facts: Facts) -> Html:
    """The best trials, one a row."""
    if not facts.top:
        return tag("p", "No trial has a reward yet.")
    names = dict.fromkeys(name for trial in facts.top for name in (trial.result.metrics if trial.result else ()))
    shown = [name for name in in_order(names, facts.measure) if name != "value"][
        :5
    ]  # the value is the reward, or what it is made of
    head = ("trial", "reward", *(readable(name) for name in shown), "epochs", "time", "finished at", "genotype")
    rows = [_trial(trial, shown, facts.measure) for trial in facts.top]
    left = facts.trials - len(facts.top)
    which = f"The best {SHOWN_TRIALS} by reward" if len(facts.top) >= SHOWN_TRIALS else "All that have a reward"
    more = f"{which}; {number(left)} more {'is' if left == 1 else 'are'} in the store." if left > 0 else ""
    note = tag("p", more, cls="quiet") if more else None
    return join([note, tag("div", table(head, rows, left=0), cls="tall")])


def _trial(trial: Trial, names: list[str], measure: Measure) -> tuple[Piece, ...]:
    metrics: Mapping[str, float] = trial.result.metrics if trial.result else {}
    cost = trial.result.cost if trial.result else None
    return (
        str(trial.number),
        number(trial.reward),
        *(metric_text(n, metrics.get(n), measure) for n in names),
        number(cost.epochs if cost else None),
        duration(cost.seconds if cost else None),
        duration(trial.finished_at),
        tag("code", trial.genotype.key),
    )
