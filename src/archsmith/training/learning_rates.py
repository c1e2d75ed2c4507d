"""The learning rate of each child by itself (Bello et al. 2017, section 4): each of a few is tried for one epoch, the best is kept.

Without that a search of update rules finds which rules suit one learning rate: their steps differ by orders of magnitude.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from archsmith.core.errors import Diverged


def best_learning_rate(
    rates: Sequence[float], model: nn.Module, attempt: Callable[[float], tuple[float, float]]
) -> float:
    """The rate whose attempt has the highest validation accuracy, then the lowest loss; the model is left as it was.

    `attempt(rate)` trains the model and gives both. A rate at which it diverges is none. Raises Diverged when that is
    every one.
    """
    fresh = {name: value.detach().clone() for name, value in model.state_dict().items()}
    scores: list[tuple[float, float, float]] = []
    for rate in rates:
        try:
            accuracy, loss = attempt(rate)
            scores.append((accuracy, -loss, rate))
        except Diverged:
            pass
        finally:
            model.load_state_dict(fresh)
    if not scores:
        tried = ", ".join(f"{rate:g}" for rate in rates)
        raise Diverged(f"at every learning rate that was tried, {tried}, the loss became NaN or infinite")
    return max(scores, key=lambda score: score[:2])[2]
