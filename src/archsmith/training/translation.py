"""Trains a translator the way GNMT is trained (Wu et al. 2016, section 8; Zoph and Le 2017, section 4.2).

Adam first, then stochastic gradient descent whose rate is halved; dropout of what each layer reads; the gradient's norm
clipped. BLEU is counted by sacrebleu on plain sentences, so that it can be compared with anyone's. This file holds the
settings; `translation_training` has the loop and `parallel_text` the reading.
"""

from __future__ import annotations

import math
import os
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from archsmith.core.checks import plain_fields
from archsmith.core.child import Child, TranslationTask
from archsmith.core.errors import UnknownName, UsageError
from archsmith.core.evaluator import Context
from archsmith.core.finish import BLEU, Measure
from archsmith.core.genotype import Genotype
from archsmith.core.space import Space
from archsmith.core.trial import Result
from archsmith.rewards import bleu
from archsmith.training.settings import number, whole

if TYPE_CHECKING:
    import torch

    from archsmith.training.translation_training import Corpus

SCHEDULES = ("constant", "cosine")


@dataclass(frozen=True)
class Translation:
    """An evaluator: trains a translator on pairs of sentences and returns its validation BLEU, epoch by epoch.

    The defaults are GNMT's scale for WMT'14 English to German; `Translation.desk()` has settings for minutes on two
    cores. Everything random comes from the context's seed: the same seed and threads give the same result to the bit on
    a CPU, and the process's own random state is left as it was. Needs sacrebleu: pip install 'archsmith[translation]'.

    Args:
        data: "multi30k"; a folder with train.en and train.de (as `source` and `target` are called), where there are any
            also valid, val or dev and test, each plain or .gz; or the paths of two files, aligned line by line. Without
            test sentences a seeded fifth is held out, without validation sentences the part that `validation` says, no
            more than 3,000 pairs each.
        source, target: the languages, as the files' names end.
        epochs: passes over the training pairs.
        steps: batches after which training ends in any case; None: no other end than the epochs.
        batch_size: pairs a step, of about equal length.
        layers: recurrent layers of the encoder, and of the decoder.
        hidden: units of each layer; None: as many as `parameters` allow.
        parameters: the most the whole model may have; give either.
        embedding: numbers of an embedded word; None: as many as hidden units.
        learning_rate: Adam's; a child that decides its own overrides it.
        schedule: of Adam's rate over all epochs: "constant" or "cosine" (to zero).
        adam_steps: batches after which SGD goes on; None: Adam to the end.
        sgd_learning_rate: where SGD begins.
        halve_from, halve_every: SGD's rate is halved at that step and each so many after, down to a fifth.
        dropout: of what every recurrent layer and the softmax read.
        label_smoothing: how much of the target is spread over all words.
        clip: the most that the gradient's norm may be.
        initialisation: parameters are drawn uniformly between this and its negative; None: as the modules draw them.
        source_words, target_words: the most words of each vocabulary, chosen by frequency in the training sentences.
        min_count: how often a word must occur in them.
        max_length: training pairs with a longer side are left out; words and marks are counted.
        max_train: how many pairs to learn from, drawn before any other choice; None: all.
        validation: the part of the training pairs that is held out where there is no file of validation sentences.
        split_seed: chooses those, and those of `max_train`.
        keep_best: whether the weights of the epoch with the lowest validation perplexity are kept, not the last.
        beam: hypotheses of the beam search on the test set; validation is greedy.
        length_normalisation, coverage_penalty: GNMT's alpha and beta in that beam search.
        keep_weights: whether `evaluate` keeps the trained weights as an artifact of the trial.
    """

    data: str | tuple[str, str] = "multi30k"
    source: str = "en"
    target: str = "de"
    epochs: int = 23
    steps: int | None = 800_000
    batch_size: int = 128
    layers: int = 8
    hidden: int | None = 1024
    parameters: int | None = None
    embedding: int | None = None
    learning_rate: float = 2e-4
    schedule: str = "constant"
    adam_steps: int | None = 60_000
    sgd_learning_rate: float = 0.5
    halve_from: int = 400_000
    halve_every: int = 100_000
    dropout: float = 0.2
    label_smoothing: float = 0.0
    clip: float = 5.0
    initialisation: float | None = 0.04
    source_words: int = 80_000
    target_words: int = 80_000
    min_count: int = 2
    max_length: int = 50
    max_train: int | None = None
    validation: float = 0.1
    split_seed: int = 0
    keep_best: bool = True
    beam: int = 10
    length_normalisation: float = 0.2
    coverage_penalty: float = 0.2
    keep_weights: bool = False

    measure: ClassVar[Measure] = BLEU
    baseline_name: ClassVar[str] = "LSTM"
    default_reward = staticmethod(bleu)
    reported_metrics: ClassVar[tuple[str, ...]] = (
        "bleu",
        "perplexity",
        "best_epoch",
        "loss",
        "parameters",
        "multiply_adds",
        "steps",
        "train_loss",
        "train_seconds",
    )

    def __post_init__(self) -> None:
        plain_fields(self)
        object.__setattr__(self, "data", _located(self.data))
        for name, least in (("epochs", 1), ("batch_size", 1), ("layers", 1), ("source_words", 1), ("target_words", 1)):
            whole(name, getattr(self, name), least)
        for name, least in (("halve_from", 1), ("halve_every", 1), ("min_count", 1), ("max_length", 1), ("beam", 1)):
            whole(name, getattr(self, name), least)
        whole("split_seed", self.split_seed, 0)
        for name in ("steps", "hidden", "parameters", "embedding", "adam_steps", "max_train"):
            if getattr(self, name) is not None:
                whole(name, getattr(self, name), 1)
        if (self.hidden is None) == (self.parameters is None):
            raise UsageError(
                f"give Translation either hidden or parameters, got hidden={self.hidden} and parameters={self.parameters}"
            )
        for name in (
            "learning_rate",
            "sgd_learning_rate",
            "clip",
            *(("initialisation",) * (self.initialisation is not None)),
        ):
            number(name, getattr(self, name), 0, math.inf, "above 0", open_below=True)
        for name in ("dropout", "label_smoothing"):
            number(name, getattr(self, name), 0, 1, "at least 0 and below 1")
        number("validation", self.validation, 0, 1, "above 0 and below 1", open_below=True)
        for name in ("length_normalisation", "coverage_penalty"):
            number(name, getattr(self, name), 0, math.inf, "at least 0")
        if self.schedule not in SCHEDULES:
            raise UnknownName("learning-rate schedule", str(self.schedule), SCHEDULES)

    @classmethod
    def desk(
        cls, data: str | tuple[str, str] = "multi30k", epochs: int = 5, max_train: int | None = None
    ) -> Translation:
        """One layer each way of about two and a half million parameters, and Adam alone: minutes on a core. Change
        others with `dataclasses.replace`.

        One layer, as hardly any of the context passes through a second one before it is trained for long.
        """
        return cls(
            data,
            epochs=epochs,
            steps=None,
            batch_size=32,
            layers=1,
            hidden=None,
            parameters=2_500_000,
            embedding=96,
            learning_rate=4e-3,
            schedule="cosine",
            adam_steps=None,
            initialisation=0.3,  # of so few units, or hardly any of a sentence reaches the softmax at first
            source_words=4_000,
            target_words=4_000,
            max_train=max_train,
            beam=4,
            length_normalisation=0.6,
            coverage_penalty=0.0,
        )

    # --- the data -----------------------------------------------------------------------------------------------------

    def corpus(self) -> Corpus:
        """The pairs as symbols, read once per process. Raises DataError and UnknownName as `parallel_text.read` does."""
        from archsmith.training import translation_training

        return translation_training.corpus(self)

    def loaded(self) -> dict[Hashable, Corpus]:
        """The pairs, for processes that may not see the files; see `archsmith.core.loaded`."""
        from archsmith.training import translation_training

        return {translation_training.data_key(self): self.corpus()}

    def fingerprint(self) -> str:
        """Identifies the sentences and their splits, wherever the files lie."""
        return self.corpus().fingerprint

    def data_contents(self) -> Mapping[str, str]:
        """A short digest of the sentences of each part in each language, by name."""
        return self.corpus().text.contents

    def describe_data(self) -> dict[str, Any]:
        """Plain JSON of what the data are, for the record: counts, vocabularies, digests, what was left out."""
        return self.corpus().describe()

    def task(self) -> TranslationTask:
        """What children are built for."""
        words = self.corpus().words
        return TranslationTask(len(words[0]), len(words[1]), self.layers, self.hidden, self.parameters, self.embedding)

    @property
    def reported_epochs(self) -> int:
        """How many epochs a training has, the last of which may be cut short by `steps`."""
        if self.steps is None:
            return self.epochs
        batches = -(-len(self.corpus().train[0]) // self.batch_size)
        return min(self.epochs, -(-self.steps // batches))

    def mean_lengths(self) -> tuple[float, float]:
        """Symbols of a training sentence on average, END included, in the source and in the target."""
        source, target = self.corpus().train
        return float(source.lengths.mean()), float(target.lengths.mean())

    def baseline(self, parameters: int, task: TranslationTask) -> torch.nn.Module:
        """The LSTM translator of at most so many parameters (with a bias, as LSTMs have), otherwise as the task says."""
        from archsmith.nn.cell_graph import lstm
        from archsmith.nn.translation import translator

        return translator(lstm(), replace(task, hidden=None, parameters=parameters), bias=True)

    # --- training -----------------------------------------------------------------------------------------------------

    def evaluate(self, space: Space, genotype: Genotype, context: Context) -> Result:
        """Build the genotype's child from the context's seed, train it, and return its validation BLEU.

        Raises IllegalGenotype, Diverged when a loss becomes NaN or infinite, and LimitExceeded.
        """
        from archsmith.training import translation_training

        return translation_training.evaluate(self, space, genotype, context)

    def train(self, child: Child, context: Context, *, all_data: bool = False) -> Result:
        """Train `child.model`, a `nn.translation.Translator`, in place; it is left in evaluation mode, on the context's
        device.

        With `all_data` the validation pairs are learned from as well, and the curve has no validation BLEU.
        Raises UsageError without sacrebleu, Diverged and LimitExceeded.
        """
        from archsmith.training import translation_training

        return translation_training.train(self, child, context, all_data=all_data)

    def test(self, model: torch.nn.Module, device: str = "cpu") -> dict[str, float]:
        """BLEU (0 to 100), perplexity, loss and count of the test pairs. To be looked at once, when all choices are made."""
        from archsmith.training import translation_training

        return translation_training.test(self, model, device)

    def translate(self, model: torch.nn.Module, sentences: Sequence[str], device: str = "cpu") -> list[str]:
        """Translations of plain sentences, by beam search. A word outside the vocabulary becomes the source's word that
        the attention looked at (Luong et al. 2015)."""
        from archsmith.training import translation_training

        return translation_training.translate(self, model, sentences, device)

    def bleu_signature(self) -> str:
        """How sacrebleu counts, in its own words, to be quoted beside a BLEU."""
        from archsmith.training import translation_training

        return translation_training.signature()


def _located(data: object) -> str | tuple[str, str]:
    """Paths that are there as absolute ones, so that a run may go on in another folder; "A,B" as two files."""
    if isinstance(data, str) and data.count(",") == 1 and not os.path.exists(os.path.expanduser(data)):
        data = tuple(part.strip() for part in data.split(","))
    parts = [data] if isinstance(data, str) else data
    if not isinstance(parts, list | tuple) or not all(
        isinstance(p, str | os.PathLike) and str(p).strip() for p in parts
    ):
        raise UsageError(f"data must be 'multi30k', a folder, or the paths of two aligned files, got {data!r}")
    found = [os.path.expanduser(str(p)) for p in parts]
    if isinstance(data, str):
        there = data.strip().lower() != "multi30k" and os.path.exists(found[0])
        return os.path.abspath(found[0]) if there else data
    if len(found) != 2:
        raise UsageError(f"data must be one folder or two aligned files, got {len(found)} paths")
    return os.path.abspath(found[0]), os.path.abspath(found[1])
