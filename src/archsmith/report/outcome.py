"""What `auto` delivered, read from a run, for the page and the terminal."""

from __future__ import annotations

from typing import Any

from archsmith.core.errors import UsageError
from archsmith.core.store import RunReader
from archsmith.metrics.claim import claim, minutes_text, percent
from archsmith.metrics.outcome import BASELINE, DOCUMENT, AutoOutcome, Score


def read_outcome(reader: RunReader) -> tuple[AutoOutcome | None, str]:
    """The outcome that is on record with a run, and an empty text; or None, and why its record cannot be read, if there is
    one."""
    document = reader.document(DOCUMENT)
    if document is None:
        return None, ""
    try:
        return AutoOutcome.from_json(document), ""
    except UsageError as error:
        return None, str(error)


def outcome_lines(outcome: AutoOutcome) -> list[tuple[str, str]]:
    """The outcome for a terminal: pairs of a word and a line."""
    d, baseline = outcome.delivered, outcome.baseline
    what = "the network designed by hand" if d.source == BASELINE else "found by the search"
    lines = [("delivered", f"{d.name} ({what}; {d.training}): {score_text(d.test, 'test')}")]
    if d.validation is not None:
        lines.append(("", score_text(d.validation, "validation")))
    facts = [
        f"{d.parameters:,} parameters" if d.parameters is not None else "",
        f"{d.file_bytes / 1e6:,.2f} MB" if d.file_bytes is not None else "",
        f"{d.latency:.3g} ms a picture" if d.latency is not None else "",
        f"pictures of {d.size} x {d.size} pixels" if d.size is not None else "",
    ]
    lines.append(("", ", ".join(filter(None, [*facts, f"{minutes_text(d.seconds)} of training"]))))
    if baseline is not None and d.source != BASELINE:
        measured = (
            score_text(baseline.test, "test")
            if baseline.test is not None
            else score_text(baseline.validation, "validation")
        )
        lines.append(("baseline", f"{baseline.name}: {measured}, {minutes_text(baseline.seconds)} of training"))
    lines.append(("claim", claim(outcome).text))
    return lines


def outcome_json(outcome: AutoOutcome) -> dict[str, Any]:
    """The outcome with what is derived from it, for programs. Pictures are left out."""
    document = outcome.to_json()
    document["claim"] = vars(claim(outcome))
    for network in (document["delivered"], document["baseline"], document["found"]):
        for score in (network["validation"], network["test"]) if network is not None else ():
            if score is not None:
                made = Score(**score)
                score |= {"accuracy": made.accuracy, "interval": made.interval}
    for listed, field in (("suspects", "picture"), ("duplicates", "pictures")):
        for item in document[listed]:
            del item[field]
    if outcome.assessment is not None:
        document["assessment"]["balanced_accuracy"] = outcome.assessment.balanced_accuracy
        for mistake in document["assessment"]["mistakes"]:
            del mistake["picture"]
    if outcome.paired is not None:
        document["paired"] |= {
            "difference": outcome.paired.difference,
            "interval": outcome.paired.interval,
            "p": outcome.paired.p,
        }
    return document


def score_text(score: Score | None, what: str) -> str:
    """ "test accuracy 93.0 % (95 % interval 91.2 % to 94.4 %, 1,000 pictures)"."""
    if score is None or score.accuracy is None:
        return f"no {what} accuracy"
    low, high = score.interval
    pictures = f"{score.count:,} picture{'' if score.count == 1 else 's'}"
    return f"{what} accuracy {percent(score.accuracy)} (95 % interval {percent(low)} to {percent(high)}, {pictures})"
