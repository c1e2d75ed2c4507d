"""The translator, its decoding, the reading of aligned text, and the training by it."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from archsmith.core.child import TranslationTask
from archsmith.core.errors import UsageError
from archsmith.core.special_tokens import BEGIN, END, PADDING
from archsmith.nn.beam_search import beam_search, greedy
from archsmith.nn.cell_graph import CellGraph, lstm, tree
from archsmith.nn.count import count_parameters
from archsmith.nn.translation import Translator, hidden_of_equal_computation, solve_hidden, translator

NAS_CELL = tree(
    [
        ("add", "sigmoid"), ("add", "relu"), ("add", "sigmoid"), ("elem_mult", "relu"),
        ("add", "tanh"), ("add", "sigmoid"), ("add", "tanh"), ("add", "sigmoid"),
        ("elem_mult", "tanh"), ("add", "tanh"), ("elem_mult", "tanh"), ("add", "sigmoid"),
        ("elem_mult", "identity"), ("add", "tanh"), ("elem_mult", "tanh"),
    ],
    ("add", "tanh"), 12, 8,
)  # fmt: skip
SMALL = TranslationTask(11, 13, layers=3, hidden=6, embedding=5)


def small(graph: CellGraph = NAS_CELL, task: TranslationTask = SMALL, seed: int = 0, bias: bool = False) -> Translator:
    torch.manual_seed(seed)
    return translator(graph, task, bias=bias).double().eval()


def batch(lengths: list[int], vocabulary: int, steps: int | None = None, seed: int = 1) -> Tensor:
    """Random sentences as columns, padding behind them."""
    draws = torch.Generator().manual_seed(seed)
    columns = torch.full((steps or max(lengths), len(lengths)), PADDING)
    for k, n in enumerate(lengths):
        columns[:n, k] = torch.randint(4, vocabulary, (n,), generator=draws)
    return columns


# --- the network ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
@pytest.mark.parametrize("graph", [NAS_CELL, lstm()], ids=["nas", "lstm"])
def test_padding_changes_nothing(layers: int, graph: CellGraph) -> None:
    model = small(graph, TranslationTask(11, 13, layers=layers, hidden=6))
    lengths = [5, 1, 3]
    source, target = batch(lengths, 11, steps=8), batch([4, 2, 6], 13, steps=7)
    together = model(source, torch.tensor(lengths), target)
    for k, (n, m) in enumerate(zip(lengths, [4, 2, 6], strict=True)):
        alone = model(source[:n, k : k + 1], torch.tensor([n]), target[:m, k : k + 1])
        torch.testing.assert_close(together[:m, k], alone[:, 0], rtol=1e-10, atol=1e-12)


def test_gradients_do_not_depend_on_padding() -> None:
    source, target = batch([3, 3], 11), batch([4, 4], 13)
    grads = []
    for steps in (0, 5):
        model = small()
        padded_source = torch.cat((source, torch.full((steps, 2), PADDING)))
        padded_target = torch.cat((target, torch.full((steps, 2), PADDING)))
        scores = model(padded_source, torch.tensor([3, 3]), padded_target)
        scores[:4].square().sum().backward()
        grads.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys()
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, rtol=1e-9, atol=1e-11, msg=name)


def test_a_score_sees_only_the_symbols_before_it_and_all_of_the_source() -> None:
    model = small()
    source, target = batch([4], 11), batch([6], 13)
    before = model(source, torch.tensor([4]), target)
    changed = target.clone()
    changed[3] = 4 + (changed[3] - 3) % 9
    assert changed[3] != target[3]
    after = model(source, torch.tensor([4]), changed)
    torch.testing.assert_close(after[:3], before[:3])
    assert all(not torch.allclose(after[t], before[t]) for t in range(3, 6))
    for s in range(4):  # the first layer reads both ways, so every symbol reaches every step
        other = source.clone()
        other[s] = 4 + (other[s] - 3) % 7
        assert not torch.allclose(model(other, torch.tensor([4]), target)[0], before[0])


def test_attention_is_a_distribution_over_the_sentence() -> None:
    model = small()
    lengths = torch.tensor([5, 2])
    memory = model.encode(batch([5, 2], 11), lengths)
    _, _, weights = model.decode(batch([3, 3], 13), memory, None)
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, 2, dtype=torch.double))
    assert (weights[:, 1, 2:] == 0).all()
    assert (weights[:, 1, :2] > 0).all()


@pytest.mark.parametrize("layers", [1, 3])
def test_step_by_step_is_the_whole_sequence(layers: int) -> None:
    model = small(task=TranslationTask(11, 13, layers=layers, hidden=6))
    target = batch([5, 5], 13)
    memory = model.encode(batch([4, 2], 11), torch.tensor([4, 2]))
    whole, last, _ = model.decode(target, memory, None)
    state, parts = None, []
    for t in range(5):
        part, state, _ = model.decode(target[t : t + 1], memory, state)
        parts.append(part)
    torch.testing.assert_close(torch.cat(parts), whole)
    for (h, c), (h_whole, c_whole) in zip(state, last, strict=True):
        torch.testing.assert_close(h, h_whole)
        torch.testing.assert_close(c, c_whole)


def test_the_lstm_is_torchs() -> None:
    """One layer each way, built by hand from torch's own modules."""
    model = small(lstm(), TranslationTask(9, 9, layers=2, hidden=4), bias=True)
    for layer in (*model.encoder, *model.decoder):
        for name, p in layer.named_parameters():
            if name.startswith("bias"):
                torch.nn.init.normal_(p)

    def twin(ours: torch.nn.Module, both: bool = False) -> torch.nn.LSTM:
        theirs = torch.nn.LSTM(ours.input_size, ours.hidden_size, bidirectional=both).double()
        for suffix in ("_l0", "_l0_reverse")[: 1 + both]:
            for kind in ("weight_ih", "weight_hh"):
                getattr(theirs, kind + suffix).data = getattr(ours, kind + suffix).data
            getattr(theirs, "bias_ih" + suffix).data.zero_()
            getattr(theirs, "bias_hh" + suffix).data = getattr(ours, "bias" + suffix).data
        return theirs

    source, target = batch([6], 9), batch([5], 9)
    x = twin(model.encoder[0], both=True)(model.source_embedding(source))[0]
    e = twin(model.encoder[1])(x)[0]  # [S, 1, n]
    bottom = twin(model.decoder[0])(model.target_embedding(target))[0]
    at = model.attention
    scores = torch.stack(
        [
            torch.tanh(at.query.weight @ q[0] + e[:, 0] @ at.key.weight.T + at.key.bias) @ at.score.weight[0]
            for q in bottom
        ]
    )
    context = (scores.softmax(-1) @ e[:, 0])[:, None]
    top = twin(model.decoder[1])(torch.cat((bottom, context), -1))[0]
    expected = top @ model.softmax.weight.T + model.softmax.bias
    torch.testing.assert_close(model(source, torch.tensor([6]), target), expected)


def test_dropout_is_drawn_in_training_only() -> None:
    model = small()
    args = batch([4, 3], 11), torch.tensor([4, 3]), batch([5, 5], 13)
    still = model(*args)
    model.dropout = 0.5
    torch.testing.assert_close(model(*args), still)
    model.train()
    assert not torch.allclose(model(*args), model(*args))


# --- sizes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("graph", [NAS_CELL, lstm()], ids=["nas", "lstm"])
@pytest.mark.parametrize(("layers", "embedding"), [(1, None), (2, 16), (4, None)])
def test_the_largest_that_fits(graph: CellGraph, layers: int, embedding: int | None) -> None:
    task = TranslationTask(100, 90, layers=layers, parameters=60_000, embedding=embedding)
    hidden = solve_hidden(graph, task, bias=graph == lstm())
    model = translator(graph, task, bias=graph == lstm())
    assert model.task.hidden == hidden
    assert count_parameters(model) <= 60_000
    larger = TranslationTask(100, 90, layers=layers, hidden=hidden + 1, embedding=embedding)
    assert count_parameters(translator(graph, larger, bias=graph == lstm())) > 60_000


def test_parameters_by_hand() -> None:
    n, e, source, target, leaves = 6, 5, 11, 13, 8
    encoder = 2 * leaves * n * (e + n) + leaves * n * (2 * n + n) + leaves * n * (n + n)
    decoder = leaves * n * (e + n) + 2 * leaves * n * (2 * n + n)
    attention = n * n + (n * n + n) + n
    expected = (source + target) * e + encoder + decoder + attention + n * target + target
    assert count_parameters(small()) == expected


def test_multiply_adds_by_hand() -> None:
    n, e, target, leaves = 6, 5, 13, 8
    encoder = 2 * leaves * n * (e + n) + leaves * n * (2 * n + n) + leaves * n * (n + n)
    decoder = leaves * n * (e + n) + 2 * leaves * n * (2 * n + n)
    expected = 7 * (encoder + n * n) + 5 * (decoder + n * n + n * target) + 7 * 5 * (n + n)
    assert small().multiply_adds(7, 5) == expected


def test_equal_computation_comes_as_near_as_units_allow() -> None:
    task = TranslationTask(500, 400, layers=2, hidden=24, embedding=32)
    wanted = translator(NAS_CELL, task).multiply_adds(12, 11)
    hidden = hidden_of_equal_computation(lstm(), task, wanted, (12, 11), bias=True)

    def off(n: int) -> int:
        sized = TranslationTask(500, 400, layers=2, hidden=n, embedding=32)
        return abs(translator(lstm(), sized, bias=True).multiply_adds(12, 11) - wanted)

    assert hidden > 24
    assert off(hidden) == min(off(n) for n in range(hidden - 3, hidden + 4))
    assert off(hidden) < 0.03 * wanted
    assert hidden_of_equal_computation(NAS_CELL, task, wanted, (12, 11)) == 24


def test_sizes_that_cannot_be() -> None:
    with pytest.raises(UsageError, match=r"one hidden unit has [\d,]+ parameters already .*allows 100;"):
        translator(NAS_CELL, TranslationTask(1000, 1000, parameters=100))
    with pytest.raises(UsageError, match="target_vocabulary of a translator must be above 3"):
        translator(NAS_CELL, TranslationTask(9, 3, hidden=4))
    with pytest.raises(UsageError, match="needs hidden units"):
        Translator(NAS_CELL, TranslationTask(9, 9, parameters=1000))


# --- decoding ---------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def log_probability(model: Translator, source: Tensor, symbols: tuple[int, ...], *, ended: bool) -> float:
    said = [*symbols, END] if ended else list(symbols)
    target = torch.tensor([BEGIN, *said[:-1]])[:, None]
    scores = model(source, torch.tensor([len(source)]), target)[:, 0].log_softmax(-1)
    return float(scores[torch.arange(len(said)), torch.tensor(said)].sum())


def sharp(seed: int = 0, vocabulary: int = 13) -> Translator:
    """An untrained translator whose distributions are far from uniform."""
    model = small(task=TranslationTask(11, vocabulary, layers=2, hidden=6), seed=seed)
    torch.manual_seed(seed)
    torch.nn.init.normal_(model.softmax.weight, std=2.0)
    torch.nn.init.normal_(model.target_embedding.weight, std=2.0)
    return model


@pytest.mark.parametrize("seed", range(4))
def test_greedy_takes_the_likeliest_each_step(seed: int) -> None:
    model = sharp(seed)
    lengths = [4, 2, 5]
    source = batch(lengths, 11, seed=seed)
    for k, said in enumerate(greedy(model, source, torch.tensor(lengths), limits=[9, 5, 12])):
        symbols: list[int] = []
        with torch.inference_mode():
            while len(symbols) < [9, 5, 12][k]:
                target = torch.tensor([BEGIN, *symbols])[:, None]
                scores = model(source[: lengths[k], k : k + 1], torch.tensor([lengths[k]]), target)[-1, 0]
                scores[[PADDING, BEGIN]] = -math.inf
                best = int(scores.argmax())
                if best == END:
                    break
                symbols.append(best)
        assert said.symbols == tuple(symbols)
        assert said.ended == (len(symbols) < [9, 5, 12][k])
        assert len(said.sources) == len(symbols)
        assert all(0 <= s < lengths[k] for s in said.sources)


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0])
def test_a_beam_as_wide_as_all_finds_the_best_of_all(alpha: float) -> None:
    """Three symbols can be said besides END, at most three times."""
    model, limit = sharp(3, vocabulary=6), 4
    source = batch([3], 11)
    said = [3, 4, 5]
    scores = {}
    for n in range(limit):
        for symbols in itertools.product(said, repeat=n):
            total = log_probability(model, source, symbols, ended=True)
            scores[symbols] = total / ((5 + n + 1) / 6) ** alpha
    best = max(scores, key=scores.__getitem__)
    found = beam_search(model, source, torch.tensor([3]), limits=[limit], width=200, alpha=alpha)[0]
    assert found.symbols == best
    assert found.score == pytest.approx(scores[best])


@pytest.mark.parametrize("width", [1, 2, 5])
def test_a_translation_does_not_depend_on_its_batch(width: int) -> None:
    model = sharp(5)
    lengths, limits = [6, 1, 3, 4], [10, 4, 7, 9]
    source = batch(lengths, 11)
    together = beam_search(model, source, torch.tensor(lengths), limits=limits, width=width, beta=0.2)
    for k, n in enumerate(lengths):
        alone = beam_search(model, source[:n, k : k + 1], torch.tensor([n]), limits=[limits[k]], width=width, beta=0.2)
        assert alone[0].symbols == together[k].symbols
        assert alone[0].sources == together[k].sources
        assert alone[0].score == pytest.approx(together[k].score)


def test_log_probabilities_are_the_models() -> None:
    model = sharp(7)
    source = batch([4, 4], 11)
    for k, found in enumerate(beam_search(model, source, torch.tensor([4, 4]), limits=[8, 8], width=3)):
        true = log_probability(model, source[:, k : k + 1], found.symbols, ended=found.ended)
        assert found.log_probability == pytest.approx(true)
        length = len(found.symbols) + found.ended
        assert found.score == pytest.approx(found.log_probability / ((5 + length) / 6) ** 0.6)


def test_a_wider_beam_finds_likelier_translations() -> None:
    """Not of every sentence, as a prefix may be crowded out; of twenty together."""
    model = sharp(11)
    source = batch([4] * 20, 11)
    totals = [
        sum(h.score for h in beam_search(model, source, torch.tensor([4] * 20), limits=[10] * 20, width=w, alpha=0.0))
        for w in (1, 4, 16)
    ]
    assert totals[0] < totals[1] <= totals[2]


def test_decoding_leaves_training_mode_as_it_was() -> None:
    model = small().train()
    beam_search(model, batch([3], 11), torch.tensor([3]), limits=[3])
    assert model.training
    with pytest.raises(UsageError, match="width of a beam search"):
        beam_search(model, batch([3], 11), torch.tensor([3]), limits=[3], width=0)
    with pytest.raises(UsageError, match="limits must be one of at least 1 for each of 1 sentences"):
        beam_search(model, batch([3], 11), torch.tensor([3]), limits=[0])
