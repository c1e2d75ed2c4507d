"""The LSTM controller: its probabilities are those of the paper's formulas, sampled and scored alike."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from archsmith.core.space import FunctionSpace, Space, decode, enumerate_genotypes
from archsmith.core.walk import Choose
from archsmith.searchers import DepthSchedule
from archsmith.searchers.lstm_controller import Controller, one_thread
from archsmith.testing.searcher import mixed_space


def chain(choose: Choose, layers: int = 3, heights: tuple[int, ...] = (1, 3)) -> Any:
    return [
        {"height": choose(f"{i}.height", heights), "inputs": choose.subset(f"{i}.inputs", range(i))}
        for i in range(layers)
    ]


def chain2(choose: Choose) -> Any:
    return chain(choose, 2, (1, 3, 5, 7))


def conditional(choose: Choose) -> Any:
    """Questions, option lists and even whether a subset refers to steps depend on answers."""
    layers = []
    for i in range(2):
        layer: dict[str, Any] = {"type": choose(f"{i}.type", ("conv", "pool", "none"))}
        if layer["type"] == "conv":
            layer["size"] = choose(f"{i}.size", (1, 3, 5)[: i + 1])
            layer["extras"] = choose.subset(f"{i}.extras", ("norm", "dropout"))
        if layer["type"] == "pool":
            layer["size"] = choose(f"{i}.size", (2, 3))
        if layer["type"] != "none":
            layer["inputs"] = choose.subset(f"{i}.inputs", range(i))
        layers.append(layer)
    return layers


def windowed(choose: Choose) -> Any:
    """Anchors that refer to the last two steps only, so that option and place differ."""
    return [choose.subset(f"{i}.inputs", range(max(0, i - 2), i)) for i in range(4)]


def deep(choose: Choose) -> Any:
    return chain(choose, choose("layers", (2, 3, 4)))


SPACES = [chain2, chain, conditional, windowed, deep]


def controller(space: Space, **options: Any) -> Controller:
    """One whose policy is far from uniform, so that mistakes show."""
    sizes: dict[str, Any] = {"hidden": 10, "layers": 2, "embedding": 10, "init": 2.0, **options}
    return Controller(space, 3, **sizes)


def log_probs(policy: Controller, genotypes: list[Any]) -> torch.Tensor:
    return policy.score([policy.reader.trace(g) for g in genotypes]).log_prob.detach().double().sum(1)


@pytest.mark.parametrize("anchor_input", ["answers", "hidden"])
@pytest.mark.parametrize("function", SPACES)
def test_probabilities_of_all_genotypes_sum_to_one(function: Any, anchor_input: str) -> None:
    space = FunctionSpace(function)
    genotypes = list(enumerate_genotypes(space))
    policy = controller(space, anchor_input=anchor_input)
    probabilities = log_probs(policy, genotypes).exp()
    assert probabilities.sum().item() == pytest.approx(1, abs=1e-5)
    assert probabilities.max() > 1.5 * probabilities.mean()  # far from uniform


@pytest.mark.parametrize("anchor_input", ["answers", "hidden"])
@pytest.mark.parametrize("function", [*SPACES, mixed_space])
def test_what_is_sampled_is_scored_alike(function: Any, anchor_input: str) -> None:
    space = FunctionSpace(function)
    policy = controller(space, anchor_input=anchor_input)
    genotypes, sampled = policy.sample(0, 64, seed=5)
    for genotype in genotypes:
        decode(space, genotype)
    np.testing.assert_allclose(sampled, log_probs(policy, genotypes).numpy(), atol=1e-5)


@pytest.mark.parametrize("function", [chain, conditional])
def test_samples_are_drawn_with_the_scored_probabilities(function: Any) -> None:
    space = FunctionSpace(function)
    policy = controller(space)
    genotypes = list(enumerate_genotypes(space))
    expected = 6000 * log_probs(policy, genotypes).exp().numpy()
    counts = Counter(genotype.key for genotype in policy.sample(0, 6000, seed=1)[0])
    often = expected >= 5  # the rest as one cell, as the chi-squared test wants it
    seen = np.array([counts[genotype.key] for genotype in genotypes])
    observed = np.append(seen[often], seen[~often].sum())
    expected = np.append(expected[often], max(expected[~often].sum(), 1e-9))
    chi2 = ((observed - expected) ** 2 / expected).sum()
    freedom = len(observed) - 1
    assert chi2 < freedom + 5 * math.sqrt(2 * freedom)


def log_prob_by_hand(p: dict[str, torch.Tensor], answers: Any, anchor_input: str) -> float:
    """The log-probability of a three-layer chain, step by step with torch's own cells."""
    cells = []
    for layer in range(2):
        cell = torch.nn.LSTMCell(10, 10)
        parts = {"weight_ih": "input", "weight_hh": "hidden", "bias_ih": "bias"}
        cell.load_state_dict({**{k: p[f"lstm{layer}.{v}"] for k, v in parts.items()}, "bias_hh": torch.zeros(40)})
        cells.append(cell)
    states: list[Any] = [None, None]
    anchors: list[torch.Tensor] = []
    x, total = p["start"], 0.0

    def step(x: torch.Tensor) -> torch.Tensor:
        for layer, cell in enumerate(cells):
            states[layer] = cell(x, states[layer])
            x = states[layer][0]
        return x[0]

    for i in range(3):
        h = step(x)
        option = (1, 3).index(answers[f"{i}.height"])
        total += (p["choice:height.weight"] @ h + p["choice:height.bias"]).log_softmax(0)[option].item()
        h = step(p["choice:height.embedding"][option : option + 1])
        members = answers[f"{i}.inputs"]
        for j in range(i):  # P(j feeds i) = sigmoid(v . tanh(W_prev h_j + W_curr h_i))
            u = torch.tanh(p["anchor:inputs.W_prev"] @ anchors[j] + p["anchor:inputs.W_curr"] @ h)
            probability = torch.sigmoid(p["anchor:inputs.v"] @ u).item()
            total += math.log(probability if j in members else 1 - probability)
        anchors.append(h)
        if not members:
            x = p["anchor:inputs.none"]
        elif anchor_input == "hidden":
            x = torch.stack([anchors[j] for j in members]).mean(0, keepdim=True)
        else:
            x = p["anchor:inputs.embedding"][members].mean(0, keepdim=True)
    return total


@pytest.mark.parametrize("anchor_input", ["answers", "hidden"])
def test_a_trace_is_the_formula_written_out(anchor_input: str) -> None:
    space = FunctionSpace(chain)
    policy = controller(space, anchor_input=anchor_input)
    genotypes = list(enumerate_genotypes(space))
    scored = log_probs(policy, genotypes)
    assert ("anchor:inputs.embedding" in policy.parameters) == (anchor_input == "answers")
    p = {name: value.detach() for name, value in policy.parameters.items()}
    with torch.no_grad():
        by_hand = [log_prob_by_hand(p, genotype.answers, anchor_input) for genotype in genotypes]
    np.testing.assert_allclose(scored.numpy(), by_hand, atol=1e-5, rtol=1e-5)


def test_a_script_that_proves_wrong_is_given_up() -> None:
    def rare(choose: Choose) -> Any:
        bits = [choose(f"{i}.bit", (0, 1, 2, 3)) for i in range(5)]
        if bits == [3, 3, 3, 3, 3]:  # one in 1,024: probing misses it
            bits.append(choose("secret", ("a", "b")))
        return bits

    space = FunctionSpace(rare)
    policy = controller(space, init=0.08)
    genotypes: list[Any] = []
    for batch in range(6):
        genotypes += policy.sample(0, 512, seed=batch)[0]
    for genotype in genotypes:
        decode(space, genotype)
    assert any("secret" in genotype.answers for genotype in genotypes)
    assert not policy.reader.scripted
    traces = [policy.reader.trace(genotype) for genotype in genotypes if "secret" in genotype.answers]
    assert torch.isfinite(policy.score(traces).log_prob).all()


def test_a_script_that_ends_early_is_given_up() -> None:
    def rare(choose: Choose) -> Any:
        bits = [choose(f"{i}.bit", (0, 1, 2, 3)) for i in range(5)]
        return bits if bits == [3] * 5 else [*bits, choose("last", ("a", "b"))]

    space = FunctionSpace(rare)
    policy = controller(space, init=0.08)
    genotypes = policy.sample(0, 4096, seed=0)[0]
    for genotype in genotypes:
        decode(space, genotype)
    assert any("last" not in genotype.answers for genotype in genotypes)
    assert not policy.reader.scripted


def test_scripted_and_lockstep_walks_sample_alike() -> None:
    space = FunctionSpace(chain)
    policy = controller(space)
    scripted = policy.sample(0, 100, seed=9)
    policy.reader.scripted = False
    lockstep = policy.sample(0, 100, seed=9)
    assert scripted[0] == lockstep[0]
    np.testing.assert_allclose(scripted[1], lockstep[1], atol=1e-6)


def test_a_forced_depth_is_no_decision() -> None:
    """Given the depth, the rest is a distribution: at each depth the probabilities sum to 1."""
    space = FunctionSpace(deep)
    policy = controller(space, schedule=DepthSchedule(2, 1, every=50))
    genotypes = list(enumerate_genotypes(space))
    probabilities = log_probs(policy, genotypes).exp()
    for depth in (2, 3, 4):
        at_depth = torch.tensor([g.answers["layers"] == depth for g in genotypes])
        assert probabilities[at_depth].sum().item() == pytest.approx(1, abs=1e-5)
    sampled, of = policy.sample(30, 100, seed=2)  # crosses two stages
    assert [g.answers["layers"] for g in sampled] == [2] * 20 + [3] * 50 + [4] * 30
    np.testing.assert_allclose(of, log_probs(policy, sampled).numpy(), atol=1e-5)


def test_heads_that_grow_late_are_those_that_were_there() -> None:
    """The policy does not depend on the order in which it meets kinds and widths."""
    space = FunctionSpace(conditional)
    genotypes = list(enumerate_genotypes(space))
    at_once, late = controller(space), controller(space)
    expected = log_probs(at_once, genotypes)
    log_probs(late, [g for g in genotypes if g.answers["0.type"] == "none"][:1])
    late.sample(0, 3, seed=0)
    assert torch.equal(log_probs(late, genotypes), expected)


def test_parameters_start_within_the_range() -> None:
    space = FunctionSpace(conditional)
    policy = Controller(space, 0, hidden=35, layers=2, embedding=35, init=0.08)
    log_probs(policy, list(enumerate_genotypes(space)))
    values = torch.cat([value.detach().flatten() for value in policy.parameters.values()])
    assert values.abs().max() <= 0.08
    assert values.std().item() == pytest.approx(0.08 / math.sqrt(3), rel=0.02)
    assert values.mean().abs() < 0.002
    # One bias vector per layer: 4 * 35 * (35 + 35 + 1) numbers in each layer.
    assert sum(v.numel() for n, v in policy.parameters.items() if n.startswith("lstm")) == 2 * 4 * 35 * 71


def test_gradients_are_those_of_finite_differences() -> None:
    space = FunctionSpace(conditional)
    for anchor_input in ("answers", "hidden"):
        policy = controller(space, anchor_input=anchor_input, init=0.5)
        traces = [policy.reader.trace(g) for g in list(enumerate_genotypes(space))[::17]]
        weights = torch.linspace(-1, 1, len(traces))

        def value(policy: Controller = policy, traces: Any = traces, weights: torch.Tensor = weights) -> torch.Tensor:
            score = policy.score(traces)
            return (score.log_prob.sum(1) * weights).sum() + score.entropy.sum()

        value()
        names = list(policy.parameters)
        gradients = torch.autograd.grad(value(), [policy.parameters[n] for n in names])
        rng = np.random.default_rng(0)
        for name, gradient in zip(names, gradients, strict=True):
            direction = torch.from_numpy(rng.standard_normal(gradient.shape)).float()
            direction /= direction.norm()
            ends = []
            with torch.no_grad():
                for sign in (1, -2, 1):
                    policy.parameters[name] += sign * 0.01 * direction
                    ends.append(value().item())
            numeric = (ends[0] - ends[1]) / 0.02
            assert numeric == pytest.approx((gradient * direction).sum().item(), abs=5e-3, rel=2e-2), name


def test_adam_is_torchs() -> None:
    space = FunctionSpace(chain)
    policy = controller(space)
    traces = [policy.reader.trace(g) for g in list(enumerate_genotypes(space))[:9]]
    policy.score(traces)
    peers = {name: value.detach().clone().requires_grad_() for name, value in policy.parameters.items()}
    adam = torch.optim.Adam(peers.values(), lr=0.01)
    for _ in range(5):
        score = policy.score(traces)
        gradients = torch.autograd.grad(-score.log_prob.mean(), list(policy.parameters.values()), allow_unused=True)
        for peer, gradient in zip(peers.values(), gradients, strict=True):
            peer.grad = torch.zeros_like(peer) if gradient is None else gradient
        norm = torch.cat([g.flatten() for g in gradients if g is not None]).norm().item()
        assert policy.descend(-policy.score(traces).log_prob.mean(), 0.01) == pytest.approx(norm, rel=1e-4)
        adam.step()
        for name, value in policy.parameters.items():
            torch.testing.assert_close(value.detach(), peers[name].detach(), rtol=1e-4, atol=1e-6)


def test_entropy_is_that_of_the_distribution() -> None:
    """By the chain rule the entropy of a genotype is the expectation of the sum of its steps' entropies."""
    space = FunctionSpace(conditional)
    genotypes = list(enumerate_genotypes(space))
    policy = controller(space)
    score = policy.score([policy.reader.trace(g) for g in genotypes])
    logs = score.log_prob.detach().double().sum(1)
    assert (logs.exp() * score.entropy.detach().sum(1)).sum().item() == pytest.approx(
        -(logs.exp() * logs).sum().item(), rel=1e-5
    )


names = st.sampled_from(["a", "b", "c"])


@st.composite
def plans(draw: st.DrawFn) -> list[tuple[str, str, int, int]]:
    """Questions of all forms in any order: form, kind, number of options, and after which answer they are left out."""
    forms = st.sampled_from(["choice", "letters", "steps"])
    return draw(st.lists(st.tuples(forms, names, st.integers(1, 3), st.integers(0, 2)), min_size=1, max_size=7))


@settings(max_examples=25, deadline=None)
@given(plans(), st.booleans())
def test_any_space_is_sampled_legally_and_scored_alike(plan: list[tuple[str, str, int, int]], hidden: bool) -> None:
    def space_of(choose: Choose) -> Any:
        last, subsets, answers = 0, Counter[str](), []
        for number, (form, kind, width, left_out) in enumerate(plan):
            if left_out and last == left_out:
                continue
            name = f"{number}.{kind}"
            if form == "choice":
                last = choose(name, tuple(range(width)))
                answers.append(last)
            elif form == "letters":
                answers.append(choose.subset(name, tuple("xyz"[:width]), kind=kind))
                subsets[kind] += 1
            else:
                answers.append(choose.subset(name, range(min(width, subsets[kind])), kind=kind))
                subsets[kind] += 1
        return answers

    space = FunctionSpace(space_of)
    policy = controller(space, hidden=5, embedding=5, anchor_input="hidden" if hidden else "answers")
    genotypes, sampled = policy.sample(0, 12, seed=0)
    for genotype in genotypes:
        decode(space, genotype)
    np.testing.assert_allclose(sampled, log_probs(policy, genotypes).numpy(), atol=1e-5)


def test_scores_do_not_depend_on_what_stands_beside() -> None:
    space = FunctionSpace(conditional)
    policy = controller(space)
    genotypes = list(enumerate_genotypes(space))[::7]
    together = log_probs(policy, genotypes)
    alone = torch.stack([log_probs(policy, [g])[0] for g in genotypes])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_threads_are_put_back() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(KeyError, match="1"), one_thread():
            raise KeyError(torch.get_num_threads())
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_probability_of_a_long_chain_is_the_sum_of_its_terms() -> None:
    """SPEC 1e: 2 softmax terms per layer here, and L(L-1)/2 Bernoulli terms."""
    layers = 12
    space = FunctionSpace(lambda choose: chain(choose, layers))
    policy = Controller(space, 0, hidden=35, layers=2, embedding=35, init=0.08)
    (genotype,), (sampled,) = policy.sample(0, 1, seed=0)
    score = policy.score([policy.reader.trace(genotype)])
    assert score.decisions == layers + layers * (layers - 1) // 2
    assert score.log_prob.shape == (1, 2 * layers)
    assert score.log_prob.sum().item() == pytest.approx(sampled, rel=1e-6)
