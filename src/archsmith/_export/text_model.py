"""A trained language model, with the vocabulary that its tokens are numbers of."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from archsmith._export.model import Model
from archsmith._export.vocabulary import FILE, Vocabulary, check_entry, read_vocabulary
from archsmith.core.child import TextTask
from archsmith.core.errors import UsageError
from archsmith.core.shown import shown
from archsmith.nn.language import LanguageNetwork

CHECKED_SIZES = ((1, 1), (12, 3))  # steps and batch of the tokens that an export is checked on
MOST_SYMBOLS, MOST_UNITS, MOST_LAYERS = 10**7, 10**6, 100  # a stranger's card could ask for any


@dataclass(frozen=True, eq=False, kw_only=True)
class TextModel(Model):
    """A trained language model: a `Model` with these as well.

    Args:
        network: from tokens [steps, batch] and a state to the scores of what comes next, and the state to go on from;
            a `LanguageNetwork`.
        vocabulary: what the tokens are numbers of.
        examples: some real tokens, [steps, batch], for checks; never written.

    Raises UsageError when they do not fit each other.
    """

    takes: ClassVar[str] = "text"

    network: LanguageNetwork
    vocabulary: Vocabulary
    examples: Tensor | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.network, LanguageNetwork):
            raise UsageError(
                f"exports of text are of archsmith.nn.language.LanguageNetwork, got a {type(self.network).__name__}"
            )
        if len(self.vocabulary) != self.network.vocabulary:
            raise UsageError(
                f"the network knows {self.network.vocabulary:,} symbols, and the vocabulary has {len(self.vocabulary):,}"
            )
        super().__post_init__()

    @property
    def task(self) -> TextTask:
        """What the network is built for, with every size given."""
        n = self.network
        return TextTask(n.vocabulary, n.layers, n.hidden, None, n.embedding.embedding_dim, n.tied)

    def deployed(self) -> LanguageNetwork:
        """The network itself."""
        return self.network

    def inputs(self) -> list[Tensor]:
        """Tokens [steps, batch]: random ones and, where there are any, real ones."""
        draws = torch.Generator().manual_seed(0)
        tokens = [torch.randint(len(self.vocabulary), size, generator=draws) for size in CHECKED_SIZES]
        return tokens if self.examples is None else [*tokens, self.examples]

    def answer(self, given: Tensor) -> Tensor:
        """The scores for tokens, [steps, batch, vocabulary]."""
        with torch.inference_mode():
            scores: Tensor = self.network(given)[0]
        return scores

    def differs(self, other: nn.Module) -> float:
        """The largest difference of another module's scores and states from the network's, relative to the largest one.

        Each step begins with the state that the network itself has come to: a cell may be chaotic, and in many steps
        make much of a rounding. What overflows in both is equal.
        """
        worst = 0.0
        for tokens in self.inputs():
            state = None
            for step in tokens:
                with torch.inference_mode():
                    found, (found_h, found_c) = other(step[None], state)
                    scores, state = self.network(step[None], state)
                for a, b in ((found, scores), (found_h, state[0]), (found_c, state[1])):
                    same = (a == b) | (a.isnan() & b.isnan())
                    scale = b[b.isfinite()].abs().amax().clamp_min(1.0) if b.isfinite().any() else 1.0
                    worst = max(worst, float(((a - b) / scale).masked_fill(same, 0.0).abs().nan_to_num(math.inf).max()))
        return worst

    def own_json(self) -> dict[str, Any]:
        """Task and vocabulary."""
        task = self.task
        sizes = {k: getattr(task, k) for k in ("vocabulary", "layers", "hidden", "embedding", "tied")}
        return {"task": sizes, "vocabulary": self.vocabulary.to_json()}

    def own_files(self) -> dict[str, str]:
        """The vocabulary's symbols."""
        return {FILE: self.vocabulary.text()}

    @classmethod
    def check(cls, card: Mapping[str, Any]) -> None:
        """Raise KeyError, TypeError or ValueError unless these entries fit each other."""
        task = cls.task_of(card)
        limits = {
            "vocabulary": MOST_SYMBOLS,
            "layers": MOST_LAYERS,
            "hidden": MOST_UNITS,
            "embedding": MOST_UNITS,
        }
        for name, most in limits.items():
            if getattr(task, name) > most:
                raise ValueError(f"{name} of a language model may be at most {most:,}, got {getattr(task, name):,}")
        check_entry(card["vocabulary"], task.vocabulary)

    @classmethod
    def task_of(cls, card: Mapping[str, Any]) -> TextTask:
        """How many symbols, layers and units, and whether the softmax is tied."""
        task = card["task"]
        sizes = {name: task[name] for name in ("vocabulary", "layers", "hidden", "embedding")}
        for name, value in sizes.items():
            if isinstance(value, bool) or not isinstance(value, int):
                raise ValueError(f"{name} must be a whole number, got {shown(value)}")
        if not isinstance(task["tied"], bool):
            raise ValueError(f"tied must be true or false, got {shown(task['tied'])}")
        if task["tied"] and task["embedding"] != task["hidden"]:
            raise ValueError(
                f"tied needs as large an embedding as hidden, got {task['embedding']!r} and {task['hidden']!r}"
            )
        return TextTask(**sizes, tied=task["tied"])

    @classmethod
    def from_card(cls, card: Mapping[str, Any], network: nn.Module, folder: Path) -> TextModel:
        """The model of a `model.json` that was checked, given its trained network and the vocabulary's folder."""
        assert isinstance(network, LanguageNetwork)
        return cls(
            name=card["name"],
            network=network,
            vocabulary=read_vocabulary(folder, card["vocabulary"]),
            space=card["space"],
            genotype=card["genotype"],
            architecture=card["architecture"],
            card=card["card"],
        )
