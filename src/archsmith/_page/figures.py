"""Plots for a page: matplotlib figures as small inline SVG whose colours follow the page's theme.

No text from a store gets into a figure (names stand in the HTML around it, escaped), text stays text in the reader's
own font, and what is too much to draw is thinned here, with the number drawn given back for the caption.
"""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from archsmith._page.html import Html

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = npt.NDArray[np.float64]

MOST_POINTS = 2000  # dots of one colour in one plot
MOST_STEPS = 600  # vertices of one line

# matplotlib writes these colours; the page's theme takes their place.
INK, MUTED, RULE, RUN, CONTROL, BAD = "#010101", "#020202", "#030303", "#040404", "#050505", "#060606"
THIRD, FOURTH, FIFTH, SIXTH = "#070707", "#080808", "#090909", "#0a0a0a"
SERIES = (RUN, CONTROL, THIRD, FOURTH, FIFTH, SIXTH)  # for several things in one plot; the keys' classes have the names
THEME = {INK: "ink", MUTED: "muted", RULE: "rule", RUN: "run", CONTROL: "control", BAD: "bad"}
THEME |= {THIRD: "third", FOURTH: "fourth", FIFTH: "fifth", SIXTH: "sixth"}

STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "archsmith",
    "path.simplify": False,
    "font.family": "sans-serif",
    "font.size": 11,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.linewidth": 0.8,
    "axes.formatter.limits": (-4, 5),
    "axes.formatter.useoffset": False,
    "axes.formatter.use_mathtext": False,
    "grid.color": RULE,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "text.color": INK,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


def styled() -> Any:
    """matplotlib's own defaults and ours, whatever the user's matplotlibrc says, for the length of a `with`."""
    import matplotlib.style

    return matplotlib.style.context(["default", STYLE])


def axes_of(xlabel: str, ylabel: str, height: float = 3.0) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.tick_params(length=0)
    return figure, axes


def whole_numbers(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))  # one where there is only one


def svg(figure: Figure, name: str, description: str) -> Html:
    """The figure as an inline SVG element: no document type, no metadata, short numbers, ids of its own."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    view = re.search(r'viewBox="([^"]*)"', text)
    assert view is not None
    text = text[text.index(">", text.index("<svg")) + 1 :]
    text = re.sub(r"<style.*?</style>|<metadata>.*?</metadata>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = text.replace("xlink:href=", "href=")
    used = set(re.findall(r"[#]([\w.-]+)[)\"]", text))
    text = re.sub(r' id="([^"]*)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", text)
    text = re.sub(r"(href=\"#|url\(#)", rf"\g<1>{name}-", text)
    text = re.sub(r"<[^>]*>", lambda m: re.sub(r"(\d\.\d\d)\d+", r"\1", m[0]), text)
    for colour, variable in THEME.items():
        text = text.replace(colour, f"var(--{variable})")
    text = re.sub(r"font: (?:(\d+)px|([\d.]+px)) [^;\"]*", r"font-size: \1\2px", text).replace("pxpx", "px")
    text = re.sub(r"\n\s*", "\n", text)
    return Html(f'<svg viewBox="{view[1]}" role="img" aria-label="{description}">{text.strip()}')


def dots(axes: Axes, x: Floats, y: Floats, colour: str, size: float, alpha: float = 1.0) -> None:
    """Dots as one path of zero-length strokes with round ends: a tenth of the bytes that markers take."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    if not len(x):
        return
    points = np.repeat(np.column_stack([x, y]), 2, axis=0)
    codes = np.tile([Path.MOVETO, Path.LINETO], len(x))
    path = PathPatch(Path(points, codes), fill=False, edgecolor=colour, linewidth=size, alpha=alpha, capstyle="round")
    path.set_snap(False)
    axes.add_patch(path)
    axes.update_datalim(np.column_stack([x, y]))
    axes.autoscale_view()


def dot_size(n: int) -> float:
    return 5.0 if n < 60 else 3.4 if n < 500 else 2.2


def thinned(mask: Any, most: int = MOST_POINTS) -> Any:
    """Indices of true values, evenly spaced when there are more than can be drawn."""
    indices = np.flatnonzero(mask)
    if len(indices) <= most:
        return indices
    return indices[np.linspace(0, len(indices) - 1, most).round().astype(int)]


def moving_mean(values: Floats, window: int) -> Floats:
    """The mean of the last `window` values that are not NaN, up to each one; NaN while there are none."""
    there = ~np.isnan(values)
    total = np.concatenate([[0.0], np.cumsum(np.where(there, values, 0.0))])
    n = np.concatenate([[0], np.cumsum(there)])
    start = np.maximum(np.arange(1, len(values) + 1) - window, 0)
    n_in = n[1:] - n[start]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(n_in > 0, (total[1:] - total[start]) / n_in, np.nan)


def window_of(n: int) -> int:
    """How many trials the moving mean is over: a twentieth of the run, at least 5."""
    return max(5, n // 20)


def clock_unit(seconds: float) -> tuple[float, str]:
    """How many seconds one step of a time axis has, and its name."""
    if seconds >= 3 * 86400:
        return 86400.0, "days"
    if seconds >= 2 * 3600:
        return 3600.0, "hours"
    return (60.0, "minutes") if seconds >= 180 else (1.0, "seconds")
