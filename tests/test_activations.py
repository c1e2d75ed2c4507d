"""Activation functions: the language, modules, the space, its children, and exhaustive search (Ramachandran et al. 2017)."""

from __future__ import annotations

import copy
import itertools
import math
import pickle
import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import archsmith as smith
from archsmith.core.child import Task, TextTask
from archsmith.core.errors import ChildFailed, IllegalExpression, UnknownName, UsageError
from archsmith.core.expression import Expression
from archsmith.core.parts import PartSpace
from archsmith.core.space import FunctionSpace, build, decode, enumerate_genotypes, sample, space_size
from archsmith.core.walk import Choose
from archsmith.nn.activation import ActivationFunction, with_activation
from archsmith.nn.activation_language import ACTIVATIONS, BINARY, UNARY, is_constant, slope_at, value_at
from archsmith.nn.count import count_parameters
from archsmith.nn.models import model_named
from archsmith.report.draw import draw
from archsmith.searchers import Exhaustive
from archsmith.spaces import Activation, ConvChain, GrownGraph, Product, UpdateRule
from archsmith.testing.evaluator import RecordingContext
from archsmith.testing.searcher import SearcherContract
from archsmith.testing.space import SpaceContract
from archsmith.training import ImageClassification

L = ACTIVATIONS
X = L.make("x")
SMALL = Task((1, 8, 8), 10)


class TestActivation(SpaceContract):
    def space(self) -> Activation:
        # Without the options that make constants, and so no child.
        unary = ("x", "-x", "x^2", "beta*x", "sigmoid", "max(x,0)", "sin")
        return Activation(model="convnet2_small", units=2, unary=unary, binary=("x*y", "max", "sigmoid(x)*y"))

    def wrong_architectures(self) -> list[Any]:
        right = self.space().from_expression("relu(x)")
        return [
            None,
            {},
            "x",
            {**right, "kind": "update_rule"},
            {**right, "language": {"name": "activation functions", "version": 2}},
            {**right, "language": {"name": "activation functions", "version": True}},
            {**right, "language": None},
            {**right, "function": ["swish", "x"]},
            {**right, "function": ["exp", "x", "x"]},
            {**right, "function": ["exp"]},
            {**right, "function": math.nan},
            {**right, "more": 1},
        ]


def conditional(choose: Choose) -> Any:
    """456 architectures, by questions that depend on answers."""
    first = choose("first", ("a", "b"))
    rest = [choose("second", (1, 2, 3)) if first == "a" else choose.subset("third", ("p", "q", "r", "s"))]
    return [first, *rest, choose("fourth", range(24))]


class TestExhaustive(SearcherContract):
    learns_from_others = False

    def searcher(self) -> Exhaustive:
        return Exhaustive()

    def space(self) -> FunctionSpace:
        return FunctionSpace(conditional)

    def wrong(self) -> Sequence[Callable[[], object]]:
        return (
            lambda: Exhaustive(shuffle=1),  # type: ignore[arg-type]
            lambda: Exhaustive().start(GrownGraph(), 0),
            lambda: Exhaustive().start(Activation(units=2), 0),
        )


# --- the language -----------------------------------------------------------------------------------------------------


@st.composite
def functions(draw: st.DrawFn) -> Expression:
    """Functions as the space makes them, of one to three units."""
    space = Activation(units=draw(st.integers(1, 3)))
    return space.expression(decode(space, sample(space, random.Random(draw(st.integers(0, 10**9))))))


@given(functions())
@settings(max_examples=300, deadline=None)
def test_a_printed_function_parses_back_to_itself(function: Expression) -> None:
    assert L.parse(L.show(function)) == function
    assert L.from_json(function.to_json()) == function
    simple = L.simplify(function)
    assert L.parse(L.show(simple)) == simple
    assert L.simplify(simple) == simple


def test_the_options_are_the_papers() -> None:
    assert len(UNARY) == 25
    assert len(BINARY) == 10
    assert space_size(Activation()) == 25 * 25 * 10 == 6250
    assert space_size(Activation(units=2)) == 6250 * 6250 * 4  # either input of the second is x or the first's result
    own = {name: make(X) for name, make in UNARY.items()}
    assert len(set(own.values())) == 25
    assert all(L.parse(L.show(expression)) == expression for expression in own.values())


POINTS = (-3.7, -2.2, -1.3, -0.6, -0.25, -0.03, 0.04, 0.1, 0.4, 0.9, 1.7, 2.6, 4.1)


def test_of_one_unit_equal_functions_are_found_equal_and_no_others() -> None:
    """Every function without beta, 3,388 of them: the canonical form computes the same, and tells apart what differs."""
    plain = [u for name, u in UNARY.items() if "beta" not in name]
    both = [b for name, b in BINARY.items() if "beta" not in name]
    forms: dict[Any, set[Expression]] = {}
    for u1, u2, b in itertools.product(plain, plain, both):
        written = b(u1(X), u2(X))
        simple = L.simplify(written)
        values = []
        for x in POINTS:
            before, after = value_at(written, x), value_at(simple, x)
            if not math.isnan(before) and not math.isnan(after):
                assert after == pytest.approx(before, rel=1e-9, abs=1e-9), f"{L.show(written)} -> {L.show(simple)}"
            values.append(f"{after + 0.0:.7g}")
        forms.setdefault(tuple(values), set()).add(simple)
    canonical = set().union(*forms.values())
    # What is left over are formulas with a division, equal but for its 1e-8, and a few that no rule of ours knows.
    assert len(canonical) - len(forms) <= 40 < len(forms) < 2200


@pytest.mark.parametrize("pair", [(one, other) for one in UNARY for other in UNARY if one <= other])
def test_the_order_of_commutative_operands_does_not_matter(pair: tuple[str, str]) -> None:
    a, b = (UNARY[name](X) for name in pair)
    for name in ("x+y", "x*y", "max", "min"):
        assert L.simplify(BINARY[name](a, b)) == L.simplify(BINARY[name](b, a))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("max(x, x - x)", "relu(x)"),
        ("relu(x) + min0(x)", "x"),
        ("sigmoid(x) * x", "x * sigmoid(x)"),
        ("beta * (x * 1)", "x * beta"),
        ("mix(sin(x), sin(x))", "sin(x)"),
        ("abs(-x) * x ^ 2", "x ^ 2 * abs(x)"),
        ("max(cosh(x), sin(x))", "cosh(x)"),
        ("x * x", "x ^ 2"),
        ("atan(x) * atan(x) - x", "atan(x) ^ 2 - x"),
        ("-x * sigmoid(x)", "x * -sigmoid(x)"),
        ("x * tanh(-x)", "-(x * tanh(x))"),
        ("-x - cos(x)", "-cos(x) - x"),
        ("exp(-beta * x ^ 2)", "exp(-(beta * x ^ 2))"),
    ],
)
def test_equal_functions_have_one_canonical_form(one: str, other: str) -> None:
    space = Activation()
    assert space.canonical(space.from_expression(one)) == space.canonical(space.from_expression(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("beta - beta", "0"),  # two parameters
        ("beta * x - beta * x", "0"),
        ("mix(beta * x, beta * x)", "beta * x"),
        ("max(beta * x, beta * x)", "beta * x"),
        ("x / x", "1"),  # 0 at 0
        ("sqrt(x) ^ 2", "x"),
        ("mix(x, sin(x))", "mix(sin(x), x)"),
        ("x - sin(x)", "sin(x) - x"),
    ],
)
def test_functions_that_differ_are_not_merged(one: str, other: str) -> None:
    assert L.simplify(L.parse(one)) != L.simplify(L.parse(other))


# --- modules ----------------------------------------------------------------------------------------------------------


@given(functions(), st.integers(0, 2))
@settings(max_examples=150, deadline=None)
def test_a_module_computes_what_the_formula_says(function: Expression, dims: int) -> None:
    if is_constant(function):
        with pytest.raises(UsageError, match="the same for every x"):
            ActivationFunction(function, 2)
        return
    module = ActivationFunction(function, 2, dims=dims).double()
    x = torch.tensor(POINTS[:12], dtype=torch.float64).reshape(6, 2, *[1] * dims)
    found = module(x)
    assert found.shape == x.shape
    for value, at in zip(found.flatten().tolist(), x.flatten().tolist(), strict=True):
        expected = value_at(module.expression, at)
        if math.isfinite(expected) and abs(expected) < 1e6:
            assert value == pytest.approx(expected, rel=1e-6, abs=1e-6), module.formula


@pytest.mark.parametrize(
    "text",
    [*(L.show(u(X)) for name, u in UNARY.items() if name != "beta"), "mix(x, sin(x))", "x / exp(x)", "x ^ 3 - 2"],
)
def test_autograd_agrees_with_the_slope(text: str) -> None:
    module = ActivationFunction(text, 2, dims=0).double()
    x = torch.tensor(POINTS[:12], dtype=torch.float64).reshape(6, 2).requires_grad_()
    (slope,) = torch.autograd.grad(module(x).sum(), x)
    for found, at in zip(slope.flatten().tolist(), x.flatten().tolist(), strict=True):
        assert found == pytest.approx(slope_at(L.parse(text), at), rel=1e-4, abs=1e-5)


def test_every_place_and_every_channel_has_a_beta_of_its_own() -> None:
    module = ActivationFunction("mix(beta * x, x + beta)", 3)
    assert {name: tuple(p.shape) for name, p in module.named_parameters()} == {
        "beta_0": (3,),
        "beta_1": (3,),
        "beta_2": (3,),
    }
    with torch.no_grad():
        module.get_parameter("beta_0").copy_(torch.tensor([1.0, 2.0, 3.0]))
        module.get_parameter("beta_2").fill_(1.0)  # so the first of both alone
    x = torch.ones(1, 3, 2, 2)
    assert module(x)[0, :, 0, 0].tolist() == [1.0, 2.0, 3.0]
    module(torch.ones(4, 3)).sum().backward()
    assert all(p.grad is not None and p.grad.shape == (3,) for p in module.parameters())


@pytest.mark.parametrize("shape", [(1, 3), (1, 3, 1, 1), (2, 3, 5), (2, 3, 4, 4, 4), (0, 3, 2, 2)])
def test_inputs_of_any_number_of_dimensions(shape: tuple[int, ...]) -> None:
    assert ActivationFunction("x * sigmoid(beta * x)", 3)(torch.zeros(shape)).shape == shape


@pytest.mark.parametrize("shape", [(2, 4, 3, 3), (3,), ()])
def test_inputs_of_other_channels_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="3 channels"):
        ActivationFunction("beta * x", 3)(torch.zeros(shape))


@pytest.mark.parametrize(
    "wrong", [{"channels": 0}, {"channels": True}, {"channels": 2.0}, {"dims": -1}, {"beta": math.nan}, {"beta": "1"}]
)
def test_settings_of_a_module_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="of an activation must be"):
        ActivationFunction("beta * x", **wrong)


def test_a_module_survives_copies_and_pickles() -> None:
    module = ActivationFunction("x * sigmoid(beta * x)", 3)
    x = torch.randn(2, 3, 4, 4)
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(twin(x), module(x))
    assert "sigmoid" in repr(module)


# --- Swish and the other seven ----------------------------------------------------------------------------------------


def test_the_minimum_and_the_slopes_of_swish() -> None:
    swish = smith.discovered.Swish(trainable=False).double()
    low = -1.27846454
    x = torch.tensor([low, 1.0, 0.0, 2.3994, 1.2785], dtype=torch.float64).requires_grad_()
    y = swish(x)
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert y[0].item() == pytest.approx(-0.27846454, abs=1e-8)
    assert y[0].item() == pytest.approx(low + 1, abs=1e-8)
    assert y[1].item() == pytest.approx(0.7310586, abs=1e-7)
    assert slope.tolist() == pytest.approx([0, slope[1].item(), 0.5, 1.09984, 1], abs=1e-5)
    grid = torch.linspace(-10, 10, 200_001, dtype=torch.float64).requires_grad_()
    slopes = torch.autograd.grad(swish(grid).sum(), grid)[0]
    assert slopes.max().item() == pytest.approx(1.09984, abs=1e-5)
    assert grid[slopes.argmax()].item() == pytest.approx(2.3994, abs=1e-3)
    assert swish(grid).min().item() == pytest.approx(-0.27846454, abs=1e-8)


def test_swish_is_silu_and_has_the_papers_limits() -> None:
    x = torch.linspace(-20, 20, 1001, dtype=torch.float64)
    for swish in (smith.discovered.Swish(), smith.discovered.Swish(trainable=False)):
        assert torch.allclose(swish.double()(x), nn.SiLU()(x), rtol=1e-15, atol=1e-15)
    assert torch.equal(smith.discovered.Swish(beta=0.0).double()(x), x / 2)
    assert torch.allclose(smith.discovered.Swish(beta=1e4).double()(x), torch.relu(x), atol=1e-4)


@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0])
def test_the_derivative_of_swish_is_the_closed_form(beta: float) -> None:
    swish = smith.discovered.Swish(beta=beta).double()
    x = torch.linspace(-6, 6, 121, dtype=torch.float64).requires_grad_()
    f = swish(x)
    (slope,) = torch.autograd.grad(f.sum(), x)
    closed = beta * f + torch.sigmoid(beta * x) * (1 - beta * f)
    assert torch.allclose(slope, closed, atol=1e-6 if beta != int(beta) else 1e-7)


def test_the_beta_of_swish_is_trained_for_each_channel() -> None:
    swish = smith.discovered.Swish(4)
    assert [tuple(p.shape) for p in swish.parameters()] == [(4,)]
    swish(torch.randn(2, 4, 3, 3)).sum().backward()
    gradient = swish.get_parameter("beta").grad
    assert gradient is not None
    assert gradient.abs().min() > 0
    fixed = smith.discovered.Swish(4, beta=0.7, trainable=False)
    assert not list(fixed.parameters())
    assert fixed.state_dict()["beta"].tolist() == pytest.approx([0.7] * 4)


PUBLISHED: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "swish": lambda x: x * torch.sigmoid(x),
    "max_sigmoid": lambda x: torch.maximum(x, torch.sigmoid(x)),
    "cos_minus_x": lambda x: torch.cos(x) - x,
    "min_sin": lambda x: torch.minimum(x, torch.sin(x)),
    "atan_squared_minus_x": lambda x: torch.atan(x) ** 2 - x,
    "max_tanh": lambda x: torch.maximum(x, torch.tanh(x)),
    "sinc_plus_x": lambda x: torch.where(x == 0, 1.0, torch.sin(x) / x) + x,
    "x_asinh_squared": lambda x: x * torch.asinh(x) ** 2,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_eight_published_functions(name: str) -> None:
    x = torch.linspace(-4, 4, 81, dtype=torch.float64)
    module = smith.discovered.activation(name)
    assert torch.allclose(module.double()(x), PUBLISHED[name](x), atol=1e-7)
    found = smith.discovered.NETWORKS[name]()
    assert found.genotype is not None
    space = found.space
    assert isinstance(space, Activation)
    assert L.simplify(space.expression(found.architecture)) == module.expression
    assert not is_constant(module.expression)


def test_a_published_function_that_is_none_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match="max_tanh"):
        smith.discovered.activation("max_tan")


# --- networks ---------------------------------------------------------------------------------------------------------


def test_every_relu_of_resnet20_is_replaced_with_the_right_channels() -> None:
    model = model_named("resnet20", Task())
    assert count_parameters(model) == 272_474
    with_activation(model, lambda channels, dims: smith.discovered.Swish(channels, dims=dims), (3, 32, 32))
    channels = Counter(m.channels for m in model.modules() if isinstance(m, ActivationFunction))
    assert channels == {16: 7, 32: 6, 64: 6}
    assert not [m for m in model.modules() if isinstance(m, nn.ReLU)]
    assert count_parameters(model) == 272_474 + 7 * 16 + 6 * 32 + 6 * 64
    assert model.training


def test_a_relu_again_gives_the_same_network() -> None:
    torch.manual_seed(0)
    model = model_named("resnet8", SMALL).eval()
    images = torch.randn(3, 1, 8, 8)
    before = model(images)
    averages = copy.deepcopy(model.state_dict())
    with_activation(model, lambda channels, dims: ActivationFunction("max(x, 0)", channels, dims=dims), (1, 8, 8))
    assert torch.equal(model(images), before)
    assert all(torch.equal(tensor, averages[name]) for name, tensor in model.state_dict().items())
    assert not model.training


@pytest.mark.parametrize(
    ("name", "parameters"), [("preact_resnet164", 1_703_258), ("densenet_100_12", 6_979_642), ("wrn_28_10", 36_479_194)]
)
def test_the_networks_that_judge(name: str, parameters: int) -> None:
    with torch.device("meta"):
        model = model_named(name, Task())
        assert count_parameters(model) == parameters
        with_activation(model, lambda channels, dims: smith.discovered.Swish(channels, dims=dims), (3, 32, 32))
        assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert not [m for m in model.modules() if isinstance(m, nn.ReLU)]


def test_a_module_that_is_used_twice_is_replaced_once() -> None:
    class Twice(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, width)
            self.relu = nn.ReLU()
            self.again = self.relu

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.again(self.second(self.relu(self.first(x))))
            return y

    model = with_activation(Twice(4), lambda channels, dims: ActivationFunction("beta * x", channels, dims=dims), (4,))
    assert model.relu is model.again
    assert count_parameters(model) == 2 * 20 + 4
    with pytest.raises(UsageError, match="used for several shapes"):
        with_activation(Twice(5), lambda channels, dims: nn.SiLU(), (4,))


def test_models_without_a_module_to_replace_are_refused() -> None:
    for model in (nn.Sequential(nn.Linear(4, 2)), nn.ReLU()):
        with pytest.raises(UsageError, match=r"no nn\.ReLU"):
            with_activation(model, lambda channels, dims: nn.SiLU(), (4,))
    with pytest.raises(UsageError, match="cannot take an input"):
        with_activation(nn.Sequential(nn.Linear(4, 2), nn.ReLU()), lambda channels, dims: nn.SiLU(), (5,))


# --- the space and its children ---------------------------------------------------------------------------------------


def test_relu_and_swish_are_in_the_space() -> None:
    space = Activation()
    forms = {repr(space.canonical(decode(space, genotype))) for genotype in enumerate_genotypes(space)}
    for text in ("relu(x)", "x * sigmoid(beta * x)", "max(x, tanh(x))", "cos(x) - x"):
        assert repr(space.canonical(space.from_expression(text))) in forms
    assert len(forms) < 4700  # of 6,250


def test_later_units_read_earlier_ones_and_the_largest_are_read_again() -> None:
    space = Activation(units=4)
    deep: dict[str, Any] = {}
    for i in range(4):
        names = {f"{i}.input1": f"unit {i - 1}", f"{i}.input2": f"unit {i - 1}"} if i else {}
        deep |= {**names, f"{i}.u1": "exp(-x^2)", f"{i}.u2": "exp(-x^2)", f"{i}.binary": "exp(-beta(x-y)^2)"}
    from archsmith.core.genotype import Genotype
    from archsmith.core.space import identity

    architecture = decode(space, Genotype(identity(space), deep))
    assert L.parse(L.show(space.expression(architecture))) == space.expression(architecture)
    space.canonical(architecture)


@pytest.mark.parametrize(
    "text", ["beta", "x - x", "beta * beta", "exp(-(beta * abs(x - x)))", "relu(x) * min0(x)", "7"]
)
def test_a_constant_is_a_child_that_failed(text: str) -> None:
    space = Activation(model="resnet8")
    with pytest.raises(ChildFailed, match="the same for every x") as caught:
        build(space, space.from_expression(text), SMALL)
    assert caught.value.reason == "constant"


@pytest.mark.parametrize("text", ["x / x", "max(beta, sin(x))", "beta * x", "1e-3 * x", "log(x)", "cosh(x ^ 3)"])
def test_what_is_no_constant_is_built(text: str) -> None:
    assert not is_constant(L.parse(text))


def _evaluator(**changes: Any) -> ImageClassification:
    settings: dict[str, Any] = {"epochs": 1, "batch_size": 64, "learning_rate": 0.05, "upsample": 1.0, "max_train": 300}
    return ImageClassification("digits", **{**settings, **changes})


def _trained(text: str, **changes: Any) -> Any:
    space = Activation(model="resnet8")
    answers = {"0.u1": "x", "0.u2": "x", "0.binary": "x+y"}
    from archsmith.core.genotype import Genotype
    from archsmith.core.space import identity

    class One(Activation):
        def architecture(self, choose: Choose) -> Any:
            super().architecture(choose)
            return self.from_expression(text)

    one = One(model=space.model)
    return _evaluator(**changes).evaluate(one, Genotype(identity(one), dict(answers)), RecordingContext())


def test_betas_are_trained_with_the_child() -> None:
    result = _trained("x * sigmoid(beta * x)")
    assert result.metrics["parameters"] == 77_754 + 16 * 3 + 32 * 2 + 64 * 2
    assert 0 < result.metrics["accuracy"] <= 1


@pytest.mark.parametrize("text", ["exp(exp(x ^ 2))", "x / (x - x)", "log(x) ^ x"])
def test_nan_and_overflow_are_a_child_that_diverged(text: str) -> None:
    with pytest.raises(ChildFailed) as caught:
        _trained(text, learning_rate=100.0)
    assert caught.value.reason in ("diverged", "constant")


def test_a_child_in_mixed_precision() -> None:
    assert 0 < _trained("x * sigmoid(beta * x)", precision="bf16").metrics["accuracy"] <= 1


def test_a_task_that_is_not_of_images_is_refused() -> None:
    space = Activation()
    with pytest.raises(UsageError, match="TextTask"):
        build(space, space.from_expression("x"), TextTask(10, hidden=4))


def test_it_is_a_part_of_products() -> None:
    assert isinstance(Activation(), PartSpace)
    product = Product(ConvChain(layers=2), Activation(), UpdateRule())
    task = Task((1, 12, 12), 10)
    for seed in range(60):
        genotype = sample(product, random.Random(seed))
        try:
            child = build(product, genotype, task)
        except ChildFailed:
            continue
        if child.optimizer is not None:
            break
    found = [m for m in child.model.modules() if isinstance(m, ActivationFunction)]
    assert len(found) >= 2
    assert not [m for m in child.model.modules() if isinstance(m, nn.ReLU)]
    assert child.model(torch.zeros(1, 1, 12, 12)[:, :, :, :].expand(2, -1, -1, -1)).shape == (2, 10)
    assert "f'(x)" in draw(product.diagram(decode(product, genotype)))


def test_standards_are_relu_and_silu() -> None:
    space = Activation(model="resnet8")
    standards = space.standards()
    assert list(standards) == ["ReLU", "SiLU"]
    assert standards["ReLU"] is None
    x = torch.randn(50)
    silu = space.expression(standards["SiLU"])
    assert torch.allclose(ActivationFunction(silu)(x), nn.functional.silu(x))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"units": 0}, "units"),
        ({"units": 5}, "units"),
        ({"units": True}, "units"),
        ({"model": ""}, "model"),
        ({"unary": "exp"}, "unary"),
        ({"unary": ("swish",)}, "unary"),
        ({"binary": ("max", "max")}, "binary"),
        ({"binary": 3}, "binary"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=f"^{named} of Activation"):
        Activation(**options)


@pytest.mark.parametrize("text", ["swish(x)", "x +", "y", "max(x)", "x" + " + x" * 3000, "(" * 500 + "x" + ")" * 500])
def test_a_formula_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(IllegalExpression):
        Activation().from_expression(text)


def test_a_list_that_contains_itself_is_refused() -> None:
    loop: list[Any] = ["exp"]
    loop.append(loop)
    with pytest.raises(IllegalExpression, match="depth"):
        Activation().canonical({**Activation().from_expression("x"), "function": loop})


# --- drawings and files -----------------------------------------------------------------------------------------------


def test_the_drawing_has_the_formula_the_function_and_its_derivative() -> None:
    space = Activation()
    diagram = space.diagram(space.from_expression("x * sigmoid(beta * x)"))
    assert diagram.plot is not None
    values, slopes = (dict(curve.points) for curve in diagram.plot.curves)
    assert values[1.0] == pytest.approx(0.7310586)
    assert slopes[0.0] == pytest.approx(0.5)
    drawn = draw(diagram)
    assert "f(x) = x * sigmoid(beta * x)" in drawn
    assert drawn.count("stroke-dasharray") == 2  # the derivative, and its name
    from xml.etree import ElementTree

    for text in ("log(x) / x", "exp(exp(exp(x)))", "0", "1 / (x - x)", "x ^ x"):
        ElementTree.fromstring(draw(space.diagram(space.from_expression(text))))


@pytest.mark.parametrize(
    "text", ["x * sigmoid(beta * x)", "mix(beta * x, relu(x)) - max(sinc(x), 0.5)", "softplus(x) ^ 2"]
)
def test_a_function_is_a_module_in_a_file(text: str, tmp_path: Path) -> None:
    space = Activation()
    path = smith.export(space.from_expression(text), format="source", path=tmp_path / "found.py")
    written = path.read_text()
    assert "import archsmith" not in written
    assert "from archsmith" not in written
    scope: dict[str, Any] = {}
    exec(written, scope)
    ours = ActivationFunction(text, 3)
    theirs = scope["FoundActivation"](*[3] * bool(list(ours.parameters())))
    assert theirs.state_dict().keys() == ours.state_dict().keys()
    for shape in ((2, 3), (2, 3, 4), (2, 3, 4, 4)):
        x = torch.randn(shape)
        assert torch.equal(ours(x), theirs(x))


def test_a_constant_is_not_written() -> None:
    with pytest.raises(UsageError, match="the same for every x"):
        smith.export(Activation().from_expression("x - x"), format="source")


# --- searches ---------------------------------------------------------------------------------------------------------

TOY = Activation(model="resnet8", unary=("x", "sigmoid", "beta"), binary=("x*y", "max"))


@pytest.mark.parametrize("shuffle", [True, False])
def test_an_exhaustive_search_visits_every_expression_once(shuffle: bool) -> None:
    live = Exhaustive(shuffle=shuffle).start(TOY, 3)
    seen = [proposal.genotype for k in range(10) for proposal in live.ask(k)]
    assert len(seen) == 18 == space_size(TOY)
    assert set(seen) == set(enumerate_genotypes(TOY))
    assert (seen == list(enumerate_genotypes(TOY))) is not shuffle
    assert live.ask(5) == []


def test_an_exhaustive_search_of_a_space_whose_questions_depend_on_answers() -> None:
    def chain(choose: Choose) -> Any:
        first = choose("first", ("a", "b"))
        return [first, choose("second", (1, 2, 3)) if first == "a" else choose.subset("third", ("p", "q"))]

    live = Exhaustive().start(FunctionSpace(chain), 0)
    seen = [proposal.genotype for proposal in live.ask(100)]
    assert len(seen) == len(set(seen)) == 7
    assert set(seen) == set(enumerate_genotypes(FunctionSpace(chain)))


def test_a_search_ends_by_itself_trains_equal_functions_once_and_resumes(tmp_path: Path) -> None:
    trained: list[Any] = []

    def score(architecture: Any) -> float:
        trained.append(architecture)
        return float(len(trained))

    store = f"sqlite:///{tmp_path / 'runs.db'}"
    run = smith.search(TOY, score, searcher=Exhaustive(), trials=1000, store=store, name="all", seed=1)
    trials = list(run.trials())
    assert len(trials) == 18
    forms = {repr(TOY.canonical(decode(TOY, t.genotype))) for t in trials}
    assert len(trained) == len(forms) < 18
    assert sum(t.result is not None and t.result.copied_from is not None for t in trials) == 18 - len(forms)
    before = len(trained)
    again = smith.open_run(store, "all").resume(trials=2000, evaluator=score)
    assert len(list(again.trials())) == 18
    assert len(trained) == before


def test_a_search_over_children_and_its_exports(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'runs.db'}"
    space = Activation(model="resnet8", unary=("x", "beta*x", "sinc"), binary=("sigmoid(x)*y",))
    evaluator = _evaluator(keep_weights=True, max_train=200)
    run = smith.search(space, evaluator, searcher=Exhaustive(), trials=2, store=store, name="found", seed=0)
    assert run.best is not None
    page = run.report(tmp_path / "page.html").read_text() if hasattr(run, "report") else ""
    assert "f&#x27;(x)" in page or "f'(x)" in page
    module = smith.export(run, format="source", path=tmp_path / "plain")
    assert module.name == "activation.py"
    folder = smith.export(run, format="pytorch", path=tmp_path / "model")
    source = smith.export(str(folder), format="source", path=tmp_path / "network")
    assert (Path(source) / "model.py").is_file()
    pytest.importorskip("onnxruntime")
    assert list(Path(smith.export(str(folder), format="onnx", path=tmp_path / "onnx")).glob("*.onnx"))
