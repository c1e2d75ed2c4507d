"""Drawings: any diagram as one SVG, the same text for the same diagram, with no script, font or file beside it.

A chain is one column of boxes, its skip connections arcs at the right, nested by their length. A graph stands in rows
by longest path; its long edges are led between the boxes of the rows they cross (Sugiyama et al. 1981).

Colours come from a box's role. Boxes carry dark text on a light fill, and what stands outside of them is mid-grey, so
that a drawing reads on light and on dark pages alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias
from xml.sax.saxutils import escape

from archsmith.core.diagram import Diagram, Edge, Node
from archsmith.report.layered import columns, ordered
from archsmith.report.plot import HEIGHT as PLOT_HEIGHT
from archsmith.report.plot import WIDTH as PLOT_WIDTH
from archsmith.report.plot import plotted, told

FILL_AND_STROKE = {
    "input": ("#e8eaed", "#7b848f"),
    "conv": ("#dbe9fb", "#3b78c2"),
    "pool": ("#fbe6c9", "#bd7a14"),
    "norm": ("#e2f1dd", "#4f9140"),
    "dense": ("#ece2f8", "#8358b8"),
    "activation": ("#d8f1ef", "#2b8f88"),
    "combine": ("#f4f1d3", "#968a1d"),
    "output": ("#fbdfe2", "#bf4a5a"),
}
TEXT, QUIET, LINE = "#1d2126", "#545c66", "#868f9a"
_BEGINNING = '<svg xmlns="http://www.w3.org/2000/svg"'
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'DejaVu Sans', sans-serif"

HEIGHT, GAP, ROW_GAP, COLUMN_GAP, MARGIN = 30, 16, 44, 22, 16
LABEL_SIZE, DETAIL_SIZE = 13, 11.5
TITLE_HEIGHT = 30


@dataclass(frozen=True)
class _Box:
    """Where a node stands: its upper left corner and its width."""

    x: float
    y: float
    width: float

    @property
    def middle(self) -> float:
        return self.x + self.width / 2

    @property
    def right(self) -> float:
        return self.x + self.width

    @property
    def bottom(self) -> float:
        return self.y + HEIGHT


_Layout: TypeAlias = tuple[dict[str, _Box], list[str], float]
"""The boxes by their nodes' ids, the arrows as SVG, and how far to the right they reach."""


def is_drawing(text: str) -> bool:
    """Whether archsmith drew an SVG document, judged by its first lines."""
    return text.startswith(_BEGINNING) and f'font-family="{FONT}"' in text


def draw(diagram: Diagram) -> str:
    """The diagram as an SVG document that a file or a page can hold as it is."""
    apart = diagram.layout == "graph" and _are_apart(diagram)
    boxes, arrows, reach = (_chain if diagram.layout == "chain" else _stacked if apart else _graph)(diagram)
    body = [
        *([] if apart else _frames(diagram.nodes, boxes)),
        *arrows,
        *(_node(node, boxes[node.id], diagram.layout == "chain") for node in diagram.nodes),
    ]
    width = max(reach, MARGIN + _text_width(diagram.title, LABEL_SIZE)) + MARGIN
    height = max(box.bottom for box in boxes.values()) + MARGIN
    description = _description(diagram)
    if diagram.plot is not None:
        body.append(f'<g transform="translate({MARGIN} {_n(height)})">{plotted(diagram.plot)}</g>')
        width, height = max(width, PLOT_WIDTH + 2 * MARGIN), height + PLOT_HEIGHT + MARGIN
        description += " " + told(diagram.plot)
    return "\n".join(
        [
            f'{_BEGINNING} viewBox="0 0 {_n(width)} {_n(height)}" width="{_n(width)}" '
            f'height="{_n(height)}" role="img" aria-label="{_text(diagram.title)}" font-family="{FONT}">',
            f"<title>{_text(diagram.title)}</title>",
            f"<desc>{_text(description)}</desc>",
            _words(diagram.title, MARGIN, MARGIN + LABEL_SIZE, "start", LINE, more=' font-weight="600"'),
            *body,
            "</svg>",
        ]
    )


# --- a chain: one column, skips as arcs -------------------------------------------------------------------------------


def _chain(diagram: Diagram) -> _Layout:
    width = max(_node_width(node) for node in diagram.nodes)
    beside = [n.group or (n.id if n.id.isdigit() else "") for n in diagram.nodes]  # what stands at the left of a box
    left = MARGIN + max(
        _text_width(text, DETAIL_SIZE) + (20 if n.group else 8) if text else 0
        for n, text in zip(diagram.nodes, beside, strict=True)
    )
    boxes: dict[str, _Box] = {}
    y: float = MARGIN + TITLE_HEIGHT
    for before, node in zip((None, *diagram.nodes), diagram.nodes, strict=False):
        if before is not None:
            inside = node.group != "" and node.group == before.group
            framed = (node.group or before.group) != "" and not inside
            y += HEIGHT + (10 if inside else GAP + 12 if framed else GAP)
        boxes[node.id] = _Box(left, y, width)
    place = {node.id: i for i, node in enumerate(diagram.nodes)}
    straight = [e for e in diagram.edges if not e.skip and place[e.target] == place[e.source] + 1]
    arcs = [e for e in diagram.edges if e.skip or place[e.target] > place[e.source] + 1]
    group = {node.id: node.group for node in diagram.nodes}
    arrows = [_down(boxes[e.source], boxes[e.target]) for e in straight]
    reach = max(box.right for box in boxes.values()) + 8
    longest = max((boxes[e.target].y - boxes[e.source].y for e in arcs), default=1.0)
    opacity = max(0.35, min(0.8, 45 / (len(arcs) or 1)))
    # The longest first, so that short arcs lie on top. An arc bulges with its length, so that arcs are nested.
    for edge in sorted(arcs, key=lambda e: place[e.source] - place[e.target]):
        framed = any(group[k] for k in (edge.source, edge.target)) and group[edge.source] != group[edge.target]
        source, target = boxes[edge.source], boxes[edge.target]
        bulge = (28 if framed else 18) + (target.y - source.y) * min(0.5, 460 / longest)
        arrows.append(_arc(edge, source, target, bulge, opacity))
        reach = max(reach, source.right + 0.75 * bulge)  # as far as a cubic goes between handles at that distance
    heads = sorted({e.target for e in arcs}, key=place.__getitem__)
    arrows += [_head(boxes[t].right, boxes[t].y + 0.3 * HEIGHT, "left") for t in heads]
    return boxes, arrows, reach


def _arc(edge: Edge, source: _Box, target: _Box, bulge: float, opacity: float) -> str:
    """From the lower right of one box to the upper right of another."""
    x1, y1, x2, y2 = source.right, source.y + 0.7 * HEIGHT, target.right + 5, target.y + 0.3 * HEIGHT
    path = f"M{_n(x1)} {_n(y1)}C{_n(x1 + bulge)} {_n(y1)} {_n(x2 + bulge)} {_n(y2)} {_n(x2)} {_n(y2)}"
    return (
        f'<path d="{path}" fill="none" stroke="{LINE}" stroke-width="1.25" stroke-opacity="{opacity:.2f}">'
        f"<title>{_text(edge.label or f'{edge.source} → {edge.target}')}</title></path>"
    )


def _down(source: _Box, target: _Box) -> str:
    """The arrow of the main path, from one box to the next below."""
    x = source.middle
    line = f'<path d="M{_n(x)} {_n(source.bottom)}V{_n(target.y - 4)}" stroke="{LINE}" stroke-width="1.5"/>'
    return line + _head(x, target.y, "down")


# --- a graph: rows by longest path ------------------------------------------------------------------------------------


def _graph(diagram: Diagram) -> _Layout:
    row = _rows(diagram)
    width = {node.id: _node_width(node) for node in diagram.nodes}
    # An edge that crosses rows is a chain of short ones, over narrow points that keep its place between the boxes.
    points: dict[int, list[str]] = {}
    for i, edge in enumerate(diagram.edges):
        between = [f"\0{i} {r}" for r in range(row[edge.source] + 1, row[edge.target])]
        row |= {point: row[edge.source] + 1 + k for k, point in enumerate(between)}
        width |= dict.fromkeys(between, 6.0)
        points[i] = [edge.source, *between, edge.target]
    rows: list[list[str]] = [[] for _ in range(max(row.values()) + 1)]
    for name, r in row.items():
        rows[r].append(name)
    links = [pair for path in points.values() for pair in pairwise(path)]
    rows = ordered(rows, links)
    middle = columns(rows, links, width, COLUMN_GAP, {point for path in points.values() for point in path[1:-1]})
    x = {name: middle[name] - width[name] / 2 for name in middle}
    left = min(x.values()) - MARGIN
    # Lines that go far to the side get more height, or they would lie on each other.
    aside = [0.0] * len(rows)
    for source, target in links:
        far = abs(middle[source] - middle[target])
        aside[row[source]] = max(aside[row[source]], min(0.08 * far, 1.5 * ROW_GAP))
    top = [MARGIN + TITLE_HEIGHT + sum(aside[:r]) + r * (HEIGHT + ROW_GAP) for r in range(len(rows))]
    y = {name: top[r] for name, r in row.items()}
    boxes = {node.id: _Box(x[node.id] - left, y[node.id], width[node.id]) for node in diagram.nodes}
    arrows = []
    for i, edge in enumerate(diagram.edges):
        through = [(middle[p] - left, y[p]) for p in points[i][1:-1]]
        arrows.append(_curve(edge, boxes[edge.source], through, boxes[edge.target]))
    return boxes, arrows, max(x[name] - left + width[name] for name in x) + 8


def _are_apart(diagram: Diagram) -> bool:
    """Whether it is of several groups that no edge joins, such as the cells of a network."""
    group = {node.id: node.group for node in diagram.nodes}
    joined = any(group[edge.source] != group[edge.target] for edge in diagram.edges)
    return "" not in group.values() and len(set(group.values())) > 1 and not joined


def _stacked(diagram: Diagram) -> _Layout:
    """Groups that no edge joins, each a graph in a frame with its name, one below the other."""
    boxes: dict[str, _Box] = {}
    arrows: list[str] = []
    reach, down = 0.0, 0.0
    parts = []
    for name in dict.fromkeys(node.group for node in diagram.nodes):
        nodes = tuple(node for node in diagram.nodes if node.group == name)
        own = {node.id for node in nodes}
        edges = tuple(edge for edge in diagram.edges if edge.source in own)
        parts.append((name, _graph(Diagram(name, nodes, edges, "graph"))))
        reach = max(reach, parts[-1][1][2])
    for name, (placed, drawn, _) in parts:
        top, bottom = min(b.y for b in placed.values()), max(b.bottom for b in placed.values())
        shift = down + TITLE_HEIGHT  # the frame's name stands where a graph of its own has its title
        arrows.append(_words(name, MARGIN, top + shift - 14, "start", LINE, DETAIL_SIZE))
        arrows.append(_frame(MARGIN - 8, top + shift - 8, reach - MARGIN + 8, bottom - top + 16))
        arrows.append(f'<g transform="translate(0 {_n(shift)})">' + "".join(drawn) + "</g>")
        boxes |= {key: _Box(box.x, box.y + shift, box.width) for key, box in placed.items()}
        down += bottom - top + 16 + TITLE_HEIGHT
    return boxes, arrows, reach


def _rows(diagram: Diagram) -> dict[str, int]:
    """The row of each box: below all that it reads. Inputs stand in the first row and outputs in the last."""
    row = {node.id: 0 for node in diagram.nodes}
    into: dict[str, list[str]] = {}
    for edge in diagram.edges:
        into.setdefault(edge.target, []).append(edge.source)
    for node in diagram.nodes:  # topological order
        row[node.id] = max((row[source] + 1 for source in into.get(node.id, ())), default=0)
    last = max(row.values())
    read = {edge.source for edge in diagram.edges}
    return row | {node.id: last for node in diagram.nodes if node.role == "output" and node.id not in read}


def _curve(edge: Edge, source: _Box, through: Sequence[tuple[float, float]], target: _Box) -> str:
    """From the bottom of one box to the top of another, straight down beside the boxes of each row in between."""
    x, y = source.middle, source.bottom
    path = f"M{_n(x)} {_n(y)}"
    for px, py, low in [*((px, py, py + HEIGHT) for px, py in through), (target.middle, target.y - 4, target.y - 4)]:
        half = (y + py) / 2
        path += f"C{_n(x)} {_n(half)} {_n(px)} {_n(half)} {_n(px)} {_n(py)}" + (f"V{_n(low)}" if low != py else "")
        x, y = px, low
    label = ""
    if edge.label:
        near = (source.bottom + (through[0][1] if through else target.y)) / 2
        at = (source.middle + (through[0][0] if through else target.middle)) / 2
        label = _words(edge.label, at + 5, near, "start", LINE, DETAIL_SIZE)
    dashed = ' stroke-dasharray="5 3"' if edge.skip else ""
    line = f'<path d="{path}" fill="none" stroke="{LINE}" stroke-width="1.5"{dashed}/>'
    return line + label + _head(target.middle, target.y, "down")


# --- boxes, frames and arrowheads -------------------------------------------------------------------------------------


def _node(node: Node, box: _Box, chain: bool) -> str:
    fill, stroke = FILL_AND_STROKE.get(node.role, FILL_AND_STROKE["input"])
    baseline = box.y + HEIGHT / 2 + 0.35 * LABEL_SIZE
    centred = not chain and not node.detail
    parts = [
        f'<g><title>{_text(node.id)}</title><rect x="{_n(box.x)}" y="{_n(box.y)}" width="{_n(box.width)}" '
        f'height="{HEIGHT}" rx="6" fill="{fill}" stroke="{stroke}" stroke-width="1.25"/>',
        _words(node.label, box.middle if centred else box.x + 12, baseline, "middle" if centred else "start", TEXT),
    ]
    if node.detail:
        parts.append(_words(node.detail, box.right - 12, baseline, "end", QUIET, DETAIL_SIZE))
    if chain and node.id.isdigit():  # the number by which the genotype calls it
        parts.append(_words(node.id, box.x - 8, baseline, "end", LINE, DETAIL_SIZE))
    return "".join([*parts, "</g>"])


def _words(text: str, x: float, y: float, anchor: str, colour: str, size: float = LABEL_SIZE, more: str = "") -> str:
    anchored = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'<text x="{_n(x)}" y="{_n(y)}" font-size="{_n(size)}" fill="{colour}"{anchored}{more}>{_text(text)}</text>'


def _frames(nodes: Iterable[Node], boxes: Mapping[str, _Box]) -> list[str]:
    """A frame behind the boxes of each group, its name at the left."""
    members: dict[str, list[_Box]] = {}
    for node in nodes:
        if node.group:
            members.setdefault(node.group, []).append(boxes[node.id])
    frames = []
    for name, inside in members.items():
        x, y = min(b.x for b in inside) - 8, min(b.y for b in inside) - 8
        width, height = max(b.right for b in inside) + 8 - x, max(b.bottom for b in inside) + 8 - y
        frames.append(_frame(x, y, width, height) + _words(name, x - 8, y + height / 2 + 4, "end", LINE, DETAIL_SIZE))
    return frames


def _frame(x: float, y: float, width: float, height: float) -> str:
    return (
        f'<rect x="{_n(x)}" y="{_n(y)}" width="{_n(width)}" height="{_n(height)}" rx="9" fill="{LINE}" '
        f'fill-opacity="0.10" stroke="{LINE}" stroke-opacity="0.5"/>'
    )


def _head(x: float, y: float, towards: str) -> str:
    """An arrowhead whose tip is at (x, y)."""
    a, b = ((7, -3.5), (7, 3.5)) if towards == "left" else ((-3.5, -7), (3.5, -7))
    return f'<path d="M{_n(x)} {_n(y)}L{_n(x + a[0])} {_n(y + a[1])}L{_n(x + b[0])} {_n(y + b[1])}Z" fill="{LINE}"/>'


def _description(diagram: Diagram) -> str:
    """What the drawing shows, in words, for whoever cannot see it."""
    into: dict[str, list[str]] = {}
    for edge in diagram.edges:
        into.setdefault(edge.target, []).append(edge.source)
    lines = []
    for node in diagram.nodes:
        reads = f" reads {', '.join(into[node.id])}" if node.id in into else ""
        lines.append(f"{node.id}: {node.label}{', ' + node.detail if node.detail else ''}{reads}.")
    return " ".join(lines)


def _node_width(node: Node) -> float:
    gap = 22 if node.detail else 0
    return max(24 + gap + _text_width(node.label, LABEL_SIZE) + _text_width(node.detail, DETAIL_SIZE), 60)


def _text_width(text: str, size: float) -> float:
    """About how wide a text is; the widest of the usual fonts (DejaVu Sans) has 0.61 of the size a letter."""
    return 0.61 * size * len(text)


def _text(text: str) -> str:
    """A text for XML, which has no control characters."""
    return escape("".join(c if c.isprintable() else " " for c in text), {'"': "&quot;"})


def _n(value: float) -> str:
    """A coordinate with one decimal at most."""
    return f"{value:.1f}".removesuffix(".0")
