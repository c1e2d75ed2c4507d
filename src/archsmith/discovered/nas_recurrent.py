"""The recurrent cell of Zoph and Le 2017, "Neural Architecture Search with Reinforcement Learning", as a genotype."""

from __future__ import annotations

from archsmith.core.child import TextTask
from archsmith.discovered.network import Discovered
from archsmith.spaces.recurrent_cell import RecurrentCell

# Figure 8, top right, node for node; TensorFlow's NASCell has the same equations.
_NAS_CELL = (
    *("add", "sigmoid", "add", "relu", "add", "sigmoid", "elem_mult", "relu"),
    *("add", "tanh", "add", "sigmoid", "add", "tanh", "add", "sigmoid"),
    *("elem_mult", "tanh", "add", "tanh", "elem_mult", "tanh", "add", "sigmoid"),
    *("elem_mult", "identity", "add", "tanh"),
    *("elem_mult", "tanh"),
    *("add", "tanh"),  # the injection
    *(12, 8),
)


def nas_cell() -> Discovered:
    """The cell published at a test perplexity of 67.9 on Penn Treebank with 32M parameters, not tied; the modules are
    `NASCell` and `NASRNN`."""
    space = RecurrentCell()
    return Discovered(
        name="nas_cell",
        summary="NASCell, base 8, as a language model of Penn Treebank (Zoph and Le 2017, figure 8 and table 2)",
        space=space,
        genotype=space.from_tokens(_NAS_CELL),
        task=TextTask(vocabulary=10_000, layers=2, hidden=735),
    )
