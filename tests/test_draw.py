"""The drawings: deterministic, well-formed, escaped, and laid out so that nothing lies over a text."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from random import Random
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archsmith.core.diagram import Diagram, Edge, Node
from archsmith.core.space import decode, sample
from archsmith.discovered import nas_conv_v1
from archsmith.report.draw import FILL_AND_STROKE, draw
from archsmith.spaces import ConvChain

SVG = "{http://www.w3.org/2000/svg}"
GOLDEN = Path(__file__).parent / "golden" / "nas_conv_v1.svg"


def chain_of(layers: int, seed: int = 0) -> Diagram:
    space = ConvChain(layers=layers)
    return space.diagram(decode(space, sample(space, Random(seed))))


def rectangles(svg: str) -> list[tuple[float, float, float, float]]:
    """x, y, right, bottom of the boxes, without the frames of groups."""
    boxes = []
    for r in ElementTree.fromstring(svg).iterfind(f".//{SVG}g/{SVG}rect"):
        x, y, w, h = (float(r.get(k, "")) for k in ("x", "y", "width", "height"))
        boxes.append((x, y, x + w, y + h))
    return boxes


def test_the_published_network_is_drawn_as_before() -> None:
    """To change the drawing on purpose: archsmith draw nas_conv_v1 --output tests/golden/nas_conv_v1.svg."""
    assert draw(ConvChain().diagram(nas_conv_v1().architecture)) == GOLDEN.read_text(encoding="utf-8")


@pytest.mark.parametrize("layers", [1, 6, 15, 39])
def test_a_chain_is_one_column_with_arcs_at_the_right(layers: int) -> None:
    diagram = chain_of(layers)
    svg = draw(diagram)
    boxes = rectangles(svg)
    assert len(boxes) == layers + 2
    assert len({(x, right) for x, _, right, _ in boxes}) == 1
    assert all(above[3] < below[1] for above, below in pairwise(boxes))
    arcs = re.findall(r'<path d="M([\d.]+) ([\d.]+)C([\d.]+) [\d.]+ ([\d.]+) [\d.]+ ([\d.]+) ([\d.]+)"', svg)
    assert len(arcs) == sum(edge.skip for edge in diagram.edges)
    width = float(ElementTree.fromstring(svg).get("width", ""))
    for x1, y1, handle1, handle2, x2, y2 in (map(float, arc) for arc in arcs):
        assert min(x1, x2) >= boxes[0][2]  # beside the boxes, never over one
        assert y1 < y2
        assert min(handle1, handle2) > max(x1, x2)
        assert max(x1, x2) + 0.75 * (max(handle1, handle2) - min(x1, x2)) <= width


def test_longer_arcs_reach_further_out() -> None:
    svg = draw(chain_of(15))
    arcs = re.findall(r'<path d="M[\d.]+ ([\d.]+)C([\d.]+) [\d.]+ [\d.]+ [\d.]+ [\d.]+ ([\d.]+)"', svg)
    by_length = sorted((float(y2) - float(y1), float(handle)) for y1, handle, y2 in arcs)
    assert len(by_length) > 20
    assert [handle for _, handle in by_length] == sorted(handle for _, handle in by_length)


def test_text_fits_into_its_box() -> None:
    """By the widest of the usual fonts: 0.62 of the size a letter on average in DejaVu Sans."""
    space = ConvChain.v2()
    root = ElementTree.fromstring(draw(space.diagram(decode(space, sample(space, Random(1))))))
    for group in root.iter(f"{SVG}g"):
        width = float(group.find(f"{SVG}rect").get("width"))  # type: ignore[union-attr, arg-type]
        inside = [t for t in group.iter(f"{SVG}text") if not (t.text or "").isdigit()]
        assert sum(0.6 * float(t.get("font-size", "")) * len(t.text or "") for t in inside) < width - 30


def test_blocks_are_framed_and_named() -> None:
    space = ConvChain.v3()
    root = ElementTree.fromstring(draw(space.diagram(decode(space, sample(space, Random(0))))))
    frames = [tuple(float(r.get(k, "")) for k in ("x", "y", "width", "height")) for r in root.findall(f"{SVG}rect")]
    assert len(frames) == 13
    assert all(a[1] + a[3] < b[1] for a, b in pairwise(frames))
    texts = [t.text for t in root.iter(f"{SVG}text")]
    assert [f"block {i}" for i in range(13)] == [t for t in texts if t and t.startswith("block")]


def test_a_drawing_says_in_words_what_it_shows() -> None:
    root = ElementTree.fromstring(draw(chain_of(3)))
    assert root.get("role") == "img"
    assert root.get("aria-label") == root.findtext(f"{SVG}title") == "A chain of 3 layers"
    assert "reads image" in (root.findtext(f"{SVG}desc") or "")


def test_text_is_escaped_and_control_characters_go() -> None:
    hostile = '</text><script>alert(1)</script>"\x00\x1b&'
    nodes = (Node("a" + hostile, hostile, hostile, "input", hostile), Node("b", "b", role="output"))
    for layout in ("chain", "graph"):
        root = ElementTree.fromstring(draw(Diagram(hostile, nodes, (Edge(nodes[0].id, "b", label=hostile),), layout)))
        assert not list(root.iter(f"{SVG}script"))
        assert "<script>alert(1)</script>" in "".join(root.itertext())


def test_nothing_but_the_diagram_goes_into_a_drawing() -> None:
    """No id, script, style or address: several drawings can stand in one page, and it works offline."""
    svg = draw(chain_of(6))
    assert not re.search(r"<(style|script|image|use)|\bid=|href|url\(", svg)
    assert re.findall(r"https?://[^\"]*", svg) == ["http://www.w3.org/2000/svg"]


def test_every_role_has_a_colour_that_dark_text_reads_on() -> None:
    roles = {"input", "conv", "pool", "norm", "dense", "activation", "combine", "output"}
    assert set(FILL_AND_STROKE) == roles
    for fill, _ in FILL_AND_STROKE.values():
        assert min(int(fill[k : k + 2], 16) for k in (1, 3, 5)) > 190
    odd = Diagram("t", (Node("a", "a", role="of another kind"),), ())
    assert "#e8eaed" in draw(odd)


# --- graphs -----------------------------------------------------------------------------------------------------------


@st.composite
def diagrams(draw_: st.DrawFn) -> Diagram:
    n = draw_(st.integers(1, 12))
    pairs = [(i, j) for j in range(n) for i in range(j)]
    chosen = draw_(st.lists(st.sampled_from(pairs), unique=True, max_size=24)) if pairs else []
    nodes = tuple(Node(str(i), "n" * (1 + i % 5), "d" * (i % 3), group="g" if i % 4 == 1 else "") for i in range(n))
    edges = tuple(Edge(str(i), str(j), skip=j > i + 1) for i, j in sorted(chosen))
    return Diagram("any", nodes, edges, draw_(st.sampled_from(["chain", "graph"])))


@given(diagrams())
@settings(max_examples=60, deadline=None)
def test_any_diagram_is_drawn_without_overlaps(diagram: Diagram) -> None:
    svg = draw(diagram)
    assert draw(diagram) == svg
    root = ElementTree.fromstring(svg)
    boxes = rectangles(svg)
    assert len(boxes) == len(diagram.nodes)
    width, height = float(root.get("width", "")), float(root.get("height", ""))
    for i, (x, y, right, bottom) in enumerate(boxes):
        assert 0 <= x < right <= width
        assert 0 <= y < bottom <= height
        assert all(right <= b[0] or b[2] <= x or bottom <= b[1] or b[3] <= y for b in boxes[i + 1 :])
    if diagram.layout == "graph":
        place = {node.id: box for node, box in zip(diagram.nodes, boxes, strict=True)}
        assert all(place[e.source][3] < place[e.target][1] for e in diagram.edges)


def test_a_long_edge_goes_around_the_boxes_of_the_rows_it_crosses() -> None:
    nodes = tuple(Node(name, "a box of some width") for name in "abcd")
    edges = (Edge("a", "b"), Edge("b", "c"), Edge("c", "d"), Edge("a", "d"))
    svg = draw(Diagram("t", nodes, edges, "graph"))
    boxes = rectangles(svg)
    verticals = re.findall(r"([\d.]+) ([\d.]+)V([\d.]+)", svg)
    crossing = [(float(x), float(y), float(low)) for x, y, low in verticals]
    assert len(crossing) == 2
    for x, y, low in crossing:
        beside = [b for b in boxes if b[1] < low and y < b[3]]
        assert beside
        assert all(x < b[0] or x > b[2] for b in beside)


@pytest.mark.browser
@pytest.mark.parametrize("layers", [6, 39])
def test_a_browser_finds_every_text_inside_the_picture(layers: int, tmp_path: Path) -> None:
    import shutil
    import subprocess

    script = """<script>
      const svg = document.querySelector("svg"), outer = svg.getBoundingClientRect(), boxes = [...document.querySelectorAll("g")];
      const inside = (a, b) => a.left >= b.left && a.right <= b.right && a.top >= b.top && a.bottom <= b.bottom;
      const words = [...document.querySelectorAll("text")].every(t => inside(t.getBoundingClientRect(), outer));
      const fit = boxes.every(g => { const [a, b] = [...g.querySelectorAll("text")].map(t => t.getBoundingClientRect());
        return inside(a, g.querySelector("rect").getBoundingClientRect()) && (!b || a.right < b.left || b.right < a.left); });
      const arcs = [...document.querySelectorAll("path")].every(p => inside(p.getBoundingClientRect(), outer));
      document.body.dataset.found = [boxes.length, words, fit, arcs].join();
    </script>"""
    page = tmp_path / "page.html"
    page.write_text(
        f"<meta charset=utf-8><body style='margin:0'>{draw(chain_of(layers))}{script}</body>", encoding="utf-8"
    )
    browser = next(
        b for b in map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")) if b
    )
    command = [
        browser,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--dump-dom",
        str(page),
    ]
    dom = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert f'data-found="{layers + 2},true,true,true"' in dom
