"""A plot of curves as a part of a drawing: axes through zero, a name at the end of each curve."""

from __future__ import annotations

import math
from collections.abc import Iterator
from xml.sax.saxutils import escape

from archsmith.core.diagram import Curve, Plot

WIDTH, HEIGHT = 420, 260
STROKES = ("#3b78c2", "#bd7a14", "#4f9140", "#8358b8", "#bf4a5a")  # readable on light and on dark pages
LINE = "#868f9a"
_LEFT, _BOTTOM, _TOP = 34, 24, 22  # for numbers, for the axis' name, for the curves' names
_SIZE = 11.5
_STEEPEST = 3.0  # times the width of the axis: how much of what grows fast is shown
_DIGITS = 3


def plotted(plot: Plot) -> str:
    """The plot as SVG elements, from (0, 0) to (WIDTH, HEIGHT). What goes beyond a window of the curves is cut off."""
    left, right = _range(x for curve in plot.curves for x, _ in curve.points)
    low, high = _window(plot, right - left)

    def at(x: float, y: float) -> tuple[float, float]:
        return (
            _LEFT + (x - left) / (right - left) * (WIDTH - _LEFT),
            _TOP + (high - y) / (high - low) * (HEIGHT - _TOP - _BOTTOM),
        )

    parts = []
    for x in _ticks(left, right):
        (px, top), (_, bottom) = at(x, high), at(x, low)
        parts.append(_line(px, top, px, bottom, x == 0))
        parts.append(_words(f"{x:.{_DIGITS}g}", px, bottom + 16, "middle"))
    for y in _ticks(low, high):
        (start, py), (end, _) = at(left, y), at(right, y)
        parts.append(_line(start, py, end, py, y == 0))
        parts.append(_words(f"{y:.{_DIGITS}g}", start - 6, py + 4, "end"))
    parts.append(_words(plot.label, WIDTH - 4, HEIGHT - _BOTTOM - 6, "end"))
    x = float(_LEFT)
    for i, curve in enumerate(plot.curves):
        stroke, dash = STROKES[i % len(STROKES)], ' stroke-dasharray="6 4"' if i % 2 else ""
        path = "".join(_path(curve, low, high, at))
        parts.append(f'<path d="{path}" fill="none" stroke="{stroke}" stroke-width="2"{dash}/>' if path else "")
        parts.append(
            f'<path d="M{_n(x)} 9H{_n(x + 22)}" stroke="{stroke}" stroke-width="2"{dash}/>'
            + _words(curve.label, x + 28, 13, "start")
        )
        x += 28 + 0.61 * _SIZE * len(curve.label) + 18
    return "".join(parts)


def told(plot: Plot) -> str:
    """What the plot shows, in words: each curve at a few points."""
    lines = []
    for curve in plot.curves:
        some = curve.points[:: max(1, (len(curve.points) - 1) // 10)]
        values = (
            f"{y:.{_DIGITS}g} at {x:.{_DIGITS}g}" if math.isfinite(y) else f"not finite at {x:g}" for x, y in some
        )
        lines.append(f"{curve.label}: {', '.join(values)}.")
    return " ".join(lines)


def _window(plot: Plot, width: float) -> tuple[float, float]:
    """From the least to the greatest value that is shown: zero among them, and no more than some widths of the axis."""
    most = _STEEPEST * width / 2
    seen = [min(max(y, -most), most) for curve in plot.curves for _, y in curve.points if math.isfinite(y)]
    low, high = _range(iter([*seen, 0.0]))
    return low - 0.05 * (high - low), high + 0.05 * (high - low)


def _path(curve: Curve, low: float, high: float, at: object) -> Iterator[str]:
    """The points that lie in the window, joined; where the curve leaves it, up to its edge."""
    assert callable(at)
    pen = False
    before: tuple[float, float] | None = None
    for x, y in curve.points:
        if not math.isfinite(y):
            pen, before = False, None
            continue
        inside = low <= y <= high
        if before is not None and inside != (low <= before[1] <= high):
            edge = high if max(y, before[1]) > high else low
            crossing = before[0] + (edge - before[1]) / (y - before[1]) * (x - before[0])
            px, py = at(crossing, edge)
            yield f"{'L' if pen else 'M'}{_n(px)} {_n(py)}"
            pen = inside
        if inside:
            px, py = at(x, y)
            yield f"{'L' if pen else 'M'}{_n(px)} {_n(py)}"
            pen = True
        before = x, y


def _range(values: Iterator[float]) -> tuple[float, float]:
    listed = list(values)
    low, high = min(listed), max(listed)
    return (low, high) if high - low > 1e-9 else (low - 1.0, high + 1.0)


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers, about five."""
    rough = (high - low) / 5
    unit = 10 ** math.floor(math.log10(rough))
    step = unit * next(m for m in (1, 2, 5, 10) if m * unit >= rough)
    return [k * step for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _line(x1: float, y1: float, x2: float, y2: float, axis: bool) -> str:
    opacity = "0.9" if axis else "0.3"
    path = f"M{_n(x1)} {_n(y1)}L{_n(x2)} {_n(y2)}"
    return f'<path d="{path}" stroke="{LINE}" stroke-width="1" stroke-opacity="{opacity}"/>'


def _words(text: str, x: float, y: float, anchor: str) -> str:
    return (
        f'<text x="{_n(x)}" y="{_n(y)}" font-size="{_SIZE}" fill="{LINE}" text-anchor="{anchor}">{escape(text)}</text>'
    )


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
