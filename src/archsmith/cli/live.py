"""What a person sees while a search runs: a live view in a terminal, a few plain lines elsewhere. stderr only.

`LiveView` is the `watch` of a search, called in the loop for each change of a trial and each epoch: it only counts, and
a thread of rich's draws four times a second, so that a search of a hundred thousand quick trials is not slowed by it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Self

from archsmith.cli.looking import reward_text, score_text
from archsmith.core.budget import Budget
from archsmith.core.executor import Progress
from archsmith.core.finish import ACCURACY, Measure
from archsmith.core.trial import Trial, TrialState

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, Group, RenderResult
    from rich.live import Live
    from rich.table import Table

    from archsmith._search.trainings import TrainingProgress

LINE_SECONDS = 10.0  # plain lines: no more often than this, or at each tenth of the budget, or at a new best
BEST_SECONDS = 1.0  # a new best within a second of the last line waits for the next
SHOWN_RUNNING = 8
SPARKS = "▁▂▃▄▅▆▇█"
SPARKS_ASCII = "_.-=+*%#"


def stderr() -> Console:
    """A console on stderr, where progress belongs: stdout is for data."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def _live_on(console: Console, view: LiveView | FinishView) -> Live | None:
    """The view's live display, begun; None where the console is no terminal and gets plain lines."""
    if not console.is_terminal or console.is_dumb_terminal:
        return None
    from rich.live import Live

    live = Live(view, console=console, refresh_per_second=4, redirect_stdout=False)
    live.start()
    return live


class LiveView:
    """The view of a search; a context manager, and the `watch` of `search` and `resume`.

    Args:
        total: the run's budget, from which the time left is estimated.
        done: trials that were finished before this session.
        console: where to (default: stderr). A terminal gets a live view, anything else plain lines.
        epochs: the cost in epochs before this session, for a budget in epochs.
        paused: what each child took in epochs that was put aside before this session: it is no part of `epochs`.
        best: the best reward before this session.
        best_trial: the trial that had it.
        measure: the metric that is told of the best trial, and of epochs.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        total: Budget,
        done: int = 0,
        console: Console | None = None,
        *,
        epochs: float = 0.0,
        paused: Mapping[int, float] | None = None,
        best: float | None = None,
        best_trial: Trial | None = None,
        measure: Measure = ACCURACY,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.budget = total
        self.measure = measure
        self.done = self._done_before = done
        self.failed = 0
        self.stopped = 0
        self.begun_again = 0
        self.paused = set(paused or ())
        self.epochs = epochs
        self._begun = dict(paused or {})  # epochs of children that were put aside and are not at their end
        self._spent_before = self.spent
        self.best = best
        self.best_trial = best_trial
        self.rewards: deque[float] = deque(maxlen=48)
        self.running: dict[int, Progress | None] = {}
        self.last_failure: Trial | None = None
        self._console = console
        self._clock = clock
        self._began = clock()
        self._offset = -self._began  # from our clock to the run's own, which counts earlier sessions: trials tell
        self._recent: deque[float] = deque([self._began], maxlen=64)
        self._line_at = self._began
        self._line_share = 0.0
        self._line_done = -1
        self._best_told = best
        self._live: Live | None = None

    # --- counting: the hot path ---------------------------------------------------------------------------------------

    def __call__(self, event: Trial | Progress) -> None:
        """Note what happened; draws nothing itself in a terminal, at most one line elsewhere."""
        if isinstance(event, Progress):
            self.running[event.trial] = event
        elif event.state is TrialState.RUNNING:
            if event.number in self.running:  # its worker died under it
                self.begun_again += 1
            self.running[event.number] = None
            self.paused.discard(event.number)
        elif event.state is TrialState.PAUSED:
            self.running.pop(event.number, None)
            self.paused.add(event.number)
            self._begun[event.number] = event.result.cost.epochs if event.result is not None else 0.0
        elif event.state.is_finished:
            self._finished(event)
        if self._live is None:
            self._plain()

    def _finished(self, trial: Trial) -> None:
        now = self._clock()
        self.running.pop(trial.number, None)
        self.paused.discard(trial.number)
        self._begun.pop(trial.number, None)
        self.done += 1
        self._recent.append(now)
        if trial.finished_at is not None:
            self._offset = trial.finished_at - now
        if trial.result is not None:
            self.epochs += trial.result.cost.epochs
        if trial.state is TrialState.FAILED:
            self.failed += 1
            self.last_failure = trial
        elif trial.state is TrialState.STOPPED:
            self.stopped += 1
        elif trial.reward is not None:
            self.rewards.append(trial.reward)
            if self.best is None or trial.reward > self.best:
                self.best, self.best_trial = trial.reward, trial

    # --- what follows from the counts ---------------------------------------------------------------------------------

    @property
    def elapsed(self) -> float:
        """Seconds of this session."""
        return self._clock() - self._began

    @property
    def spent(self) -> float:
        """Epochs that count for a budget in epochs."""
        return self.epochs + sum(self._begun.values())

    @property
    def _run_seconds(self) -> float:
        return self._clock() + self._offset

    @property
    def rate(self) -> float | None:
        """Trials finished a minute, lately; None before the first."""
        if len(self._recent) < 2:
            return None
        span = self._clock() - self._recent[0]
        return 60 * (len(self._recent) - 1) / span if span > 0 else None

    @property
    def share(self) -> float:
        """How much of the budget is used up, from 0 to 1: of its limits, the one that is nearest."""
        limits = self.budget
        spent = (
            self.done / limits.trials if limits.trials is not None else 0.0,
            self._run_seconds / limits.seconds if limits.seconds is not None else 0.0,
            self.spent / limits.epochs if limits.epochs is not None else 0.0,
        )
        return min(1.0, max(spent))

    @property
    def left(self) -> float | None:
        """Seconds until the budget ends, estimated from what was done lately; None while it cannot be told."""
        limits, rate = self.budget, self.rate
        estimates = []
        if limits.seconds is not None:
            estimates.append(limits.seconds - self._run_seconds)
        if rate is not None and limits.trials is not None:
            estimates.append(60 * (limits.trials - self.done) / rate)
        if limits.epochs is not None and self._begun:  # children end in no even pace then: by this session's epochs
            new = self.spent - self._spent_before
            if new > 0:
                estimates.append((limits.epochs - self.spent) * self.elapsed / new)
        elif rate is not None and limits.epochs is not None and self.epochs > 0 and self.done > 0:
            estimates.append(60 * (limits.epochs - self.epochs) / (rate * self.epochs / self.done))
        return max(0.0, min(estimates)) if estimates else None

    # --- a terminal ---------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        console = self._console = self._console if self._console is not None else stderr()
        self._began = self._line_at = self._clock()
        self._offset = -self._began
        self._recent.clear()
        self._recent.append(self._began)
        self._live = _live_on(console, self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._live is not None:
            self.running.clear()
            self._live.transient = self._idle(error)
            self._live.stop()
            self._live = None
        elif self._console is not None and self._line_done != self.done and not self._idle(error):
            self._say(self._line())

    def _idle(self, error: BaseException | None) -> bool:
        """Whether an error ended it before anything happened: the error says all there is."""
        return isinstance(error, Exception) and self.done == self._done_before

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self._view(console, options)

    def _view(self, console: Console, options: ConsoleOptions) -> Group:
        from rich.console import Group
        from rich.text import Text

        counts = Text.assemble((self._counts(), "bold"), ("  " + self._pace()))
        parts: list[Table | Text] = [bar(self.share), counts]
        if self.best is not None:
            best = Text.assemble("best ", (reward_text(self.best), "bold green"), self._best_detail(), "  ")
            best.append(sparkline(list(self.rewards), ascii_only=options.ascii_only), style="blue")
            parts.append(best)
        running = sorted(self.running.copy().items())
        for number, progress in running[:SHOWN_RUNNING]:
            parts.append(Text(f"  trial {number}" + (f"  {self._epoch(progress)}" if progress else ""), style="dim"))
        if len(running) > SHOWN_RUNNING:
            parts.append(Text(f"  and {len(running) - SHOWN_RUNNING} more running", style="dim"))
        if self.last_failure is not None:
            parts.append(Text("last failure: " + _failure(self.last_failure), style="red"))
        for part in parts:
            if isinstance(part, Text):
                part.no_wrap, part.overflow = True, "ellipsis"
        return Group(*parts)

    # --- anywhere else ------------------------------------------------------------------------------------------------

    def _plain(self) -> None:
        now = self._clock()
        since = now - self._line_at
        if since < BEST_SECONDS:
            return
        share = self.share
        if since >= LINE_SECONDS or share >= self._line_share + 0.1 or self.best != self._best_told:
            self._say(self._line())
            self._line_at, self._line_share, self._line_done, self._best_told = now, share, self.done, self.best

    def _line(self) -> str:
        best = f", best {reward_text(self.best)}{self._best_detail()}" if self.best is not None else ""
        failure = ""
        if self.failed == 1 and self.last_failure is not None:
            failure = f"; {_failure(self.last_failure)}"
        return f"{self._counts()}{best}, {self._pace()}{failure}"

    def _say(self, line: str) -> None:
        if self._console is not None:
            self._console.out(line, highlight=False)

    # --- words --------------------------------------------------------------------------------------------------------

    def _counts(self) -> str:
        of = f" of {self.budget.trials:,}" if self.budget.trials is not None else ""
        kinds = {
            "failed": self.failed,
            "stopped early": self.stopped,
            "put aside": len(self.paused),
            "begun again": self.begun_again,
        }
        told = ", ".join(f"{count:,} {kind}" for kind, count in kinds.items() if count)
        return f"{self.done:,}{of} trials{f' ({told})' if told else ''}"

    def _pace(self) -> str:
        rate, left = self.rate, self.left
        parts = [f"{_rate(rate)} a minute" if rate is not None else "", f"{span(self.elapsed)} so far"]
        if self.budget.epochs is not None:
            parts.append(f"{self.spent:g} of {self.budget.epochs:g} epochs")
        if left is not None and self.share < 1:
            parts.append(f"about {span(left)} left" if left >= 1 else "nearly done")
        return ", ".join(part for part in parts if part)

    def _best_detail(self) -> str:
        best = self.best_trial
        if best is None:
            return ""
        score = best.result.metrics.get(self.measure.name) if best.result is not None else None
        told = f"{self.measure.label} {score_text(score, self.measure)}, " if score is not None else ""
        return f" ({told}trial {best.number})"

    def _epoch(self, progress: Progress) -> str:
        score = progress.metrics.get(self.measure.name)
        told = f"  {self.measure.label} {score_text(score, self.measure)}" if score is not None else ""
        return f"epoch {progress.epoch}{told}"


def bar(share: float) -> Table:
    """A bar as wide as the terminal, with the share beside it."""
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column(ratio=1)
    grid.add_column(justify="right")
    drawn = ProgressBar(total=1.0, completed=share, style="dim", complete_style="blue", finished_style="green")
    grid.add_row(drawn, Text(f"{100 * share:3.0f} %"))
    return grid


def sparkline(values: list[float], *, ascii_only: bool = False) -> str:
    """The values as a row of small bars, from the lowest of them to the highest."""
    finite = [v for v in values if abs(v) < 1e300]
    if len(finite) < 2:
        return ""
    low, high = min(finite), max(finite)
    sparks = SPARKS_ASCII if ascii_only else SPARKS
    if high <= low:
        return sparks[3] * len(finite)
    return "".join(sparks[min(7, int(8 * (v - low) / (high - low)))] for v in finite)


def span(seconds: float) -> str:
    """ "42 s", "3 min 20 s", "2 h 5 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"


def _rate(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 20 else f"{rate:.1f}"


def _failure(trial: Trial) -> str:
    failure = trial.result.failure if trial.result is not None else None
    if failure is None:
        return f"trial {trial.number}"
    text = f"trial {trial.number}: {failure.reason}: {failure.message}"
    return _printable(text[:300])


class FinishView:
    """The view of a finish, or of a transfer; a context manager, and its `watch`. One line of progress a training.

    Args:
        console: where to (default: stderr). A terminal gets a bar for each stage, anything else a line a training.
        clock: monotonic seconds.
    """

    def __init__(self, console: Console | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._began = self._stage_began = clock()
        self._stage = ""
        self._stage_from = 0  # trainings of the stage that an earlier finish had done already
        self._told: tuple[str, int] | None = None
        self._now: TrainingProgress | None = None
        self._live: Live | None = None

    def __call__(self, event: TrainingProgress) -> None:
        """Note how far it is."""
        if event.stage != self._stage:
            if self._live is not None and self._now is not None:
                self._live.console.print(self._done_line(), highlight=False, markup=False)
            self._stage, self._stage_began, self._stage_from = event.stage, self._clock(), event.done
        self._now = event
        ended = event.epoch == 0 and event.done > 0
        if self._live is None and self._console is not None and ended and self._told != (event.stage, event.done):
            self._told = (event.stage, event.done)
            score = event.score or (f"reward {reward_text(event.reward)}" if event.reward is not None else "")
            told = f", validation {score}" if score else ""
            label = event.label or "done before"
            line = f"{event.stage} {event.done} of {event.total}: {label}{told}, {self._pace(event)}"
            self._console.out(_printable(line), highlight=False)

    def __enter__(self) -> Self:
        console = self._console = self._console if self._console is not None else stderr()
        self._began = self._clock()
        self._live = _live_on(console, self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.text import Text

        event = self._now
        if event is None:
            yield Text("preparing", style="dim")
            return
        part = event.epoch / event.epochs if event.epochs else 0.0
        yield bar(min(1.0, (event.done + part) / max(1, event.total)))
        epoch = f", epoch {event.epoch} of {event.epochs}" if event.epochs else ""
        label = f": {event.label}" if event.label else ""
        line = f"{event.stage} {event.done} of {event.total}{label}{epoch}, {self._pace(event)}"
        yield Text(_printable(line), no_wrap=True, overflow="ellipsis")

    def _pace(self, event: TrainingProgress) -> str:
        spent = self._clock() - self._stage_began
        done = event.done + (event.epoch / event.epochs if event.epochs else 0.0)
        parts = [f"{span(self._clock() - self._began)} so far"]
        if self._stage_from < done < event.total:
            left = spent * (event.total - done) / (done - self._stage_from)
            parts.append(f"about {span(left)} left of this stage")
        return ", ".join(parts)

    def _done_line(self) -> str:
        assert self._now is not None
        return f"{self._stage}: {self._now.total} done in {span(self._clock() - self._stage_began)}"


def _printable(text: str) -> str:
    """The text without what would steer a terminal."""
    return "".join(c if c.isprintable() else " " for c in text)
