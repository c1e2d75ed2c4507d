"""The live view: what a person sees of a search and of a finish, in a terminal and in a log."""

from __future__ import annotations

import io
import re
import sys
from typing import Any

import pytest
from rich.console import Console

from archsmith._search.trainings import TrainingProgress
from archsmith.cli.live import FinishView, LiveView, span, sparkline
from archsmith.core.budget import Budget
from archsmith.core.executor import Progress
from archsmith.core.finish import PERPLEXITY
from archsmith.core.genotype import Genotype
from archsmith.core.trial import Cost, Failure, Result, Trial, TrialState

GENOTYPE = Genotype({"name": "space", "version": 1, "options": {}}, {})


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def log() -> Console:
    return Console(file=io.StringIO(), width=200, force_terminal=False)


def terminal(**options: Any) -> Console:
    return Console(file=io.StringIO(), width=130, force_terminal=True, **options)


def lines(console: Console) -> list[str]:
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


def drawn(view: Any, console: Console) -> str:
    """What the view shows right now, as plain text."""
    with console.capture() as capture:
        console.print(view)
    return re.sub(r"\x1b\[[\d;]*m", "", capture.get())  # colours apart


def finished(
    number: int, reward: float | None, *, at: float = 0.0, accuracy: float | None = None, failure: str = ""
) -> Trial:
    state = TrialState.FAILED if failure else TrialState.DONE
    result = Result(
        {} if accuracy is None else {"accuracy": accuracy},
        cost=Cost(1.0, 5.0),
        failure=Failure("error", failure) if failure else None,
    )
    return Trial(number, GENOTYPE, state=state, reward=reward, result=result, finished_at=at)


def test_a_log_gets_few_lines_and_each_new_best() -> None:
    clock, console = Clock(), log()
    with LiveView(Budget(trials=1000), console=console, clock=clock) as view:
        for k in range(1000):
            clock.now += 0.05
            view(finished(k, {300: 0.5, 600: 0.75}.get(k, 0.25), at=0.05 * k, accuracy=0.9))
    said = lines(console)
    assert 10 <= len(said) <= 15
    assert any("best 0.5000 (accuracy 0.9000, trial 300)" in line for line in said)
    assert said[-1].startswith(
        "1,000 of 1,000 trials, best 0.7500 (accuracy 0.9000, trial 600), 1,200 a minute, 50 s so far"
    )


def test_a_slow_search_says_something_every_ten_seconds_and_not_more() -> None:
    clock, console = Clock(), log()
    with LiveView(Budget(trials=10_000), console=console, clock=clock) as view:
        for k in range(120):
            clock.now += 1.0
            view(Progress(0, k + 1, {"accuracy": 0.5}))
    assert len(lines(console)) == 12


def test_new_bests_in_quick_succession_share_a_line() -> None:
    clock, console = Clock(), log()
    with LiveView(Budget(seconds=1e6), console=console, clock=clock) as view:
        for k in range(500):
            clock.now += 0.01
            view(finished(k, float(k)))
    assert len(lines(console)) <= 6


def test_nothing_goes_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    with LiveView(Budget(trials=2)) as view:
        view(finished(0, 0.5))
    with FinishView() as finish:
        finish(TrainingProgress("tuning", "found", 1, 2))
    out, err = capsys.readouterr()
    assert out == ""
    assert "1 of 2 trials, best 0.5000" in err
    assert "tuning 1 of 2: found" in err
    assert sys.stdout is not None


def test_a_terminal_shows_how_far_how_fast_how_good_and_what_runs() -> None:
    clock, console = Clock(), terminal()
    view = LiveView(Budget(trials=40), console=console, clock=clock)
    for k in range(10):
        clock.now += 6
        view(finished(k, 0.1 * k, accuracy=0.5 + 0.01 * k, at=6.0 * k))
    view(Trial(10, GENOTYPE, state=TrialState.RUNNING))
    view(Trial(11, GENOTYPE, state=TrialState.RUNNING))
    view(Progress(11, 3, {"accuracy": 0.8125, "loss": 0.5}))
    view(finished(12, None, failure="out of \x1b[2J[red]luck[/red]"))
    text = drawn(view, console)
    for said in (
        "11 of 40 trials (1 failed)",
        "11.0 a minute, 1 min 0 s so far, about 2 min 38 s left",
        "28 %",
        "best 0.9000 (accuracy 0.5900, trial 9)",
        "▁▁▂▃▄▅▆▇█",
        "trial 10",
        "trial 11  epoch 3  accuracy 0.8125",
        "last failure: trial 12: error: out of  [2J[red]luck[/red]",
    ):
        assert said in text, said
    assert "\x1b[2J" not in text


def test_what_has_no_accuracy_is_told_by_its_own_measure() -> None:
    console = terminal()
    view = LiveView(Budget(trials=40), console=console, measure=PERPLEXITY)
    result = Result({"perplexity": 112.345, "accuracy": 0.5}, cost=Cost(1.0, 5.0))
    view(Trial(3, GENOTYPE, state=TrialState.DONE, reward=80 / 112.345**2, result=result))
    view(Trial(4, GENOTYPE, state=TrialState.RUNNING))
    view(Progress(4, 2, {"train_loss": 5.0, "perplexity": 250.0}))
    text = drawn(view, console)
    assert "best 0.006338 (perplexity 112.34, trial 3)" in text
    assert "trial 4  epoch 2  perplexity 250.00" in text
    assert "accuracy" not in text


def test_a_terminal_is_redrawn_and_left_tidy() -> None:
    console = terminal()

    def interrupted() -> None:
        with LiveView(Budget(trials=4), console=console) as view:
            view(Trial(0, GENOTYPE, state=TrialState.RUNNING))
            view(finished(1, 0.25))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "1 of 4 trials" in text
    assert text.rstrip().endswith("\x1b[?25h")  # the cursor is shown again


def test_many_running_children_are_summed_up() -> None:
    console = terminal()
    view = LiveView(Budget(trials=400), console=console)
    for k in range(100):
        view(Trial(k, GENOTYPE, state=TrialState.RUNNING))
    text = drawn(view, console)
    assert "and 92 more running" in text
    assert len(text.splitlines()) <= 12


def test_the_nearest_limit_of_a_budget_counts() -> None:
    clock = Clock()
    view = LiveView(Budget(trials=100, seconds=300, epochs=60), done=5, epochs=10, clock=clock)
    clock.now += 60
    assert view.left == pytest.approx(240)
    assert view.share == pytest.approx(60 / 300)
    for k in range(4):
        view(finished(k, 0.5, at=60))
    assert view.epochs == 30  # half of its epochs, at 3.3 epochs a trial and 4 trials a minute
    assert view.share == pytest.approx(0.5)
    assert view.left == pytest.approx((60 - 30) / (30 / 9) / 4 * 60)


def test_a_resumed_run_counts_what_was_done_before() -> None:
    clock = Clock()
    view = LiveView(Budget(trials=100, seconds=1000), done=50, best=0.9, clock=clock)
    clock.now += 10
    view(finished(50, 0.5, at=700.0))  # the run's clock stands at 700 s: 690 are of earlier sessions
    assert (view.done, view.best) == (51, 0.9)
    assert view.share == pytest.approx(0.7)
    clock.now += 100
    assert view.share == pytest.approx(0.8)
    assert view.left == pytest.approx(200)


def test_a_terminal_that_knows_only_ascii_gets_only_ascii() -> None:
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    console = Console(file=file, force_terminal=True, width=80)
    view = LiveView(Budget(trials=3), console=console)
    view(finished(0, 0.1))
    view(finished(1, 0.2))
    console.print(view)


@pytest.mark.parametrize(
    ("values", "text"),
    [([], ""), ([1.0], ""), ([1.0, 1.0], "▄▄"), ([0.0, 1.0], "▁█"), ([0.0, float("nan"), float("inf"), 1.0], "▁█"), ([-3.0, 0.0, 4.0], "▁▄█")],
)  # fmt: skip
def test_sparklines(values: list[float], text: str) -> None:
    assert sparkline(values) == text


def test_spans_read_well() -> None:
    assert [span(s) for s in (0, 59.4, 200, 7500)] == ["0 s", "59 s", "3 min 20 s", "2 h 5 min"]


def test_a_finish_tells_each_training_once() -> None:
    clock, console = Clock(), log()
    with FinishView(console, clock=clock) as view:
        view(TrainingProgress("final training", "", 0, 3))
        for done in range(4):
            for epoch in (1, 2):
                if done < 3:
                    view(TrainingProgress("final training", "found, seed \x1b[0m1", done, 3, epoch, 2))
            clock.now += 30
            score = "perplexity 12.65" if done == 3 else ""
            view(TrainingProgress("final training", "found, seed \x1b[0m1", done, 3, reward=0.5, score=score))
        view(TrainingProgress("testing", "3 models", 0, 3))
    said = lines(console)
    assert (
        said[0]
        == "final training 1 of 3: found, seed  [0m1, validation reward 0.5000, 1 min 0 s so far, about 2 min 0 s left of this stage"
    )
    assert len(said) == 3
    assert "validation perplexity 12.65, 2 min 0 s so far" in said[2]


def test_a_run_gone_on_with_knows_its_best_from_before() -> None:
    console = log()
    before = finished(3, 0.5, accuracy=0.8)
    with LiveView(Budget(trials=9), 5, console, best=0.5, best_trial=before, clock=Clock()) as view:
        view(finished(6, 0.25))
    assert "6 of 9 trials, best 0.5000 (accuracy 0.8000, trial 3)" in lines(console)[0]


def test_a_finish_in_a_terminal_shows_the_stage_and_the_epoch() -> None:
    clock, console = Clock(), terminal()
    view = FinishView(console, clock=clock)
    assert "preparing" in drawn(view, console)
    view(TrainingProgress("tuning", "", 1, 7))  # an earlier finish had trained one of them
    clock.now += 70
    view(TrainingProgress("tuning", "learning_rate 0.1", 3, 7, epoch=5, epochs=10))
    assert (
        "tuning 3 of 7: learning_rate 0.1, epoch 5 of 10, 1 min 10 s so far, about 1 min 38 s left of this stage"
        in drawn(view, console)
    )
    with view:
        view(TrainingProgress("final training", "found", 0, 3))
    assert "tuning: 7 done in 1 min 10 s" in console.file.getvalue()  # type: ignore[attr-defined]


def put_aside(number: int, epochs: float) -> Trial:
    return Trial(number, GENOTYPE, state=TrialState.PAUSED, result=Result(cost=Cost(1.0, epochs)))


def test_epochs_of_children_that_are_put_aside_count_at_once() -> None:
    clock, console = Clock(), log()
    with LiveView(Budget(epochs=60), epochs=5, paused={7: 3.0}, console=console, clock=clock) as view:
        assert view.spent == 8
        for number in (0, 1):
            clock.now += 5
            view(put_aside(number, 1.0))
        clock.now += 10
        assert view.share == pytest.approx(10 / 60)
        assert view.left == pytest.approx(50 * 20 / 2), "two epochs in this session's twenty seconds"
        view(put_aside(0, 3.0))  # promoted, and aside again: what it took before is part of it
        assert view.spent == 12
        view(finished(0, 0.5))  # with five epochs in all
        assert (view.spent, view.epochs) == (14, 10)
    assert "1 trials (2 put aside)" in lines(console)[-1]
    assert "14 of 60 epochs" in lines(console)[-1]


def test_an_error_before_anything_happened_stands_alone() -> None:
    console, shown = log(), terminal()
    for where in (console, shown):
        with pytest.raises(ValueError, match="wrong"), LiveView(Budget(trials=5), done=2, console=where):
            raise ValueError("wrong")
    assert lines(console) == []
    with pytest.raises(KeyboardInterrupt), LiveView(Budget(trials=5), done=2, console=console):
        raise KeyboardInterrupt
    assert lines(console) == ["2 of 5 trials, 0 s so far"]
