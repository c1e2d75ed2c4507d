"""The sections on a delivered network, in the order that a reader asks for them."""

from __future__ import annotations

from archsmith._page.html import Html
from archsmith.metrics.outcome import AutoOutcome
from archsmith.report.delivered.confidence import confidence
from archsmith.report.delivered.confusions import by_class, confusions
from archsmith.report.delivered.faster import faster
from archsmith.report.delivered.picture_lists import duplicates, mistakes, suspected_labels
from archsmith.report.delivered.summary import notes
from archsmith.report.delivered.time_plan import time_plan


def sections(outcome: AutoOutcome, run: str) -> list[tuple[str, str, Html]]:
    """Those that there is something to say in, as (id, title, content); `run` is the run's name."""
    tested = outcome.assessment
    if tested is not None and tested.score.count == 0:
        tested = None
    parts = [
        ("notes", "Please note", notes(outcome)),
        ("faster", "Faster networks", faster(outcome, run)),
        ("classes", "Class by class", by_class(tested) if tested is not None else None),
        ("confusions", "What is taken for what", confusions(tested) if tested is not None else None),
        ("mistakes", "The worst mistakes", mistakes(outcome)),
        ("labels", "Labels that may be wrong", suspected_labels(outcome)),
        ("duplicates", "The same picture twice", duplicates(outcome)),
        ("confidence", "How sure it is, and how right", confidence(outcome.calibration)),
        ("time", "Where the time went", time_plan(outcome)),
    ]
    return [(id, title, body) for id, title, body in parts if body is not None]
