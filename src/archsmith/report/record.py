"""The end of the page: what it takes to do a run again, what the words mean, and who made the page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from archsmith._page.html import Html, Piece, count, join, number, tag
from archsmith.core.budget import Budget
from archsmith.core.errors import UsageError
from archsmith.core.finish import ACCURACY, FINAL_ACCURACY
from archsmith.core.shown import command_text
from archsmith.report.facts import Facts, redacted
from archsmith.report.names import OF_WEIGHTS, meaning, type_of, unseen

REWARDS = {
    "rewards.scaled_perplexity": "80 divided by the square of the validation perplexity",
    "rewards.cubed_accuracy": "the cube of the validation accuracy",
    "rewards.squared_accuracy": "the square of the validation accuracy",
    "rewards.accuracy": "the validation accuracy",
    "rewards.LatencyWeighted": "the accuracy times (latency / target)^w, whose target and exponents are in the record",
    "rewards.bleu": "a hundredth of the validation BLEU",
    "rewards.value": "the number that the evaluator returned",
}


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
    again = ("make this page again", command_text("report", name, *store))
    export = ("write the network as files", command_text("export", name, *store))
    interrupted = facts.summary.status == "interrupted"
    if facts.auto is not None:
        commands = [export, again]
    else:
        commands = [
            ("go on to its budget" if interrupted else "go on, with a higher budget",
             command_text("resume", name, *(() if interrupted else _higher(facts)), *store)),
            again,
        ]  # fmt: skip
        if facts.best is not None and facts.summary.config.get("finishable", True):
            finish = ("train the best for longer and test it once", command_text("finish", name, *store))
            commands[1:1] = [finish, (f"then {export[0]}", export[1])]
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
    return definitions(said)


def definitions(said: Sequence[tuple[str, str]]) -> Html:
    """Words with what they mean."""
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
