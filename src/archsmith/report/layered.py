"""Places for the boxes of a graph that stands in rows (Sugiyama et al. 1981): their order in each row, and their columns.

The order is found by moving everything to the mean place of its neighbours, down and up, then by exchanging neighbours
in a row, and the one with the fewest crossings is kept. The columns are those of Brandes and Köpf 2002, "Fast and
Simple Horizontal Coordinate Assignment": boxes are hung below each other where they can, in four ways (from above and
from below, from the left and from the right), and each stands between the middle two of its four places. A long edge,
which is a chain of `points`, is so straight between its ends.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise

SWEEPS = 24


def ordered(rows: Sequence[Sequence[str]], links: Sequence[tuple[str, str]]) -> list[list[str]]:
    """The rows with few crossings of the links, each of which goes from a row to the next."""
    above, below = _neighbours(links)
    current = [list(row) for row in rows]
    best, fewest = current, _crossings(current, below)
    for sweep in range(SWEEPS):
        current = [list(row) for row in current]
        beside = above if sweep % 2 == 0 else below
        for row in current if sweep % 2 == 0 else reversed(current):
            place = _places(current)
            means = {n: _mean([place[k] for k in beside.get(n, ())], place[n]) for n in row}
            row.sort(key=means.__getitem__)
        _exchange(current, above, below)
        if (crossings := _crossings(current, below)) < fewest:
            best, fewest = current, crossings
    return best


def _neighbours(links: Sequence[tuple[str, str]]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    above: dict[str, list[str]] = {}
    below: dict[str, list[str]] = {}
    for source, target in links:
        above.setdefault(target, []).append(source)
        below.setdefault(source, []).append(target)
    return above, below


def _places(rows: Sequence[Sequence[str]]) -> dict[str, float]:
    """Where everything stands in its row, as a part of the row's length."""
    return {name: (k + 0.5) / len(row) for row in rows for k, name in enumerate(row)}


def _crossings(rows: Sequence[Sequence[str]], below: Mapping[str, Sequence[str]]) -> int:
    place = _places(rows)
    crossings = 0
    for row in rows:
        ends: list[float] = []  # of the links that begin further left
        for name in row:
            own = [place[k] for k in below.get(name, ())]
            crossings += sum(len(ends) - bisect_right(ends, end) for end in own)
            for end in own:
                insort(ends, end)
    return crossings


def _exchange(
    rows: Sequence[list[str]], above: Mapping[str, Sequence[str]], below: Mapping[str, Sequence[str]]
) -> None:
    """Exchange neighbours in a row while that takes crossings away."""
    place = _places(rows)

    def crossings(left: str, right: str) -> int:
        return sum(
            place[a] > place[b]
            for beside in (above, below)
            for a in beside.get(left, ())
            for b in beside.get(right, ())
        )

    for row in rows:
        for _ in row:
            changed = False
            for k in range(len(row) - 1):
                left, right = row[k], row[k + 1]
                if crossings(left, right) > crossings(right, left):
                    row[k], row[k + 1] = right, left
                    changed = True
            if not changed:
                break
        place |= _places([row])


# --- columns ----------------------------------------------------------------------------------------------------------


def columns(
    rows: Sequence[Sequence[str]],
    links: Sequence[tuple[str, str]],
    width: Mapping[str, float],
    gap: float,
    points: Collection[str] = (),
) -> dict[str, float]:
    """The middle of everything: in a row at least `gap` apart, in the row's order.

    Args:
        rows: names from left to right.
        links: each from a row to the next.
        width: of everything.
        gap: between neighbours in a row.
        points: what is no box, but where a long edge crosses a row.
    """
    crossed = _crossed_by_long_edges(rows, links, points)
    layouts = []
    for down in (True, False):
        for rightwards in (True, False):
            seen = [list(row) if rightwards else list(reversed(row)) for row in (rows if down else reversed(rows))]
            turned = list(links) if down else [(target, source) for source, target in links]
            x = _compacted(seen, _hung(seen, turned, crossed), width, gap)
            layouts.append(x if rightwards else {name: -value for name, value in x.items()})
    spans = [_span(x, width) for x in layouts]
    low, high = min(spans, key=lambda span: span[1] - span[0])  # of the narrowest
    for k, (x, span) in enumerate(zip(layouts, spans, strict=True)):
        shift = low - span[0] if k % 2 == 0 else high - span[1]
        layouts[k] = {name: value + shift for name, value in x.items()}
    return {name: sum(sorted(x[name] for x in layouts)[1:3]) / 2 for name in layouts[0]}


def _span(x: Mapping[str, float], width: Mapping[str, float]) -> tuple[float, float]:
    return min(v - width[n] / 2 for n, v in x.items()), max(v + width[n] / 2 for n, v in x.items())


def _crossed_by_long_edges(
    rows: Sequence[Sequence[str]], links: Sequence[tuple[str, str]], points: Collection[str]
) -> set[tuple[str, str]]:
    """The links that cross a long edge between two points of it: these are straight, and the others give way."""
    place = {name: k for row in rows for k, name in enumerate(row)}
    row_of = {name: r for r, row in enumerate(rows) for name in row}
    by_row: dict[int, list[tuple[str, str]]] = {}
    for link in links:
        by_row.setdefault(row_of[link[0]], []).append(link)
    crossed = set()
    for inside in by_row.values():
        straight = [link for link in inside if link[0] in points and link[1] in points]
        for link in inside:
            if link[0] in points and link[1] in points:
                continue
            for inner in straight:
                if (place[link[0]] - place[inner[0]]) * (place[link[1]] - place[inner[1]]) < 0:
                    crossed |= {link, (link[1], link[0])}
    return crossed


def _hung(
    rows: Sequence[Sequence[str]], links: Sequence[tuple[str, str]], crossed: Collection[tuple[str, str]]
) -> dict[str, str]:
    """For everything, the topmost of those it hangs below: each hangs below the middle one of its neighbours above,
    unless a link to the left of it goes there or further."""
    above, _ = _neighbours(links)
    place = {name: k for row in rows for k, name in enumerate(row)}
    root = {name: name for row in rows for name in row}
    for row in rows:
        taken = -1
        for name in row:
            beside = sorted(above.get(name, ()), key=place.__getitem__)
            middle = beside[(len(beside) - 1) // 2 : len(beside) // 2 + 1]
            for neighbour in middle:
                if place[neighbour] > taken and (neighbour, name) not in crossed:
                    root[name], taken = root[neighbour], place[neighbour]
                    break
    return root


def _compacted(
    rows: Sequence[Sequence[str]], root: Mapping[str, str], width: Mapping[str, float], gap: float
) -> dict[str, float]:
    """The columns of what hangs together: as far left as they go, then right where nothing is in the way."""
    after: dict[str, dict[str, float]] = {r: {} for r in root.values()}
    waiting = dict.fromkeys(after, 0)
    for row in rows:
        for a, b in pairwise(row):
            apart = (width[a] + width[b]) / 2 + gap
            if root[b] not in after[root[a]]:
                waiting[root[b]] += 1
            after[root[a]][root[b]] = max(after[root[a]].get(root[b], 0.0), apart)
    order, ready = [], [r for r, count in waiting.items() if count == 0]
    x = dict.fromkeys(after, 0.0)
    while ready:
        r = ready.pop()
        order.append(r)
        for other, apart in after[r].items():
            x[other] = max(x[other], x[r] + apart)
            waiting[other] -= 1
            if waiting[other] == 0:
                ready.append(other)
    for r in reversed(order):
        if after[r]:
            x[r] = max(x[r], min(x[other] - apart for other, apart in after[r].items()))
    return {name: x[r] for name, r in root.items()}


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise
