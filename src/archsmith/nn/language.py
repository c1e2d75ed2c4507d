"""Language models around a recurrent cell (Zoph and Le 2017, section 4.2; Zaremba et al. 2014).

A symbol is embedded, read by layers of one cell, and the last layer's output scores every symbol that may come next.
The sizes are solved so that networks of different cells, the LSTM among them, have the same number of parameters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from archsmith.core.child import TextTask
from archsmith.core.errors import UsageError
from archsmith.nn.cell_graph import CellGraph
from archsmith.nn.recurrent import GraphRNN


@dataclass(frozen=True)
class Dropouts:
    """What is dropped while a language model is trained; each a part from 0 to below 1, rescaled by what is kept.

    Args:
        embedding: of the words of a sequence: a dropped word is zeros wherever it stands in it (Gal and Ghahramani 2016).
        input: of the embedded symbols.
        between: of what a layer gives to the next.
        recurrent: of h_{t-1} in the recurrent product, one mask for all steps.
        output: of what the last layer gives to the softmax.
        variational: whether input, between and output use one mask for all steps too, not one for each.
    """

    embedding: float = 0.0
    input: float = 0.0
    between: float = 0.0
    recurrent: float = 0.0
    output: float = 0.0
    variational: bool = True

    def __post_init__(self) -> None:
        for name in ("embedding", "input", "between", "recurrent", "output"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
                raise UsageError(f"the {name} dropout must be at least 0 and below 1, got {value!r}")


class Softmax(nn.Linear):
    """The scores of every symbol. Tied, it has only a bias, and is given the embedding's weight at each call."""

    def __init__(self, hidden: int, vocabulary: int, *, tied: bool) -> None:
        super().__init__(1 if tied else hidden, vocabulary)
        self.in_features = hidden
        if tied:
            self.register_parameter("weight", None)

    def forward(self, input: Tensor, weight: Tensor | None = None) -> Tensor:
        return F.linear(input, self.weight if weight is None else weight, self.bias)


class LanguageNetwork(nn.Module):
    """A language model of one cell. `set_dropouts` says what training drops; nothing at first.

    Args:
        graph: the cell of every layer.
        vocabulary: how many different symbols there are.
        embedding: numbers of an embedded symbol.
        hidden: units of each layer.
        layers: recurrent layers.
        tied: whether the softmax uses the embedding's weights (Press and Wolf 2017); embedding and hidden are then equal.
        bias: whether the cell has a bias. The softmax always has one.

    Raises UsageError for sizes that do not go together.
    """

    def __init__(
        self,
        graph: CellGraph,
        vocabulary: int,
        embedding: int,
        hidden: int,
        layers: int = 2,
        tied: bool = False,
        bias: bool = False,
    ) -> None:
        super().__init__()
        for name, value, least in (("vocabulary", vocabulary, 2), ("embedding", embedding, 1), ("hidden", hidden, 1)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise UsageError(
                    f"{name} of a language model must be a whole number of at least {least}, got {value!r}"
                )
        if tied and embedding != hidden:
            raise UsageError(
                f"a tied softmax needs as many hidden units as numbers of an embedded symbol, got hidden={hidden} and "
                f"embedding={embedding}; leave the embedding out, or give tied=False"
            )
        self.graph, self.vocabulary, self.hidden, self.layers, self.tied = graph, vocabulary, hidden, layers, tied
        self.dropouts = Dropouts()
        self.embedding = nn.Embedding(vocabulary, embedding)
        self.rnn = GraphRNN(graph, embedding, hidden, layers, bias)
        self.softmax = Softmax(hidden, vocabulary, tied=tied)

    def forward(
        self, tokens: Tensor, state: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The scores of every symbol to come next, before the softmax, and the state to go on from.

        Args:
            tokens: int64 [steps, batch], each below the vocabulary.
            state: (h, c), [layers, batch, hidden] each; zeros if not given.

        Returns [steps, batch, vocabulary] and (h, c).
        """
        features, state = self.features(tokens, state)
        return self.softmax(features, self.softmax_weight), state

    def features(
        self, tokens: Tensor, state: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """As `forward`, with what the softmax reads, [steps, batch, hidden], in place of the scores."""
        drop = self.dropouts
        x = self.embedding(tokens)
        if self.training and drop.embedding:
            x = x * _word_mask(tokens, self.vocabulary, drop.embedding, x)
        x = self._dropped(x, drop.input)
        outputs, state = self.rnn(x, state)
        return self._dropped(outputs, drop.output), state

    @property
    def softmax_weight(self) -> Tensor:
        """[vocabulary, hidden]: the softmax's own, or the embedding's where they are tied."""
        return self.embedding.weight if self.tied else self.softmax.weight

    def _dropped(self, x: Tensor, dropout: float) -> Tensor:
        if not (self.training and dropout):
            return x
        if not self.dropouts.variational:
            return F.dropout(x, dropout)
        return x * F.dropout(x.new_ones(1, *x.shape[1:]), dropout)


def set_dropouts(model: LanguageNetwork, dropouts: Dropouts) -> None:
    """Let training drop that; evaluation drops nothing."""
    model.dropouts = dropouts
    model.rnn.dropout = dropouts.between
    model.rnn.recurrent_dropout = dropouts.recurrent
    model.rnn.variational = dropouts.variational


def language_network(graph: CellGraph, task: TextTask, *, bias: bool = False) -> LanguageNetwork:
    """The language model of a cell for a task, of the task's hidden units, or of as many as its parameters allow.

    The baseline of any cell is `language_network(lstm(), task, bias=True)`. Raises UsageError as `solve_hidden` does.
    """
    hidden = solve_hidden(graph, task, bias=bias) if task.hidden is None else task.hidden
    embedding = hidden if task.embedding is None else task.embedding
    return LanguageNetwork(graph, task.vocabulary, embedding, hidden, task.layers, task.tied, bias)


def solve_hidden(graph: CellGraph, task: TextTask, *, bias: bool = False) -> int:
    """The most hidden units whose exact number of parameters does not exceed the task's: 537 for a tree of base 8,
    20 million parameters, 10,000 words, two layers.

    Raises UsageError when not even one unit fits, or a tied task asks for an embedding of its own.
    """
    if task.parameters is None:
        raise UsageError("the task has hidden units, and no number of parameters to solve for")
    if task.tied and task.embedding is not None:
        raise UsageError(
            f"with tied=True the embedding is as wide as the hidden units that are solved for; got embedding={task.embedding}: "
            "leave it out, or give hidden as well"
        )

    def count(hidden: int) -> int:
        return parameter_count(graph, task, hidden, bias=bias)

    if count(1) > task.parameters:
        raise UsageError(
            f"a language model of one hidden unit has {count(1):,} parameters already with a vocabulary of "
            f"{task.vocabulary:,}, and the task allows {task.parameters:,}; allow more, or cap the vocabulary"
        )
    low, high = 1, 2  # count(low) fits, count(high) does not
    while count(high) <= task.parameters:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle) <= task.parameters else (low, middle)
    return low


def parameter_count(graph: CellGraph, task: TextTask, hidden: int, *, bias: bool = False) -> int:
    """Exactly how many parameters the language model has, without building it.

    Of n units, inputs of d numbers and L leaves, a layer has L n (d + n) weights (and L n biases); the softmax has a
    bias for each symbol and, untied, n weights.
    """
    embedding = hidden if task.embedding is None else task.embedding
    inputs = embedding + (task.layers - 1) * hidden
    cells = len(graph.leaves) * hidden * (inputs + task.layers * hidden + (task.layers if bias else 0))
    return cells + task.vocabulary * (embedding + (0 if task.tied else hidden) + 1)


def initialise(model: nn.Module, bound: float) -> None:
    """Draw every parameter uniformly from -bound to bound (Zaremba et al. 2014: 0.05), from torch's own random state."""
    if not 0 < bound < math.inf:
        raise UsageError(f"the bound of an initialisation must be a number above 0, got {bound!r}")
    for parameter in model.parameters():
        nn.init.uniform_(parameter, -bound, bound)


def _word_mask(tokens: Tensor, vocabulary: int, dropout: float, like: Tensor) -> Tensor:
    """[steps, batch, 1]: zero for the words that a sequence drops, everywhere in it; 1 / kept for the others."""
    kept = torch.empty(vocabulary, tokens.shape[1], device=like.device, dtype=like.dtype).bernoulli_(1 - dropout)
    return (kept.gather(0, tokens) / (1 - dropout))[..., None]
