"""An activation function as one plain PyTorch file: a module that needs no archsmith.

Its betas are called and shaped as `archsmith.nn.activation.ActivationFunction` has them, so that a `state_dict` fits both.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import torch

from archsmith import __version__
from archsmith._describe import Thing, find
from archsmith._export.cell import MARK, place_file
from archsmith._export.source import one_line
from archsmith._search import Run
from archsmith.core.errors import UsageError
from archsmith.core.expression import Expression
from archsmith.core.space import decode
from archsmith.discovered import NETWORKS, Discovered
from archsmith.nn.activation import ActivationFunction, beta_names, source_of
from archsmith.nn.activation_language import ACTIVATIONS, is_constant
from archsmith.spaces import Activation

_FILE = '''\
"""{title}

{about}
"""

import torch
from torch import nn


{function}

class {name}(nn.Module):
    """f(x) = {formula}

{words}    """
{init}
    def forward(self, x):
        """{shape} -> the same."""
{forward}'''

_INIT = """
    def __init__(self, channels=1, beta=1.0):
        super().__init__()
{parameters}
"""

_WORDS = """\
Each beta is a number for every channel, trained with the network.

Args:
    channels: how many channels; 1: all share one beta.
    beta: what it is at first.
"""


def is_activation(architecture: Any) -> bool:
    """Whether an architecture is an activation function."""
    return isinstance(architecture, dict) and architecture.get("kind") == Activation.kind


def write_activation(thing: Run | Thing, path: Path | None, *, force: bool = False) -> Path:
    """Write the activation of a run's best trial, or an activation, as a file; run it, compare it, and give its path.

    A path that does not end with .py is a folder, and the file in it is called activation.py. An earlier export there is
    replaced. Raises UsageError when there is no activation, or the place is taken.
    """
    name, title = "FoundActivation", "An activation function as plain PyTorch."
    if isinstance(thing, Run):
        best = thing.needed_best("there is nothing to export")
        architecture = decode(thing.space, best.genotype)
        title = (
            f"The activation function of trial {best.number} of the search {one_line(thing.name)!r}, as plain PyTorch."
        )
        default = Path(f"{thing.name}-source")
    else:
        if isinstance(thing, str) and thing in NETWORKS:
            thing = NETWORKS[thing]()
        architecture, default = find(thing).architecture, Path("activation.py")
        if isinstance(thing, Discovered):
            name = "".join(map(str.capitalize, thing.name.split("_")))
            title, default = f"{one_line(thing.summary)}, as plain PyTorch.", Path(f"{thing.name}.py")
    written = Activation().expression(architecture)
    function = ACTIVATIONS.simplify(written)
    if is_constant(function):
        raise UsageError(f"the activation {ACTIVATIONS.show(written)} is the same for every x, so it is of no use")
    about = [f"{MARK}{__version__}, from the function (Ramachandran, Zoph and Le 2017):"]
    about += [f"    {line}" for line in textwrap.wrap(ACTIVATIONS.show(written), 112)]
    text = activation_file(function, name, title, "\n".join(about))
    _check(function, text, name)
    path = default if path is None else path
    path = path if path.suffix == ".py" else path / "activation.py"
    place_file(text, path, force=force)
    return path


def activation_file(function: Expression, name: str, title: str, about: str) -> str:
    """The text of the file, of a function in its simplified form."""
    betas = beta_names(function)
    init, words, shape = "", "Nothing in it is trained.\n", "Any shape"
    forward = "return activation(x)"
    if betas:
        lines = [f"self.{beta} = nn.Parameter(torch.full((channels,), float(beta)))" for beta in betas]
        init = _INIT.format(parameters=textwrap.indent("\n".join(lines), " " * 8))
        words, shape = _WORDS, "[n, channels, ...]"
        listed = ", ".join(f"self.{beta}.view(shape)" for beta in betas)
        forward = f"shape = (-1,) + (1,) * (x.dim() - 2)\nreturn activation(x, {listed})"
    return _FILE.format(
        title=title,
        about=about,
        function=source_of(function),
        name=name,
        formula="\n    ".join(textwrap.wrap(ACTIVATIONS.show(function), 100)),
        words=textwrap.indent(words, "    "),
        init=init,
        shape=shape,
        forward=textwrap.indent(forward + "\n", " " * 8),
    )


def _check(function: Expression, text: str, name: str) -> None:
    """Raise UsageError unless the text computes the function and its derivatives to the bit."""
    scope: dict[str, Any] = {"__name__": "written"}
    exec(compile(text, "activation.py", "exec"), scope)
    draws = torch.Generator().manual_seed(0)
    ours = ActivationFunction(function, 3, dims=2)
    theirs = scope[name](3) if beta_names(function) else scope[name]()
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn((2, 3, 4, 4), generator=draws) * 2
    results = []
    for module in (ours, theirs):
        x = images.clone().requires_grad_()
        y = module(x)
        y.sum().backward()
        results.append([y, x.grad, *(p.grad for p in module.parameters())])
    for a, b in zip(*results, strict=True):
        if not torch.equal(a.nan_to_num(), b.nan_to_num()):
            raise UsageError(
                "the written file does not repeat the function; this is a fault of archsmith's, please report it "
                f"with the function {ACTIVATIONS.show(function)}"
            )
