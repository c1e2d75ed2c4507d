"""What a cell is carried over to, at which scale (Zoph and Le 2017, section 4.2)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from archsmith.core.errors import UnknownName, UsageError
from archsmith.core.finish import Finishable
from archsmith.training import LanguageModel, Translation

TARGETS = ("chars", "translation")
SCALES = ("desk", "paper", "paper-large")
_PTB_CHARACTERS = 5_017_482  # of the training text: the paper counts steps, and evaluators epochs


def evaluator_for(to: str, scale: str, data: str | None, epochs: int | None) -> Finishable:
    """The evaluator of a transfer.

    Args:
        to: "chars" or "translation".
        scale: "desk": minutes on two cores. "paper": the paper's; of characters the small model, 6.57 million
            parameters and 80,000 steps, of translation GNMT. "paper-large": of characters the large model.
        data: a data set; None: the embedded Python text (desk) or the Penn Treebank for characters, Multi30k for
            translation.
        epochs: in place of the scale's own.

    Raises UnknownName for another target or scale.
    """
    if to not in TARGETS:
        raise UnknownName("target of a transfer", str(to), TARGETS)
    if scale not in SCALES:
        raise UnknownName("scale", str(scale), SCALES)
    changed: dict[str, Any] = {} if epochs is None else {"epochs": epochs}
    if to == "chars":
        if scale == "desk":
            return _few_characters("python-docs" if data is None else data, 8 if epochs is None else epochs)
        return replace(_characters(scale, "ptb" if data is None else data), **changed)
    if scale == "paper-large":
        raise UsageError("translation has one paper scale, GNMT's: scale='paper'")
    chosen = "multi30k" if data is None else data
    return replace(Translation.desk(chosen) if scale == "desk" else Translation(chosen), **changed)


def _few_characters(data: str, epochs: int) -> LanguageModel:
    """The desk settings of a character model with the optimizer of the paper's transfer, Adam, halved in the second half,
    and a wider initialisation: of so few units, a cell of many products passes hardly anything on at first."""
    desk = LanguageModel.desk(data, epochs, level="char")
    return replace(desk, optimizer="adam", learning_rate=4e-3, decay=0.5, initialisation=0.3)


def _characters(scale: str, data: str) -> LanguageModel:
    """The two character models of the paper. What it leaves open is ours: for the small one the batch, the unrolling
    and the clipping of Ha et al. (2016), whose setup it follows, and a tenth dropped, by one mask for all steps; for the
    large one, which of input and hidden layers drops a fifth and which a half. Epochs give the published steps on the
    Penn Treebank."""
    shared = LanguageModel(
        data,
        "char",
        vocabulary=None,
        embedding=128,
        unroll=100,
        optimizer="adam",
        learning_rate=1e-3,
        decay=1.0,
        variational=True,
    )
    if scale == "paper":
        steps_an_epoch = _PTB_CHARACTERS // (128 * 100)
        return replace(
            shared,
            parameters=6_570_000,
            batch_size=128,
            epochs=round(80_000 / steps_an_epoch),
            clip=1.0,
            input_dropout=0.1,
            dropout=0.1,
            recurrent_dropout=0.1,
        )
    return replace(
        shared,
        hidden=800,
        batch_size=32,
        epochs=round(600_000 / (_PTB_CHARACTERS // (32 * 100))),
        weight_decay=1e-4,
        input_dropout=0.2,
        dropout=0.5,
    )


def steps_of(evaluator: Any) -> tuple[int, int]:
    """Batches of an epoch, and of a whole training."""
    corpus = evaluator.corpus()
    if isinstance(evaluator, Translation):
        each = -(-len(corpus.train[0]) // evaluator.batch_size)
        most = each * evaluator.epochs
        return each, most if evaluator.steps is None else min(most, evaluator.steps)
    each = max(1, evaluator.steps_per_epoch())
    return each, each * evaluator.epochs
