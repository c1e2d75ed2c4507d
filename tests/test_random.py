"""Random search: uniform over each choice, light, and at the depths of a schedule."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from typing import Any

import pytest

from archsmith.core.errors import UsageError
from archsmith.core.space import FunctionSpace
from archsmith.core.walk import Choose
from archsmith.searchers import DepthSchedule, Random


def deep(choose: Choose) -> Any:
    layers = choose("layers", (6, 8, 10, 12, 14, 16, 18, 20))
    return [choose(f"{i}.filters", (24, 36)) for i in range(layers)]


def flat(choose: Choose) -> Any:
    return [choose("size", (1, 3, 5)), choose.subset("inputs", ("a", "b"))]


def depths(schedule: DepthSchedule, numbers: list[int]) -> list[int]:
    options = schedule.options(FunctionSpace(deep))
    return [schedule.depth(number, options) for number in numbers]


def test_options_are_drawn_evenly() -> None:
    answers = [p.genotype.answers for p in Random().start(FunctionSpace(flat), 0).ask(3000)]
    sizes = Counter(a["size"] for a in answers)
    pairs = Counter(tuple(a["inputs"]) for a in answers)  # type: ignore[arg-type]
    assert sum((sizes[s] - 1000) ** 2 / 1000 for s in (1, 3, 5)) < 20
    assert sum((pairs[s] - 750) ** 2 / 750 for s in ((), ("a",), ("b",), ("a", "b"))) < 20


def test_a_proposal_depends_on_seed_and_number_alone() -> None:
    space = FunctionSpace(flat)
    together = [p.genotype for p in Random().start(space, 5).ask(12)]
    live = Random().start(space, 5)
    assert [live.ask(1)[0].genotype for _ in range(12)] == together


def test_the_papers_schedule() -> None:
    """SPEC 1c: 6 + 2 * (s // 1600) for the 12,800 samples of the paper: eight stages, the last of 20 layers."""
    numbers = [0, 1599, 1600, 3200, 4800, 6400, 8000, 9600, 11199, 11200, 12799, 50_000]
    assert depths(DepthSchedule(), numbers) == [6, 6, 8, 10, 12, 14, 16, 18, 18, 20, 20, 20]


def test_depth_is_forced_by_number() -> None:
    live = Random(depth_schedule=DepthSchedule(8, 4, every=3)).start(FunctionSpace(deep), 0)
    found = [p.genotype.answers["layers"] for n in (1, 4, 5, 20) for p in live.ask(n)]
    assert found == [8] * 3 + [12] * 3 + [16] * 3 + [20] * 21


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DepthSchedule(start=0), "at least 1 layer, got 0"),
        (lambda: DepthSchedule(step=-2), "not be below 0, got -2"),
        (lambda: DepthSchedule(every=0), "got every=0"),
        (lambda: depths(DepthSchedule(start=5), []), "comes to 5 layers, and the options of choice 'layers' are 6, 8"),
        (lambda: depths(DepthSchedule(step=3), []), "comes to 9 layers"),
        (lambda: depths(DepthSchedule(start=22), []), "comes to 22 layers"),
        (lambda: DepthSchedule().options(FunctionSpace(flat)), "a choice named 'layers', and this space asks none"),
        (lambda: DepthSchedule(choice="inputs").options(FunctionSpace(flat)), "a choice named 'inputs'"),
        (
            lambda: DepthSchedule().options(FunctionSpace(lambda choose: choose("layers", ("few", "many")))),
            "whole numbers as options of 'layers'",
        ),
    ],
)
def test_schedules_that_cannot_be(make: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()


def test_a_schedule_may_stand_still_and_have_its_own_choice() -> None:
    def cells(choose: Choose) -> Any:
        return choose("cells", (2, 4))

    live = Random(depth_schedule=DepthSchedule(4, 0, every=2, choice="cells")).start(FunctionSpace(cells), 0)
    assert [p.genotype.answers["cells"] for p in live.ask(5)] == [4] * 5


def test_random_search_needs_no_torch() -> None:
    code = (
        "import sys; from archsmith.searchers import Random; from archsmith.core.space import FunctionSpace;"
        "Random().start(FunctionSpace(lambda choose: choose('a', (1, 2))), 0).ask(3);"
        "print(sorted({'torch', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
