"""Perplexity of a language model, counted over every symbol of a text, once each, at any batch size.

The text is read as streams side by side. A stream reads the symbols before its own first, without counting them, so that
it has seen something by then: how many streams there are hardly changes the result. The sums are in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from archsmith.core.errors import ChildFailed, Diverged
from archsmith.data.text import Tokens
from archsmith.training.isolation import autocast

WARMUP = 200  # symbols that a stream reads before its own
EXPLODED = 100.0  # nats a symbol; to know nothing of a million words costs 14


def mean_loss(
    model: nn.Module,
    tokens: Tokens,
    end: int,
    *,
    batch_size: int,
    unroll: int,
    device: torch.device,
    precision: str = "fp32",
    check: Callable[[], None] | None = None,
) -> float:
    """The mean negative log probability of the text's symbols, in nats; the model is left in evaluation mode.

    Args:
        model: gives (scores [steps, batch, vocabulary], state) for (tokens [steps, batch], state or None).
        tokens: the text; its first symbol is predicted from `end`, each other one from all before it (of a stream).
        end: the symbol that ends a line.
        batch_size: the most streams; a short text is read as fewer.
        unroll: steps at once: memory, and nothing else.
        device, precision: where and how to compute.
        check: called between steps.

    Raises Diverged when it is no finite number, or so large that no model would be that bad.
    """
    model.eval()
    # Stream k reads positions k * length to k * length + steps; all but the first count those from WARMUP on. So the
    # streams' own parts follow each other without a gap or an overlap, and the last may end early.
    count = len(tokens)
    streams = max(1, min(batch_size, (count - WARMUP) // WARMUP))
    warmup = WARMUP if streams > 1 else 0
    length = math.ceil((count - warmup) / streams)
    starts = length * np.arange(streams)[None, :]
    total, counted = 0.0, 0
    state = None
    with torch.inference_mode(), autocast(device, precision):
        for begin in range(0, warmup + length, unroll):
            if check is not None:
                check()
            steps = np.arange(begin, min(begin + unroll, warmup + length))[:, None]
            at = starts + steps
            read = tokens[np.clip(at - 1, 0, count - 1)].astype(np.int64)
            read[at == 0] = end
            scores, state = forward(model, torch.from_numpy(read).to(device), state)
            counts = (at < count) & ((steps >= warmup) | (starts == 0))
            if not counts.any():
                continue
            targets = torch.from_numpy(tokens[at[counts]].astype(np.int64)).to(device)
            rows = scores if counts.all() else scores[torch.from_numpy(counts).to(device)]
            losses = F.cross_entropy(rows.reshape(len(targets), -1).float(), targets, reduction="none")
            total += losses.sum(dtype=torch.float64).item()
            counted += len(targets)
    assert counted == count, f"{counted} of {count} symbols were counted"
    return believable(total / count, "the loss of the text")


def believable(loss: float, what: str) -> float:
    """A mean loss in nats as it is. Raises Diverged when it is NaN, infinite or beyond what any model would have."""
    if not math.isfinite(loss) or loss > EXPLODED:
        raise Diverged(f"{what} became {loss:.4g} nats a symbol; a lower learning rate, or clip, may help")
    return loss


def forward(model: nn.Module, tokens: Tensor, state: object) -> tuple[Tensor, object]:
    """Scores and state of a model, which may be anyone's. Raises ChildFailed when they are not what they must be."""
    given = model(tokens) if state is None else model(tokens, state)
    if not isinstance(given, tuple) or len(given) != 2 or not isinstance(given[0], Tensor):
        raise ChildFailed(
            f"a language model must give (scores, state) for (tokens, state), and gives a {type(given).__name__}"
        )
    scores, state = given
    if scores.dim() != 3 or scores.shape[:2] != tokens.shape:
        raise ChildFailed(
            f"a language model must give scores [steps, batch, vocabulary] = [{tokens.shape[0]}, {tokens.shape[1]}, ...], "
            f"and gives {tuple(scores.shape)}"
        )
    return scores, state
