"""The eight best functions of Ramachandran, Zoph and Le (2017, "Searching for Activation Functions", table 1), as genotypes.

As modules: `Swish`, and `activation(name)` for all of them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from archsmith.core.child import Task
from archsmith.core.errors import UnknownName
from archsmith.core.genotype import Genotype
from archsmith.core.space import identity
from archsmith.discovered.network import Discovered
from archsmith.spaces.activation import Activation

if TYPE_CHECKING:
    from archsmith.nn.activation import ActivationFunction

# The text of each, and its core units: (u1, u2, binary), from the second unit on after the two inputs.
_FUNCTIONS: dict[str, tuple[str, tuple[tuple[str, ...], ...]]] = {
    "swish": ("x * sigmoid(beta * x)", (("beta*x", "x", "sigmoid(x)*y"),)),
    "max_sigmoid": ("max(x, sigmoid(x))", (("x", "sigmoid", "max"),)),
    "cos_minus_x": ("cos(x) - x", (("cos", "x", "x-y"),)),
    "min_sin": ("min(x, sin(x))", (("x", "sin", "min"),)),
    "atan_squared_minus_x": ("atan(x) ^ 2 - x", (("atan", "atan", "x*y"), ("unit 0", "x", "x", "x", "x-y"))),
    "max_tanh": ("max(x, tanh(x))", (("x", "tanh", "max"),)),
    "sinc_plus_x": ("sinc(x) + x", (("sinc", "x", "x+y"),)),
    "x_asinh_squared": ("x * asinh(x) ^ 2", (("asinh", "asinh", "x*y"), ("x", "unit 0", "x", "x", "x*y"))),
}


def _discovered(name: str) -> Discovered:
    text, units = _FUNCTIONS[name]
    space = Activation(units=len(units))
    questions = ("input1", "input2", "u1", "u2", "binary")
    answers = {
        f"{i}.{question}": answer
        for i, unit in enumerate(units)
        for question, answer in zip(questions[-len(unit) :], unit, strict=True)
    }
    return Discovered(
        name=name,
        summary=f"{'Swish, ' if name == 'swish' else ''}f(x) = {text} (Ramachandran, Zoph and Le 2017, table 1)",
        space=space,
        genotype=Genotype(identity(space), dict(answers)),
        task=Task((3, 32, 32), 10),
    )


ACTIVATIONS: Mapping[str, Callable[[], Discovered]] = {
    name: functools.partial(_discovered, name) for name in _FUNCTIONS
}
"""The functions by name, as functions, with ResNet-20 as their network."""


def activation(name: str, channels: int | None = None) -> ActivationFunction:
    """One of the eight as a module, in place of torch.nn.ReLU().

    Args:
        name: one of "swish", "max_sigmoid", "cos_minus_x", "min_sin", "atan_squared_minus_x", "max_tanh", "sinc_plus_x",
            "x_asinh_squared".
        channels: how many channels have a beta of their own, of Swish. None: one for all.

    Raises UnknownName, with the nearest names.
    """
    from archsmith.discovered.swish import Swish
    from archsmith.nn.activation import ActivationFunction

    if name not in _FUNCTIONS:
        raise UnknownName("discovered activation", str(name), _FUNCTIONS)
    return Swish(channels) if name == "swish" else ActivationFunction(_FUNCTIONS[name][0])
