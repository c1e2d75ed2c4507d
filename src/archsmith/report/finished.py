"""What `finish` found: the winner beside a hand-designed network and random search's best, on the test set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from archsmith.report.facts import Facts
from archsmith.report.html import Html


def finished(facts: Facts) -> Html | None:
    """The test results; None while there are none."""
    return None


def looks(finish: Mapping[str, Any] | None) -> int:
    """How often the test set was looked at."""
    return 0
