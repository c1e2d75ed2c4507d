"""The page's plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from archsmith._page.figures import (
    BAD,
    CONTROL,
    INK,
    MOST_STEPS,
    MUTED,
    RUN,
    axes_of,
    clock_unit,
    dot_size,
    dots,
    moving_mean,
    styled,
    svg,
    thinned,
    whole_numbers,
    window_of,
)
from archsmith._page.html import Html
from archsmith.report.facts import Floats, Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def progress(
    many: Sequence[Series], name: str, *, over: str, of: str = "reward", higher_is_better: bool = True
) -> tuple[Html, int]:
    """Every trial as a dot, the best so far as a step, the moving mean as a line, failed trials on the bottom rule.

    The first series is the run, the second its control. `over` is "trials" (finished so far) or "time"; `of` is
    "reward", or what an axis shall call the score. Gives the plot and how many dots lie outside its axis.
    """
    drawn = [s.reward if of == "reward" else s.score for s in many]
    unit, unit_name = clock_unit(max((float(s.at[-1]) for s in many if len(s.at)), default=0.0))
    with styled():
        figure, axes = axes_of("trials finished" if over == "trials" else f"{unit_name} of the run's clock", of)
        for s, values, colour in zip(many, drawn, (RUN, CONTROL), strict=False):
            x = np.arange(1, len(s.number) + 1, dtype=np.float64) if over == "trials" else s.at / unit
            shown = thinned(~np.isnan(values))
            dots(axes, x[shown], values[shown], colour, dot_size(len(shown)), 0.38)
            best = best_so_far(values, higher_is_better=higher_is_better)
            if not np.isnan(best).all():
                rises = np.flatnonzero(np.diff(best, prepend=np.nan) != 0)  # NaN differs from all: the first counts
                rises = rises[~np.isnan(best[rises])]
                xs = np.append(x[rises], x[-1])
                axes.step(xs, np.append(best[rises], best[-1]), where="post", color=colour, linewidth=1.8)
                mean = moving_mean(values, window_of(len(values)))
                line = thinned(~np.isnan(mean), MOST_STEPS)
                axes.plot(x[line], mean[line], color=colour, linewidth=1.2, linestyle=(0, (3, 2)))
        outside = _cut(axes, np.concatenate(drawn), higher_is_better=higher_is_better)
        for s, colour, y in zip(many, (RUN, CONTROL), (0.0, 0.022), strict=False):
            x = np.arange(1, len(s.number) + 1, dtype=np.float64) if over == "trials" else s.at / unit
            failed = thinned(s.failed, 500)
            if len(failed):
                mark = axes.get_xaxis_transform()
                axes.vlines(
                    x[failed], y, y + 0.03, transform=mark, color=BAD if colour == RUN else CONTROL, linewidth=1
                )
        axes.set_xlim(left=0)
        if over == "trials":
            whole_numbers(axes)
        return svg(figure, name, f"{of} and best so far over {over}"), outside


def best_so_far(values: Floats, *, higher_is_better: bool = True) -> Floats:
    """The best value up to each one; NaN before the first."""
    if not len(values):
        return values
    best = np.fmax.accumulate(values) if higher_is_better else np.fmin.accumulate(values)
    return np.asarray(best, dtype=np.float64)


def _cut(axes: Axes, values: Floats, *, higher_is_better: bool = True) -> int:
    """Cut the axis where a few very bad values would flatten all others; gives how many lie outside."""
    values = values[~np.isnan(values)]
    if len(values) < 10:
        return 0
    good = values if higher_is_better else -values
    low, high = np.quantile(good, 0.05), good.max()
    floor = low - 2.0 * (high - low)
    if high <= low or good.min() >= floor:
        return 0
    floor = low - 0.25 * (high - low)
    top = high + 0.08 * (high - floor)
    axes.set_ylim(*((floor, top) if higher_is_better else (-top, -floor)))
    return int((good < floor).sum())


def pareto_front(parameters: Floats, reward: Floats) -> Any:
    """Indices of the trials that no other beats with as few parameters or fewer, smallest network first."""
    usable = np.flatnonzero((parameters > 0) & np.isfinite(parameters) & ~np.isnan(reward))
    order = usable[np.lexsort((-reward[usable], parameters[usable]))]
    if not len(order):
        return order
    best = np.maximum.accumulate(reward[order])
    return order[np.concatenate([[True], best[1:] > best[:-1]])]


def reward_by_parameters(s: Series, name: str) -> tuple[Html, int]:
    """Reward against parameters on a logarithmic axis with the Pareto front; also how many dots lie below the axis."""
    return _by_cost(s.parameters, s.reward, name, "parameters", "reward")


def score_by_latency(
    s: Series, name: str, ylabel: str, *, higher_is_better: bool = True, target: float | None = None
) -> tuple[Html, int]:
    """The score (the reward where there is none) against latency, likewise, with a dashed line at the target; also how
    many dots lie outside the axis."""
    scored = bool((s.score == s.score).any())
    better = higher_is_better or not scored
    worth = s.score if scored else s.reward
    return _by_cost(s.latency, worth, name, "latency, ms", ylabel, higher_is_better=better, target=target)


def _by_cost(
    cost: Floats,
    worth: Floats,
    name: str,
    xlabel: str,
    ylabel: str,
    *,
    higher_is_better: bool = True,
    target: float | None = None,
) -> tuple[Html, int]:
    """What networks are worth against what they cost, on a logarithmic axis, with the front; also how many dots lie
    outside the axis."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    usable = (cost > 0) & np.isfinite(cost) & ~np.isnan(worth)
    front = pareto_front(cost, worth if higher_is_better else -worth)
    with styled():
        figure, axes = axes_of(f"{xlabel} (logarithmic)", ylabel)
        axes.set_xscale("log")
        shown = thinned(usable)
        dots(axes, cost[shown], worth[shown], RUN, dot_size(len(shown)), 0.38)
        axes.step(cost[front], worth[front], where="post", color=INK, linewidth=1.2)
        dots(axes, cost[front], worth[front], INK, 5.0)
        outside = _cut(axes, worth[usable], higher_is_better=higher_is_better)
        left, right = cost[usable].min(), cost[usable].max()
        if target is not None:
            axes.axvline(target, color=MUTED, linewidth=1.2, linestyle=(0, (4, 2)))
            left, right = min(left, target), max(right, target)
        if right / left < 1.05:
            left, right = left / 1.5, right * 1.5
        pad = (right / left) ** 0.04
        axes.set_xlim(left / pad, right * pad)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: _short(v)))
        axes.xaxis.set_minor_formatter(NullFormatter())
        if right / left < 5:  # 1, 2 and 5 may leave one number, which is no scale
            axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        elif right / left < 30:
            axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        return svg(figure, name, f"{ylabel} against {xlabel.partition(',')[0]}"), outside


def _short(value: float) -> str:
    """ "500", "20k", "1.5M"."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def lines(values: Mapping[str, Floats], name: str, *, xlabel: str, ylabel: str) -> Html:
    """Up to two quantities over updates: the first drawn plain, the second dashed."""
    with styled():
        figure, axes = axes_of(xlabel, ylabel, height=2.4)
        for y, colour, dash in zip(values.values(), (RUN, CONTROL), ("solid", (0, (4, 2))), strict=False):
            x, y = binned(y)
            axes.plot(
                x, y, color=colour, linewidth=1.6, linestyle=dash, marker="o" if len(x) < 3 else None, markersize=4
            )
        low, high = axes.get_ylim()
        if 0 < high - low < 0.02 * max(abs(low), abs(high)):  # rounding errors are no mountains
            middle, half = (low + high) / 2, 0.01 * max(abs(low), abs(high))
            axes.set_ylim(middle - half, middle + half)
        whole_numbers(axes)
        return svg(figure, name, f"{ylabel} over {xlabel}")


def binned(y: Floats, most: int = MOST_STEPS) -> tuple[Floats, Floats]:
    """Update numbers and values; of very many, the means of equal groups."""
    x = np.arange(1, len(y) + 1, dtype=np.float64)
    y = np.where(np.abs(y) < 1e100, y, np.nan)
    if len(y) <= most:
        return x, y
    size = -(-len(y) // most)
    whole = len(y) // size * size
    with np.errstate(invalid="ignore"):
        return x[:whole].reshape(-1, size).mean(1), y[:whole].reshape(-1, size).mean(1)


def learning_curves(
    faint: Sequence[tuple[Floats, Floats]], strong: Sequence[tuple[Floats, Floats]], name: str, ylabel: str
) -> Html:
    """One line per trial over epochs: those of many trials faint, those of the best strong."""
    with styled():
        figure, axes = axes_of("epoch", ylabel)
        width, alpha = (1.0, 0.45) if len(faint) < 40 else (0.8, 0.25)
        for epochs, values in faint:
            axes.plot(epochs, values, color=MUTED, linewidth=width, alpha=alpha)
        for i, (epochs, values) in enumerate(reversed(strong)):
            best = i == len(strong) - 1
            axes.plot(epochs, values, color=INK if best else RUN, linewidth=2.0 if best else 1.3)
        if all(len(epochs) < 2 for epochs, _ in [*faint, *strong]):
            for epochs, values in [*faint, *strong]:
                dots(axes, epochs, values, RUN, 4.0, 0.5)
        _logarithmic(axes, [values for _, values in [*faint, *strong]])
        whole_numbers(axes)
        return svg(figure, name, "learning curves")


def one_curve(epochs: Floats, values: Floats, name: str, ylabel: str) -> Html:
    """The learning curve of one trial, small."""
    with styled():
        figure, axes = axes_of("epoch", ylabel, height=2.0)
        axes.plot(epochs, values, color=RUN, linewidth=1.8, marker="o" if len(epochs) < 2 else None)
        _logarithmic(axes, [values])
        whole_numbers(axes)
        return svg(figure, name, "learning curve")


def _logarithmic(axes: Axes, values: Sequence[Floats]) -> None:
    """A logarithmic axis for what falls by a large factor, as perplexity does: else its first epochs flatten the rest."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    every = np.concatenate(values) if values else np.array([])
    if len(every) < 2 or every.min() < 1 or every.max() < 4 * every.min():
        return
    axes.set_yscale("log")
    steps = (1.0, 2.0, 5.0) if every.max() < 100 * every.min() else (1.0,)
    axes.yaxis.set_major_locator(LogLocator(subs=steps))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: _short(v)))
    axes.yaxis.set_minor_formatter(NullFormatter())
