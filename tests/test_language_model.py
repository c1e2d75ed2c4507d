"""Language models: their sizes, what their dropouts do, and (further down) how they are trained and measured."""

from __future__ import annotations

import dataclasses
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from archsmith import search
from archsmith.core.child import Child, TextTask
from archsmith.core.errors import ChildFailed, DataError, Diverged, UsageError
from archsmith.core.finish import Finishable
from archsmith.core.space import decode, sample
from archsmith.core.trial import Result
from archsmith.nn.cell_graph import CellGraph, lstm, tree
from archsmith.nn.count import count_parameters
from archsmith.nn.language import (
    Dropouts,
    LanguageNetwork,
    initialise,
    language_network,
    parameter_count,
    set_dropouts,
    solve_hidden,
)
from archsmith.spaces import RecurrentCell
from archsmith.testing.evaluator import EvaluatorContract, RecordingContext
from archsmith.training import LanguageModel, perplexity
from archsmith.training.language_training import _batches, dropouts
from archsmith.training.perplexity import mean_loss


def base(leaves: int) -> CellGraph:
    return tree([("add", "tanh")] * (2 * leaves - 1), ("add", "tanh"), leaves, 0)


# --- sizes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "tied", "hidden", "exact"),
    [(20_000_000, False, 537, 19_977_808), (31_997_200, False, 735, 31_997_200), (24_990_592, True, 741, 24_990_592)],
)
def test_hidden_units_are_solved_as_the_paper_has_them(parameters: int, tied: bool, hidden: int, exact: int) -> None:
    task = TextTask(10_000, parameters=parameters, tied=tied)
    assert solve_hidden(base(8), task) == hidden
    with torch.device("meta"):
        assert count_parameters(language_network(base(8), task)) == exact


def test_the_largest_network_of_the_paper_is_about_54_million() -> None:
    # four matrices of 8 x 1152 by 1152, one embedding, 10,000 biases
    assert parameter_count(base(8), TextTask(10_000, hidden=1152, tied=True), 1152) == 53_997_328


def test_the_medium_lstm_has_the_20_million_of_zaremba() -> None:
    # 650 units: 2 x (4 x 650 x 1300 weights and 4 x 650 biases), 10,000 x 650 twice, 10,000 biases
    task = TextTask(10_000, hidden=650)
    assert parameter_count(lstm(), task, 650, bias=True) == 2 * (4 * 650 * 1300 + 4 * 650) + 2 * 6_500_000 + 10_000


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([base(2), base(8), lstm()]),
    st.integers(2, 400),
    st.integers(1, 3),
    st.booleans(),
    st.booleans(),
    st.one_of(st.none(), st.integers(1, 20)),
    st.integers(2_000, 60_000),
)
def test_one_more_unit_would_be_too_many(
    graph: CellGraph, vocabulary: int, layers: int, tied: bool, bias: bool, embedding: int | None, parameters: int
) -> None:
    task = TextTask(vocabulary, layers, parameters=parameters, tied=tied, embedding=None if tied else embedding)
    if parameter_count(graph, task, 1, bias=bias) > parameters:
        with pytest.raises(UsageError, match="one hidden unit"):
            solve_hidden(graph, task, bias=bias)
        return
    hidden = solve_hidden(graph, task, bias=bias)
    with torch.device("meta"):
        model = language_network(graph, task, bias=bias)
    assert model.hidden == hidden
    assert count_parameters(model) == parameter_count(graph, task, hidden, bias=bias) <= parameters
    assert parameter_count(graph, task, hidden + 1, bias=bias) > parameters


def test_a_tied_softmax_is_the_embedding() -> None:
    model = language_network(base(2), TextTask(7, hidden=5, tied=True))
    assert model.softmax_weight is model.embedding.weight
    assert not any("softmax.weight" in name for name in model.state_dict())
    with pytest.raises(UsageError, match="as many hidden units"):
        LanguageNetwork(base(2), 7, 4, 5, tied=True)
    with pytest.raises(UsageError, match="leave it out"):
        solve_hidden(base(2), TextTask(7, parameters=10_000, embedding=5, tied=True))


# --- what the network computes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [False, True])
def test_a_text_in_two_parts_scores_as_in_one(tied: bool) -> None:
    torch.manual_seed(0)
    model = language_network(lstm(), TextTask(9, hidden=6, tied=tied), bias=True).eval()
    tokens = torch.randint(9, (10, 3))
    whole, last = model(tokens)
    first, state = model(tokens[:4])
    second, end = model(tokens[4:], state)
    assert whole.shape == (10, 3, 9)
    torch.testing.assert_close(torch.cat([first, second]), whole)
    torch.testing.assert_close(end, last)


def test_the_lstm_baseline_scores_as_torch_has_it() -> None:
    torch.manual_seed(0)
    model = language_network(lstm(), TextTask(9, hidden=6, embedding=4), bias=True).eval()
    initialise(model, 0.5)
    theirs = torch.nn.LSTM(4, 6, 2)
    with torch.no_grad():
        for layer in range(2):
            for name in ("weight_ih", "weight_hh"):
                getattr(theirs, f"{name}_l{layer}").copy_(getattr(model.rnn, f"{name}_l{layer}"))
            getattr(theirs, f"bias_hh_l{layer}").copy_(getattr(model.rnn, f"bias_l{layer}"))
            getattr(theirs, f"bias_ih_l{layer}").zero_()
    tokens = torch.randint(9, (10, 3))
    torch.testing.assert_close(model(tokens)[0], model.softmax(theirs(model.embedding(tokens))[0]))


def test_initialise_draws_every_parameter_within_the_bound() -> None:
    torch.manual_seed(0)
    model = language_network(lstm(), TextTask(50, hidden=20), bias=True)
    initialise(model, 0.05)
    for name, parameter in model.named_parameters():
        assert parameter.abs().max() <= 0.05, name
        assert parameter.abs().max() > 0.03, f"{name} was not drawn from the whole range"


# --- dropouts ---------------------------------------------------------------------------------------------------------


def test_a_dropped_word_is_zeros_wherever_it_stands_in_its_sequence() -> None:
    torch.manual_seed(0)
    model = language_network(base(2), TextTask(30, hidden=4)).train()
    seen: list[torch.Tensor] = []
    model.rnn.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    set_dropouts(model, Dropouts(embedding=0.5))
    tokens = torch.randint(30, (60, 8))
    model(tokens)
    scale = seen[0] / model.embedding(tokens).detach()
    assert set(scale.round(decimals=4).unique().tolist()) == {0.0, 2.0}
    for sequence in range(8):
        for word in range(30):
            where = scale[:, sequence][tokens[:, sequence] == word]
            assert where.numel() == 0 or where.unique().numel() == 1, "a word was dropped here and kept there"
    assert 0.4 < (scale > 0).float().mean() < 0.6


@pytest.mark.parametrize("variational", [False, True])
def test_input_and_output_drop_elements_at_every_step_or_at_all_of_them(variational: bool) -> None:
    torch.manual_seed(0)
    model = language_network(base(2), TextTask(30, hidden=8)).train()
    with torch.no_grad():
        model.embedding.weight.fill_(1.0)
    seen: dict[str, torch.Tensor] = {}
    model.rnn.register_forward_pre_hook(lambda _, inputs: seen.update(input=inputs[0].detach()))
    model.rnn.register_forward_hook(lambda _, __, outputs: seen.update(given=outputs[0].detach()))
    model.softmax.register_forward_pre_hook(lambda _, inputs: seen.update(output=inputs[0].detach()))
    set_dropouts(model, Dropouts(input=0.5, output=0.5, variational=variational))
    model(torch.randint(30, (40, 6)))
    for mask in (seen["input"], seen["output"] / seen["given"]):
        assert set(mask.round(decimals=3).unique().tolist()) == {0.0, 2.0}
        assert bool((mask == mask[:1]).all()) == variational
        assert 0.25 < (mask > 0).float().mean() < 0.75


def test_each_dropout_changes_training_and_none_changes_evaluation() -> None:
    torch.manual_seed(0)
    model = language_network(base(2), TextTask(30, hidden=8))
    tokens = torch.randint(30, (10, 4))
    plain = model.eval()(tokens)[0]
    for name in ("embedding", "input", "between", "recurrent", "output"):
        set_dropouts(model, Dropouts(**{name: 0.5}))
        assert not torch.equal(model.train()(tokens)[0], plain), f"{name} drops nothing"
        torch.testing.assert_close(model.eval()(tokens)[0], plain)


@pytest.mark.parametrize("value", [-0.1, 1.0, float("nan"), True, "0.5"])
def test_a_dropout_that_is_none_is_refused(value: object) -> None:
    with pytest.raises(UsageError, match="recurrent dropout"):
        Dropouts(recurrent=value)  # type: ignore[arg-type]


# --- perplexity -------------------------------------------------------------------------------------------------------


class Bigram(nn.Module):
    """A model without a memory: the scores depend on the symbol before alone."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.scores = nn.Embedding(vocabulary, vocabulary)

    def forward(self, tokens: torch.Tensor, state: object = None) -> tuple[torch.Tensor, object]:
        return self.scores(tokens), state


def loss_of(model: nn.Module, tokens: np.ndarray, batch_size: int, unroll: int = 35) -> float:
    return mean_loss(model, tokens, 3, batch_size=batch_size, unroll=unroll, device=torch.device("cpu"))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 2500), st.integers(1, 300), st.integers(1, 400), st.integers(0, 2**16))
def test_every_symbol_is_counted_once_at_any_batch_size(count: int, batch_size: int, unroll: int, seed: int) -> None:
    tokens = np.random.default_rng(seed).integers(0, 11, count).astype(np.uint8)
    torch.manual_seed(seed)
    model = Bigram(11)
    table = F.log_softmax(model.scores.weight.detach().double(), 1)
    before = np.concatenate([[3], tokens[:-1]])
    exact = -table.numpy()[before, tokens].mean()
    assert loss_of(model, tokens, batch_size, unroll) == pytest.approx(exact, rel=1e-6)


def test_the_perplexity_of_a_recurrent_model_hardly_depends_on_the_batch_size() -> None:
    corpus = LanguageModel.desk(max_train=9_000).corpus()
    torch.manual_seed(0)
    model = LanguageModel.desk().baseline(100_000, LanguageModel.desk().task())
    child = Child(model)
    dataclasses.replace(LanguageModel.desk(epochs=1, max_train=9_000), batch_size=4, precision="fp32").train(
        child, RecordingContext()
    )
    losses = {n: mean_loss(model, corpus.validation, corpus.end, batch_size=n, unroll=50, device=torch.device("cpu")) for n in (1, 5, 20)}  # fmt: skip
    perplexities = [math.exp(loss) for loss in losses.values()]
    assert max(perplexities) / min(perplexities) < 1.001, perplexities
    # Without symbols read before its own, each stream starts knowing nothing: that is what warming up is for.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(perplexity, "WARMUP", 1)
        cold = math.exp(mean_loss(model, corpus.validation, corpus.end, batch_size=400, unroll=50, device=torch.device("cpu")))  # fmt: skip
    assert abs(cold / perplexities[0] - 1) > 0.002


def test_an_untrained_model_of_equal_scores_has_the_vocabulary_as_its_perplexity() -> None:
    model = Bigram(11)
    nn.init.zeros_(model.scores.weight)
    assert math.exp(loss_of(model, np.arange(11, dtype=np.uint8), 3)) == pytest.approx(11)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_a_loss_beyond_belief_is_no_perplexity(value: float) -> None:
    model = Bigram(11)
    with torch.no_grad():
        model.scores.weight[:, 0] = value
    with pytest.raises(Diverged):
        loss_of(model, np.arange(11, dtype=np.uint8), 3)


# --- training ---------------------------------------------------------------------------------------------------------

SPACE = RecurrentCell(base=2)
TINY = dataclasses.replace(
    LanguageModel.desk(epochs=2, max_train=3_000), batch_size=10, unroll=20, hidden=8, vocabulary=500
)


class TestContract(EvaluatorContract):
    resumes = True

    def evaluator(self) -> LanguageModel:
        return TINY

    def space(self) -> RecurrentCell:
        return SPACE

    def diverging(self) -> tuple[LanguageModel, RecurrentCell]:
        return dataclasses.replace(TINY, learning_rate=1e30, clip=None), SPACE


class TestContractWithCharactersAndBf16(EvaluatorContract):
    resumes = True

    def evaluator(self) -> LanguageModel:
        desk = LanguageModel.desk(epochs=2, level="char", max_train=4_000)
        return dataclasses.replace(desk, hidden=8, precision="bf16", optimizer="adam", learning_rate=0.003, variational=True, embedding_dropout=0.1, recurrent_dropout=0.1)  # fmt: skip

    def space(self) -> RecurrentCell:
        return SPACE


def trained(evaluator: LanguageModel, model: nn.Module, **context: Any) -> Result:
    return evaluator.train(Child(model), RecordingContext(**context))


def test_a_part_of_a_text_is_told_with_the_whole_of_it() -> None:
    whole = LanguageModel.desk(level="char").describe_data()
    told = LanguageModel.desk(level="char", max_train=4_000).describe_data()
    assert (told["train"], told["validation"], told["test"]) == (4_000, 4_000, whole["test"])
    assert f"the whole text has {whole['train']:,} train, {whole['validation']:,} validation" in told["remarks"][-1]
    assert whole["remarks"] == []


def test_it_is_finishable_by_perplexity() -> None:
    assert isinstance(TINY, Finishable)
    assert TINY.measure.name == "perplexity"
    assert dataclasses.replace(TINY, level="char").measure.name == "bits_per_character"
    assert TINY.baseline_name == "LSTM"


def test_an_lstm_learns_more_of_a_real_text_than_how_frequent_words_are() -> None:
    evaluator = dataclasses.replace(
        LanguageModel.desk(epochs=3, max_train=30_000), parameters=150_000, learning_rate=2.0
    )
    corpus = evaluator.corpus()
    counts = np.bincount(corpus.train, minlength=len(corpus.vocabulary)) + 1
    unigram = math.exp(-np.log(counts / counts.sum())[corpus.validation].mean())
    torch.manual_seed(0)
    model = evaluator.baseline(150_000, evaluator.task())
    result = trained(evaluator, model)
    assert result.metrics["perplexity"] < 0.6 * unigram
    losses = [row["train_loss"] for row in result.curve]
    assert losses == sorted(losses, reverse=True)
    tested = evaluator.test(model)
    assert tested["count"] == len(corpus.test)
    assert tested["perplexity"] == pytest.approx(math.exp(tested["loss"]))
    assert tested["perplexity"] < unigram


def test_perplexity_is_the_best_epochs_and_the_weights_are_its_own() -> None:
    # So high a rate, after a good epoch, that the last epoch is not the best.
    evaluator = dataclasses.replace(TINY, epochs=4, decay=1.0, learning_rate=8.0, initialisation=0.1, precision="fp32")
    model = evaluator.baseline(20_000, evaluator.task())
    result = trained(evaluator, model)
    perplexities = [row["perplexity"] for row in result.curve]
    assert result.metrics["perplexity"] == min(perplexities) < perplexities[-1] == result.metrics["final_perplexity"]
    assert perplexities[int(result.metrics["best_epoch"]) - 1] == min(perplexities)
    corpus = evaluator.corpus()
    again = mean_loss(model, corpus.validation, corpus.end, batch_size=10, unroll=20, device=torch.device("cpu"))
    assert math.exp(again) == pytest.approx(min(perplexities))
    assert not model.training


def test_the_learning_rate_falls_after_the_epochs_at_the_full_one() -> None:
    evaluator = dataclasses.replace(
        TINY, epochs=5, decay=0.5, decay_after=2, learning_rate=0.4, max_train=400, hidden=2
    )
    curve = trained(evaluator, evaluator.baseline(3_000, evaluator.task())).curve
    assert [row["learning_rate"] for row in curve] == [0.4, 0.4, 0.2, 0.1, 0.05]
    child = Child(evaluator.baseline(3_000, evaluator.task()), learning_rate=0.8)
    own = evaluator.train(child, RecordingContext())
    assert own.metrics["learning_rate"] == 0.8
    assert [row["learning_rate"] for row in own.curve] == [0.8, 0.8, 0.4, 0.2, 0.1]


def test_an_epoch_of_the_penn_treebank_has_1327_steps() -> None:
    tokens = np.arange(929_589) % 9_973
    reads = list(_batches(LanguageModel(), tokens.astype(np.uint16)))
    assert len(reads) == 1_327
    assert all(read.shape == targets.shape == (35, 20) for read, targets in reads)
    # Each stream goes on where it was, and what is predicted is what comes next.
    text = torch.cat([read for read, _ in reads])
    assert torch.equal((text[:-1] + 1) % 9_973, text[1:])
    assert torch.equal(torch.cat([targets for _, targets in reads])[:-1], text[1:])


def test_the_state_is_carried_on_and_its_gradients_are_not() -> None:
    seen: list[object] = []

    class Counting(nn.Module):
        """Its state, in a structure of one's own, counts the steps since the beginning of the text."""

        def __init__(self, vocabulary: int) -> None:
            super().__init__()
            self.inner = Bigram(vocabulary)

        def forward(self, tokens: torch.Tensor, state: Any = None) -> tuple[torch.Tensor, Any]:
            if self.training:
                seen.append(None if state is None else (float(state["count"][0]), state["count"][0].requires_grad))
            count = (torch.zeros(()) if state is None else state["count"][0]) + len(
                tokens
            ) * self.inner.scores.weight.mean() ** 0
            return self.inner(tokens)[0], {"count": [count], "other": "kept"}

    evaluator = dataclasses.replace(TINY, max_train=1_000)
    trained(evaluator, Counting(len(evaluator.corpus().vocabulary)))
    epoch = [None, (20.0, False), (40.0, False), (60.0, False)]
    assert seen == [*epoch, *epoch]


def test_gradients_are_of_the_sum_over_steps_and_clipped() -> None:
    evaluator = dataclasses.replace(
        TINY, epochs=1, initialisation=None, learning_rate=1.0, max_train=220, batch_size=10
    )
    corpus = evaluator.corpus()
    vocabulary = len(corpus.vocabulary)
    streams = torch.from_numpy(corpus.train.astype(np.int64)).view(10, 22)
    for clip in (None, 0.5):
        torch.manual_seed(0)
        model = Bigram(vocabulary)
        mine = model.scores.weight.detach().clone().requires_grad_()
        scores = mine[streams[:, :20]]
        F.cross_entropy(scores.flatten(0, 1), streams[:, 1:21].flatten(), reduction="sum").div(10).backward()
        assert mine.grad is not None
        norm = mine.grad.norm()
        expected = mine.detach() - mine.grad * (1 if clip is None else clip / norm)
        assert norm > 0.5
        trained(dataclasses.replace(evaluator, clip=clip), model)
        torch.testing.assert_close(model.scores.weight.detach(), expected)


def test_all_data_learns_from_the_validation_text_and_measures_nothing_on_it() -> None:
    model = TINY.baseline(10_000, TINY.task())
    result = TINY.train(Child(model), RecordingContext(), all_data=True)
    assert "perplexity" not in result.metrics
    assert all("perplexity" not in row and row["train_perplexity"] > 1 for row in result.curve)


def test_bits_per_character_are_the_logarithm_of_perplexity() -> None:
    evaluator = dataclasses.replace(LanguageModel.desk(level="char", epochs=1, max_train=4_000), hidden=8)
    result = trained(evaluator, evaluator.baseline(10_000, evaluator.task()))
    assert result.metrics["bits_per_character"] == pytest.approx(math.log2(result.metrics["perplexity"]))


def test_a_step_of_the_paper_scale_is_the_paper_s() -> None:
    evaluator = dataclasses.replace(LanguageModel(), data="python-docs")
    assert (evaluator.epochs, evaluator.batch_size, evaluator.unroll, evaluator.parameters) == (35, 20, 35, 20_000_000)
    assert dropouts(evaluator) == Dropouts(0.0, 0.5, 0.5, 0.0, 0.5, variational=False)
    assert evaluator.task().layers == 2


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs must be a whole number"),
        ({"unroll": 2.5}, "unroll must be a whole number"),
        ({"vocabulary": 1}, "vocabulary must be a whole number of at least 3"),
        ({"learning_rate": 0}, "learning_rate"),
        ({"decay": 1.5}, "decay must be"),
        ({"clip": -1.0}, "clip must be"),
        ({"initialisation": float("nan")}, "initialisation must be"),
        ({"dropout": 1.0}, "dropout must be"),
        ({"optimizer": "sgdd"}, "optimizer"),
        ({"level": "sentence"}, "level"),
        ({"precision": "fp16"}, "precision"),
        ({"tied": 1}, "tied must be True or False"),
        ({"tied": True, "embedding": 3, "hidden": 4}, "leave embedding out"),
        ({"data": " "}, "empty text"),
        ({"max_train": 1}, "max_train"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        dataclasses.replace(TINY, **changes)


def test_a_text_shorter_than_its_sequences_is_refused() -> None:
    evaluator = dataclasses.replace(TINY, batch_size=20, unroll=1_000)
    with pytest.raises(DataError, match=r"3,000 symbols; batch_size=20 streams of unroll=1000 steps need 20,020"):
        trained(evaluator, evaluator.baseline(10_000, evaluator.task()))


def test_a_model_that_is_no_language_model_is_told_what_it_must_give() -> None:
    class Scores(nn.Module):
        def __init__(self, give: Any) -> None:
            super().__init__()
            self.weight, self.give = nn.Parameter(torch.zeros(7)), give

        def forward(self, tokens: torch.Tensor, state: object = None) -> Any:
            return self.give(self.weight.expand(*tokens.shape, 7))

    for give, message in (
        (lambda scores: scores, r"\(scores, state\) for \(tokens, state\), and gives a Tensor"),
        (lambda scores: (scores[0], None), r"\[steps, batch, vocabulary\]"),
        (lambda scores: (scores, None), "scores 7"),
    ):
        with pytest.raises(ChildFailed, match=message):
            trained(TINY, Scores(give))


def test_a_search_on_too_little_text_is_refused_before_anything_is_recorded(tmp_path: Path) -> None:
    text = tmp_path / "short.txt"
    text.write_text("so few words that no step of training is filled by them\n" * 40)
    with pytest.raises(DataError, match="do not fill one step of training, so every child would fail; give more data"):
        search(RecurrentCell(base=2), LanguageModel.desk(str(text)), trials=3, store=tmp_path / "runs.db")
    assert not (tmp_path / "runs.db").exists()


def test_nan_in_the_weights_is_told_as_diverged() -> None:
    model = TINY.baseline(10_000, TINY.task())
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    with pytest.raises(Diverged, match="epoch 1"):
        trained(dataclasses.replace(TINY, initialisation=None), model)


# --- the Penn Treebank ------------------------------------------------------------------------------------------------


@pytest.mark.data
def test_a_child_of_the_paper_takes_a_step(data_folder: Path) -> None:
    evaluator = dataclasses.replace(LanguageModel(), epochs=1, max_train=721, max_validation=20)
    task = evaluator.task()
    assert task == TextTask(10_000, 2, parameters=20_000_000)
    cell = SPACE.build(decode(RecurrentCell(), sample(RecurrentCell(), random.Random(0))), task)
    assert count_parameters(cell.model) == 19_977_808
    result = evaluator.train(cell, RecordingContext())
    assert 5_000 < result.curve[0]["train_perplexity"] < 20_000
    assert result.metrics["multiply_adds"] == 32 * 537**2 + 537 * 10_000
