"""What a person sees while `archsmith auto` works: the plan, a bar over the whole time, and a line for what goes on."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from archsmith.cli.live import bar, stderr
from archsmith.cli.looking import data_lines
from archsmith.core.duration import duration_text
from archsmith.core.executor import Progress
from archsmith.core.shown import plain
from archsmith.core.trial import Trial, TrialState

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.live import Live

    from archsmith.automl import Event
    from archsmith.automl.pictures import Pictures

LINE_SECONDS = 15.0  # where there is no terminal, a line no more often than this

TITLES = {
    "search": "searching: known networks first, then what the searcher proposes",
    "choosing": "choosing: the best go on",
    "baseline": "baseline: what a person would have picked",
    "final": "final training: the chosen network goes on",
    "faster": "faster networks: the same one learns to see smaller pictures",
    "closing": "testing once, writing the page and the model",
}

PROBING = "probing: what the pretrained network and its parts say of the pictures"


class AutoView:
    """The `watch` of `auto`; a context manager.

    Args:
        total: the whole time in seconds.
        began: when it began, by `time.monotonic`.
        console: where to (default: stderr). A terminal gets a live view, anything else plain lines.
    """

    def __init__(self, total: float, began: float, console: Console | None = None) -> None:
        self._total, self._began = total, began
        self._console = console if console is not None else stderr()
        self._live: Live | None = None
        self._stage = "reading"
        self._line = "reading the data"
        self._pictures: Pictures | None = None
        self._trained = 0
        self._best: float | None = None
        self._told_at = 0.0

    def __enter__(self) -> Self:
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            from rich.live import Live

            self._live = Live(self, console=self._console, refresh_per_second=4, redirect_stdout=False)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def __call__(self, event: Event) -> None:
        """Note what happened."""
        from archsmith.automl import DataRead, StageStarted, WrapUpStarted

        if isinstance(event, DataRead):
            pictures = self._pictures = event.pictures
            for line in data_lines(dict(event.description)):
                self._say(line)
            sees = f"the network sees {pictures.size}"
            if len(pictures.sizes) > 1:
                sees = f"a pretrained network sees {pictures.sizes[0]} to {pictures.sizes[-1]}"
            self._say(f"pictures of {pictures.own} pixels a side hold the detail of {pictures.detail}; {sees}")
        elif isinstance(event, StageStarted):
            if event.name == "search":
                self._say("plan: " + ", ".join(f"{name} {duration_text(s)}" for name, s in event.plan.rows if s))
                if event.plan.speed is not None and self._pictures is not None:
                    passes = event.plan.final * event.plan.speed / self._pictures.train
                    self._say(
                        f"the known network learns from {event.plan.speed:,.0f} pictures a second here; the final training sees each "
                        f"picture about {passes:,.0f} times"
                    )
            self._stage = event.name
            title = TITLES[event.name]
            if event.name == "search" and self._pictures is not None and self._pictures.sizes:
                title = PROBING
            elif event.name == "search" and not event.seconds:
                title = "training a known network"
            self._line = title + (f", about {duration_text(event.seconds)}" if event.seconds else "")
            if event.epochs is not None:
                self._line += f" or {event.epochs:,.0f} passes over the pictures"
            self._say(self._line)
        elif isinstance(event, WrapUpStarted):
            self._say("wrapping up: the best network so far is trained for some seconds and tested; Ctrl-C again stops")
        elif isinstance(event, Trial):
            self._note_trial(event)
        elif not isinstance(event, Progress):
            score = f", validation {event.score}" if event.score else ""
            epoch = f", epoch {event.epoch}" if event.epoch else ""
            self._note(f"{event.stage}: {event.label}{epoch}{score}", always=bool(event.score))

    def _note_trial(self, trial: Trial) -> None:
        if trial.state is TrialState.FAILED and trial.result is not None and trial.result.failure is not None:
            self._note(f"trial {trial.number} failed: {trial.result.failure.message[:200]}", always=True)
        elif trial.state is TrialState.DONE and trial.result is not None:
            self._trained += 1
            accuracy = trial.result.metrics.get("accuracy", 0.0)
            better = self._best is None or accuracy > self._best
            self._best = max(accuracy, self._best or 0.0)
            self._note(
                f"trial {trial.number}: {100 * accuracy:.1f} % of the validation pictures right; best {100 * self._best:.1f} %",
                always=better,
            )

    def _note(self, line: str, *, always: bool) -> None:
        self._line = plain(line)
        now = time.monotonic()
        if self._live is None and (always or now - self._told_at > LINE_SECONDS):
            self._say(line)

    def _say(self, line: str) -> None:
        self._told_at = time.monotonic()
        left = self._total - (time.monotonic() - self._began)
        said = plain(line) if left <= 0 else f"{plain(line)} ({duration_text(left)} left)"
        if self._live is not None:
            self._live.console.print(said, highlight=False, markup=False)
        else:
            self._console.out(said, highlight=False)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.text import Text

        spent = time.monotonic() - self._began
        yield bar(min(1.0, spent / self._total))
        left = max(0.0, self._total - spent)
        yield Text(f"{self._line}; {duration_text(left)} left", no_wrap=True, overflow="ellipsis")
