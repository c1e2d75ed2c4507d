"""The page of a run, from top to bottom: what came out, how the search went, what it chose, what it cost, how to go on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from archsmith._page.document import document
from archsmith._page.html import (
    Html,
    Piece,
    count,
    duration,
    join,
    number,
    section,
    tag,
)
from archsmith._search.start_phase import learned_nothing
from archsmith.core.budget import Budget
from archsmith.core.errors import UsageError
from archsmith.core.finish import ACCURACY, FINAL_ACCURACY, Measure
from archsmith.core.shown import base_name, command_text
from archsmith.report import tables
from archsmith.report.architectures import architectures
from archsmith.report.clustered import clustered
from archsmith.report.facts import Facts, redacted
from archsmith.report.finished import finished, found_network, test_score, trained_for
from archsmith.report.names import OF_WEIGHTS, meaning, metric_text, searcher_name, short_type, type_of, unseen
from archsmith.report.progress import learning, progress

REWARDS = {
    "rewards.scaled_perplexity": "80 divided by the square of the validation perplexity",
    "rewards.cubed_accuracy": "the cube of the validation accuracy",
    "rewards.squared_accuracy": "the square of the validation accuracy",
    "rewards.accuracy": "the validation accuracy",
    "rewards.LatencyWeighted": "the accuracy times (latency / target)^w, whose target and exponents are in the record",
    "rewards.bleu": "a hundredth of the validation BLEU",
    "rewards.value": "the number that the evaluator returned",
}


def page(facts: Facts) -> str:
    """The whole page as text."""
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
    nav = tag("nav", *(tag("a", title, href=f"#{id}") for id, title, _ in shown))
    sections = (section(id, title, body) for id, title, body in shown)
    return document(facts.summary.name, headline(facts), nav, *sections, footer(facts))


# --- headline ---------------------------------------------------------------------------------------------------------


def headline(facts: Facts) -> Html:
    """What was searched, by what, on what, and what came out, for a person who reads nothing else."""
    s, best = facts.summary, facts.best
    told = {"finished": "finished", "running": "still running: this is what there is so far"}
    status = tag("span", told.get(s.status, s.status), cls=f"status {'' if s.status == 'finished' else s.status}")
    return tag(
        "header",
        tag(
            "p",
            f"{'A network trained' if published(facts) else 'An architecture search'} with archsmith",
            status,
            cls="eyebrow",
        ),
        tag("h1", s.name),
        tag("p", _sentence(facts), cls="lead"),
        tag("p", _result(facts)) if best is not None else None,
        tag("dl", *(_tile(*tile) for tile in _tiles(facts)), cls="tiles"),
    )


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


# --- the record -------------------------------------------------------------------------------------------------------


def record(facts: Facts) -> Html:
    """What it takes to do it again: command, versions, seed, data; and how to go on."""
    s, config = facts.summary, facts.summary.config
    rows: list[tuple[Piece, Piece]] = [
        ("command", tag("code", redacted(str(config.get("command", ""))))),
        ("space", _config(config.get("space"))),
        ("searcher", _config(config.get("searcher"))),
        ("evaluator", _config(config.get("evaluator"))),
        ("reward", _config(config.get("reward"))),
        ("budget", _budget(config.get("budget"))),
        ("limits of one child", _limits(config.get("limits"))),
        ("workers", str(config.get("workers", "–"))),
        ("seed", str(config.get("seed", "–"))),
        ("data", _dataset(config.get("dataset")) or None),
        ("data fingerprint", tag("code", str(config["data"])) if config.get("data") else "no data set"),
        ("versions", _pairs(config.get("versions"))),
        ("note", _pairs(_note(config)) if _note(config) else None),
        ("begun, last written", f"{s.created} · {s.updated}"),
        ("store", tag("code", facts.url) if facts.url else "memory: the run ends with its process"),
    ]
    body = tag("tbody", *(tag("tr", tag("td", name), tag("td", value)) for name, value in rows if value))
    return join([tag("table", body, cls="record"), _commands(facts)])


def _dataset(dataset: Any) -> str:
    """What the evaluator said of its data; of long lists the first entries, of unreadable files the names."""
    if not isinstance(dataset, Mapping):
        return ""
    said = []
    for key, value in dataset.items():
        if isinstance(value, list):
            more = f", ... ({len(value):,})" if len(value) > 20 else ""
            value = ", ".join(map(str, value[:20])) + more
        if isinstance(value, int) and not isinstance(value, bool):
            value = number(value)
        if value not in ("", None):
            said.append(f"{str(key).replace('_', ' ')}: {value}")
    return "; ".join(said)


def _commands(facts: Facts) -> Html | None:
    if facts.url is None:
        return None
    name, store = facts.summary.name, ("--store", facts.url)
    interrupted = facts.summary.status == "interrupted"
    commands = [
        ("go on to its budget" if interrupted else "go on, with a higher budget",
         command_text("resume", name, *(() if interrupted else _higher(facts)), *store)),
        ("make this page again", command_text("report", name, *store)),
    ]  # fmt: skip
    if facts.best is not None and facts.summary.config.get("finishable", True):
        commands[1:1] = [
            ("train the best for longer and test it once", command_text("finish", name, *store)),
            ("then write the network as files", command_text("export", name, *store)),
        ]
    lines = "\n".join(f"{command}    # {what}" for what, command in commands)
    return join([tag("h3", "How to go on"), tag("pre", lines)])


def _higher(facts: Facts) -> tuple[str, str]:
    """Twice the run's budget, as an option of the command line."""
    budget = facts.summary.config.get("budget")
    for unit in ("trials", "epochs", "seconds"):
        amount = budget.get(unit) if isinstance(budget, Mapping) else None
        if isinstance(amount, int | float) and not isinstance(amount, bool):
            return f"--{unit}", f"{max(2 * amount, 2 * facts.trials if unit == 'trials' else 0):.15g}"
    return "--seconds", "3600"


def _config(config: Any) -> Html:
    if not isinstance(config, Mapping):
        return tag("code", json.dumps(config, ensure_ascii=False))
    fields = ", ".join(f"{k}={_value(v)}" for k, v in config.items() if k != "type")
    return tag("code", redacted(f"{type_of(config)}({fields})" if fields else type_of(config)))


def _value(value: Any) -> str:
    if isinstance(value, Mapping) and "type" in value:
        fields = ", ".join(f"{k}={_value(v)}" for k, v in value.items() if k != "type")
        return f"{value['type']}({fields})" if fields else str(value["type"])
    return json.dumps(value, ensure_ascii=False)


def _budget(budget: Any) -> str:
    try:
        return f"{Budget(**budget)}"
    except (UsageError, TypeError):
        return json.dumps(budget, ensure_ascii=False)


def _limits(limits: Any) -> str | None:
    if not isinstance(limits, Mapping):
        return None
    return ", ".join(f"{number(v)} {k}" for k, v in limits.items() if v is not None) or "none"


def _note(config: Any) -> dict[str, Any]:
    """The run's note without the plan of its finish, which is shown with the test, and the path of a recipe file."""
    return {k: v for k, v in (config.get("note") or {}).items() if k not in ("finish", "file")}


def _pairs(pairs: Any) -> str:
    return ", ".join(f"{k} {v}" for k, v in pairs.items()) if isinstance(pairs, Mapping) else "–"


def words(facts: Facts) -> Html:
    """The definitions a reader needs to judge the numbers."""
    reward = type_of(facts.summary.config.get("reward"))
    times = count(facts.looks, "time")
    said = [
        ("Child", "a network that the search proposed, trained for a short while to see what it is worth."),
        (
            "Trial",
            "one proposal with what came of it; a child that could not be trained is a failed trial, and counts.",
        ),
        ("Reward", f"the number the searcher learns from, larger is better; here {REWARDS.get(reward, reward)}."),
        (
            f"Validation {facts.measure.label}",
            f"{meaning(facts.measure)}{_which_epoch(facts)} The search chooses by it, so the best of many is a little flattered "
            "by luck.",
        ),
        (
            "Test set",
            f"{unseen(facts.measure)} that neither training nor search has seen. It was looked at {times} in this run.",
        ),
    ]
    if not facts.curves and not facts.has_score:
        said = said[:3]
    return tag("dl", *(tag("div", tag("dt", tag("strong", k)), tag("dd", v)) for k, v in said))


def _which_epoch(facts: Facts) -> str:
    """A remark that the accuracy is the best of several epochs, if it is."""
    metrics = facts.best.result.metrics if facts.best is not None and facts.best.result is not None else {}
    if facts.measure.name != ACCURACY.name or FINAL_ACCURACY not in metrics:
        return ""
    return f" It is the highest of a child's last five epochs; the {OF_WEIGHTS} is that of its last one, which are kept and exported."


def footer(facts: Facts) -> Html:
    """Who made the page, and from what."""
    from archsmith import __version__

    return tag(
        "footer", f"Made by archsmith {__version__} from the store alone. The page loads nothing and runs no script."
    )
