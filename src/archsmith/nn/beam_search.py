"""Beam search with a translator, scored with GNMT's length normalisation and coverage penalty (Wu et al. 2016, section 7).

    s(Y, X) = log P(Y|X) / lp(Y) + cp(X; Y)
    lp(Y) = (5 + |Y|)^alpha / (5 + 1)^alpha
    cp(X; Y) = beta * sum_i log(min(sum_j p_ij, 1)), p_ij the attention of target symbol j to source symbol i

|Y| counts the end of the sentence. A beam of one, without either penalty, is greedy decoding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from archsmith.core.errors import Diverged, UsageError
from archsmith.core.special_tokens import BEGIN, END, PADDING
from archsmith.nn.translation import Translator


@dataclass(frozen=True)
class Hypothesis:
    """A translation of one sentence.

    Args:
        symbols: of the target vocabulary, without BEGIN and END.
        sources: for each symbol, the step of the source that the attention looked at most.
        log_probability: of the symbols and END, in nats.
        score: s(Y, X) of the module's docstring.
        ended: whether the translator ended it; if not, it was cut off at the limit.
    """

    symbols: tuple[int, ...]
    sources: tuple[int, ...]
    log_probability: float
    score: float
    ended: bool


def greedy(model: Translator, source: Tensor, lengths: Tensor, *, limits: Sequence[int]) -> list[Hypothesis]:
    """Translations that take the likeliest symbol at every step; arguments as in `beam_search`."""
    return beam_search(model, source, lengths, limits=limits, width=1, alpha=0.0)


@torch.inference_mode()
def beam_search(
    model: Translator,
    source: Tensor,
    lengths: Tensor,
    *,
    limits: Sequence[int],
    width: int = 4,
    alpha: float = 0.6,
    beta: float = 0.0,
) -> list[Hypothesis]:
    """The best translation found of each sentence. The model is in evaluation mode meanwhile.

    At each step the `width` likeliest continuations of a sentence's beam are taken; those that end are its finished
    hypotheses, the others go on. A sentence is done when none that goes on could still score higher than the best that
    finished, or at its limit; that enough have finished is no reason, as the first to finish are short and unlikely.
    Nothing of the other sentences in the batch changes its translation.

    Args:
        model: the translator.
        source: int64 [source steps, batch], each sentence followed by padding, on the model's device.
        lengths: int64 [batch] on the CPU: the sentences' own.
        limits: the most symbols of each translation, END included, from 1.
        width: hypotheses of each sentence that go on.
        alpha: of the length normalisation, at least 0; GNMT 0.2 to 0.6.
        beta: of the coverage penalty, at least 0; GNMT 0.2, and 0 is none.
    """
    for name, value, least in (("width", width, 1), ("alpha", alpha, 0), ("beta", beta, 0)):
        if not least <= value < float("inf") or (name == "width" and not isinstance(value, int)):
            raise UsageError(f"{name} of a beam search must be a number of at least {least}, got {value!r}")
    if len(limits) != len(lengths) or min(limits, default=1) < 1:
        raise UsageError(f"limits must be one of at least 1 for each of {len(lengths)} sentences, got {list(limits)!r}")
    was_training = model.training
    model.eval()
    try:
        return _search(model, source, lengths, limits, width, alpha, beta)
    finally:
        model.train(was_training)


def _search(
    model: Translator,
    source: Tensor,
    lengths: Tensor,
    limits: Sequence[int],
    width: int,
    alpha: float,
    beta: float,
) -> list[Hypothesis]:
    device, batch = source.device, source.shape[1]
    rows = torch.arange(batch, device=device).repeat_interleave(width)  # of the memory; beams of a sentence together
    memory = model.encode(source, lengths).of(rows)
    state = None
    symbols = torch.full((1, batch * width), BEGIN, device=device)
    # Only the first of the equal beams counts at the first step.
    total = torch.full((batch, width), -torch.inf, device=device)
    total[:, 0] = 0.0
    coverage = torch.zeros_like(memory.padding, dtype=memory.values.dtype)
    said = torch.empty(batch * width, 0, dtype=torch.long, device=device)
    looked = torch.empty(batch * width, 0, dtype=torch.long, device=device)
    finished: list[list[Hypothesis]] = [[] for _ in range(batch)]
    active = list(range(batch))  # the sentence of each block of beams

    for step in range(1, max(limits) + 1):
        features, state, weights = model.decode(symbols, memory, state)
        scores = model.softmax(features[0]).log_softmax(-1)
        scores[:, [PADDING, BEGIN]] = -torch.inf
        vocabulary = scores.shape[-1]
        coverage = coverage + weights[0]
        position = weights[0].argmax(-1)
        total, chosen = (total[:, :, None] + scores.view(len(active), width, vocabulary)).flatten(1).topk(width)
        from_beam = chosen // vocabulary + width * torch.arange(len(active), device=device)[:, None]
        last = chosen % vocabulary
        penalties = _coverage_penalty(coverage, memory.padding, beta)

        go_on = torch.ones(len(active), dtype=torch.bool)
        if total[:, 0].isnan().any():
            raise Diverged("the translator's scores became NaN; a lower learning rate may help")
        ends = (last == END) & total.isfinite()
        normal = _length_penalty(step, alpha)
        for block, beam in ends.nonzero().tolist():
            row = int(from_beam[block, beam])
            log_probability = float(total[block, beam])
            finished[active[block]].append(
                Hypothesis(
                    tuple(said[row].tolist()),
                    tuple(looked[row].tolist()),
                    log_probability,
                    log_probability / normal + float(penalties[row]),
                    True,
                )
            )
        total = total.masked_fill(last == END, -torch.inf)
        most = total.amax(1).tolist()
        for block, sentence in enumerate(active):
            done, limit = finished[sentence], limits[sentence]
            if step == limit and not done and most[block] > -torch.inf:
                best = int(total[block].argmax())
                row = int(from_beam[block, best])
                finished[sentence].append(
                    Hypothesis(
                        (*said[row].tolist(), int(last[block, best])),
                        (*looked[row].tolist(), int(position[row])),
                        most[block],
                        most[block] / normal + float(penalties[row]),
                        False,
                    )
                )
            attainable = most[block] / _length_penalty(limit, alpha)  # it can only become less likely, and longer
            enough = bool(done) and max(h.score for h in done) >= attainable
            go_on[block] = not (enough or step == limit)
        if not go_on.any():
            break

        kept = go_on.nonzero().squeeze(1)
        active = [active[block] for block in kept.tolist()]
        kept = kept.to(device)
        total, last, parents = total[kept], last[kept].flatten(), from_beam[kept].flatten()
        said = torch.cat((said[parents], last[:, None]), 1)
        looked = torch.cat((looked[parents], position[parents, None]), 1)
        if len(kept) < len(go_on):  # beams of one sentence share its memory, so parents need no other
            memory = memory.of((kept[:, None] * width + torch.arange(width, device=device)).flatten())
        coverage = coverage[parents]
        state = [(h[:, parents], c[:, parents]) for h, c in state]
        symbols = last[None]
    return [max(done, key=lambda h: (h.ended, h.score)) for done in finished]


def _length_penalty(length: int, alpha: float) -> float:
    return float(((5 + length) / 6) ** alpha)


def _coverage_penalty(coverage: Tensor, padding: Tensor, beta: float) -> Tensor:
    """cp of each row, [rows]."""
    if beta == 0:
        return coverage.new_zeros(len(coverage))
    # A float's smallest number in place of zero: a source symbol that was never looked at costs much, not everything.
    logs = coverage.clamp(torch.finfo(coverage.dtype).tiny, 1.0).log()
    return beta * logs.masked_fill(padding, 0.0).sum(1)
