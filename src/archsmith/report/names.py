"""What the parts of a run are called on the page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from archsmith._page.html import number, percent
from archsmith.core.finish import ACCURACY, BITS_PER_CHARACTER, BLEU, FINAL_ACCURACY, PERPLEXITY, Measure

KNOWN = (ACCURACY, PERPLEXITY, BITS_PER_CHARACTER, BLEU)

OF_WEIGHTS = "accuracy of the weights"

MEANINGS = {
    ACCURACY: "the share of held-out training images told right.",
    PERPLEXITY: "between how many words, all equally likely, the network is left to choose at each word of a text that it "
    "has not learned from: the exponential of its mean loss. Lower is better.",
    BITS_PER_CHARACTER: "how many bits the network needs on average to tell each character of a text that it has not "
    "learned from, given those before: its mean loss to base 2. Lower is better.",
    BLEU: "how many runs of one to four words the translations of held-out sentences share with those of people, from 0 "
    "to 100. Higher is better.",
}

SEARCHERS = {
    "searchers.Random": "random search",
    "searchers.Reinforce": "a controller that learns by policy gradient (REINFORCE)",
}


def type_of(config: Any) -> str:
    """The type of a part as recorded, such as "spaces.ConvChain"."""
    return str(config.get("type", "")) if isinstance(config, Mapping) else ""


def short_type(config: Any) -> str:
    """The type's own name; of a function space or evaluator, the function's."""
    if isinstance(config, Mapping):
        inner = config.get("function")
        if isinstance(inner, Mapping):
            return short_type(inner)
    return type_of(config).rpartition(":")[2].rpartition(".")[2] or "unknown"


def searcher_name(config: Any) -> str:
    """The searcher in words where archsmith knows it, else its type."""
    return SEARCHERS.get(type_of(config), short_type(config))


def readable(name: str) -> str:
    """A metric or a kind of choice as words."""
    return OF_WEIGHTS if name == FINAL_ACCURACY else name.replace("_", " ")


def meaning(measure: Measure) -> str:
    """What a measure is, in a sentence that begins small."""
    more = f"measured on data held out from training. {'Higher' if measure.higher_is_better else 'Lower'} is better."
    return MEANINGS.get(measure, more)


def unseen(measure: Measure) -> str:
    """What a test set is made of."""
    return "text" if measure.items in ("words", "characters") else measure.items


def axis(measure: Measure) -> str:
    """What an axis calls a measure. A label of a stranger's does not get into a figure."""
    return measure.label if measure in KNOWN else "score"


def metric_text(name: str, value: float | None, measure: Measure) -> str:
    """A metric's value as a person reads it."""
    if "accuracy" in name or (measure.percent and name == measure.name):
        return percent(value)
    return measure.text(value) if value is not None and name == measure.name else number(value)


def in_order(metrics: Iterable[str], measure: Measure) -> list[str]:
    """Metrics' names, those first that a reader looks for first."""
    first = (measure.name, FINAL_ACCURACY, "parameters", "multiply_adds", "loss")
    return sorted(metrics, key=lambda name: first.index(name) if name in first else len(first))
