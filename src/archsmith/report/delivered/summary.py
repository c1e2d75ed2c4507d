"""What was delivered, in numbers and in sentences: the top of the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from archsmith._page.html import Html, count, join, number, percent, size, tag
from archsmith.metrics.claim import accuracy_remark, claim, minutes_text
from archsmith.metrics.outcome import BASELINE, ENGINE_NAMES, AutoOutcome, Score

Tile = tuple[str, str, str]

MOST_NAMED = 6


def lead(outcome: AutoOutcome, dataset: Any) -> Html:
    """What was done, in two sentences."""
    d = outcome.delivered
    facts: Mapping[str, Any] = dataset if isinstance(dataset, Mapping) else {}
    pictures = sum(facts[part] for part in ("train", "validation", "test") if type(facts.get(part)) is int)
    names = outcome.assessment.classes if outcome.assessment is not None else facts.get("classes")
    apart = _apart(names if isinstance(names, list | tuple) else ())
    begin = f"From {count(pictures, 'picture')}, archsmith" if pictures else "archsmith"
    trained = f"trained for {minutes_text(d.seconds)} ({d.training})"
    if d.epochs:
        passes = number(round(d.epochs, 1), 3)
        trained += f", {passes} {'pass' if d.epochs == 1 else 'passes'} over the training pictures"
    tried = (
        f"It tried {count(outcome.children, 'network')} for a short time {'each' if outcome.children > 1 else 'first'}"
    )
    if d.source == BASELINE:
        beside = f"{tried}. None was better than {d.name}" if outcome.children else f"It is {d.name}"
        second = f"{beside}, a network designed by hand, {trained}."
    else:
        second = f"{tried}; the best is {d.name}, {trained}." if outcome.children else f"It is {d.name}, {trained}."
    return join([f"{begin} made a network that {apart}. {second}"])


def tiles(outcome: AutoOutcome) -> list[Tile]:
    """Test accuracy, baseline, latency and size; what is not known has a dash."""
    return [_tested(outcome), *_compared(outcome), _latency(outcome), _size(outcome)]


def explanation(outcome: AutoOutcome) -> Html:
    """What may be claimed, and why validation and test accuracy differ."""
    said = claim(outcome)
    remark = accuracy_remark(outcome)
    return join(
        [
            tag("blockquote", tag("p", said.text), cls=f"claim {said.verdict.split()[0]}"),
            tag("p", remark) if remark else None,
        ]
    )


def notes(outcome: AutoOutcome) -> Html | None:
    """What else a reader should know."""
    return tag("ul", *(tag("li", note) for note in outcome.notes)) if outcome.notes else None


def words(outcome: AutoOutcome) -> Sequence[tuple[str, str]]:
    """The definitions that a reader needs to judge the numbers."""
    return [
        ("Accuracy", "the share of pictures that the network puts into the right class."),
        ("Training pictures", "those that the network learned from."),
        (
            "Validation pictures",
            "those that networks and settings were chosen by. The network did not learn from them.",
        ),
        ("Test pictures", "those that played no part in learning and choosing. They were looked at once, at the end."),
        (
            "95 % interval",
            "what the number of test pictures leaves open: other pictures of the same kind would give another accuracy, in 19 "
            "of 20 such tests within about so much of the truth. It does not cover pictures of another kind.",
        ),
        ("Baseline", "a known network with a good recipe of training: what a competent person picks without a search."),
    ]


# --- sentences and tiles ----------------------------------------------------------------------------------------------


def _apart(names: Sequence[Any]) -> str:
    if len(names) < 2:
        return "sorts pictures"
    if len(names) > MOST_NAMED:
        return f"sorts pictures into {number(len(names))} classes"
    return f"tells {', '.join(map(str, names[:-1]))} and {names[-1]} apart"


def _tested(outcome: AutoOutcome) -> Tile:
    test = outcome.delivered.test
    if test is None or test.accuracy is None:
        validation = outcome.delivered.validation
        if validation is None or validation.accuracy is None:
            return "Test accuracy", "–", "not tested"
        return "Test accuracy", "–", f"not tested; {percent(validation.accuracy)} on validation pictures"
    return "Test accuracy", percent(test.accuracy), f"{_between(test)} on {count(test.count, 'test picture')}"


def _compared(outcome: AutoOutcome) -> list[Tile]:
    d, baseline, found = outcome.delivered, outcome.baseline, outcome.found
    if d.source == BASELINE:
        if found is None or found.validation is None or found.validation.accuracy is None:
            return [("Baseline", "chosen", f"{d.name}, designed by hand, is the one delivered")]
        better = percent(found.validation.accuracy)
        return [("Best of the search", better, "on validation pictures; it was not better than the one delivered")]
    if baseline is None:
        return [("Baseline", "–", "no network designed by hand was trained")]
    time = f"{minutes_text(baseline.seconds)} of training"
    equal = ", as long as this one" if baseline.equal_time else ""
    for score, on in ((baseline.test, ""), (baseline.validation, " on validation pictures")):
        if score is not None and score.accuracy is not None:
            return [("Baseline", percent(score.accuracy), f"{baseline.name}{on}, {time}{equal}")]
    return [("Baseline", "–", f"{baseline.name}, {time}: no accuracy")]


def _latency(outcome: AutoOutcome) -> Tile:
    d = outcome.delivered
    of = f"a picture of {d.size} × {d.size} pixels, " if d.size is not None else "a picture, "
    if d.latency is None:
        return "Time for a picture", "–", "not measured"
    shown = f"{d.latency:.0f} ms" if d.latency >= 100 else f"{number(d.latency, 2)} ms"
    return (
        "Time for a picture",
        shown,
        f"{of}{ENGINE_NAMES.get(d.engine, d.engine)} with one thread, on the machine that trained it",
    )


def _size(outcome: AutoOutcome) -> Tile:
    d = outcome.delivered
    parameters = f"{number(d.parameters)} parameters" if d.parameters is not None else ""
    if d.file_bytes is not None:
        return "Size of the file", size(d.file_bytes), parameters
    return "Size", number(d.parameters), "parameters" if parameters else "not known"


def _between(score: Score) -> str:
    low, high = score.interval
    return f"95 % interval {100 * low:.1f} to {percent(high)}"
