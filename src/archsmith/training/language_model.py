"""Trains a language model the way the paper trains a child (Zoph and Le 2017, section 4.2; Zaremba et al. 2014).

Two layers of the cell, as many hidden units as 20 million parameters allow, 35 epochs of stochastic gradient descent
through 35 steps at a time with the state carried on; the reward is 80 / perplexity^2. This file holds the settings;
`language_training` has the loop, `perplexity` the measure, `text` the data.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from archsmith.core import loaded
from archsmith.core.checks import plain_fields
from archsmith.core.child import AnyTask, Child, TextTask
from archsmith.core.errors import UnknownName, UsageError
from archsmith.core.evaluator import Context
from archsmith.core.finish import BITS_PER_CHARACTER, PERPLEXITY, Measure
from archsmith.core.genotype import Genotype
from archsmith.core.space import Space
from archsmith.core.trial import Result
from archsmith.rewards import scaled_perplexity
from archsmith.training.settings import located, number, whole

if TYPE_CHECKING:
    import torch

    from archsmith.data.text import Corpus

OPTIMIZERS = ("sgd", "adam")
PRECISIONS = ("auto", "fp32", "bf16")
_LEVELS = ("word", "char")
_DROPOUTS = ("embedding_dropout", "input_dropout", "dropout", "recurrent_dropout")


@dataclass(frozen=True)
class LanguageModel:
    """An evaluator: trains a child on a text and returns its perplexity on the validation part, epoch by epoch.

    The defaults are the paper's scale; `LanguageModel.desk()` has settings for a minute on one core. A child is
    `archsmith.nn.language.LanguageNetwork`, or any module that gives (scores [steps, batch, vocabulary], state) for
    (tokens [steps, batch], state or None), with a state of tensors in tuples, lists or dicts; one's own module has
    dropouts of its own, and is initialised here unless `initialisation` is None.

    The perplexity of a child is that of its best epoch, whose weights it is left with. Everything random comes from
    the context's seed: the same seed and threads give the same result in fp32 on a CPU, and the process's own random
    state is left as it was.

    Args:
        data: "ptb", "python-docs" (embedded: no download), or a path: a folder or archive with train.txt, valid.txt
            and test.txt, or one text file, split by position. See `archsmith.data.text.load`.
        level: "word" or "char".
        vocabulary: the most symbols, the rest becoming "<unk>"; None: all that occur.
        epochs: passes over the training text.
        batch_size: streams that the training text is cut into and read side by side.
        unroll: steps that gradients go back; the state is carried on beyond them.
        parameters: how many a child may have: its hidden units are solved for. Not used where `hidden` is given.
        hidden: units of each layer. None: as `parameters` allow.
        layers: recurrent layers.
        embedding: numbers of an embedded symbol. None: as many as hidden units.
        tied: whether the softmax uses the embedding's weights.
        learning_rate: at first; a child that decides its own overrides it.
        decay: what the learning rate is multiplied by after each epoch from `decay_after` on.
        decay_after: epochs at the first learning rate.
        clip: the largest norm of the gradients of all parameters together; None: no limit. The loss that they are
            of is summed over the steps and averaged over the streams, as Zaremba et al. have it.
        initialisation: parameters are drawn uniformly from minus this to this. None: as the child has them.
        embedding_dropout: of whole words of a stream.
        input_dropout: of embedded symbols.
        dropout: between the layers and before the softmax.
        recurrent_dropout: of h_{t-1}, one mask for all steps.
        variational: whether input_dropout and dropout use one mask for all steps too (Gal and Ghahramani 2016).
        optimizer: "sgd" or "adam".
        weight_decay: of all parameters.
        precision: "fp32", "bf16" (mixed, weights stay fp32) or "auto": bf16 where the processor computes in it.
        max_train, max_validation, max_test: the first so many symbols of each part; None: all.
        keep_weights: whether `evaluate` keeps the trained weights as an artifact of the trial.
    """

    data: str = "ptb"
    level: str = "word"
    vocabulary: int | None = 10_000
    epochs: int = 35
    batch_size: int = 20
    unroll: int = 35
    parameters: int = 20_000_000
    hidden: int | None = None
    layers: int = 2
    embedding: int | None = None
    tied: bool = False
    learning_rate: float = 1.0
    decay: float = 0.8
    decay_after: int = 6
    clip: float | None = 5.0
    initialisation: float | None = 0.05
    embedding_dropout: float = 0.0
    input_dropout: float = 0.5
    dropout: float = 0.5
    recurrent_dropout: float = 0.0
    variational: bool = False
    optimizer: str = "sgd"
    weight_decay: float = 0.0
    precision: str = "fp32"
    max_train: int | None = None
    max_validation: int | None = None
    max_test: int | None = None
    keep_weights: bool = False

    default_reward = staticmethod(scaled_perplexity)
    baseline_name = "LSTM"
    reported_metrics: ClassVar[tuple[str, ...]] = (
        "perplexity",
        "final_perplexity",
        "best_epoch",
        "loss",
        "parameters",
        "multiply_adds",
        "train_loss",
        "train_seconds",
    )

    def __post_init__(self) -> None:
        plain_fields(self)
        object.__setattr__(self, "data", located(str(self.data), _is_name))
        for name, least in (
            ("epochs", 1), ("batch_size", 1), ("unroll", 1), ("parameters", 1), ("layers", 1), ("decay_after", 0),
        ):  # fmt: skip
            whole(name, getattr(self, name), least)
        for name, least in (
            ("vocabulary", 3), ("hidden", 1), ("embedding", 1), ("max_train", 2), ("max_validation", 1), ("max_test", 1),
        ):  # fmt: skip
            if getattr(self, name) is not None:
                whole(name, getattr(self, name), least)
        number("learning_rate", self.learning_rate, 0, math.inf, "above 0", open_below=True)
        number("decay", self.decay, 0, 1 + 1e-12, "above 0, at most 1", open_below=True)
        number("weight_decay", self.weight_decay, 0, math.inf, "at least 0")
        for name in ("clip", "initialisation"):
            if getattr(self, name) is not None:
                number(name, getattr(self, name), 0, math.inf, "above 0, or None", open_below=True)
        for name in _DROPOUTS:
            number(name, getattr(self, name), 0, 1, "at least 0 and below 1")
        for name in ("tied", "variational", "keep_weights"):
            if not isinstance(getattr(self, name), bool):
                raise UsageError(f"{name} must be True or False, got {getattr(self, name)!r}")
        if self.tied and self.embedding is not None and self.embedding != self.hidden:
            raise UsageError(
                "with tied=True the embedding is as wide as the hidden units; leave embedding out, "
                f"got embedding={self.embedding} and hidden={self.hidden}"
            )
        for name, known in (("level", _LEVELS), ("optimizer", OPTIMIZERS), ("precision", PRECISIONS)):
            if getattr(self, name) not in known:
                raise UnknownName(name, str(getattr(self, name)), known)

    @classmethod
    def desk(
        cls, data: str = "python-docs", epochs: int = 8, level: str = "word", max_train: int | None = None
    ) -> LanguageModel:
        """Settings for short trainings of small children on one core; change others with `dataclasses.replace`."""
        return cls(
            data,
            level,
            epochs=epochs,
            parameters=400_000 if level == "word" else 200_000,
            layers=1,
            tied=level == "word",
            embedding=None if level == "word" else 32,
            decay=0.6,
            decay_after=max(1, epochs // 2),
            initialisation=0.1,
            input_dropout=0.1,
            dropout=0.1,
            precision="auto",
            max_train=max_train,
            max_validation=max_train,
        )

    # --- the data -----------------------------------------------------------------------------------------------------

    def corpus(self) -> Corpus:
        """The text, read once per process, no longer than asked for. Raises DataError and UnknownName as `text.load`."""
        whole = self._whole()
        return dataclasses.replace(
            whole,
            train=whole.train[: self.max_train],
            validation=whole.validation[: self.max_validation],
            test=whole.test[: self.max_test],
        )

    def loaded(self) -> dict[Hashable, Corpus]:
        """The text, for processes that may not see the files; see `archsmith.core.loaded`."""
        return {self._data_key: self._whole()}

    @property
    def _data_key(self) -> Hashable:
        return ("text", self.data, self.level, self.vocabulary)

    def _whole(self) -> Corpus:
        from archsmith.data import text

        given: Corpus | None = loaded.given(self._data_key)
        return given if given is not None else text.load(self.data, self.level, self.vocabulary)

    def fingerprint(self) -> str:
        """Identifies the content of the text and its parts, wherever the files lie."""
        corpus = self.corpus()
        parts = f"{len(corpus.train)} {len(corpus.validation)} {len(corpus.test)}"
        return f"{corpus.digest[:32]}-{hashlib.sha256(parts.encode()).hexdigest()[:16]}"

    def data_contents(self) -> Mapping[str, str]:
        """A short digest of each part of the text, by name."""
        return self._whole().contents

    def describe_data(self) -> dict[str, Any]:
        """Plain JSON of what the text is, for the record: counts, vocabulary, digest, remarks."""
        described = self.corpus().describe()
        there = self._whole().describe()
        parts = ("train", "validation", "test")
        if any(described[part] < there[part] for part in parts):
            counts = ", ".join(f"{there[part]:,} {part}" for part in parts)
            described["remarks"].append(f"those are the beginnings of the parts; the whole text has {counts}")
        return described

    def data_record(self) -> dict[str, Any]:
        """The facts that an export needs: the vocabulary."""
        corpus = self._whole()
        return {"symbols": list(corpus.vocabulary), "end": corpus.end}

    def recorded_data(self, record: Mapping[str, Any]) -> dict[Hashable, Corpus]:
        """An empty text with the recorded vocabulary."""
        import numpy as np

        from archsmith.data.text import Corpus

        if not {"symbols", "end"} <= record.keys():
            return {}
        none = np.empty(0, np.uint32)
        symbols, end = tuple(record["symbols"]), int(record["end"])
        return {self._data_key: Corpus(str(self.data), self.level, none, none, none, symbols, end, "", 0.0, "")}

    def task(self) -> TextTask:
        """What children are built for."""
        return TextTask(
            len(self.corpus().vocabulary),
            self.layers,
            hidden=self.hidden,
            parameters=None if self.hidden is not None else self.parameters,
            embedding=self.embedding,
            tied=self.tied,
        )

    def steps_per_epoch(self) -> int:
        """Times that the parameters change in an epoch."""
        return max(0, (len(self.corpus().train) // self.batch_size - 1) // self.unroll)

    @property
    def measure(self) -> Measure:
        """What children are compared by: perplexity of words, bits per character of characters."""
        return PERPLEXITY if self.level == "word" else BITS_PER_CHARACTER

    # --- training -----------------------------------------------------------------------------------------------------

    def evaluate(self, space: Space, genotype: Genotype, context: Context) -> Result:
        """Build the genotype's child from the context's seed, train it, and return its validation perplexity.

        Raises IllegalGenotype, Diverged when a loss becomes NaN or explodes, LimitExceeded, and DataError when the
        text is too short for the streams and steps.
        """
        from archsmith.training import language_training

        return language_training.evaluate(self, space, genotype, context)

    def train(self, child: Child, context: Context, *, all_data: bool = False) -> Result:
        """Train `child.model` in place; it is left in evaluation mode, on the context's device, with the weights of
        its best epoch.

        With `all_data` the validation text is learned from as well; the curve has no perplexity then, and the weights
        are those of the last epoch. Raises Diverged, LimitExceeded and DataError.
        """
        from archsmith.training import language_training

        return language_training.train(self, child, context, all_data=all_data)

    def test(self, model: torch.nn.Module, device: str = "cpu") -> dict[str, float]:
        """Perplexity, loss, bits and count on the test text, in fp32. To be looked at once, when all is chosen."""
        from archsmith.training import language_training

        return language_training.test(self, model, device)

    def baseline(self, parameters: int, task: AnyTask) -> torch.nn.Module:
        """The LSTM language model of that many parameters, or just below. Raises UsageError when one unit is more."""
        from archsmith.nn.cell_graph import lstm
        from archsmith.nn.language import language_network

        if not isinstance(task, TextTask):
            raise UsageError(f"an LSTM language model is for a text, and the task is a {type(task).__name__}")
        return language_network(lstm(), dataclasses.replace(task, hidden=None, parameters=parameters), bias=True)


def _is_name(name: str) -> bool:
    from archsmith.data.text import is_name

    return is_name(name)
