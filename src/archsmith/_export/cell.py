"""A recurrent cell without a run: one plain PyTorch file with the two classes that stand in for torch's LSTM."""

from __future__ import annotations

import hashlib
import textwrap
from pathlib import Path
from typing import Any

import torch

from archsmith import __version__
from archsmith._describe import Thing, find
from archsmith._export.cell_source import cell_file
from archsmith.core.errors import UsageError
from archsmith.core.genotype import canonical_json
from archsmith.core.output_files import is_artifact_folder, write_output
from archsmith.discovered import NETWORKS, Discovered
from archsmith.nn.cell_graph import CellGraph, from_architecture
from archsmith.nn.recurrent import GraphCell, GraphRNN
from archsmith.spaces.recurrent_cell import KIND

MARK = "Written by archsmith "
"""What tells an export from a file of somebody's own."""
_TOLERANCE = 1e-9  # in double precision, of two ways to sum


def write_cell(thing: Thing, path: Path | None, *, force: bool = False) -> Path:
    """Write the file (default: called after the cell, here), run it and compare it with the module, and give its path.

    An earlier export there is replaced. Raises UsageError when the thing is no recurrent cell, or the place is taken.
    """
    if isinstance(thing, str) and thing in NETWORKS:
        thing = NETWORKS[thing]()
    what, summary = find(thing), thing.summary if isinstance(thing, Discovered) else ""
    if not isinstance(what.architecture, dict) or what.architecture.get("kind") != KIND:
        raise UsageError(
            f"{what.name} is no recurrent cell: without a run, format source writes cells alone, in place of "
            "torch.nn.LSTM. Networks are written trained: archsmith export RUN"
        )
    graph = from_architecture(what.architecture)
    key = hashlib.sha256(canonical_json(what.architecture).encode()).hexdigest()[:12]
    key = what.genotype.key if what.genotype is not None else key
    module = what.name if summary else f"cell_{key}"
    path = Path(f"{module}.py") if path is None else path / f"{module}.py" if path.is_dir() else path
    prefix = _prefix(what.name) if summary else "Found"
    title = f"{summary}." if summary else f"A recurrent cell, {what.name} {key}, as plain PyTorch."
    about = [f"{MARK}{__version__}, from these operations of a tree (Zoph and Le 2017, figure 5):"]
    about += [f"    {line}" for line in textwrap.wrap(_tokens(what.architecture), 112)]
    text = cell_file(graph, prefix, title, "\n".join(about))
    _check(graph, text, prefix)
    place_file(text, path, force=force)
    return path


def _prefix(name: str) -> str:
    """What a discovered cell's classes are called: NAS for nas_cell, so that they are NASCell and NASRNN."""
    return "".join(p.upper() if len(p) <= 3 else p.capitalize() for p in name.removesuffix("_cell").split("_"))


def _tokens(architecture: dict[str, Any]) -> str:
    """The cell as `RecurrentCell.from_tokens` reads it."""
    operations = [f"{o['combination']},{o['activation']}" for o in (*architecture["nodes"], architecture["inject"])]
    return " | ".join([*operations, f"{architecture['c_out']}, {architecture['c_in']}"])


def _check(graph: CellGraph, text: str, prefix: str) -> None:
    """Raise UsageError unless the text gives the module's numbers, forward and backward."""
    scope: dict[str, Any] = {"__name__": "written"}
    exec(compile(text, "cell.py", "exec"), scope)
    draws = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        x = torch.randn(5, 3, 4, dtype=torch.float64, generator=draws)
        pairs: list[tuple[torch.nn.Module, torch.nn.Module, torch.Tensor]] = []
        checked: tuple[dict[str, Any], ...] = ({}, {"bias": True, "proj_size": 2})
        for options in checked:
            cells = GraphCell(graph, 4, 6, **options), scope[f"{prefix}Cell"](4, 6, **options)
            many = {**options, "num_layers": 2, "bidirectional": True}
            layers = GraphRNN(graph, 4, 6, **many), scope[f"{prefix}RNN"](4, 6, **many)
            pairs += [(*cells, x[0]), (*layers, x)]
    for ours, theirs, given in pairs:
        ours, theirs = ours.double(), theirs.double()
        theirs.load_state_dict(ours.state_dict())
        results = []
        for module in (ours, theirs):
            out, rest = module(given)
            out.sin().sum().backward()
            results.append(
                [out, *(rest if isinstance(rest, tuple) else (rest,)), *(p.grad for p in module.parameters())]
            )
        for a, b in zip(*results, strict=True):
            if (a is None) != (b is None) or (
                a is not None and not torch.allclose(a, b, _TOLERANCE, _TOLERANCE, equal_nan=True)
            ):
                raise UsageError(
                    "the written file does not repeat the cell's numbers; this is a fault of archsmith's, please report "
                    "it with the genotype"
                )


def is_source(text: str) -> bool:
    """Whether archsmith wrote a Python file, judged by its first lines."""
    return text.startswith(('"""', 'r"""')) and MARK in text


def place_file(text: str, path: Path, *, force: bool = False) -> None:
    """Write the file whole or not at all. An earlier export is replaced, another file only with `force`."""
    try:
        if not is_artifact_folder(path.parent):  # which is refused below
            path.parent.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot write {path}: {error}") from None
    write_output(path, text, "export", is_source, force=force)
