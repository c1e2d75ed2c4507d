"""The table of Q-learning, and how the questions of a space become states and actions; `q_learning` has the algorithm."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Protocol, TypeAlias, runtime_checkable

from archsmith.core.genotype import Answer, Scalar, canonical_json
from archsmith.core.walk import Question

Path: TypeAlias = list[tuple[int, int]]
"""The transitions of a model in order: the row of the state in the table, and the action taken."""

Act: TypeAlias = Callable[[int, int], int]
"""Chooses an action: from the row of the state and the number of actions, which one."""


@runtime_checkable
class StatedSpace(Protocol):
    """A space that names the state in which each of its questions is asked."""

    def state(self, answers: Mapping[str, Answer]) -> tuple[Scalar, ...]:
        """The state after these answers, which are in the order asked. Equal states must promise equal futures, as
        far as the author cares: what was learned in one holds in the other."""
        ...


class QTable:
    """Q(s, u): a row for each state, and in it a number for each action.

    Args:
        alpha: how much of a value an update replaces.
        gamma: how much a later reward counts.
        initial: Q(0) of every action.
        backwards: whether a pass begins at a model's last transition.
    """

    def __init__(self, alpha: float, gamma: float, initial: float, *, backwards: bool = True) -> None:
        self._alpha = alpha
        self._gamma = gamma
        self._initial = initial
        self._backwards = backwards
        self.rows: list[list[float]] = []
        self.row_of: dict[str, int] = {}

    def row(self, state: str, actions: int) -> int:
        """The row of a state, added with Q(0) when it is new."""
        number = self.row_of.get(state)
        if number is None:
            number = self.row_of[state] = len(self.rows)
            self.rows.append([self._initial] * actions)
        return number

    def learn(self, path: Path, reward: float) -> None:
        """One pass of the update over the transitions of a model."""
        rows, alpha, gamma = self.rows, self._alpha, self._gamma
        if self._backwards:
            target = reward
            for row, action in reversed(path):
                values = rows[row]
                values[action] = (1 - alpha) * values[action] + alpha * target
                target = gamma * max(values)
            return
        for i, (row, action) in enumerate(path):
            target = reward if i + 1 == len(path) else gamma * max(rows[path[i + 1][0]])
            rows[row][action] = (1 - alpha) * rows[row][action] + alpha * target

    def greedy(self, row: int, rng: random.Random) -> int:
        """The best action, drawn among equal ones."""
        values = self.rows[row]
        best = max(values)
        among = [action for action, value in enumerate(values) if value == best]
        return among[int(rng.random() * len(among))]


class Transitions:
    """One model's walk through states: names each state, has the action chosen, and keeps the path."""

    def __init__(self, table: QTable, stated: StatedSpace | None, memory: int | None) -> None:
        self.path: Path = []
        self._table = table
        self._stated = stated
        self._memory = memory
        self._decisions: list[str] = []  # where the space does not name its states

    def answer(self, question: Question, answers: Mapping[str, Answer], act: Act) -> int | list[int]:
        """The index of an option, or those of a subset's members; `act(row, actions)` chooses."""
        begin = (
            [canonical_json([*self._stated.state(answers), question.kind, *question.options])]
            if self._stated is not None
            else [canonical_json([question.name, *question.options])]
        )
        if not question.subset:
            taken = self._act(begin, len(question.options), act)
            self._decisions.append(canonical_json([question.name, question.options[taken]]))
            return taken
        members = []
        coins: list[str] = []
        for index, option in enumerate(question.options):
            coin = canonical_json([question.name, option])
            if self._act([*begin, coin, *(coins if self._stated is not None else ())], 2, act):
                members.append(index)
                coin += "+"
            coins.append(coin)
            self._decisions.append(coin)
        return members

    def _act(self, begin: list[str], actions: int, act: Act) -> int:
        parts = begin
        if self._stated is None:
            first = 0 if self._memory is None else max(0, len(self._decisions) - self._memory)
            parts = begin + self._decisions[first:]
        text = " ".join(parts)
        if len(text) > 64:  # the answers so far grow long, and only equality matters
            text = blake2b(text.encode(), digest_size=16).hexdigest()
        row = self._table.row(text, actions)
        action = int(act(row, actions))
        self.path.append((row, action))
        return action
