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
from archsmith.discovered import nas_cell, nas_conv_v1
from archsmith.report.draw import FILL_AND_STROKE, draw
from archsmith.report.layered import columns, ordered
from archsmith.spaces import ConvChain, RecurrentCell

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


# --- recurrent cells --------------------------------------------------------------------------------------------------


def cell_of(base: int, seed: int = 0) -> Diagram:
    space = RecurrentCell.enlarged(base)
    return space.diagram(decode(space, sample(space, Random(seed))))


def curves(svg: str) -> list[list[tuple[float, float]]]:
    """Every arrow of a graph as points along it, without its head."""
    found = []
    for path in ElementTree.fromstring(svg).iterfind(f"./{SVG}path"):
        if path.get("fill") != "none":
            continue
        parts = re.findall(r"([MCV])([-\d. ]+)", path.get("d", ""))
        points: list[tuple[float, float]] = []
        for command, numbers in parts:
            n = [float(k) for k in numbers.split()]
            if command == "M":
                points.append((n[0], n[1]))
            elif command == "V":
                points.append((points[-1][0], n[0]))
            else:
                (x0, y0), (x1, y1, x2, y2, x3, y3) = points[-1], n
                for t in (k / 16 for k in range(1, 17)):
                    w = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3)
                    points.append(
                        (w[0] * x0 + w[1] * x1 + w[2] * x2 + w[3] * x3, w[0] * y0 + w[1] * y1 + w[2] * y2 + w[3] * y3)
                    )
        found.append(points)
    return found


def passes_through(point: tuple[float, float], box: tuple[float, float, float, float]) -> bool:
    return box[0] < point[0] < box[2] and box[1] < point[1] < box[3]


@given(diagrams())
@settings(max_examples=60, deadline=None)
def test_no_arrow_of_a_graph_passes_through_a_box(diagram: Diagram) -> None:
    svg = draw(Diagram(diagram.title, diagram.nodes, diagram.edges, "graph"))
    boxes, arrows = rectangles(svg), curves(svg)
    assert len(arrows) == len(diagram.edges)
    for points in arrows:
        assert all(a[1] <= b[1] for a, b in pairwise(points)), "an arrow goes up"
        assert not any(passes_through(point, box) for point in points for box in boxes)


@pytest.mark.parametrize("base", [2, 4, 8, 16, 64])
def test_a_cell_is_drawn_as_in_the_paper(base: int) -> None:
    for seed in range(3 if base < 64 else 1):
        diagram = cell_of(base, seed)
        svg = draw(diagram)
        boxes = dict(zip([n.id for n in diagram.nodes], rectangles(svg), strict=True))
        assert len(boxes) == 2 * (2 * base - 1) + 2 + 3 + 2
        rows = {box[1] for box in boxes.values()}
        assert {boxes[name][1] for name in ("x", "h", "c")} == {min(rows)}
        assert {boxes[name][1] for name in ("h(t)", "c(t)")} == {max(rows)}
        reads = {(e.source, e.target) for e in diagram.edges}
        for leaf in range(base):
            assert {s for s, t in reads if t == f"{leaf}.combination"} == {"x", "h"}
        assert [t for s, t in reads if s == "c"] == ["inject.combination"]
        for points in curves(svg):
            assert not any(passes_through(point, box) for point in points for box in boxes.values())
        assert not any(
            a != b and a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
            for a in boxes.values()
            for b in boxes.values()
        )


def test_the_worked_example_has_the_arrows_of_figure_5() -> None:
    space = RecurrentCell(2)
    tokens = "Add,Tanh | ElemMult,ReLU | ElemMult,Sigmoid | Add,ReLU | 1, 0"
    diagram = space.diagram(decode(space, space.from_tokens(tokens)))
    label = {node.id: node.label for node in diagram.nodes}
    assert [(label[e.source], label[e.target]) for e in diagram.edges] == [
        ("x(t)", "add"), ("h(t-1)", "add"), ("add", "tanh"),
        ("tanh", "add"), ("c(t-1)", "add"), ("add", "relu"),
        ("x(t)", "elem_mult"), ("h(t-1)", "elem_mult"), ("elem_mult", "relu"),
        ("relu", "elem_mult"), ("relu", "elem_mult"), ("elem_mult", "sigmoid"),
        ("sigmoid", "h(t)"), ("elem_mult", "c(t)"),
    ]  # fmt: skip
    assert Edge("1.combination", "c(t)") in diagram.edges  # c_t is read before the activation


def test_the_published_cell_is_drawn_as_before() -> None:
    """To change the drawing on purpose: archsmith draw nas_cell --output tests/golden/nas_cell.svg."""
    network = nas_cell()
    golden = GOLDEN.with_name("nas_cell.svg").read_text(encoding="utf-8")
    assert draw(network.space.diagram(network.architecture)) == golden


def test_long_arrows_are_straight() -> None:
    for seed in range(5):
        svg = draw(cell_of(8, seed))
        for path in re.findall(r'd="(M[^"]*V[^"]*V[^"]*)"', svg):  # past two rows or more
            columns = {float(x) for x in re.findall(r"([\d.]+) [\d.]+V", path)}
            assert max(columns) - min(columns) < 0.2  # of rounding


@given(st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_rows_are_ordered_with_no_more_crossings_than_before(seed: int) -> None:
    rng = Random(seed)
    rows = [[f"{r}.{k}" for k in range(rng.randint(1, 5))] for r in range(4)]
    links = [(a, b) for above, below in pairwise(rows) for a in above for b in below if rng.random() < 0.4]

    def crossings(rows: list[list[str]]) -> int:
        place = {name: k for row in rows for k, name in enumerate(row)}
        return sum(
            a[0][0] == b[0][0] and (place[a[0]] - place[b[0]]) * (place[a[1]] - place[b[1]]) < 0
            for i, a in enumerate(links)
            for b in links[:i]
        )

    better = ordered(rows, links)
    assert [sorted(row) for row in better] == rows
    assert crossings(better) <= crossings(rows)
    untangled = [sorted(row, key=lambda _: rng.random()) for row in rows]
    tree = [
        (f"{r}.{k // 2 if k // 2 < len(rows[r]) else 0}", f"{r + 1}.{k}")
        for r in range(3)
        for k in range(len(rows[r + 1]))
    ]
    links = tree
    assert crossings(ordered(untangled, tree)) == 0  # a forest has none
    middle = columns(better, [], {name: 10.0 for row in rows for name in row}, 3.0)
    assert all(middle[b] - middle[a] >= 13 - 1e-9 for row in better for a, b in pairwise(row))


@pytest.mark.browser
@pytest.mark.parametrize("diagram", [chain_of(6), chain_of(39), cell_of(16)], ids=["6", "39", "cell"])
def test_a_browser_finds_every_text_inside_the_picture(diagram: Diagram, tmp_path: Path) -> None:
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
    page.write_text(f"<meta charset=utf-8><body style='margin:0'>{draw(diagram)}{script}</body>", encoding="utf-8")
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
    assert f'data-found="{len(diagram.nodes)},true,true,true"' in dom
