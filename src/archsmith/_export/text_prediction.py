"""Ask an exported language model: how well it foresees texts, and how it goes on with one."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from archsmith._export.opened import Opened, open_model
from archsmith._export.text_model import TextModel
from archsmith._export.vocabulary import WORD, Vocabulary
from archsmith.core.errors import DataError, Diverged, UsageError
from archsmith.core.finish import BITS_PER_CHARACTER, PERPLEXITY, Measure
from archsmith.core.global_state import generators_kept
from archsmith.data.text_files import WHOLE, read_texts
from archsmith.training.perplexity import mean_loss

STREAMS, STEPS = 20, 35  # how a text is read: of Zaremba et al. (2014), as the number on the card


@dataclass(frozen=True)
class Score:
    """How well a language model foresees a text.

    Args:
        path: the file.
        measure: what `value` is: perplexity of words, or bits per character.
        tokens: how many words (line ends included) or characters it has; each was foreseen once.
        unknown: how many of them are none of the vocabulary.
        value: the number, over all tokens; None when the file could not be read.
        error: why not, or None.
    """

    path: str
    measure: Measure
    tokens: int = 0
    unknown: int = 0
    value: float | None = None
    error: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "path": self.path,
            "tokens": self.tokens,
            "unknown": self.unknown,
            self.measure.name: self.value,
            "error": self.error,
        }

    def __str__(self) -> str:
        if self.value is None:
            return f"{self.path}: {self.error}"
        unknown = f", {self.unknown:,} of them unknown" if self.unknown else ""
        value = f"{self.measure.label} {self.measure.text(self.value)}"
        return f"{self.path}: {value} over {self.tokens:,} {self.measure.items}{unknown}"


def score(opened: Opened, paths: Sequence[str]) -> list[Score]:
    """A score of each text file, in their order."""
    vocabulary = opened.vocabulary
    assert vocabulary is not None
    measure = PERPLEXITY if vocabulary.level == WORD else BITS_PER_CHARACTER
    scores = []
    for path in paths:
        try:
            tokens = read_tokens(Path(path), vocabulary)
            loss = mean_loss(
                opened.network, tokens, vocabulary.end, batch_size=STREAMS, unroll=STEPS, device=torch.device("cpu")
            )
        except (DataError, Diverged) as error:
            scores.append(Score(path, measure, error=str(error).removeprefix(f"{path} ")))
            continue
        unknown = int((tokens == vocabulary.unknown).sum()) if vocabulary.unknown is not None else 0
        value = math.exp(loss) if measure is PERPLEXITY else loss / math.log(2)
        scores.append(Score(path, measure, len(tokens), unknown, value))
    return scores


@generators_kept()
def generate(
    model: str | os.PathLike[str] | TextModel,
    text: str,
    *,
    length: int = 100,
    temperature: float = 1.0,
    seed: int = 0,
    run_source: bool = False,
) -> str:
    """A text, and what a language model writes behind it; never "<unk>".

    Args:
        model: what `export` wrote, as for `predict`, or what `load` gives.
        text: what stands before, prepared as the training text was; it may be empty.
        length: how many words or characters to write.
        temperature: scores are divided by it before one is drawn: below 1 is more sober, above 1 wilder; 0 takes the
            likeliest each time.
        seed: of the draws; the same one gives the same text.
        run_source: as for `predict`.

    Raises UsageError when the model reads no text, or the text has a symbol that the model cannot read.
    """
    if isinstance(length, bool) or not isinstance(length, int) or length < 1:
        raise UsageError(f"length must be a whole number of at least 1, got {length!r}")
    if isinstance(temperature, bool) or not isinstance(temperature, int | float) or not 0 <= temperature < math.inf:
        raise UsageError(f"temperature must be a number of at least 0, got {temperature!r}")
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise UsageError(f"seed must be a whole number of at least 0, got {seed!r}")
    network, vocabulary = _of_text(model, run_source)
    draws = torch.Generator().manual_seed(seed)
    given = np.concatenate([[vocabulary.end], vocabulary.encode(text)])
    written: list[int] = []
    with torch.inference_mode():
        scores, state = network(torch.from_numpy(given)[:, None])
        while True:
            last = scores[-1, 0].double()
            if not last.isfinite().all():
                raise UsageError(
                    "the model's scores are no numbers: its weights are damaged, or it diverged in training"
                )
            if vocabulary.unknown is not None:
                last[vocabulary.unknown] = -math.inf
            if temperature > 0:
                sharper = (last - last.max()) / temperature  # which no temperature above 0 makes infinite
                chosen = int(torch.multinomial(sharper.softmax(0), 1, generator=draws))
            else:
                chosen = int(last.argmax())
            written.append(chosen)
            if len(written) == length:
                return vocabulary.joined(text, written)
            scores, state = network(torch.tensor([[chosen]]), state)


def _of_text(model: str | os.PathLike[str] | TextModel, run_source: bool) -> tuple[nn.Module, Vocabulary]:
    if isinstance(model, TextModel):
        return model.network, model.vocabulary
    opened = open_model(Path(model), run_source=run_source)
    if opened.vocabulary is None:
        raise UsageError(f"{os.fspath(model)} is a model of {opened.takes}, which goes on with no text")
    return opened.network, opened.vocabulary


def read_tokens(path: Path, vocabulary: Vocabulary) -> NDArray[np.uint32]:
    """The tokens of a text file. Raises DataError when it cannot be read."""
    if path.is_dir():
        raise DataError(f"{path} is a folder; give text files")
    words = vocabulary.level == WORD
    found: list[NDArray[np.uint32]] = []
    ended = True
    for part, _, pieces in read_texts(path, words=words):
        if part != WHOLE:
            raise DataError(f"{path} has several texts; give one text file")
        for piece in pieces:
            try:
                found.append(vocabulary.encode(_stripped(piece) if vocabulary.underscores else piece).astype(np.uint32))
            except UsageError as error:
                raise DataError(f"{path} cannot be read: {error}") from None
            ended = piece.endswith("\n")
    if words and not ended:
        found.append(vocabulary.encode("\n").astype(np.uint32))
    tokens = np.concatenate(found) if found else np.empty(0, np.uint32)
    if not len(tokens):
        raise DataError(f"{path} is empty")
    return tokens


def _stripped(piece: str) -> str:
    """Lines without white space at their ends, as Mikolov made characters of the Penn Treebank's words."""
    return "\n".join(line.strip(" ") for line in piece.split("\n"))
