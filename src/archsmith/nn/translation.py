"""Translators around a recurrent cell, in the form of GNMT (Wu et al. 2016, sections 3.1 to 3.3).

    encoder   the first layer reads the source both ways, `hidden` units each, side by side; the others read forward;
              from the third on a layer's input is added to its output
    attention a network of one hidden layer (Bahdanau et al. 2015): weight_ts = softmax_s(v . tanh(W q_t + U e_s)), where
              q_t is what the bottom decoder layer gives and e_s what the top encoder layer gives
    decoder   the bottom layer reads the embedded target; the others also read the context, sum_s weight_ts e_s; from
              the third on the layer below is added; the top one scores the symbols that may come next

GNMT attends by the bottom layer's output of the step before, and its paper does not say what that layer reads beside
the target. Here it reads the target only and attends by its output of the same step, as the GNMT of the MLPerf
benchmark does: every layer then runs over whole sequences, and training needs no loop over steps outside the cell.
With one layer the softmax reads the context, as nothing else would. Decoder states begin at zero.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from archsmith.core.child import TranslationTask
from archsmith.core.errors import UsageError
from archsmith.core.special_tokens import PADDING, UNKNOWN
from archsmith.nn.cell_graph import CellGraph
from archsmith.nn.count import count_parameters
from archsmith.nn.recurrent import GraphRNN

State: TypeAlias = list[tuple[Tensor, Tensor]]
"""(h, c) of every decoder layer, [1, batch, hidden] each."""


@dataclass(frozen=True)
class Memory:
    """The source sentences as the decoder reads them.

    Args:
        values: what the encoder gave, [batch, steps, width].
        keys: the same as the attention compares it, [batch, steps, hidden].
        padding: true behind a sentence's end, [batch, steps].
    """

    values: Tensor
    keys: Tensor
    padding: Tensor

    def of(self, rows: Tensor) -> Memory:
        """The memory of some sentences of the batch, which may be asked for several times."""
        return Memory(self.values[rows], self.keys[rows], self.padding[rows])


class Attention(nn.Module):
    """Additive attention of one hidden layer.

    Args:
        query, value: numbers in a query, and in what is read.
        hidden: units of the hidden layer.
    """

    def __init__(self, query: int, value: int, hidden: int) -> None:
        super().__init__()
        self.query = nn.Linear(query, hidden, bias=False)
        self.key = nn.Linear(value, hidden)
        self.score = nn.Linear(hidden, 1, bias=False)

    def forward(self, queries: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """The contexts [steps, batch, width], and the weights [steps, batch, source steps], zero at padding."""
        asked = self.query(queries).transpose(0, 1)[:, :, None]
        scores = self.score(torch.tanh(asked + memory.keys[:, None])).squeeze(-1)
        weights = scores.masked_fill(memory.padding[:, None], -torch.inf).softmax(-1)
        return (weights @ memory.values).transpose(0, 1), weights.transpose(0, 1)


class Translator(nn.Module):
    """A translator of one cell, made by `translator`. All recurrent layers have `task.hidden` units.

    Args:
        graph: the cell of every layer.
        task: the vocabularies and sizes; `hidden` must be given.
        bias: whether the cell has a bias. Attention and softmax always have one.

    `dropout` is of what every recurrent layer and the softmax read while training (GNMT: 0.2); zero at first.
    Raises UsageError for sizes that do not go together.
    """

    def __init__(self, graph: CellGraph, task: TranslationTask, bias: bool = False) -> None:
        super().__init__()
        if task.hidden is None:
            raise UsageError("a Translator needs hidden units; nn.translation.translator solves them from parameters")
        if least := [n for n in ("source_vocabulary", "target_vocabulary") if getattr(task, n) <= UNKNOWN]:
            raise UsageError(
                f"{least[0]} of a translator must be above {UNKNOWN}, as the first {UNKNOWN + 1} symbols are padding, "
                f"begin, end and unknown; got {getattr(task, least[0])}"
            )
        n, layers = task.hidden, task.layers
        embedding = n if task.embedding is None else task.embedding
        width = 2 * n if layers == 1 else n  # of what the encoder gives
        self.graph, self.task, self.dropout = graph, task, 0.0
        self.source_embedding = nn.Embedding(task.source_vocabulary, embedding, padding_idx=PADDING)
        self.target_embedding = nn.Embedding(task.target_vocabulary, embedding, padding_idx=PADDING)
        self.encoder = nn.ModuleList(
            GraphRNN(graph, (embedding, 2 * n, n)[min(k, 2)], n, bias=bias, bidirectional=k == 0) for k in range(layers)
        )
        self.attention = Attention(n, width, n)
        self.decoder = nn.ModuleList(
            GraphRNN(graph, n + width if k else embedding, n, bias=bias) for k in range(layers)
        )
        self.softmax = nn.Linear(n + width if layers == 1 else n, task.target_vocabulary)

    def forward(self, source: Tensor, lengths: Tensor, target: Tensor) -> Tensor:
        """The scores of every symbol to come next, before the softmax, with the true symbols before it given.

        Args:
            source: int64 [source steps, batch], each sentence followed by padding.
            lengths: int64 [batch] on the CPU: the sentences' own, from 1.
            target: int64 [steps, batch], BEGIN and the sentence, followed by padding.

        Returns [steps, batch, target vocabulary]; what stands at padding has no meaning.
        """
        scores: Tensor = self.softmax(self.features(source, lengths, target))
        return scores

    def features(self, source: Tensor, lengths: Tensor, target: Tensor) -> Tensor:
        """As `forward`, with what the softmax reads in place of the scores: to score only what is no padding."""
        return self.decode(target, self.encode(source, lengths), None)[0]

    def encode(self, source: Tensor, lengths: Tensor) -> Memory:
        """What the decoder reads of the source; arguments as those of `forward`."""
        first, *others = self.encoder
        packed = pack_padded_sequence(self._dropped(self.source_embedding(source)), lengths, enforce_sorted=False)
        x, _ = pad_packed_sequence(first(packed)[0], total_length=len(source))
        for k, layer in enumerate(others, 1):
            outputs, _ = layer(self._dropped(x))
            x = outputs + x if k >= 2 else outputs
        values = x.transpose(0, 1)
        padding = torch.arange(len(source))[None] >= lengths[:, None]
        return Memory(values, self.attention.key(values), padding.to(values.device))

    def decode(self, target: Tensor, memory: Memory, state: State | None) -> tuple[Tensor, State, Tensor]:
        """What the softmax reads, after the symbols `target` [steps, batch] and those of the state before them.

        Returns [steps, batch, ...], the state to go on from, and the attention's weights [steps, batch, source steps].
        """
        bottom, *others = self.decoder
        x, after = bottom(self._dropped(self.target_embedding(target)), None if state is None else state[0])
        states = [after]
        context, weights = self.attention(x, memory)
        for k, layer in enumerate(others, 1):
            read = self._dropped(torch.cat((x, context), -1))
            outputs, after = layer(read, None if state is None else state[k])
            x = outputs + x if k >= 2 else outputs
            states.append(after)
        if not others:
            x = torch.cat((x, context), -1)
        return self._dropped(x), states, weights

    def multiply_adds(self, source_steps: float, target_steps: float) -> int:
        """Multiply-adds of matrix products to train on or score a pair of sentences of so many symbols; embeddings,
        biases and elementwise operations are not counted."""

        def weights(module: nn.Module) -> int:
            return sum(p.numel() for p in module.parameters() if p.dim() == 2)

        attention = self.attention
        by_source = weights(self.encoder) + weights(attention.key)
        by_target = weights(self.decoder) + weights(attention.query) + weights(self.softmax)
        by_both = attention.key.in_features + attention.key.out_features
        return round(by_source * source_steps + by_target * target_steps + by_both * source_steps * target_steps)

    def _dropped(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout) if self.training and self.dropout else x


def translator(graph: CellGraph, task: TranslationTask, *, bias: bool = False) -> Translator:
    """The translator of a cell for a task, of the task's hidden units, or of as many as its parameters allow.

    The baseline of any cell is `translator(lstm(), task, bias=True)`. Raises UsageError as `solve_hidden` does.
    """
    hidden = solve_hidden(graph, task, bias=bias) if task.hidden is None else task.hidden
    return Translator(graph, _sized(task, hidden), bias)


def solve_hidden(graph: CellGraph, task: TranslationTask, *, bias: bool = False) -> int:
    """The most hidden units whose exact number of parameters does not exceed the task's.

    Raises UsageError when not even one unit fits.
    """
    if task.parameters is None:
        raise UsageError("the task has hidden units, and no number of parameters to solve for")
    if (least := count_parameters(_outline(graph, task, 1, bias))) > task.parameters:
        raise UsageError(
            f"a translator of one hidden unit has {least:,} parameters already with vocabularies of "
            f"{task.source_vocabulary:,} and {task.target_vocabulary:,}, and the task allows {task.parameters:,}; "
            "allow more, or cap the vocabularies"
        )
    return _most(lambda n: count_parameters(_outline(graph, task, n, bias)), task.parameters)


def hidden_of_equal_computation(
    graph: CellGraph, task: TranslationTask, multiply_adds: int, steps: tuple[float, float], *, bias: bool = False
) -> int:
    """The hidden units with which a cell's `multiply_adds` come nearest to a number, for pairs of so many symbols.

    Zoph and Le (2017, section 4.2) compare cells in GNMT at equal computation.
    """

    def cost(hidden: int) -> int:
        return _outline(graph, task, hidden, bias).multiply_adds(*steps)

    if cost(1) >= multiply_adds:
        return 1
    below = _most(cost, multiply_adds)
    return min((below, below + 1), key=lambda n: abs(cost(n) - multiply_adds))


def _outline(graph: CellGraph, task: TranslationTask, hidden: int, bias: bool) -> Translator:
    """The translator without its numbers, to count by."""
    with torch.device("meta"):
        return Translator(graph, _sized(task, hidden), bias)


def _sized(task: TranslationTask, hidden: int) -> TranslationTask:
    return replace(task, hidden=hidden, parameters=None)


def _most(count: Callable[[int], int], allowed: int) -> int:
    """The largest whole number from 1 whose count is at most `allowed`; that of 1 is."""
    low, high = 1, 2
    while count(high) <= allowed:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle) <= allowed else (low, middle)
    return low
