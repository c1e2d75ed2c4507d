"""The training loop of `Translation`: batches of pairs of about equal length, whole sequences at a time."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from archsmith.core import loaded
from archsmith.core.child import Child
from archsmith.core.errors import ChildFailed, DataError, UsageError
from archsmith.core.evaluator import Context
from archsmith.core.executor import derive_seed
from archsmith.core.genotype import Genotype
from archsmith.core.space import Space, build
from archsmith.core.special_tokens import BEGIN, PADDING, UNKNOWN
from archsmith.core.trial import Cost, Result
from archsmith.data import parallel_text
from archsmith.data.file_versions import version
from archsmith.data.parallel_text import ParallelText, Sentences, Vocabulary
from archsmith.nn.beam_search import beam_search
from archsmith.nn.language import initialise
from archsmith.nn.translation import Translator
from archsmith.training.isolation import check_parameters, seeded
from archsmith.training.perplexity import believable
from archsmith.training.resuming import Checkpoint, load_checkpoint, save_checkpoint

if TYPE_CHECKING:
    from archsmith.training.translation import Translation

_DECODED = 128  # sentences that are decoded side by side
_CHECK_EVERY = 16  # batches between looks at the loss: on a GPU every look waits for it
_POOLED = 64  # batches that are sorted by length together: the more, the less padding, and the less random
_SGD_FLOOR = 0.2  # of its first rate: GNMT's 0.5 is halved "until 0.1"

Pairs = tuple[Sentences, Sentences]


@dataclass(frozen=True, eq=False)
class Corpus:
    """The pairs of a configuration as symbols.

    Args:
        text: the sentences themselves.
        words: the two vocabularies.
        train, validation, test: the pairs as symbols; `train` without those that are too long.
        languages: source and target.
    """

    text: ParallelText
    words: tuple[Vocabulary, Vocabulary]
    train: Pairs
    validation: Pairs
    test: Pairs
    languages: tuple[str, str]

    @property
    def fingerprint(self) -> str:
        """What identifies the sentences and their splits."""
        return self.text.digest[:48]

    def describe(self) -> dict[str, Any]:
        """Plain JSON of what the data are."""
        source, target = self.languages
        return parallel_text.description(self.text, source, target, self.words, len(self.train[0]))


def corpus(config: Translation) -> Corpus:
    """See `Translation.corpus`."""
    given: Corpus | None = loaded.given(data_key(config))
    if given is not None:
        return given
    versions = tuple(version(path, nested=False) for path in parallel_text.paths(config.data))
    return _corpus(
        config.data,
        config.source,
        config.target,
        config.validation,
        config.split_seed,
        config.max_train,
        (config.source_words, config.target_words),
        config.min_count,
        config.max_length,
        versions,
    )


def data_key(config: Translation) -> Hashable:
    """What `corpus` depends on, beside the files' content."""
    sizes = (config.max_train, config.source_words, config.target_words, config.min_count, config.max_length)
    return ("pairs", config.data, config.source, config.target, config.validation, config.split_seed, *sizes)


@functools.lru_cache(maxsize=4)
def _corpus(
    data: str | tuple[str, str],
    source: str,
    target: str,
    validation: float,
    seed: int,
    max_train: int | None,
    most_words: tuple[int, int],
    min_count: int,
    max_length: int,
    versions: tuple[int, ...],
) -> Corpus:
    text = parallel_text.read(data, source, target, validation, seed)
    lines = parallel_text.some(text.train, max_train, seed)
    words = (
        parallel_text.vocabulary(lines[0], most_words[0], min_count, source),
        parallel_text.vocabulary(lines[1], most_words[1], min_count, target),
    )

    def as_symbols(part: parallel_text.Pair) -> Pairs:
        return parallel_text.encoded(part[0], words[0]), parallel_text.encoded(part[1], words[1])

    every = as_symbols(lines)
    short = [side.lengths <= max_length + 1 for side in every]  # END is one more
    kept = np.flatnonzero(short[0] & short[1])
    if not len(kept):
        raise DataError(f"every training pair of {text.name} is longer than max_length={max_length} words; allow more")
    train = (every[0].of(kept), every[1].of(kept))
    return Corpus(text, words, train, as_symbols(text.validation), as_symbols(text.test), (source, target))


def evaluate(config: Translation, space: Space, genotype: Genotype, context: Context) -> Result:
    """See `Translation.evaluate`."""
    with seeded(context, "init"):
        child = build(space, genotype, config.task())
        result = train(config, child, context)
        if not config.keep_weights or context.paused:
            return result
        weights = {k: v.detach().cpu().contiguous() for k, v in child.model.state_dict().items()}
        return Result(result.metrics, result.curve, result.cost, artifact=context.checkpoint(weights))


def train(config: Translation, child: Child, context: Context, *, all_data: bool = False) -> Result:
    """See `Translation.train`."""
    signature()  # before hours of training, not after
    data, model = config.corpus(), _translator(child.model)
    parameters = check_parameters(context, model)
    seed = derive_seed(context.seed, "train")
    with seeded(context, "train"):
        if config.initialisation is not None:
            initialise(model, config.initialisation)
        model.to(context.device)
        checkpoint = load_checkpoint(context)
        before = (0, 0.0) if checkpoint is None else (len(checkpoint.extra["curve"]), checkpoint.extra["seconds"])
        try:
            curve, steps, seconds = _fit(config, child, model, data, context, seed, all_data, checkpoint)
        finally:
            model.dropout = 0.0
            model.eval()
    metrics: dict[str, float] = {"parameters": parameters}
    metrics["multiply_adds"] = model.multiply_adds(*config.mean_lengths())
    metrics |= {"train_seconds": before[1] + seconds, "steps": steps, "train_loss": curve[-1]["train_loss"]}
    if not all_data:
        kept = min(curve, key=lambda row: row["perplexity"]) if config.keep_best else curve[-1]
        metrics |= {name: kept[name] for name in ("bleu", "perplexity", "loss")} | {"best_epoch": kept["epoch"]}
    if child.learning_rate is not None:
        metrics["learning_rate"] = child.learning_rate
    return Result(metrics, curve[before[0] :], Cost(seconds=seconds, epochs=len(curve) - before[0]))


def test(config: Translation, model: nn.Module, device: str) -> dict[str, float]:
    """See `Translation.test`."""
    data, network = config.corpus(), _translator(model).to(device)
    loss = _loss(network, data.test, config.batch_size, None)
    found = _translated(config, network, data.text.test[0], greedily=False, context=None)
    words = float(data.test[1].lengths.sum())
    return {
        "bleu": bleu_of(found, data.text.test[1]),
        "perplexity": math.exp(loss),
        "loss": loss,
        "count": float(len(found)),
        "words": words,
    }


def translate(config: Translation, model: nn.Module, sentences: Sequence[str], device: str) -> list[str]:
    """See `Translation.translate`."""
    return _translated(config, _translator(model).to(device), sentences, greedily=False, context=None)


# --- the loop ---------------------------------------------------------------------------------------------------------


def _fit(
    config: Translation,
    child: Child,
    model: Translator,
    data: Corpus,
    context: Context,
    seed: int,
    all_data: bool,
    checkpoint: Checkpoint | None,
) -> tuple[list[dict[str, float]], int, float]:
    """The curve, the steps, and the seconds of what was trained now; `checkpoint` is where to go on from."""
    pairs = data.train
    if all_data:
        pairs = (pairs[0].and_then(data.validation[0]), pairs[1].and_then(data.validation[1]))
    batches = math.ceil(len(pairs[0]) / config.batch_size)
    total_steps = config.epochs * batches
    if config.steps is not None:
        total_steps = min(total_steps, config.steps)
    model.dropout = config.dropout
    peak = config.learning_rate if child.learning_rate is None else child.learning_rate
    make = child.optimizer or functools.partial(torch.optim.Adam, fused=True)
    optimizer = make(model.parameters(), peak)
    peaks = [float(group["lr"]) for group in optimizer.param_groups]
    draws = torch.Generator().manual_seed(seed)  # on the CPU, so that every device sees the same batches
    began = time.perf_counter()
    curve: list[dict[str, float]] = []
    best: dict[str, Tensor] = {}
    lowest, step = math.inf, 0
    if checkpoint is not None:
        curve, step, lowest, best = (checkpoint.extra[name] for name in ("curve", "step", "lowest", "best"))
        if config.adam_steps is not None and step > config.adam_steps and child.optimizer is None:
            optimizer, peaks = torch.optim.SGD(model.parameters(), config.sgd_learning_rate), [config.sgd_learning_rate]
        checkpoint.restore(model, optimizer, draws)

    while step < total_steps:
        epoch, epoch_began = len(curve) + 1, time.perf_counter()
        model.train()
        total, words = torch.zeros((), device=context.device), 0
        for rows in _batches(pairs, config.batch_size, draws):
            if step == total_steps:
                break
            context.check()
            if step == config.adam_steps and child.optimizer is None:
                optimizer = torch.optim.SGD(model.parameters(), config.sgd_learning_rate)
                peaks = [config.sgd_learning_rate]
            factor = _factor(config, step, total_steps, isinstance(optimizer, torch.optim.SGD) and not child.optimizer)
            for group, value in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = value * factor
            loss, count = _sum_of_losses(model, pairs, rows, config.label_smoothing)
            optimizer.zero_grad(set_to_none=True)
            (loss / count).backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), config.clip)
            optimizer.step()
            total += loss.detach()
            words += count
            step += 1
            if step % _CHECK_EVERY == 0 or step == total_steps:
                believable(float(total) / words, f"the training loss in epoch {epoch}")
        train_loss = believable(float(total) / words, f"the training loss in epoch {epoch}")
        row = {"epoch": epoch, "train_loss": train_loss, "learning_rate": peaks[0] * factor}
        if not all_data:
            row["loss"] = _loss(model, data.validation, config.batch_size, context)
            row["perplexity"] = math.exp(row["loss"])
            found = _translated(config, model, data.text.validation[0], greedily=True, context=context)
            row["bleu"] = bleu_of(found, data.text.validation[1])
            if config.keep_best and row["loss"] < lowest:
                lowest = row["loss"]
                best = {name: value.detach().clone() for name, value in model.state_dict().items()}
        row["seconds"] = time.perf_counter() - epoch_began
        curve.append(row)
        if not context.report(epoch, {k: v for k, v in row.items() if k != "epoch"}):
            break
    seconds = time.perf_counter() - began
    spent = seconds + (0.0 if checkpoint is None else checkpoint.extra["seconds"])
    counted = {"curve": curve, "step": step, "lowest": lowest, "best": best, "seconds": spent}
    save_checkpoint(context, model, optimizer, draws, extra=counted)
    if best:
        model.load_state_dict(best)
    return curve, step, seconds


def _factor(config: Translation, step: int, total_steps: int, sgd: bool) -> float:
    """The learning rate over its peak at a step, counted from 0."""
    if sgd:
        halvings = max(0, step - config.halve_from) // config.halve_every + (step >= config.halve_from)
        return max(0.5**halvings, _SGD_FLOOR)
    if config.schedule == "cosine":
        last = total_steps if config.adam_steps is None else min(total_steps, config.adam_steps)
        return 0.5 * (1 + math.cos(math.pi * step / last))
    return 1.0


def _batches(pairs: Pairs, size: int, draws: torch.Generator) -> Iterator[NDArray[np.int64]]:
    """The rows of each batch of an epoch, in random order; those of a batch are of about equal length."""
    order = torch.randperm(len(pairs[0]), generator=draws).numpy()
    by_length = (pairs[0].lengths, pairs[1].lengths)
    batches: list[NDArray[np.int64]] = []
    for pool in np.array_split(order, math.ceil(len(order) / (size * _POOLED))):
        ranked = pool[np.lexsort((by_length[0][pool], by_length[1][pool]))]
        batches += np.array_split(ranked, math.ceil(len(ranked) / size))
    for k in torch.randperm(len(batches), generator=draws).tolist():
        yield batches[k]


def _sum_of_losses(
    model: Translator, pairs: Pairs, rows: NDArray[np.int64], smoothing: float = 0.0
) -> tuple[Tensor, int]:
    """The summed cross-entropy of the true words and of END, in nats, and how many those are."""
    device = model.softmax.weight.device
    source, lengths = padded([pairs[0][k] for k in rows])
    target, _ = padded([pairs[1][k] for k in rows])
    begin = torch.full((1, len(rows)), BEGIN)
    read, said = torch.cat((begin, target[:-1])).to(device), target.to(device)
    features = model.features(source.to(device), lengths, read)
    true = said != PADDING  # only what is no padding goes through the softmax, the largest product of all
    scores = model.softmax(features[true])
    loss = F.cross_entropy(scores, said[true], reduction="sum", label_smoothing=smoothing)
    return loss, int(pairs[1].lengths[rows].sum())


@torch.inference_mode()
def _loss(model: Translator, pairs: Pairs, size: int, context: Context | None) -> float:
    """The mean cross-entropy of every true word and END, in nats; the model is in evaluation mode afterwards."""
    model.eval()
    total = 0.0
    ranked = np.argsort(pairs[1].lengths, kind="stable")
    for rows in np.array_split(ranked, math.ceil(len(ranked) / size)):
        if context is not None:
            context.check()
        total += float(_sum_of_losses(model, pairs, rows)[0])
    return believable(total / float(pairs[1].lengths.sum()), "the loss on held-out pairs")


def padded(rows: Sequence[NDArray[np.int32]]) -> tuple[Tensor, Tensor]:
    """Sentences as columns of int64, padding behind them, and their lengths."""
    lengths = torch.tensor([len(row) for row in rows])
    columns = np.full((int(lengths.max()), len(rows)), PADDING, dtype=np.int64)
    for k, row in enumerate(rows):
        columns[: len(row), k] = row
    return torch.from_numpy(columns), lengths


def _translator(model: nn.Module) -> Translator:
    if not isinstance(model, Translator):
        raise ChildFailed(
            f"Translation trains a Translator, such as RecurrentCell builds for its task, got {type(model).__name__}"
        )
    return model


# --- sentences and BLEU -----------------------------------------------------------------------------------------------


def _translated(
    config: Translation, model: Translator, sentences: Sequence[str], *, greedily: bool, context: Context | None
) -> list[str]:
    """Plain translations, in the order of the sentences; of one without words, nothing."""
    source, target = config.corpus().words
    device = model.softmax.weight.device
    read = [parallel_text.tokens(s) for s in sentences]
    symbols = [np.array(source.encode(s), dtype=np.int32) for s in sentences]
    found = [""] * len(sentences)
    order = sorted((k for k in range(len(sentences)) if read[k]), key=lambda k: len(symbols[k]))
    for first in range(0, len(order), _DECODED):
        if context is not None:
            context.check()
        part = order[first : first + _DECODED]
        columns, lengths = padded([symbols[k] for k in part])
        hypotheses = beam_search(
            model,
            columns.to(device),
            lengths,
            limits=[2 * int(n) + 8 for n in lengths],
            width=1 if greedily else config.beam,
            alpha=0.0 if greedily else config.length_normalisation,
            beta=0.0 if greedily else config.coverage_penalty,
        )
        for k, said in zip(part, hypotheses, strict=True):
            words = []
            for symbol, position in zip(said.symbols, said.sources, strict=True):
                known = symbol > UNKNOWN
                copied = read[k][position] if position < len(read[k]) else ""  # END stands behind the words
                words.append(target.words[symbol - UNKNOWN - 1] if known else copied)
            found[k] = parallel_text.text_of(word for word in words if word)
    return found


def bleu_of(found: Sequence[str], true: Sequence[str]) -> float:
    """Corpus BLEU of plain sentences, 0 to 100, as sacrebleu counts it by default."""
    return float(_sacrebleu().corpus_score(list(found), [list(true)]).score)


def signature() -> str:
    """See `Translation.bleu_signature`. Raises UsageError where sacrebleu is missing."""
    metric = _sacrebleu()
    metric.corpus_score(["a"], [["a"]])  # it does not know the number of references before
    return str(metric.get_signature())


def _sacrebleu() -> Any:
    try:
        from sacrebleu.metrics.bleu import BLEU
    except ImportError:
        raise UsageError("translation counts BLEU with sacrebleu: pip install 'archsmith[translation]'") from None
    return BLEU()
