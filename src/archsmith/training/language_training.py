"""The training loop of `LanguageModel`: truncated backpropagation through time with the state carried on.

The text is cut into `batch_size` streams of equal length, read side by side, `unroll` steps at a time; what does not
fill the last steps is left out, as Zaremba et al. (2014) have it: 1,327 times 35 steps of 20 streams of the Penn
Treebank.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from archsmith.core.child import Child
from archsmith.core.errors import ChildFailed, DataError
from archsmith.core.evaluator import Context
from archsmith.core.genotype import Genotype
from archsmith.core.space import Space, build
from archsmith.core.trial import Cost, Result
from archsmith.data.text import Tokens
from archsmith.nn.count import count
from archsmith.nn.language import Dropouts, LanguageNetwork, initialise, set_dropouts
from archsmith.training.isolation import autocast, check_parameters, resolve_precision, seeded
from archsmith.training.perplexity import believable, forward, mean_loss
from archsmith.training.resuming import Checkpoint, load_checkpoint, save_checkpoint

if TYPE_CHECKING:
    from archsmith.data.text import Corpus
    from archsmith.training.language_model import LanguageModel

_CHECK_EVERY = 16  # steps between looks at the loss: on a GPU every look waits for it
_LN2 = math.log(2)


def evaluate(config: LanguageModel, space: Space, genotype: Genotype, context: Context) -> Result:
    """See `LanguageModel.evaluate`."""
    with seeded(context, "init"):
        child = build(space, genotype, config.task())
        result = train(config, child, context)
        if not config.keep_weights or context.paused:
            return result
        weights = {k: v.detach().cpu().contiguous() for k, v in child.model.state_dict().items()}
        return Result(result.metrics, result.curve, result.cost, artifact=context.checkpoint(weights))


def train(config: LanguageModel, child: Child, context: Context, *, all_data: bool = False) -> Result:
    """See `LanguageModel.train`."""
    corpus = config.corpus()
    model = child.model
    parameters = check_parameters(context, model)
    tokens = np.concatenate([corpus.train, corpus.validation]) if all_data else corpus.train
    _long_enough(config, tokens, corpus.name)
    if isinstance(model, LanguageNetwork):
        set_dropouts(model, dropouts(config))
    with seeded(context, "train"):
        if config.initialisation is not None:
            initialise(model, config.initialisation)
        model.to(torch.device(context.device))
        multiply_adds = count(model, torch.zeros(1, 1, dtype=torch.int64, device=context.device)).multiply_adds
        checkpoint = load_checkpoint(context)
        before = (0, 0.0) if checkpoint is None else (len(checkpoint.extra["curve"]), checkpoint.extra["seconds"])
        try:
            curve, seconds = _fit(config, child, corpus, tokens, context, all_data, checkpoint)
        finally:
            model.eval()
    metrics: dict[str, float] = {"parameters": parameters, "multiply_adds": multiply_adds}
    metrics["train_seconds"] = before[1] + seconds
    metrics["train_loss"] = curve[-1]["train_loss"]
    if not all_data:
        best = min(curve, key=lambda row: row["loss"])
        metrics.update({k: best[k] for k in ("perplexity", "loss", "bits_per_character") if k in best})
        metrics["best_epoch"], metrics["final_perplexity"] = best["epoch"], curve[-1]["perplexity"]
    if child.learning_rate is not None:
        metrics["learning_rate"] = child.learning_rate
    return Result(metrics, curve[before[0] :], Cost(seconds=seconds, epochs=len(curve) - before[0]))


def test(config: LanguageModel, model: nn.Module, device: str) -> dict[str, float]:
    """See `LanguageModel.test`."""
    corpus = config.corpus()
    was_training = model.training
    model.to(device)
    loss = mean_loss(
        model, corpus.test, corpus.end, batch_size=config.batch_size, unroll=config.unroll, device=torch.device(device)
    )
    model.train(was_training)
    return {**measured(config, loss), "count": float(len(corpus.test))}


def measured(config: LanguageModel, loss: float) -> dict[str, float]:
    """A mean loss in nats as perplexity, and as bits per character where symbols are characters."""
    values = {"perplexity": math.exp(loss), "loss": loss}
    return values if config.level == "word" else {**values, "bits_per_character": loss / _LN2}


def dropouts(config: LanguageModel) -> Dropouts:
    """What the settings drop of a `LanguageNetwork`."""
    return Dropouts(
        embedding=config.embedding_dropout,
        input=config.input_dropout,
        between=config.dropout,
        recurrent=config.recurrent_dropout,
        output=config.dropout,
        variational=config.variational,
    )


# --- the loop ---------------------------------------------------------------------------------------------------------


def _fit(
    config: LanguageModel,
    child: Child,
    corpus: Corpus,
    tokens: Tokens,
    context: Context,
    all_data: bool,
    checkpoint: Checkpoint | None,
) -> tuple[list[dict[str, float]], float]:
    """The curve, and the seconds of what was trained now. The model is on the device already; `checkpoint` is where to go on
    from."""
    model, device = child.model, torch.device(context.device)
    precision = resolve_precision(config.precision, device)
    peak = config.learning_rate if child.learning_rate is None else child.learning_rate
    optimizer = (child.optimizer or functools.partial(_optimizer, config))(model.parameters(), peak)
    peaks = [float(group["lr"]) for group in optimizer.param_groups]
    parameters = list(model.parameters())
    began = time.perf_counter()
    curve: list[dict[str, float]] = []
    best_loss, best_weights = math.inf, dict[str, Tensor]()
    if checkpoint is not None:
        checkpoint.restore(model, optimizer)
        curve, best_loss, best_weights = (checkpoint.extra[name] for name in ("curve", "best_loss", "best_weights"))

    for epoch in range(len(curve) + 1, config.epochs + 1):
        epoch_began = time.perf_counter()
        factor = config.decay ** max(0, epoch - config.decay_after)
        for group, value in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = value * factor
        model.train()
        total, steps = torch.zeros((), dtype=torch.float64, device=device), 0
        state: Any = None
        for read, targets in _batches(config, tokens):
            context.check()
            inputs, wanted = read.to(device), targets.to(device)
            with autocast(device, precision):
                scores, state = forward(model, inputs, state)
                if steps == 0 and epoch == 1:
                    _check_scores(scores, corpus)
                loss = F.cross_entropy(scores.flatten(0, 1).float(), wanted.flatten())
            state = _detached(state)
            optimizer.zero_grad(set_to_none=True)
            # Summed over the steps and averaged over the streams, as the learning rate and the clipping expect it.
            (loss * len(inputs)).backward()  # type: ignore[no-untyped-call]
            if config.clip is not None:
                nn.utils.clip_grad_norm_(parameters, config.clip)
            optimizer.step()
            total += loss.detach()
            steps += 1
            if steps % _CHECK_EVERY == 1:
                believable(loss.item(), f"the training loss in epoch {epoch}")
        train_loss = believable(total.item() / steps, f"the training loss in epoch {epoch}")
        trained_seconds = time.perf_counter() - epoch_began
        trained = steps * config.batch_size * config.unroll
        row = {
            "epoch": epoch,
            "train_loss": train_loss,
            "train_perplexity": math.exp(train_loss),
            "learning_rate": peaks[0] * factor,
        }
        if not all_data:
            row.update(measured(config, _validation_loss(config, model, corpus, device, precision, context)))
            if row["loss"] < best_loss:
                best_loss = row["loss"]
                best_weights = {k: v.detach().clone() for k, v in model.state_dict().items()}
        row["tokens_per_second"] = trained / trained_seconds
        row["seconds"] = time.perf_counter() - epoch_began
        curve.append(row)
        if not context.report(epoch, {k: v for k, v in row.items() if k != "epoch"}):
            break
    seconds = time.perf_counter() - began
    spent = seconds + (0.0 if checkpoint is None else checkpoint.extra["seconds"])
    best = {"best_loss": best_loss, "best_weights": best_weights}
    save_checkpoint(context, model, optimizer, extra={**best, "curve": curve, "seconds": spent})
    if best_weights and curve[-1]["loss"] > best_loss:
        model.load_state_dict(best_weights)
    return curve, seconds


def _validation_loss(
    config: LanguageModel, model: nn.Module, corpus: Corpus, device: torch.device, precision: str, context: Context
) -> float:
    return mean_loss(
        model,
        corpus.validation,
        corpus.end,
        batch_size=config.batch_size,
        unroll=config.unroll,
        device=device,
        precision=precision,
        check=context.check,
    )


def _batches(config: LanguageModel, tokens: Tokens) -> Iterator[tuple[Tensor, Tensor]]:
    """What is read and what is to be predicted, int64 [unroll, batch_size] each."""
    length = len(tokens) // config.batch_size
    streams = tokens[: length * config.batch_size].reshape(config.batch_size, length)
    for begin in range(0, length - config.unroll, config.unroll):
        piece = torch.from_numpy(streams[:, begin : begin + config.unroll + 1].T.astype(np.int64))
        yield piece[:-1], piece[1:]


def _optimizer(config: LanguageModel, parameters: Any, learning_rate: float) -> torch.optim.Optimizer:
    if config.optimizer == "adam":
        return torch.optim.Adam(parameters, learning_rate, weight_decay=config.weight_decay, fused=True)
    return torch.optim.SGD(parameters, learning_rate, weight_decay=config.weight_decay, fused=True)


def _detached(state: Any) -> Any:
    """A state, of whatever structure, without the graph that it came from."""
    if isinstance(state, Tensor):
        return state.detach()
    if isinstance(state, tuple | list):
        return type(state)([_detached(part) for part in state])
    if isinstance(state, dict):
        return {key: _detached(part) for key, part in state.items()}
    return state


# --- checks -----------------------------------------------------------------------------------------------------------


def _long_enough(config: LanguageModel, tokens: Tokens, name: str) -> None:
    """Every stream needs its steps, and one symbol more to predict."""
    needed = config.batch_size * (config.unroll + 1)
    if len(tokens) < needed:
        raise DataError(
            f"the training text of {name} has {len(tokens):,} symbols; batch_size={config.batch_size} streams of "
            f"unroll={config.unroll} steps need {needed:,}. Give more text, a smaller batch_size or a smaller unroll"
        )


def _check_scores(scores: Tensor, corpus: Corpus) -> None:
    if scores.shape[-1] != len(corpus.vocabulary):
        raise ChildFailed(
            f"a language model must score each of the {len(corpus.vocabulary):,} symbols of the vocabulary, and this "
            f"one scores {scores.shape[-1]:,}"
        )
