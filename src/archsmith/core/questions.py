"""A record of the questions that a space asks. It shows whether the space was edited since, and names the edits.

The space is walked a few dozen times, and longer while the walks meet anything new. The answers depend on the questions
alone: each question gets the option that was given least often. An edit changes at least one of these walks, unless it is in a
branch that only a rare combination of answers reaches. The record of a grown space has its seed, the names of its edits, and
the results of some random walks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from random import Random
from typing import Any

from archsmith.core.errors import IllegalGenotype, UsageError
from archsmith.core.genotype import canonical_json, same_json
from archsmith.core.grown import GrownSpace, wander
from archsmith.core.space import Space
from archsmith.core.walk import Question, RecordingWalk

DOCUMENT = "questions"
"""The document of a run with the record."""

LONGEST_LIST = 256
"""The most options of a question that are recorded one by one. Of a longer list the length and a digest are recorded."""

IDLE_WALKS, MOST_WALKS, MOST_OPTIONS = 48, 1024, 2_000_000
"""The walks end after so many in a row that met nothing new, after so many in all, or after so many options in all."""

GROWN_WALKS = 8
MOST_NAMED = 6
"""The most edits that a message names."""


def questions_of(space: Space) -> dict[str, Any]:
    """The record, as plain JSON: equal for spaces that ask the same. Raises UsageError for a malformed question."""
    if isinstance(space, GrownSpace):
        walks = [canonical_json(dict(wander(space, Random(seed)).answers)) for seed in range(GROWN_WALKS)]
        return {"seed": dict(space.seed().answers), "edits": list(space.edits), "digest": _digest(walks)}
    walks, met = [], dict[Question, int]()
    for walk in _walked(space):
        walks.append(",".join(str(met.setdefault(question, len(met))) for question in walk))
    return {"questions": [_row(question) for question in met], "digest": _digest(walks)}


def _walked(space: Space) -> Iterable[list[Question]]:
    rng = Random(0)
    answered: dict[Question, list[int]] = {}
    idle = shown = walks = 0
    while idle < IDLE_WALKS and walks < MOST_WALKS and shown < MOST_OPTIONS:
        new = False

        def answer(question: Question) -> int | list[int]:
            nonlocal new
            counts = answered.get(question)
            if counts is None:
                counts, new = answered.setdefault(question, [0] * len(question.options)), True
            if question.subset:
                taken = [i for i in range(len(counts)) if rng.random() < 0.5]
            else:
                least = min(counts)
                among = [i for i, count in enumerate(counts) if count == least]
                taken = [among[int(rng.random() * len(among))]]
            for i in taken:
                new = new or not counts[i]
                counts[i] += 1
            return taken if question.subset else taken[0]

        walk = RecordingWalk(answer)
        try:
            space.architecture(walk)
        except UsageError as error:
            if not isinstance(error, IllegalGenotype):  # a space may refuse some combinations
                raise
        walks, idle = walks + 1, 0 if new else idle + 1
        shown += sum(len(question.options) for question in walk.questions)
        yield walk.questions


def _row(question: Question) -> dict[str, Any]:
    options: Any = list(question.options)
    if len(options) > LONGEST_LIST:
        options = {"count": len(options), "digest": _digest([canonical_json(options)])}
    return {"name": question.name, "options": options, "kind": question.kind, "subset": question.subset}


def _digest(texts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(texts).encode(errors="surrogatepass")).hexdigest()[:16]


# --- what changed -----------------------------------------------------------------------------------------------------


def edits_since(recorded: Mapping[str, Any], space: Space) -> list[str]:
    """The differences between a space and its record, a phrase each; empty if it asks the same."""
    now = questions_of(space)
    if same_json(recorded, now):
        return []
    if ("edits" in recorded) != ("edits" in now):
        return [
            "it grew by edits, and now asks choices"
            if "edits" in recorded
            else "it asked choices, and now grows by edits"
        ]
    changes = _grown_changes(recorded, now) if "edits" in now else _changes(recorded["questions"], now["questions"])
    if not changes:
        changes = [
            "its edits give other genotypes" if "edits" in now else "its choices follow on other answers than before"
        ]
    more = len(changes) - MOST_NAMED
    return changes if more <= 0 else [*changes[:MOST_NAMED], f"and {more} more changes"]


def _grown_changes(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    old, new = recorded["edits"], now["edits"]
    changes = [f"edit {name!r} is gone" for name in old if name not in new]
    changes += [f"new edit {name!r}" for name in new if name not in old]
    if not changes and old != new:
        changes.append("its edits are in another order")
    if not same_json(recorded["seed"], now["seed"]):
        changes.append("its seed is another")
    return changes


def _changes(recorded: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]) -> list[str]:
    old, new = _by_name(recorded), _by_name(now)
    changes = []
    for name, rows in old.items():
        others = new.get(name)
        if others is None:
            changes.append(f"choice {name!r} is gone")
        elif not same_json(rows, others):
            changes.append(f"choice {name!r}: {_difference(rows, others)}")
    changes += [f"new choice {name!r}" for name in new if name not in old]
    if not changes and list(old) != list(new):
        first, second = next((a, b) for a, b in zip(old, new, strict=True) if a != b)
        changes.append(f"choice {second!r} is now asked before choice {first!r}")
    return changes


def _by_name(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    named: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        named.setdefault(row["name"], []).append(row)
    return named


def _difference(rows: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]]) -> str:
    for what, text in (("options", _listed), ("subset", _answered), ("kind", repr)):
        before, after = [row[what] for row in rows], [row[what] for row in others]
        if not same_json(before, after):
            was, is_now = (" or ".join(dict.fromkeys(map(text, values))) for values in (before, after))
            if was != is_now:
                return f"{'its answer' if what == 'subset' else what} {'were' if what == 'options' else 'was'} {was}, now {is_now}"
    return "it is asked in another order"


def _listed(options: Any) -> str:
    if isinstance(options, Mapping):
        return f"{options['count']:,} options with the digest {options['digest'][:8]}"
    text = "(" + ", ".join(map(repr, options)) + ("," if len(options) == 1 else "") + ")"
    return text if len(text) <= 120 else f"{text[:100]}... ({len(options)} options)"


def _answered(subset: bool) -> str:
    return "any number of options" if subset else "one option"
