"""Sampling from the LSTM controller in numpy: the mathematics of `lstm_controller.Controller.score`, a batch at a time.

It reads the controller's parameters in place. That both are one model is tested: sampled log-probabilities equal scored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from archsmith.core.walk import Question
from archsmith.searchers.traces import Head, head_of, head_width
from archsmith.searchers.walks import Rows, Walk

if TYPE_CHECKING:
    from archsmith.searchers.lstm_controller import Controller

Floats: TypeAlias = npt.NDArray[np.float32]


def sample_walk(controller: Controller, walk: Walk, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Answers every question of the walk from the policy; gives the log-probabilities [walk.count] of the answers."""
    policy = _Policy(controller)
    m, n = walk.count, controller.hidden
    h = [np.zeros((m, n), np.float32) for _ in range(controller.layers)]
    c = [np.zeros((m, n), np.float32) for _ in range(controller.layers)]
    read = np.repeat(policy.inputs[:1], m, axis=0)  # what the first layer's gates get from the input: [m, 4 * hidden]
    memory: dict[str, _Anchors] = {}
    log_prob = np.zeros(m)
    while groups := walk.asked():
        for layer in range(controller.layers):
            gates = read if layer == 0 else h[layer - 1] @ policy.below[layer] + policy.bias[layer]
            gates = gates + h[layer] @ policy.recurrent[layer]
            # The gates stand as input, forget, output, cell, the first three halved: sigmoid(x) = tanh(x / 2) / 2 + 1/2.
            np.tanh(gates, out=gates)
            opened = gates[:, : 3 * n] * np.float32(0.5) + np.float32(0.5)
            c[layer] = opened[:, n : 2 * n] * c[layer] + opened[:, :n] * gates[:, 3 * n :]
            h[layer] = opened[:, 2 * n :] * np.tanh(c[layer])
        top = h[-1]
        read = np.zeros_like(read)
        for rows, question, given in groups:
            head = policy.head(question)
            if not question.subset:
                taken, log = _choose(policy, head, question, top[rows], given, rng)
                read[rows] = policy.inputs[policy.first[f"{head[0]}:{head[1]}.embedding"] + taken]
            else:
                anchors = memory.setdefault(question.kind, _Anchors(m, n))
                taken, log = _flip(policy, head, question, top[rows], anchors, rows, rng)
                read[rows] = _read_subset(policy, head, question, taken, anchors, rows)
                anchors.add(rows, top[rows])
            log_prob[rows] += log
            walk.answer(rows, question, taken)
    return log_prob


class _Policy:
    """The controller's parameters, laid out for sampling."""

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        n = controller.hidden
        order = np.concatenate([np.arange(2 * n), np.arange(3 * n, 4 * n), np.arange(2 * n, 3 * n)])
        half = np.full(4 * n, 0.5, np.float32)
        half[3 * n :] = 1

        def laid_out(name: str) -> list[Floats]:
            arrays = [controller.parameters[f"lstm{layer}.{name}"] for layer in range(controller.layers)]
            return [(a.detach().numpy()[order].T * half).astype(np.float32) for a in arrays]

        self.below, self.recurrent, self.bias = laid_out("input"), laid_out("hidden"), laid_out("bias")
        self.refresh()

    def refresh(self) -> None:
        """Read the heads and embeddings again, after they have grown."""
        parts, self.first = self.controller.table()
        table = np.concatenate([part.detach().numpy() for part in parts])
        self.inputs: Floats = table @ self.below[0] + self.bias[0]  # each possible input, through the first layer
        self._heads: dict[Question, Head] = {}

    def head(self, question: Question) -> Head:
        """The head that answers the question, made or widened if it must be."""
        head = self._heads.get(question)
        if head is None:
            head = head_of(question, self.controller.forced)
            if self.controller.know(head, head_width(question)):
                self.refresh()
            self._heads[question] = head
        return head

    def parameter(self, head: Head, name: str) -> Floats:
        array: Floats = self.controller.parameters[f"{head[0]}:{head[1]}.{name}"].detach().numpy()
        return array


class _Anchors:
    """The top hidden states at the subset steps of one kind, by walk and in order."""

    def __init__(self, m: int, n: int) -> None:
        self.states = np.zeros((m, 8, n), np.float32)
        self._count = np.zeros(m, np.int64)

    def add(self, rows: Rows, hidden: Floats) -> None:
        place = self._count[rows]
        if place.max(initial=0) == self.states.shape[1]:
            self.states = np.concatenate([self.states, np.zeros_like(self.states)], axis=1)
        self.states[np.arange(len(self._count))[rows], place] = hidden
        self._count[rows] += 1

    def recall(self, rows: Rows, options: tuple[Any, ...]) -> Floats:
        """The states [rows, options, hidden] that the options refer to."""
        straight = options == tuple(range(len(options)))  # then it is a view where all walks are meant
        return self.states[rows][:, slice(len(options)) if straight else list(options)]


def _choose(
    policy: _Policy, head: Head, question: Question, top: Floats, given: int | None, rng: np.random.Generator
) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64] | float]:
    """Option indices [rows] from the softmax, and their log-probabilities; a forced answer has none."""
    if given is not None:
        return np.full(len(top), given), 0.0
    width = len(question.options)
    logits = top @ policy.parameter(head, "weight")[:width].T + policy.parameter(head, "bias")[:width]
    logits -= logits.max(axis=1, keepdims=True)
    below = np.exp(logits).cumsum(axis=1, dtype=np.float64)
    total = below[:, -1]
    taken = (below <= (rng.random(len(top)) * total)[:, None]).sum(axis=1)
    np.minimum(taken, width - 1, out=taken)
    return taken, logits[np.arange(len(top)), taken] - np.log(total)


def _flip(
    policy: _Policy,
    head: Head,
    question: Question,
    top: Floats,
    anchors: _Anchors,
    rows: Rows,
    rng: np.random.Generator,
) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64] | float]:
    """Memberships [rows, options] from independent coins, and the log-probabilities of all coins of a row."""
    width = len(question.options)
    if not width:
        return np.zeros((len(top), 0), np.bool_), 0.0
    if question.refers:
        prev = anchors.recall(rows, question.options) @ policy.parameter(head, "W_prev").T
        curr = top @ policy.parameter(head, "W_curr").T
        prev += curr[:, None]
        logits = np.tanh(prev, out=prev) @ policy.parameter(head, "v")
    else:
        logits = top @ policy.parameter(head, "weight")[:width].T + policy.parameter(head, "bias")[:width]
    taken = rng.random(logits.shape) < np.tanh(logits * np.float32(0.5)) * np.float32(0.5) + np.float32(0.5)
    return taken, -np.logaddexp(0, np.where(taken, -logits, logits)).sum(axis=1, dtype=np.float64)


def _read_subset(
    policy: _Policy, head: Head, question: Question, taken: npt.NDArray[Any], anchors: _Anchors, rows: Rows
) -> Floats:
    """What the first layer's gates get after a subset: the mean of its members, or the learned vector for none."""
    name = f"{head[0]}:{head[1]}"
    none: Floats = policy.inputs[policy.first[f"{name}.none"]]
    if not question.options:
        return none
    size = taken.sum(axis=1, keepdims=True)
    weight = (taken / np.maximum(size, 1)).astype(np.float32)
    if head[0] == "anchor" and policy.controller.feeds_hidden:
        recalled = (anchors.recall(rows, question.options) * weight[:, :, None]).sum(axis=1)
        members = recalled @ policy.below[0] + policy.bias[0]
    else:
        places = np.array(question.options) if question.refers else np.arange(len(question.options))
        members = weight @ policy.inputs[policy.first[f"{name}.embedding"] + places]
    result: Floats = np.where(size > 0, members, none)
    return result
