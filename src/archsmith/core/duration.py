"""Durations as people write them: "20m", "1h30m", "90s", or a number of seconds."""

from __future__ import annotations

import math
import re
from contextlib import suppress
from numbers import Real

from archsmith.core.errors import UsageError

_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}
_PART = re.compile(
    r"(\d+(?:\.\d+)?)\s*(d(?:ays?)?|h(?:(?:ou)?rs?)?|m(?:in(?:ute)?s?)?|s(?:ec(?:ond)?s?)?)(?![a-z])", re.IGNORECASE
)


def seconds_of(duration: str | float, name: str = "time") -> float:
    """The seconds of a duration. Each unit may be given once, the largest first.

    Args:
        duration: a text such as "1h30m", or a number of seconds.
        name: what the error calls it.

    Raises UsageError for anything else, and for a duration that is not above zero.
    """
    seconds = _parsed(duration)
    if seconds is None:
        raise UsageError(f'{name} must be a duration such as "20m", "1h30m" or "90s", got {duration!r}')
    if not (seconds > 0 and math.isfinite(seconds)):
        raise UsageError(f"{name} must be above zero and finite, got {duration!r}")
    return seconds


def milliseconds_of(text: str | float, name: str = "latency") -> float:
    """The milliseconds of a text such as "5ms", "0.2s" or "5", or of a number of them.

    Raises UsageError for anything else, and for what is not above zero; `name` is what the error calls it.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?|\.\d+)\s*(ms|s|)\s*", str(text), re.IGNORECASE)
    value = float(found[1]) * (1000 if found[2].lower() == "s" else 1) if found is not None else math.nan
    if not 0 < value < math.inf:
        raise UsageError(f'{name} must be a time above zero such as "5ms", got {text!r}')
    return value


def duration_text(seconds: float) -> str:
    """The duration for a person, such as "45 s", "3 min 20 s" or "2 h 5 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min" + (f" {whole % 60} s" if whole % 60 else "")
    return f"{whole // 3600} h" + (f" {whole % 3600 // 60} min" if whole % 3600 // 60 else "")


def _parsed(duration: object) -> float | None:
    if isinstance(duration, bool):
        return None
    if isinstance(duration, Real):
        with suppress(OverflowError):
            return float(duration)
        return math.inf
    if not isinstance(duration, str):
        return None
    text = duration.strip()
    try:
        return float(text)
    except ValueError:
        pass
    total, at, last = 0.0, 0, math.inf
    while at < len(text):
        part = _PART.match(text, at)
        if part is None or (unit := _UNITS[part[2][0].lower()]) >= last:
            return None
        total, last, at = total + float(part[1]) * unit, unit, part.end()
        while at < len(text) and text[at] in " \t":
            at += 1
    return total if text else None
