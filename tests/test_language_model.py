"""Language models: their sizes, what their dropouts do, and (further down) how they are trained and measured."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from archsmith.core.child import TextTask
from archsmith.core.errors import UsageError
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
