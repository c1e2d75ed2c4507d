"""The eleven mutations of large-scale evolution (Real et al. 2017, section 3.2), in the paper's order.

Each is `(dna, rng) -> DNA | None`: another DNA, or None where it cannot be made. Numbers are drawn within half and
double their value. Where the paper's text is silent, a comment says what is done here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

from archsmith.spaces.grown_dna import (
    DNA,
    MAX_DEPTH_FACTOR,
    MAX_HALF,
    MAX_STRIDE_SCALE,
    MAX_VERTICES,
    OUTPUT,
    Edge,
    Vertex,
)

_LARGEST_RATE, _SMALLEST_RATE = 1e6, 1e-9  # far outside of what trains; a walk of any length stays finite


def alter_learning_rate(dna: DNA, rng: Random) -> DNA | None:
    """Multiplied by 2^u, u uniform from -1 to 1."""
    rate = dna.learning_rate * 2 ** rng.uniform(-1, 1)
    return replace(dna, learning_rate=rate) if _SMALLEST_RATE < rate < _LARGEST_RATE else None


def identity(dna: DNA, rng: Random) -> DNA | None:
    """Nothing changes: the child is its parent, trained on."""
    return dna


def reset_weights(dna: DNA, rng: Random) -> DNA | None:
    """The child starts from weights newly drawn."""
    return replace(dna, inherits=False)


def insert_convolution(dna: DNA, rng: Random) -> DNA | None:
    """At a random place of the backbone: 3x3, stride 1 or 2, as many channels as come in, batch norm and ReLU or not."""
    stride_scale, kind = rng.randrange(2), rng.choice(("linear", "bn_relu"))
    return _insert(dna, rng, lambda u, w: Edge("conv", u, w, stride_scale=stride_scale), Vertex(kind))


def remove_convolution(dna: DNA, rng: Random) -> DNA | None:
    """A random convolution of the backbone goes, and with it the vertex behind it.

    Skips that begin or end there go as well, and one that would then run beside the backbone's own edge.
    """
    found = [
        name
        for name in _convolutions(dna)
        if dna.edges[name].target != OUTPUT and dna.vertices[dna.edges[name].target].properties_mutable
    ]
    if not found:
        return None
    name = rng.choice(found)
    source, gone = dna.edges[name].source, dna.edges[name].target
    onward = next(n for n in dna.backbone() if dna.edges[n].source == gone)
    joined = replace(dna.edges[onward], source=source)
    edges = {
        n: joined if n == onward else edge
        for n, edge in dna.edges.items()
        if n == onward
        or (gone not in (edge.source, edge.target) and (edge.source, edge.target) != (source, joined.target))
    }
    return replace(dna, vertices={n: v for n, v in dna.vertices.items() if n != gone}, edges=edges)


def alter_stride(dna: DNA, rng: Random) -> DNA | None:
    """Of a random convolution: half or double."""
    name = _any_convolution(dna, rng)
    if name is None:
        return None
    scale = dna.edges[name].stride_scale
    scales = [s for s in (scale - 1, scale + 1) if 0 <= s <= MAX_STRIDE_SCALE]
    return _with(dna, name, replace(dna.edges[name], stride_scale=rng.choice(scales)))


def alter_number_of_channels(dna: DNA, rng: Random) -> DNA | None:
    """Of a random convolution: its depth factor times 2^u, u uniform from -1 to 1."""
    name = _any_convolution(dna, rng)
    if name is None:
        return None
    # Of the interval from half to double the paper gives the ends; here log-uniform, as for the learning rate.
    factor = dna.edges[name].depth_factor * 2 ** rng.uniform(-1, 1)
    if not 1 / MAX_DEPTH_FACTOR <= factor <= MAX_DEPTH_FACTOR:
        return None
    return _with(dna, name, replace(dna.edges[name], depth_factor=factor))


def filter_size(dna: DNA, rng: Random) -> DNA | None:
    """Of a random convolution, in height or in width: another odd size within half and double."""
    name = _any_convolution(dna, rng)
    if name is None:
        return None
    field = rng.choice(("half_height", "half_width"))
    half = int(getattr(dna.edges[name], field))
    size = 2 * half + 1
    halves = [h for h in range(MAX_HALF + 1) if h != half and size <= 2 * (2 * h + 1) and 2 * h + 1 <= 2 * size]
    if not halves:
        return None
    changed: dict[str, Any] = {field: rng.choice(halves)}
    return _with(dna, name, replace(dna.edges[name], **changed))


def insert_one_to_one(dna: DNA, rng: Random) -> DNA | None:
    """An identity edge at a random place of the backbone, and behind it a vertex with batch norm and ReLU or without."""
    # Without them nothing is changed but what later edits can do there.
    return _insert(dna, rng, lambda u, w: Edge("identity", u, w), Vertex(rng.choice(("linear", "bn_relu"))))


def add_skip(dna: DNA, rng: Random) -> DNA | None:
    """An identity edge between random vertices: the first pair, in random order, that is not joined and closes no cycle."""
    sources = [name for name in dna.order() if dna.vertices[name].outputs_mutable]
    targets = [name for name in dna.order() if dna.vertices[name].inputs_mutable]
    rng.shuffle(sources)
    rng.shuffle(targets)
    position = {name: i for i, name in enumerate(dna.order())}
    joined = {(edge.source, edge.target) for edge in dna.edges.values()}
    for source in sources:
        for target in targets:
            # Every vertex lies on the backbone, so a path leads back from each later one to each earlier one's end.
            if position[source] < position[target] and (source, target) not in joined:
                return _with(dna, dna.new_id("e"), Edge("identity", source, target, skip=True))
    return None


def remove_skip(dna: DNA, rng: Random) -> DNA | None:
    """A random skip goes."""
    skips = [
        name
        for name, edge in dna.edges.items()
        if edge.skip and dna.vertices[edge.source].outputs_mutable and dna.vertices[edge.target].inputs_mutable
    ]
    if not skips:
        return None
    gone = rng.choice(sorted(skips, key=_number))
    return replace(dna, edges={name: edge for name, edge in dna.edges.items() if name != gone})


MUTATIONS: dict[str, Callable[[DNA, Random], DNA | None]] = {
    mutation.__name__: mutation
    for mutation in (
        alter_learning_rate,
        identity,
        reset_weights,
        insert_convolution,
        remove_convolution,
        alter_stride,
        alter_number_of_channels,
        filter_size,
        insert_one_to_one,
        add_skip,
        remove_skip,
    )
}
"""All of them by name, in the paper's order."""


def _insert(dna: DNA, rng: Random, edge: Callable[[str, str], Edge], vertex: Vertex) -> DNA | None:
    """A new edge and a new vertex before a random edge of the backbone, which then begins at the new vertex."""
    places = [
        name
        for name in dna.backbone()
        if dna.vertices[dna.edges[name].source].outputs_mutable and dna.vertices[dna.edges[name].target].inputs_mutable
    ]
    if not places or len(dna.vertices) >= MAX_VERTICES:
        return None
    split, added = rng.choice(places), dna.new_id("v")
    source = dna.edges[split].source
    return replace(
        dna,
        vertices={**dna.vertices, added: vertex},
        edges={
            **dna.edges,
            split: replace(dna.edges[split], source=added),
            dna.new_id("e"): edge(source, added),
        },
    )


def _convolutions(dna: DNA) -> list[str]:
    return [name for name in dna.backbone() if dna.edges[name].type == "conv"]


def _any_convolution(dna: DNA, rng: Random) -> str | None:
    found = _convolutions(dna)
    return rng.choice(found) if found else None


def _with(dna: DNA, name: str, edge: Edge) -> DNA:
    return replace(dna, edges={**dna.edges, name: edge})


def _number(name: str) -> int:
    return int(name[1:])
