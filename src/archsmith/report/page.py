"""The page of a run, from top to bottom: what came out, how the search went, what it chose, what it cost, how to go on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from archsmith._page.document import document
from archsmith._page.html import (
    Html,
    Piece,
    count,
    details,
    duration,
    join,
    number,
    section,
    tag,
)
from archsmith._search.start_phase import learned_nothing
from archsmith.core.finish import Measure
from archsmith.core.shown import base_name
from archsmith.metrics.outcome import AutoOutcome
from archsmith.report import tables
from archsmith.report.architectures import architectures
from archsmith.report.clustered import clustered
from archsmith.report.delivered.sections import sections
from archsmith.report.delivered.summary import explanation, lead
from archsmith.report.delivered.summary import tiles as delivered_tiles
from archsmith.report.delivered.summary import words as delivered_words
from archsmith.report.facts import Facts
from archsmith.report.finished import finished, found_network, test_score, trained_for
from archsmith.report.names import metric_text, searcher_name, short_type, type_of
from archsmith.report.progress import learning, progress
from archsmith.report.record import definitions, footer, record, words

Section: TypeAlias = tuple[str, str, Html]  # id, title, content


def page(facts: Facts) -> str:
    """The whole page as text."""
    outcome = facts.auto
    parts = [
        ("finish", "The test", finished(facts)),
        ("progress", "How the search went", progress(facts)),
        ("learning", "What the searcher learned", learning(facts)),
        ("cluster", "The workers", clustered(facts)),
        ("architectures", "The best architectures", architectures(facts)),
        ("choices", "What was chosen", tables.choices(facts)),
        ("failures", "Failures", tables.failures(facts)),
        ("trials", "Trials", tables.trials(facts)),
        ("record", "The record", record(facts)),
        ("words", "What the words mean", words(facts)),
    ]
    if published(facts):  # of a search there is nothing to tell
        parts = [part for part in parts if part[0] not in ("progress", "learning", "choices")]
    shown = [(id, title, body) for id, title, body in parts if body is not None]
    top = headline(facts)
    if outcome is not None:
        top, shown = delivered_headline(facts, outcome), _with_search_folded(facts, outcome, shown)
    nav = tag("nav", *(tag("a", title, href=f"#{id}") for id, title, _ in shown))
    body = (section(id, title, content) for id, title, content in shown)
    return document(facts.summary.name, top, nav, *body, footer(facts))


def _with_search_folded(facts: Facts, outcome: AutoOutcome, parts: Sequence[Section]) -> list[Section]:
    """The sections on the delivered network, then those on the search, folded away but for the record and the words.

    The comparison over seeds of a finish with several stays as it is.
    """
    several = _seeds(facts.finish) > 1
    kept = [part for part in parts if part[0] in (("finish", "record") if several else ("record",))]
    search = [part for part in parts if part not in kept and part[0] not in ("words", "finish")]
    summary = tag("div", tag("p", _sentence(facts)), tag("dl", *(_tile(*tile) for tile in _tiles(facts)), cls="tiles"))
    trainings = next((body for id, _, body in parts if id == "finish"), None) if not several else None
    folded = details(
        "Rewards, learning, architectures, choices and trials of the search",
        summary,
        *(section(id, title, body) for id, title, body in search),
        section("finish", "The final trainings", trainings) if trainings is not None else None,
        section("search-words", "The words of the search", words(facts)),
    )
    return [
        *(part for part in kept if part[0] == "finish"),
        *sections(outcome, facts.summary.name),
        ("search", "How it was found", folded),
        *(part for part in kept if part[0] == "record"),
        ("words", "What the words mean", definitions(delivered_words(outcome))),
    ]


def _seeds(finish: Mapping[str, Any] | None) -> int:
    """How many final trainings the first network of a finish had."""
    networks = (finish or {}).get("networks")
    first = networks[0] if isinstance(networks, list | tuple) and networks else None
    finals = first.get("finals") if isinstance(first, Mapping) else None
    return len(finals) if isinstance(finals, list | tuple) else 0


# --- headline ---------------------------------------------------------------------------------------------------------


def headline(facts: Facts) -> Html:
    """What was searched, by what, on what, and what came out, for a person who reads nothing else."""
    s, best = facts.summary, facts.best
    return tag(
        "header",
        tag(
            "p",
            f"{'A network trained' if published(facts) else 'An architecture search'} with archsmith",
            _status(facts),
            cls="eyebrow",
        ),
        tag("h1", s.name),
        tag("p", _sentence(facts), cls="lead"),
        tag("p", _result(facts)) if best is not None else None,
        tag("dl", *(_tile(*tile) for tile in _tiles(facts)), cls="tiles"),
        tag("p", f"What auto delivered is not shown, since its record is of another version: {facts.auto_error}.")
        if facts.auto_error
        else None,
    )


def delivered_headline(facts: Facts, outcome: AutoOutcome) -> Html:
    """What was delivered, how good it is, and what may be claimed, for a person who reads nothing else."""
    return tag(
        "header",
        tag("p", "A network made with archsmith", _status(facts), cls="eyebrow"),
        tag("h1", facts.summary.name),
        tag("dl", *(_tile(*tile) for tile in delivered_tiles(outcome)), cls="tiles first"),
        tag("p", lead(outcome, facts.summary.config.get("dataset")), cls="lead"),
        explanation(outcome),
    )


def _status(facts: Facts) -> Html:
    status = facts.summary.status
    told = {"finished": "finished", "running": "still running: this is what there is so far"}
    return tag("span", told.get(status, status), cls=f"status {'' if status == 'finished' else status}")


def published(facts: Facts) -> str:
    """The name of the published network that the run trains without a search; empty for a search."""
    note = facts.summary.config.get("note")
    return str(note.get("published") or "") if isinstance(note, Mapping) else ""


def _sentence(facts: Facts) -> Html:
    config = facts.summary.config
    if name := published(facts):
        evaluator = config.get("evaluator")
        on = data_name(evaluator.get("data")) if isinstance(evaluator, Mapping) else "unknown data"
        return join(["The published network ", tag("strong", name), f" was trained on {on}; nothing was searched."])
    searcher = searcher_name(config.get("searcher"))
    searcher = searcher[:1].upper() + searcher[1:]
    remark = learned_nothing(config, facts.trials)
    return join(
        [
            f"{searcher} searched the space ",
            tag("strong", short_type(config.get("space"))),
            ". ",
            f"{count(facts.trials, 'child', 'children')} proposed: {_states(facts.summary.counts)}. ",
            f"{number(facts.twins)} were the same as an earlier one and not trained again. " if facts.twins else "",
            _trained(config.get("evaluator"), facts.measure, config.get("reward"), early=facts.saved is not None),
            f" {facts.saved}." if facts.saved is not None else "",
            f" It began with known networks: {facts.improvement}." if facts.improvement is not None else "",
            f" {remark[:1].upper()}{remark[1:]}." if remark is not None else "",
        ]
    )


def _trained(evaluator: Any, measure: Measure, reward: Any, *, early: bool) -> str:
    if not isinstance(evaluator, Mapping):
        return ""
    if evaluator.get("data") is None:
        return f"Each was evaluated by {short_type(evaluator)}."
    epochs = evaluator.get("epochs")
    most = "at most " if early else ""
    for_epochs = f" for {most}{count(epochs, 'epoch')}" if isinstance(epochs, int) else ""
    return (
        f"Each was trained on {data_name(evaluator['data'])}{for_epochs} and judged by its validation {measure.label}"
        f"{' and its latency' if type_of(reward) == 'rewards.LatencyWeighted' else ''}."
    )


def data_name(data: Any) -> str:
    """The data set's name, or the last part of its path; for arrays, the number of images."""
    if isinstance(data, Mapping):
        return f"{data.get('images', 'some')} images, given as arrays"
    return base_name(str(data)) or str(data)


def _states(counts: Mapping[str, int]) -> str:
    words = {"done": "trained", "failed": "failed", "stopped": "stopped", "running": "running", "proposed": "waiting"}
    words |= {"paused": "put aside"}
    parts = [f"{number(counts[state])} {word}" for state, word in words.items() if counts.get(state)]
    return ", ".join(parts) or "none yet"


def _result(facts: Facts) -> Html | None:
    best = facts.best
    if best is None:
        return None
    metrics = best.result.metrics if best.result else {}
    begins = "Trained for a first look: reward" if published(facts) else f"The best is trial {best.number}: reward"
    parts: list[Piece] = [f"{begins} {number(best.reward)}"]
    measure = facts.measure
    if facts.has_score:
        score = metric_text(measure.name, metrics[measure.name], measure)
        parts.append(f", validation {measure.label} {score}")
        if (last := measure.of_weights(metrics)) is not None:
            parts.append(f" ({measure.text(last)} with the weights that its training ended with)")
    if "parameters" in metrics:
        parts.append(f", {number(metrics['parameters'])} parameters")
    parts.append(". ")
    tested = test_score(facts.finish) if facts.finish is not None else None
    if tested is not None:
        found = "" if published(facts) else found_network(facts.finish or {})
        what = "it" if published(facts) else "what was found"
        length = trained_for(facts.finish or {})
        begin = f"Trained for {length}, {what}" if length else f"{what[:1].upper()}{what[1:]}"
        parts.append(f"{begin}{f' ({found})' if found else ''} has a test {measure.label} of ")
        parts.append(f"{tested[0]} ({tested[1]}): ")
        parts.append(tag("a", "the test", href="#finish"))
        parts.append(".")
    elif facts.has_score:
        parts.append(f"That {measure.label} was used to choose it, so it flatters it a little")
        parts.append("." if facts.looks else "; the test set has not been looked at.")
    return join(parts)


def _tile(name: str, value: str, more: str = "") -> Html:
    return tag("div", tag("dt", name), tag("dd", value), tag("dd", more, cls="more") if more else None)


def _tiles(facts: Facts) -> list[tuple[str, str, str]]:
    s, best = facts.summary, facts.best
    metrics = best.result.metrics if best is not None and best.result else {}
    tiles = [("Best reward", number(best.reward if best else None), f"trial {best.number}" if best else "none yet")]
    measure = facts.measure
    if facts.has_score:
        score = metric_text(measure.name, metrics[measure.name], measure)
        last = measure.of_weights(metrics)
        tiles.append(
            (f"Validation {measure.label}", score, "" if last is None else f"{measure.text(last)} of its weights")
        )
    tested = test_score(facts.finish) if facts.finish is not None else None
    if tested is not None:
        mean, _, deviation = tested[0].partition(" ± ")
        tiles.append((f"Test {measure.label}", mean, f"± {deviation}, {tested[1]}" if deviation else tested[1]))
    if "parameters" in metrics:
        tiles.append(
            (
                "Parameters",
                number(metrics["parameters"]),
                "in the search" if tested is not None and not published(facts) else "",
            )
        )
    tiles.append(("Trials", number(facts.trials), _states(s.counts)))
    tiles.append(("Training", f"{number(round(s.epochs, 1))} epochs" if s.epochs else "–", "summed over children"))
    rate = len(facts.series.number) / s.seconds * 60 if s.seconds > 0 else 0.0
    tiles.append(
        (
            "Wall clock" if s.config.get("clock") is None else "Simulated time",
            duration(s.seconds),
            f"{number(round(rate) if rate >= 10 else rate, 2)} trials a minute" if rate else "",
        )
    )
    return tiles
