"""The plots of a comparison: how the searches went, and figure 6 of Zoph and Le (2017)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from archsmith._compare.compared import Compared
from archsmith._compare.searched import Floats, Searched, best_so_far, stepped
from archsmith._page.figures import (
    INK,
    MOST_STEPS,
    SERIES,
    axes_of,
    clock_unit,
    moving_mean,
    styled,
    svg,
    thinned,
    whole_numbers,
    window_of,
)
from archsmith._page.html import Html
from archsmith.core.comparison import t_quantile

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DASHES: tuple[object, ...] = ("solid", (0, (5, 2)), (0, (1, 1.5)))
LEAST_FOR_A_BAND = 3
MOST_SINGLE = 10  # runs of a group that are drawn one by one
GRID = 400
FEW_LINES = 4  # more are drawn more coarsely
PREFIXES = ((1e18, "10^18 "), (1e15, "10^15 "), (1e12, "10^12 "), (1e9, "10^9 "), (1e6, "10^6 "), (1.0, ""))


@dataclass(frozen=True)
class Line:
    """A group's curve: the mean of its runs, with half the width of its 95 % interval where there are enough.

    Args:
        x: trials, seconds, or multiply-adds.
        each: a row for every run.
    """

    x: Floats
    each: Floats

    @property
    def mean(self) -> Floats:
        """NaN where any run has no value yet."""
        return np.asarray(self.each.mean(0), dtype=np.float64)

    @property
    def half(self) -> Floats | None:
        """Student's t over the runs, point by point."""
        n = len(self.each)
        if n < LEAST_FOR_A_BAND:
            return None
        return np.asarray(t_quantile(n - 1) * self.each.std(0, ddof=1) / math.sqrt(n), dtype=np.float64)


def line(runs: Sequence[Searched], quantity: str, over: str, *, higher_is_better: bool) -> Line:
    """The curve of a group's runs as far as all of them go.

    Args:
        quantity: "best", the best value so far; "reward", the moving mean of the rewards; or "regret", of the best so far.
        over: "trials" (finished so far), "seconds" (of the run's clock), or "multiply-adds" (of what was trained).
    """

    def values(run: Searched) -> Floats:
        if quantity == "best":
            return best_so_far(run.value, higher_is_better=higher_is_better)
        if quantity == "regret":
            return run.regret
        return moving_mean(run.reward, window_of(min(map(len, runs))))

    if over == "trials":
        n = min(map(len, runs))
        return Line(np.arange(1, n + 1, dtype=np.float64), np.array([values(run)[:n] for run in runs]))
    spent = [run.at if over == "seconds" else run.spent for run in runs]
    grid = np.linspace(0, min(each[-1] for each in spent), GRID)
    return Line(grid, np.array([stepped(x, values(run), grid) for x, run in zip(spent, runs, strict=True)]))


def curves(compared: Compared, name: str, *, quantity: str, over: str) -> Html:
    """A line for each group, single runs faint, with a band where the group has three runs or more."""
    measure = compared.measure
    lines = [line(g.runs, quantity, over, higher_is_better=measure.higher_is_better) for g in compared.groups]
    unit, unit_name = (1.0, "trials finished")
    if over == "seconds":
        unit, clock = clock_unit(max(drawn.x[-1] for drawn in lines))
        unit_name = f"{clock} {seconds_said(compared)}"
    elif over == "multiply-adds":
        unit, prefix = next((u, p) for u, p in PREFIXES if max(drawn.x[-1] for drawn in lines) >= u or u == 1)
        unit_name = f"{prefix}multiply-adds, each network's times its epochs"
    label = {"best": f"best {measure.label} so far", "regret": "regret of the best so far"}.get(quantity, "mean reward")
    with styled():
        figure, axes = axes_of(unit_name, label)
        factor = 100.0 if measure.percent and quantity != "reward" else 1.0
        if factor != 1.0:
            axes.set_ylabel(f"{label}, {'%' if quantity == 'best' else 'points'}")
        for i, drawn in enumerate(lines):
            colour, dash = SERIES[i % len(SERIES)], DASHES[i // len(SERIES) % len(DASHES)]
            shown = thinned(~np.isnan(drawn.mean), MOST_STEPS if len(lines) < FEW_LINES else MOST_STEPS // 3)
            x = drawn.x[shown] / unit
            if 1 < len(drawn.each) <= MOST_SINGLE:
                for one in drawn.each:
                    axes.plot(x, factor * one[shown], color=colour, linewidth=0.7, alpha=0.4)
            if drawn.half is not None:
                low, high = (factor * (drawn.mean + s * drawn.half)[shown] for s in (-1, 1))
                axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
            dot = "o" if len(shown) < 2 else None
            axes.plot(x, factor * drawn.mean[shown], color=colour, linewidth=1.8, linestyle=dash, marker=dot)
        _focus(axes, [factor * drawn.mean for drawn in lines])
        axes.set_xlim(left=0)
        if over == "trials":
            whole_numbers(axes)
        return svg(figure, name, f"{label} over {over}")


def seconds_said(compared: Compared) -> str:
    """Whose seconds are on the axis of time."""
    runs = [run for group in compared.groups for run in group.runs]
    if all(run.summary.config.get("clock") is not None for run in runs):
        return "of the simulated clock"
    return "of training, looked up" if all(run.looked_up for run in runs) else "of the run's clock"


def improvement(at: Sequence[int], by_k: Mapping[int, Floats], name: str, ylabel: str) -> Html:
    """Figure 6: for each k how much better the mean of the k best is than the baseline's, as the search goes."""
    with styled():
        figure, axes = axes_of("models evaluated", ylabel)
        axes.axhline(0, color=INK, linewidth=0.8)
        for values, colour in zip(by_k.values(), SERIES, strict=False):
            there = ~np.isnan(values)
            dot = "o" if there.sum() < 60 else None
            axes.plot(np.asarray(at)[there], values[there], color=colour, linewidth=1.6, marker=dot, markersize=3)
        _focus(axes, [*by_k.values(), np.zeros(1)])
        axes.set_xlim(left=0)
        whole_numbers(axes)
        return svg(figure, name, "improvement over the baseline by number of models")


def _focus(axes: Axes, lines: Sequence[Floats]) -> None:
    """Fit the axis to what comes after the first tenth of each line: the first models are often far off."""
    late = [one[len(one) // 10 :] for one in lines]
    values = np.concatenate([one[~np.isnan(one)] for one in late]) if late else np.zeros(0)
    if not len(values):
        return
    low, high = float(values.min()), float(values.max())
    pad = 0.08 * (high - low) or 0.02 * max(abs(high), 1e-9)
    axes.set_ylim(low - pad, high + pad)
