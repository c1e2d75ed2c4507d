"""Records as JSON text and back. What comes back may be a stranger's, so every type is checked on the way in."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Collection, Mapping
from typing import Any

from archsmith.core.errors import CorruptStore, UsageError
from archsmith.core.genotype import Genotype
from archsmith.core.shown import without_passwords
from archsmith.core.trial import Cost, Failure, Result

_encode = json.JSONEncoder(ensure_ascii=True, allow_nan=False, separators=(",", ":"), check_circular=True).encode
# ASCII, since a traceback may hold half of a surrogate pair, which no database takes as text.

MAX_NAME = 100


def check_name(name: str) -> str:
    """A run's name, as reports and file names can carry it. Raises UsageError with the rule."""
    rule = f"a run's name has 1 to {MAX_NAME} printable characters, without / and \\, and no space or dot at its ends"
    if not isinstance(name, str):
        raise UsageError(f"{rule}; got {type(name).__name__}")
    printable = name.isprintable() and not any(unicodedata.category(c)[0] == "C" for c in name)
    if not 1 <= len(name) <= MAX_NAME or not printable or set(name) & set("/\\") or name != name.strip(" ."):
        raise UsageError(f"{rule}; got {name[:120]!r}")
    return name


def free_name(taken: Collection[str], stem: str) -> str:
    """`stem`, or `stem-2`, `stem-3`, ...: the first that is no run's name, nor with random search beside it."""
    names = (stem if i == 1 else f"{stem}-{i}" for i in range(1, len(taken) + 2))
    return next(n for n in names if n not in taken and f"{n}-random" not in taken)


def check_key(key: str) -> str:
    """The key of a document. Raises UsageError with the rule."""
    if not isinstance(key, str) or not 1 <= len(key) <= 200 or not key.isprintable():
        raise UsageError(f"a document's key has 1 to 200 printable characters, got {key!r:.200}")
    return key


def to_text(value: Any, what: str) -> str:
    """Compact JSON. Raises UsageError when the value is not plain JSON; `what` names it there."""
    try:
        return _encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"{what} must be plain JSON: {error}") from None


def config_text(config: Mapping[str, Any]) -> str:
    """A run's configuration as JSON, without the passwords of URLs: many may read it. Raises UsageError."""
    what = "a run's configuration"
    to_text(dict(config), what)  # it ends, so the walk through it does as well
    return to_text(_without_passwords(dict(config)), what)


def _without_passwords(value: Any) -> Any:
    if isinstance(value, str):
        return without_passwords(value)
    if isinstance(value, Mapping):
        return {key: _without_passwords(part) for key, part in value.items()}
    return [_without_passwords(part) for part in value] if isinstance(value, list | tuple) else value


def from_text(text: Any, what: str) -> Any:
    """The value of a JSON text from the store. Raises CorruptStore."""
    if not isinstance(text, str):
        raise CorruptStore(f"{what} is damaged: text was expected, and there is {type(text).__name__}")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: also a number of more than 4,300 digits
        raise CorruptStore(f"{what} is damaged: {error}") from None


def object_from_text(text: Any, what: str) -> dict[str, Any]:
    """The same for what must be a JSON object."""
    value = from_text(text, what)
    if not isinstance(value, dict):
        raise CorruptStore(f"{what} is damaged: an object was expected, and there is {type(value).__name__}")
    return value


def genotype(space: dict[str, Any], answers: Any, what: str) -> Genotype:
    """A genotype from its stored parts; whether its answers are legal, only its space knows."""
    if not isinstance(space.get("name"), str):
        raise CorruptStore(f"{what} is damaged: its space has no name")
    if not isinstance(answers, dict):
        raise CorruptStore(f"{what} is damaged: its answers are {type(answers).__name__}")
    for name, answer in answers.items():
        if isinstance(answer, dict) or (isinstance(answer, list) and any(isinstance(a, dict | list) for a in answer)):
            raise CorruptStore(f"{what} is damaged: the answer {name!r} is neither an option nor a list of options")
    return Genotype(space, answers)


def result(value: Any, what: str) -> Result | None:
    """A result from its stored JSON, every field of the type it should have."""
    if value is None:
        return None
    try:
        cost, failure, artifact = value["cost"], value["failure"], value["artifact"]
        if failure is not None:
            failure = Failure(_text(failure["reason"]), _text(failure["message"]), _text(failure["traceback"]))
        checkpoint = value.get("checkpoint")  # a record from before trials were paused has none
        for digest in (artifact, checkpoint):
            if digest is not None and not re.fullmatch("[0-9a-f]{64}", digest):
                raise ValueError(f"the artifact {digest!r:.100} is no digest")
        copied_from = value.get("copied_from")  # a record from before there were twins has none
        if copied_from is not None and (type(copied_from) is not int or copied_from < 0):
            raise ValueError(f"copied_from {copied_from!r:.100} is no trial's number")
        stopped_by = value.get("stopped_by")
        if stopped_by not in (None, "rule", "time"):
            raise ValueError(f"stopped_by {stopped_by!r:.100} is no reason")
        settings = value.get("settings", {})  # a record from before children decided any has none
        if not isinstance(settings, dict):
            raise ValueError(f"settings {settings!r:.100} are no object")
        return Result(
            metrics=_numbers(value["metrics"]),
            curve=[_numbers(row) for row in value["curve"]],
            cost=Cost(
                _number(cost["seconds"]),
                _number(cost["epochs"]),
                _number(cost.get("lost_seconds", 0.0)),
                _number(cost.get("epochs_again", 0.0)),
            ),
            failure=failure,
            artifact=artifact,
            copied_from=copied_from,
            checkpoint=checkpoint,
            stopped_by=stopped_by,
            settings=settings,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CorruptStore(f"{what} is damaged: {type(error).__name__}: {error}") from None


def numbers_from_text(text: Any, what: str) -> dict[str, float]:
    """Named numbers from the store, NaN and infinities included."""
    try:
        return _numbers(object_from_text(text, what))
    except (TypeError, ValueError) as error:
        raise CorruptStore(f"{what} is damaged: {error}") from None


def numbers_to_text(values: Mapping[str, float], what: str) -> str:
    """What `numbers_from_text` reads; NaN and infinities as text, since JSON has no numbers for them."""
    return to_text({k: v if math.isfinite(v) else repr(float(v)) for k, v in values.items()}, what)


def _numbers(value: Any) -> dict[str, float]:
    return {k: _number(v) for k, v in value.items()}


def _number(value: Any) -> float:
    if isinstance(value, str) and value in ("nan", "inf", "-inf"):
        return float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"a number was expected, and there is {value!r:.100}")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"text was expected, and there is {value!r:.100}")
    return value
