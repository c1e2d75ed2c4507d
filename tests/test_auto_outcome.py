"""The outcome of `auto` as a document, and what may be claimed of it."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archsmith.core.errors import UsageError
from archsmith.core.plain_records import from_plain
from archsmith.metrics.calibration import Bin
from archsmith.metrics.claim import (
    BETTER,
    NO_DIFFERENCE,
    NOT_COMPARED,
    WORSE,
    accuracy_remark,
    claim,
    minutes_text,
)
from archsmith.metrics.confusion import ClassScores
from archsmith.metrics.outcome import (
    Assessment,
    AutoOutcome,
    CalibrationReport,
    DeliveredNetwork,
    DuplicatePair,
    Mistake,
    OtherNetwork,
    PairedCounts,
    Score,
    Stage,
    SuspectedLabel,
)

DELIVERED = DeliveredNetwork(
    "found", "a residual network", "continued from trial 7", 250.5, 41, Score(95, 100), Score(930, 1000), 274_442
)
BY_HAND = OtherNetwork("ResNet-20", 100.0, False, Score(90, 100), Score(900, 1000))
FULL = AutoOutcome(
    delivered=DELIVERED,
    baseline=BY_HAND,
    assessment=Assessment(
        ("cat", "dog"),
        (ClassScores(500, 490, 460), ClassScores(500, 510, 470)),
        ((0, 1, 40), (1, 0, 30)),
        (Mistake("cats/1.png", "cat", "dog", 0.99, "data:image/jpeg;base64,AA=="),),
    ),
    paired=PairedCounts(880, 50, 20, 50),
    stages=(Stage("search", 200, 190.5), Stage("final training", 100, None)),
    time_budget=600.0,
    children=12,
    epochs=60,
    calibration=CalibrationReport(1.5, 0.08, 0.02, (Bin(7, 0.9, 0.8),), (Bin(7, 0.8, 0.8),)),
    suspects=(SuspectedLabel("cats/2.png", "cat", "dog", 0.99, "training"),),
    suspects_found=3,
    duplicates=(DuplicatePair("a.png", "b.png", ("training", "test"), exact=True),),
    duplicates_found=1,
    notes=("One file could not be read.",),
    test_predictions="0" * 64,
)


def through_json(outcome: AutoOutcome) -> Any:
    return json.loads(json.dumps(outcome.to_json(), allow_nan=False))


def test_an_outcome_comes_back_from_its_document() -> None:
    least = AutoOutcome(DELIVERED)
    assert AutoOutcome.from_json(through_json(FULL)) == FULL
    assert AutoOutcome.from_json(through_json(least)) == least


def test_versions_read_each_others_documents() -> None:
    document = through_json(FULL)
    document["a field of tomorrow"] = {"x": 1}
    document["delivered"]["another"] = 2
    del document["notes"], document["delivered"]["latency"]
    assert AutoOutcome.from_json(document) == replace(FULL, notes=())


@pytest.mark.parametrize(
    ("where", "value", "said"),
    [
        ((), [], "AutoOutcome must be a mapping"),
        (("delivered",), None, "AutoOutcome.delivered must be a mapping"),
        (("delivered", "source"), "elsewhere", "found or baseline"),
        (("delivered", "name"), 3, "AutoOutcome.delivered.name must be str"),
        (("delivered", "seconds"), float("nan"), "seconds must be a finite number"),
        (("delivered", "seconds"), 10**400, "seconds must be a finite number"),
        (("delivered", "epochs"), True, "epochs must be a finite number"),
        (("delivered", "test", "correct"), 2000, "from 0 to the count 1000"),
        (("delivered", "test", "count"), 1000.0, "count must be int"),
        (("assessment", "confusions"), [[0, 5, 1]], "two of the 2 classes"),
        (("assessment", "confusions"), [[0, 1]], r"confusions\[0\] must have 3 values"),
        (("assessment", "scores"), [], "one for each of the 2 classes"),
        (("assessment", "mistakes"), "none", "mistakes must be a list"),
        (("paired", "neither"), -1, "zero or more"),
        (("baseline", "equal_time"), 0, "equal_time must be bool"),
        (("duplicates",), [{"first": "a"}], "missing"),
    ],
)
def test_another_document_is_refused_by_the_name_of_its_field(where: tuple[Any, ...], value: Any, said: str) -> None:
    document = through_json(FULL)
    target: Any = document
    for key in where[:-1]:
        target = target[key]
    if where:
        target[where[-1]] = value
    with pytest.raises(UsageError, match=said):
        AutoOutcome.from_json(document if where else value)


@settings(max_examples=40)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(st.sampled_from(("delivered", "source", "name", "notes", "stages", "x")), inner)
        ),
    )
)
def test_any_document_is_read_or_refused(value: Any) -> None:
    with suppress(UsageError):
        assert isinstance(from_plain(AutoOutcome, value), AutoOutcome)


# --- the claim --------------------------------------------------------------------------------------------------------


def with_pairs(*counts: int, equal_time: bool, **changes: Any) -> AutoOutcome:
    baseline = replace(BY_HAND, equal_time=equal_time)
    return replace(FULL, baseline=baseline, paired=PairedCounts(*counts), **changes)


def test_better_takes_equal_time_and_an_interval_above_zero() -> None:
    better = claim(with_pairs(880, 50, 20, 50, equal_time=True))
    assert better.verdict == BETTER
    assert "In equal time it is better than the network designed by hand" in better.text
    assert "of 1,000 test pictures it recognises 93.0 % and ResNet-20 90.0 %" in better.text
    assert "+3.0 points (95 % interval +1.4 to +4.7)" in better.text
    same = claim(with_pairs(880, 35, 30, 55, equal_time=True))
    assert same.verdict == NO_DIFFERENCE
    assert "better than" not in same.text
    worse = claim(with_pairs(880, 20, 50, 50, equal_time=True))
    assert worse.verdict == WORSE
    assert "−3.0 points" in worse.text


def test_a_baseline_with_less_time_allows_no_claim_but_may_be_better() -> None:
    more = claim(with_pairs(880, 50, 20, 50, equal_time=False))
    assert more.verdict == NOT_COMPARED
    assert "better than" not in more.text
    assert "had less time (1.7 minutes)" in more.text
    assert "--baseline-time" in more.text
    worse = claim(with_pairs(880, 20, 50, 50, equal_time=False))
    assert worse.verdict == WORSE
    assert "which was trained for 1.7 minutes" in worse.text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"baseline": None}, "No network was trained by hand"),
        ({"paired": None}, "has no test pictures in common"),
        ({"paired": None, "baseline": replace(BY_HAND, test=None)}, "was not tested"),
        ({"paired": PairedCounts(0, 0, 0, 0)}, "has no test pictures in common"),
    ],
)
def test_without_a_comparison_nothing_is_claimed(changes: Any, said: str) -> None:
    made = claim(replace(FULL, **changes))
    assert made.verdict == NOT_COMPARED
    assert said in made.text
    assert "better than" not in made.text


def test_a_delivered_baseline_claims_nothing_for_the_search() -> None:
    delivered = replace(DELIVERED, source="baseline", name="ResNet-20")
    alone = claim(replace(FULL, delivered=delivered))
    assert alone.verdict == NOT_COMPARED
    assert "claims nothing for the search" in alone.text
    found = OtherNetwork("trial 7", 300, True, Score(91, 100))
    beside = claim(replace(FULL, delivered=delivered, found=found))
    assert "(95.0 % against 91.0 %)" in beside.text


@given(st.tuples(*[st.integers(0, 60)] * 4), st.booleans())
def test_no_verdict_contradicts_the_interval_or_turns_with_the_time(counts: Any, equal_time: bool) -> None:
    outcome = with_pairs(*counts, equal_time=equal_time)
    verdict = claim(outcome).verdict
    assert outcome.paired is not None
    low, high = outcome.paired.interval
    if verdict == BETTER:
        assert equal_time
        assert low > 0
        assert outcome.paired.p <= 0.05
    if verdict == WORSE:
        assert high < 0
    mirrored = claim(with_pairs(counts[0], counts[2], counts[1], counts[3], equal_time=True)).verdict
    turned = {BETTER: WORSE, WORSE: BETTER}.get(claim(with_pairs(*counts, equal_time=True)).verdict)
    assert turned is None or mirrored == turned


def test_one_picture_is_one_picture() -> None:
    assert "of 1 test picture it" in claim(with_pairs(0, 1, 0, 0, equal_time=True)).text


def test_the_two_accuracies_are_explained() -> None:
    said = accuracy_remark(FULL)
    assert "95.0 % on the validation pictures and 93.0 % on the test pictures" in said
    assert "usually a little too high" in said
    lower = replace(FULL, delivered=replace(DELIVERED, validation=Score(90, 100)))
    assert "Here chance made the test pictures no harder" in accuracy_remark(lower)
    for missing in ({"validation": None}, {"test": None}, {"test": Score(0, 0)}):
        assert accuracy_remark(replace(FULL, delivered=replace(DELIVERED, **missing))) == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "less than a second"), (1, "1 second"), (45.4, "45 seconds"), (59.7, "1 minute"),
        (60, "1 minute"), (100, "1.7 minutes"),
        (600, "10 minutes"), (5399, "90 minutes"), (7200, "2 hours"), (7560, "2.1 hours"),
    ],
)  # fmt: skip
def test_times_read_well(seconds: float, text: str) -> None:
    assert minutes_text(seconds) == text
