"""Update rules: the language, the space, and children trained by them (Bello et al. 2017)."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import archsmith as smith
from archsmith.core.child import Task, TextTask
from archsmith.core.errors import ChildFailed, IllegalExpression, UnknownName, UsageError
from archsmith.core.expression import Expression
from archsmith.core.parts import PartSpace
from archsmith.core.space import build, decode, enumerate_genotypes, sample, space_size
from archsmith.nn.update_language import BINARY, DECAYS, OPERANDS, UNARY, UPDATE_RULES, follows_gradient
from archsmith.report.draw import draw
from archsmith.spaces import ConvChain, Product, UpdateRule
from archsmith.testing.evaluator import RecordingContext
from archsmith.testing.space import SpaceContract
from archsmith.training import ImageClassification

L = UPDATE_RULES
TEXTS = {**OPERANDS, **DECAYS}


class TestUpdateRule(SpaceContract):
    def space(self) -> UpdateRule:
        # Without the constants that make rules which learn nothing, and so no child.
        learning = ("g", "g^2", "m", "v", "sign(g)", "sign(m)", "adam", "rmsprop")
        return UpdateRule(
            model="convnet2_small",
            groups=2,
            operands=learning,
            unary=("x", "-x", "exp", "drop 0.1"),
            binary=("x+y", "x*y"),
        )

    def wrong_architectures(self) -> list[Any]:
        right = self.space().from_expression("g")
        return [
            None,
            {},
            "g",
            {**right, "kind": "conv_chain"},
            {**right, "language": {"name": "update rules", "version": 2}},
            {**right, "language": {"name": "update rules", "version": True}},
            {**right, "language": None},
            {**right, "update": ["sinh", "g"]},
            {**right, "update": ["exp", "g", "m"]},
            {**right, "update": math.nan},
            {**right, "more": 1},
        ]


@st.composite
def rules(draw: st.DrawFn) -> Expression:
    """Rules as the space makes them, of one to three groups."""
    space = UpdateRule(groups=draw(st.integers(1, 3)), decays=draw(st.booleans()))
    return space.expression(decode(space, sample(space, random.Random(draw(st.integers(0, 10**9))))))


@given(rules())
@settings(max_examples=400, deadline=None)
def test_a_printed_rule_parses_back_to_itself(rule: Expression) -> None:
    assert L.parse(L.show(rule)) == rule
    assert L.from_json(rule.to_json()) == rule
    simple = L.simplify(rule)
    assert L.parse(L.show(simple)) == simple
    assert L.simplify(simple) == simple


def test_every_operand_and_function_of_the_space_parses_back_to_itself() -> None:
    for operand, unary in itertools.product(TEXTS.values(), UNARY.values()):
        for both in BINARY.values():
            rule = both(unary(operand), UNARY["exp"](operand))
            assert L.parse(L.show(rule)) == rule


def value(rule: Expression, seed: int = 0) -> torch.Tensor:
    """The rule on random gradients; what stays fixed for all of them are the averages and the weights."""
    torch.manual_seed(seed)
    names = {name: torch.randn(64, dtype=torch.float64) for name in ("g", "m", "gamma", "w")}
    names["v"] = torch.rand(64, dtype=torch.float64)
    known: dict[str, Any] = {"torch": torch, **names, "annealing": 0.3}
    known |= {name: torch.tensor(f, dtype=torch.float64) for name, f in zip(DECAYS, (0.7, 0.9, 0.2), strict=False)}
    lines, result = L.statements(rule)
    exec("\n".join(lines), known)
    return torch.as_tensor(eval(result, known), dtype=torch.float64).expand(64)


@given(rules())
@settings(max_examples=300, deadline=None)
def test_simplifying_keeps_what_a_rule_computes(rule: Expression) -> None:
    if L.is_fresh(rule):
        return
    before, after = value(rule), value(L.simplify(rule))
    same = torch.isfinite(before) & (before.abs() < 1e9)
    torch.testing.assert_close(after[same], before[same], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("sign(sign(g))", "sign(g)"),
        ("g * m", "m * g"),
        ("clip(clip(g, 1e-3), 1e-5)", "clip(g, 1e-5)"),
        ("log(exp(m))", "m"),
        ("g - (g - m)", "m"),
        ("-(g - m)", "m - g"),
        ("exp(0 * v) * g", "g"),
        ("drop(g - g, 0.3) + m", "m"),
        ("2 ^ 1 * g", "2 * g"),
        ("-g * m", "g * -m"),
        ("-g - m", "-m - g"),
        ("-g / m", "-(g / m)"),
        ("m + -g * v", "m - v * g"),
        ("2 * -g", "-2 * g"),
        ("g - -2", "2 + g"),
        ("g + -1", "g - 1"),
        ("-1 / g", "-(1 / g)"),
        ("m * sign(-g)", "-m * sign(g)"),
        ("drop(-g, 0.3)", "-drop(g, 0.3)"),
        ("g * clip(-m, 1e-4)", "-(clip(m, 1e-4) * g)"),
        ("g * g", "g ^ 2"),
        ("g * g ^ 2", "g ^ 3"),
        ("g * g ^ 3", "g ^ 2 * g ^ 2"),
    ],
)
def test_equal_rules_have_one_canonical_form(one: str, other: str) -> None:
    space = UpdateRule()
    assert space.canonical(space.from_expression(one)) == space.canonical(space.from_expression(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("sign(g) * sign(m)", "sign(g * m)"),  # of 1e-30 and 1e-30 the product is 0 in float32
        ("g / g", "1"),  # beside 1e-8
        ("noise - noise", "0"),
        ("drop(g, 0.1) - drop(g, 0.1)", "0"),
        ("sqrt(g) ^ 2", "g"),
    ],
)
def test_rules_that_differ_are_not_merged(one: str, other: str) -> None:
    assert L.simplify(L.parse(one)) != L.simplify(L.parse(other))


def test_the_space_has_the_papers_size() -> None:
    assert len(OPERANDS) == 17
    assert len(UNARY) == 12
    assert len(BINARY) == 6
    assert space_size(UpdateRule()) == (17 * 12) ** 2 * 6 == 249_696
    # A second group offers the first one's result as well; decays are four more operands.
    assert space_size(UpdateRule(groups=2)) == 249_696 * (18 * 12) ** 2 * 6
    assert space_size(UpdateRule(decays=True)) == (21 * 12) ** 2 * 6


@pytest.mark.parametrize(
    ("answers", "rule"),
    [
        (("g", "1", "x", "x", "keep left"), "g"),  # stochastic gradient descent
        (("m", "g", "x", "exp", "keep left"), "m"),  # momentum
        (("sign(g)", "g", "x", "x", "keep left"), "sign(g)"),
        (("g", "g", "sign", "x", "keep left"), "sign(g)"),
        (("adam", "1", "x", "x", "keep left"), "m / sqrt(v)"),
        (("m", "v", "x", "sqrt", "x/y"), "m / sqrt(v)"),
        (("m", "v", "x", "exp", "x*y"), "m * exp(v)"),
        (("g", "m", "exp", "exp", "x-y"), "exp(g) - exp(m)"),
        (("g", "m", "x", "drop 0.3", "x+y"), "g + drop(m, 0.3)"),
        (("g", "g^2", "x", "clip 1e-4", "x-y"), "g - clip(g ^ 2, 1e-4)"),
        (("g", "1e-2w", "x", "x", "x+y"), "g + 0.01 * w"),
    ],
)
def test_known_rules_are_in_the_space(answers: tuple[str, ...], rule: str) -> None:
    space = UpdateRule()
    given = smith.core.genotype.Genotype(
        smith.core.space.identity(space),
        dict(zip(["0.op1", "0.op2", "0.u1", "0.u2", "0.binary"], answers, strict=True)),
    )
    assert space.formula(decode(space, given)) == rule


def test_later_groups_read_earlier_ones() -> None:
    space = UpdateRule(groups=2)
    answers = {"0.op1": "sign(g)", "0.op2": "sign(m)", "0.u1": "x", "0.u2": "x", "0.binary": "x*y"}
    answers |= {"1.op1": "group 0", "1.op2": "g", "1.u1": "exp", "1.u2": "x", "1.binary": "x*y"}
    architecture = decode(space, smith.core.genotype.Genotype(smith.core.space.identity(space), answers))
    assert space.formula(architecture) == "exp(sign(g) * sign(m)) * g"
    assert space.latex(architecture).endswith(r"e^{\mathrm{sign}(g) \cdot \mathrm{sign}(\hat m)} \cdot g \right)")


def test_the_largest_rules_are_read_again() -> None:
    space = UpdateRule(groups=7, operands=("adam", "rmsprop"), unary=("exp", "-x"), binary=("x/y", "x^y"))
    for seed in range(50):
        rng = random.Random(seed)

        def largest(name: str, options: Any, rng: random.Random = rng, **_: Any) -> Any:
            return options[-1] if "op" in name else rng.choice(options)

        rule = space.expression(space.architecture(largest))
        assert L.parse(L.show(rule)) == rule


def test_many_genotypes_are_one_rule() -> None:
    space = UpdateRule(
        operands=("g", "m", "1", "sign(g)"), unary=("x", "-x", "sign"), binary=("x+y", "x-y", "x*y", "keep left")
    )
    forms = Counter(repr(space.canonical(decode(space, g))) for g in enumerate_genotypes(space))
    assert sum(forms.values()) == space_size(space) == 576
    assert forms["'g'"] >= 12  # keep left, whatever stands on the right
    assert len(forms) < 200


# --- children ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["2", "noise", "w", "g - g", "sign(exp(m))", "drop(w, 0.5)", "linear_decay", "g ^ 0"])
def test_a_rule_without_the_gradient_is_a_child_that_failed(rule: str) -> None:
    space = UpdateRule(model="convnet2_small")
    assert not follows_gradient(L.parse(rule))
    with pytest.raises(ChildFailed, match="does not follow the gradient") as failed:
        space.build(space.from_expression(rule), Task((1, 8, 8), 10))
    assert failed.value.reason == "no gradient"


DIGITS = ImageClassification("digits", epochs=2, schedule="constant", upsample=1.0, precision="fp32")


def train(rule: str, config: ImageClassification = DIGITS, rate: float = 0.5) -> Any:
    space = UpdateRule(model="convnet2_small")
    torch.manual_seed(0)
    child = space.build(space.from_expression(rule), config.task())
    if not config.learning_rates:
        child = smith.core.child.Child(child.model, rate, child.optimizer)
    return config.train(child, RecordingContext())


def test_a_rule_trains_a_child() -> None:
    result = train("exp(sign(g) * sign(m)) * g")
    assert result.metrics["accuracy"] > 0.5
    assert train("exp(sign(g) * sign(m)) * g").metrics["accuracy"] == result.metrics["accuracy"]


def test_decays_follow_the_training() -> None:
    assert train("linear_decay * sign(m) * 0.1").curve != train("sign(m) * 0.1").curve


@pytest.mark.parametrize("rule", ["exp(exp(exp(exp(g))))", "g ^ m", "2 ^ (2 ^ 2000) * g", "exp(1 / 0) * g"])
def test_nan_and_overflow_are_a_child_that_diverged(rule: str) -> None:
    with pytest.raises(smith.core.errors.Diverged):
        train(rule, rate=10.0)


def test_the_best_of_the_learning_rates_is_kept() -> None:
    rates = (1e-5, 0.5, 1e30)
    probing = dataclasses.replace(DIGITS, learning_rates=rates)
    result = train("g", probing)
    assert result.metrics["learning_rate"] == 0.5
    assert result.cost.epochs == DIGITS.epochs + len(rates)  # one epoch for each rate, and the training
    assert len(result.curve) == DIGITS.epochs
    alone = train("g", rate=0.5)
    assert [row["loss"] for row in result.curve] == [row["loss"] for row in alone.curve]  # trained as if never probed


def test_a_child_that_no_rate_suits_diverged() -> None:
    with pytest.raises(smith.core.errors.Diverged, match="every learning rate"):
        train("g", dataclasses.replace(DIGITS, learning_rates=(1e30, 1e35)))


def test_a_child_of_its_own_rate_is_not_probed() -> None:
    space = UpdateRule(model="convnet2_small")
    child = dataclasses.replace(space.baseline(DIGITS.task()), learning_rate=0.01)
    result = dataclasses.replace(DIGITS, learning_rates=(1.0,)).train(child, RecordingContext())
    assert result.metrics["learning_rate"] == 0.01
    assert result.cost.epochs == DIGITS.epochs


@pytest.mark.parametrize("rates", [(0.0,), (-1.0,), (True,), ("0.1",), (math.inf,), (0.1, 0.1), 0.1])
def test_bad_learning_rates_are_refused(rates: Any) -> None:
    with pytest.raises(UsageError, match="learning_rates"):
        ImageClassification(learning_rates=rates)


# --- the part of a product, the drawing, what makes no sense ----------------------------------------------------------


def test_it_is_a_part_of_products() -> None:
    part = UpdateRule(operands=("g", "m"), unary=("x",), binary=("x+y",))
    assert isinstance(part, PartSpace)
    space = Product(ConvChain(layers=2, filters=(4,)), part)
    child = build(space, sample(space, random.Random(0)), Task((1, 8, 8), 3))
    assert child.optimizer is not None
    before = [p.detach().clone() for p in child.model.parameters()]
    optimizer = child.optimizer(child.model.parameters(), 0.1)
    child.model(torch.rand(4, 1, 8, 8)).logsumexp(1).sum().backward()
    optimizer.step()
    assert any(not torch.equal(p, b) for p, b in zip(child.model.parameters(), before, strict=True))


def test_standards_are_architectures_or_the_baseline() -> None:
    space = UpdateRule(model="convnet2_small")
    standards = space.standards()
    assert standards["SGD with momentum"] is None
    assert standards["Adam"] is not None
    assert space.build(standards["Adam"], Task()).optimizer is not None


def test_the_drawing_says_the_formula() -> None:
    space = UpdateRule()
    architecture = space.from_expression("exp(sign(g) * sign(m)) * g")
    diagram = space.diagram(architecture)
    assert diagram.title == "Update rule: step = exp(sign(g) * sign(m)) * g"
    assert Counter(node.label for node in diagram.nodes) == {"g": 1, "m": 1, "sign": 2, "×": 2, "exp": 1, "step": 1}
    assert "exp(sign(g) * sign(m)) * g" in draw(diagram)
    assert {e.label for e in space.diagram(space.from_expression("g - m")).edges} == {"left", "right", ""}
    assert len(space.diagram(space.from_expression("g + (noise + noise)")).nodes) == 6  # two noises


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"model": ""}, "model"),
        ({"model": 3}, "model"),
        ({"groups": 0}, "groups"),
        ({"groups": 8}, "groups"),
        ({"groups": True}, "groups"),
        ({"decays": 1}, "decays"),
        ({"operands": ("g", "h")}, "'h'"),
        ({"operands": "g"}, "tuple of names"),
        ({"unary": ("x", "x")}, "differ"),
        ({"binary": 3}, "binary"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        UpdateRule(**options)


def test_a_model_that_is_none_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match="convnet2"):
        UpdateRule(model="convnet").build(UpdateRule().from_expression("g"), Task())
    with pytest.raises(UsageError, match="images"):
        UpdateRule().build(UpdateRule().from_expression("g"), TextTask(10, hidden=3))


@pytest.mark.parametrize(("text", "named"), [("g +", "character"), ("h", "character"), ("clip(g, 2)", "character")])
def test_a_formula_that_is_none_is_refused_with_the_place(text: str, named: str) -> None:
    with pytest.raises(IllegalExpression, match=named):
        UpdateRule().from_expression(text)


def test_the_papers_network() -> None:
    child = UpdateRule().baseline(Task())
    assert sum(p.numel() for p in child.model.parameters()) == 10_538
    assert UpdateRule().layers_and_depth(None, Task()) == (2, 2)
    assert UpdateRule(model="resnet20").layers_and_depth(None, Task()) == (21, 19)


def test_the_page_of_a_run_says_the_formula(tmp_path: Any) -> None:
    space = UpdateRule(model="convnet2_small", operands=("g", "m"), unary=("sign", "exp"), binary=("x*y",))
    config = dataclasses.replace(DIGITS, epochs=1, max_train=100)
    run = smith.search(space, config, trials=2, store=f"sqlite:///{tmp_path}/runs.db", name="rules")
    assert run.best is not None
    text = run.report(tmp_path / "page.html").read_text(encoding="utf-8")
    formula = space.formula(decode(space, run.best.genotype))
    assert f"Update rule: step = {formula}" in text
    assert r"w \leftarrow w - \lambda" in text


def test_one_rule_by_two_genotypes_is_trained_once(tmp_path: Any) -> None:
    """g kept beside whatever it was asked for is the same child every time, and trials have seeds of their own."""
    space = UpdateRule(model="convnet2_small", operands=("g", "m"), unary=("x",), binary=("keep left",))
    config = dataclasses.replace(DIGITS, epochs=1, max_train=200, learning_rate=0.5)
    run = smith.search(space, config, trials=6, store=f"sqlite:///{tmp_path}/runs.db", name="rules")
    results: dict[str, set[float]] = {}
    for trial in run.trials():
        assert trial.result is not None
        results.setdefault(repr(space.canonical(decode(space, trial.genotype))), set()).add(
            trial.result.metrics["loss"]
        )
    assert len({trial.genotype.key for trial in run.trials()}) > len(results)
    assert all(len(values) == 1 for values in results.values())
