"""Durations as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archsmith.core.duration import duration_text, seconds_of
from archsmith.core.errors import UsageError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("20m", 1200), ("1h30m", 5400), ("90s", 90), ("1h", 3600), ("1 h 30 min", 5400), ("2d", 172_800), ("0.5h", 1800), ("90", 90),
        ("1.5", 1.5), (90, 90), (0.25, 0.25), ("1H30M", 5400), (" 10m ", 600), ("10 minutes", 600), ("1hour", 3600), ("30sec", 30), ("10mins", 600), ("90secs", 90), ("2hrs", 7200), ("3days", 259_200),
    ],
)  # fmt: skip
def test_durations_are_read(text: str | float, seconds: float) -> None:
    assert seconds_of(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "m",
        "20x",
        "30m1h",
        "1h1h",
        "-5m",
        "0m",
        0,
        -1,
        "nan",
        "inf",
        float("nan"),
        float("inf"),
        True,
        None,
        "1:30",
        "20 m m",
    ],
)
def test_anything_else_is_refused_with_an_example(wrong: object) -> None:
    with pytest.raises(UsageError, match=r"--time must be .* got"):
        seconds_of(wrong, "--time")  # type: ignore[arg-type]


@given(st.integers(1, 60 * 24 * 30))
def test_what_is_written_is_read_as_the_same(minutes: int) -> None:
    assert seconds_of(duration_text(60 * minutes)) == 60 * minutes
