"""Optimizers of update rules: PowerSign, AddSign, and of any formula (Bello et al. 2017; SPEC 9)."""

from __future__ import annotations

import copy
import io
import math
import pickle
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import archsmith as smith
from archsmith.core.errors import IllegalExpression, UnknownName, UsageError
from archsmith.core.space import decode, sample
from archsmith.discovered import AddSign, PowerSign
from archsmith.nn.update_rule import RuleOptimizer, decays_at, only_signs_of, rule_of
from archsmith.spaces import UpdateRule

SHAPES = [(3, 4), (5,), (), (2, 3, 3, 3), (0, 2), (90, 900)]  # the last is larger than a buffer


def parameters(seed: int = 0, dtype: torch.dtype = torch.float64) -> list[nn.Parameter]:
    draws = torch.Generator().manual_seed(seed)
    found = [nn.Parameter(torch.randn(shape, generator=draws, dtype=dtype)) for shape in SHAPES]
    found[3].data = found[3].data.contiguous(memory_format=torch.channels_last)
    return found


def gradients(params: list[nn.Parameter], step: int) -> None:
    draws = torch.Generator().manual_seed(100 + step)
    for p in params:
        p.grad = torch.randn(p.shape, generator=draws, dtype=p.dtype)


def steps(make: Callable[[list[nn.Parameter]], torch.optim.Optimizer], count: int = 5) -> list[nn.Parameter]:
    params = parameters()
    optimizer = make(params)
    for step in range(count):
        gradients(params, step)
        optimizer.step()
    return params


def same(ours: list[nn.Parameter], theirs: list[nn.Parameter], **tolerance: float) -> None:
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, **tolerance)


# --- PowerSign and AddSign --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("foreach", [True, False])
@pytest.mark.parametrize(("kind", "after_4", "after_7"), [(PowerSign, 0.89126873, 0.92580913), (AddSign, 0.92, 0.94)])
def test_the_published_traces(kind: Any, after_4: float, after_7: float, foreach: bool) -> None:
    w = nn.Parameter(torch.tensor([1.0, 2.0], dtype=torch.float64))
    optimizer = kind([w], foreach=foreach)
    for step in range(7):
        w.grad = torch.full((2,), 0.1 if step < 4 else -0.1, dtype=torch.float64)
        optimizer.step()
        if step == 3:
            torch.testing.assert_close(
                w.detach(), torch.tensor([after_4, after_4 + 1], dtype=torch.float64), atol=1e-8, rtol=0
            )
    torch.testing.assert_close(w.detach(), torch.tensor([after_7, after_7 + 1], dtype=torch.float64), atol=1e-8, rtol=0)


def test_add_sign_takes_no_step_where_signs_disagree() -> None:
    w = nn.Parameter(torch.tensor([1.0, 2.0]))
    optimizer = AddSign([w])
    w.grad = torch.tensor([1.0, 1.0])
    optimizer.step()
    before = w.detach().clone()
    w.grad = torch.tensor([-0.1, 0.1])
    optimizer.step()
    assert w[0] == before[0]
    assert w[1] < before[1]


def plain(params: list[nn.Parameter], step: int, m: list[Tensor], power: bool, f: float, constant: float) -> None:
    """The equations, one parameter at a time."""
    with torch.no_grad():
        for p, average in zip(params, m, strict=True):
            assert p.grad is not None
            average.copy_(0.9 * average + 0.1 * p.grad)
            agreement = f * p.grad.sign() * average.sign()
            p -= 0.1 * (constant**agreement if power else constant + agreement) * p.grad


FACTORS: dict[tuple[str, float | None], Callable[[int], float]] = {
    ("none", None): lambda t: 1.0,
    ("linear", None): lambda t: max(0.0, (6 - t) / 6),
    ("cosine", None): lambda t: 0.5 * (1 + math.cos(math.pi * min(t, 6) / 6)),
    ("cosine", 2.0): lambda t: 0.5 * (1 + math.cos(2 * math.pi * 2 * min(t, 6) / 6)),
    ("restart", None): lambda t: 0.5 * (1 + math.cos(math.pi * (min(t, 6) % 6) / 6)),
    ("restart", 2.0): lambda t: 0.5 * (1 + math.cos(math.pi * ((2 * min(t, 6)) % 6) / 6)),
}


@pytest.mark.parametrize(("decay", "periods"), FACTORS)
@pytest.mark.parametrize("power", [True, False])
def test_every_decay_is_that_of_the_equations(decay: str, periods: float | None, power: bool) -> None:
    ours, theirs = parameters(), parameters()
    m = [torch.zeros_like(p) for p in theirs]
    kind: Any = PowerSign if power else AddSign
    more = {"base": 3.0} if power else {"alpha": 0.5}
    optimizer = kind(ours, decay=decay, periods=periods, total_steps=6, **more)
    for t in range(8):  # two past the end
        gradients(ours, t)
        gradients(theirs, t)
        optimizer.step()
        plain(theirs, t, m, power, FACTORS[decay, periods](t), next(iter(more.values())))
    same(ours, theirs)


def test_they_are_rules_of_the_language() -> None:
    for kind, name in ((PowerSign, "power_sign"), (AddSign, "add_sign")):
        found = smith.discovered.NETWORKS[name]()
        rule = UpdateRule().expression(found.architecture)
        assert rule_of(rule) == kind(parameters()).rule
        same(
            steps(lambda p, kind=kind: kind(p)), steps(lambda p, rule=rule: RuleOptimizer(p, rule, 0.1)), rtol=0, atol=0
        )
    restart = PowerSign(parameters(), decay="restart", periods=10, total_steps=40)
    assert restart.rule == rule_of("exp(restart_decay * (sign(g) * sign(m))) * g")


def test_a_restart_falls_on_its_step() -> None:
    assert all(decays_at(t / 49, t, restarts=49)["restart_decay"] == 1.0 for t in range(50))


# --- any rule ---------------------------------------------------------------------------------------------------------


def test_the_gradient_is_stochastic_gradient_descent() -> None:
    same(
        steps(lambda p: RuleOptimizer(p, "g", 0.1, weight_decay=0.3)),
        steps(lambda p: torch.optim.SGD(p, 0.1, weight_decay=0.3)),
    )


@pytest.mark.parametrize("foreach", [True, False])
def test_m_over_the_root_of_v_is_adam(foreach: bool) -> None:
    same(
        steps(lambda p: RuleOptimizer(p, "m / sqrt(v)", 0.1, foreach=foreach, weight_decay=0.1)),
        steps(lambda p: torch.optim.Adam(p, 0.1, weight_decay=0.1)),
    )


def test_m_is_momentum() -> None:
    ours, theirs = parameters(), parameters()
    optimizer = RuleOptimizer(ours, "m", 0.1)
    m = [torch.zeros_like(p) for p in theirs]
    for t in range(1, 5):
        gradients(ours, t)
        gradients(theirs, t)
        optimizer.step()
        for p, average in zip(theirs, m, strict=True):
            average.copy_(0.9 * average + 0.1 * p.grad)  # type: ignore[operator]
            p.data -= 0.1 * average / (1 - 0.9**t)
    same(ours, theirs)


def test_every_sampled_rule_is_the_same_at_once_and_one_by_one() -> None:
    from archsmith.nn.update_language import UPDATE_RULES, follows_gradient

    checked = 0
    for seed in range(80):
        space = UpdateRule(groups=1 + seed % 3, decays=True)
        rule = space.expression(decode(space, sample(space, random.Random(seed))))
        if not follows_gradient(rule) or UPDATE_RULES.is_fresh(rule):
            continue
        checked += 1
        made = [
            steps(lambda p, f=f, r=rule: RuleOptimizer(p, r, 1e-3, total_steps=9, foreach=f), 3) for f in (True, False)
        ]
        for a, b in zip(*made, strict=True):
            torch.testing.assert_close(a, b, equal_nan=True, rtol=1e-9, atol=1e-12)
    assert checked > 20


@pytest.mark.parametrize("rule", ["g + noise", "drop(m, 0.3)", "g * annealed_noise"])
@pytest.mark.parametrize("foreach", [True, False])
def test_random_rules_repeat_with_torchs_seed(rule: str, foreach: bool) -> None:
    def run(seed: int) -> list[nn.Parameter]:
        torch.manual_seed(seed)
        return steps(lambda p: RuleOptimizer(p, rule, 0.1, foreach=foreach))

    same(run(1), run(1), rtol=0, atol=0)
    with pytest.raises(AssertionError):
        same(run(1), run(2))


def test_drop_keeps_what_it_keeps_as_it_is() -> None:
    torch.manual_seed(0)
    w = nn.Parameter(torch.zeros(20_000))
    w.grad = torch.ones(20_000)
    RuleOptimizer([w], "drop(g, 0.3)", 1.0).step()
    assert set(w.detach().tolist()) == {0.0, -1.0}  # dropout would rescale
    assert abs(float((w == 0).float().mean()) - 0.3) < 0.02


def test_noise_has_the_papers_variance() -> None:
    torch.manual_seed(0)
    w = nn.Parameter(torch.zeros(20_000))
    w.grad = torch.zeros(20_000)
    RuleOptimizer([w], "g + noise", 1.0).step()
    assert abs(float(w.detach().var()) - 0.01) < 0.001


def test_only_the_averages_that_are_used_are_kept() -> None:
    for rule, names in (
        ("g", set()),
        ("exp(sign(m)) * g", {"m"}),
        ("g / sqrt(v)", {"v"}),
        ("m * gamma", {"m", "gamma"}),
    ):
        params = parameters()
        optimizer = RuleOptimizer(params, rule)
        gradients(params, 0)
        optimizer.step()
        assert all(set(optimizer.state[p]) == {"step", *names} for p in params)
    assert only_signs_of(rule_of("exp(sign(g) * sign(m)) * g")) >= {"m"}
    assert "m" not in only_signs_of(rule_of("sign(m) * m"))
    assert "m" not in only_signs_of(rule_of("m"))


# --- what an optimizer of torch can do --------------------------------------------------------------------------------

MAKERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "PowerSign": lambda p: PowerSign(p, decay="cosine", total_steps=20),
    "AddSign": lambda p: AddSign(p, decay="restart", periods=3, total_steps=20),
    "adam": lambda p: RuleOptimizer(p, "m / sqrt(v) + 1e-2 * w", 0.05),
    "one by one": lambda p: RuleOptimizer(p, "gamma * linear_decay", 0.05, total_steps=20, foreach=False),
}


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("saved", ["memory", "file"])
def test_a_loaded_state_goes_on_as_if_nothing_had_been(name: str, saved: str) -> None:
    straight = steps(MAKERS[name], 8)
    params = parameters()
    optimizer = MAKERS[name](params)
    for step in range(4):
        gradients(params, step)
        optimizer.step()
    state = copy.deepcopy(optimizer.state_dict())
    if saved == "file":
        file = io.BytesIO()
        torch.save(state, file)
        file.seek(0)
        state = torch.load(file, weights_only=True)
    optimizer = MAKERS[name](params)
    optimizer.load_state_dict(state)
    for step in range(4, 8):
        gradients(params, step)
        optimizer.step()
    same(params, straight, rtol=0, atol=0)


@pytest.mark.parametrize("name", MAKERS)
def test_a_copy_is_an_optimizer_of_its_own(name: str) -> None:
    straight = steps(MAKERS[name], 4)
    params = parameters()
    optimizer = MAKERS[name](params)
    for step in range(2):
        gradients(params, step)
        optimizer.step()
    for copied in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        own = copied.param_groups[0]["params"]
        for step in range(2, 4):
            gradients(own, step)
            copied.step()
        same(own, straight, rtol=0, atol=0)


def test_groups_have_settings_of_their_own() -> None:
    params = parameters()
    before = [p.detach().clone() for p in params]
    optimizer = RuleOptimizer([{"params": params[:2], "lr": 0.0}, {"params": params[2:4]}], "g", 0.1)
    optimizer.add_param_group({"params": params[4:], "lr": 0.2, "weight_decay": 0.1})
    gradients(params, 0)
    optimizer.step()
    for i, p in enumerate(params):
        g = p.grad
        assert g is not None
        wanted = before[i] if i < 2 else before[i] - 0.1 * g if i < 4 else before[i] - 0.2 * (g + 0.1 * before[i])
        torch.testing.assert_close(p.detach(), wanted)


def test_a_learning_rate_may_be_a_tensor() -> None:
    lr = torch.tensor(0.1, dtype=torch.float64)
    same(steps(lambda p: RuleOptimizer(p, "m", lr)), steps(lambda p: RuleOptimizer(p, "m", 0.1)))


def test_a_scheduler_changes_the_rate() -> None:
    params = parameters()
    optimizer = PowerSign(params, lr=1.0)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    gradients(params, 0)
    optimizer.step()
    schedule.step()
    assert optimizer.param_groups[0]["lr"] == 0.5


def test_a_closure_is_called_with_gradients() -> None:
    w = nn.Parameter(torch.tensor([3.0]))
    optimizer = PowerSign([w])

    def closure() -> float:
        optimizer.zero_grad()
        loss = (w**2).sum()
        loss.backward()
        return float(loss.detach())

    assert optimizer.step(closure) == 9.0
    assert w < 3.0


def test_parameters_without_a_gradient_are_left_alone() -> None:
    """And one that gets its first gradient later is corrected from there."""
    params, alone = parameters(), parameters()
    optimizer, single = RuleOptimizer(params, "m", 0.1), RuleOptimizer(alone[1:2], "m", 0.1)
    before = params[1].detach().clone()
    for step in range(4):
        gradients(params, step)
        if step < 2:
            params[1].grad = None
        optimizer.step()
        if step < 2:
            assert torch.equal(params[1], before)
        else:
            gradients(alone, step)
            single.step()
    torch.testing.assert_close(params[1], alone[1])


def test_a_model_may_be_moved_between_layouts() -> None:
    """As trainings do: the memory that a parameter lies in is another one afterwards."""
    shape = (64, 64, 3, 3)
    results = []
    for moved in (False, True):
        draws = torch.Generator().manual_seed(0)
        conv = nn.Conv2d(64, 64, 3, bias=False)
        conv.weight.data = torch.randn(shape, generator=draws)
        optimizer = RuleOptimizer(conv.parameters(), "m", 0.1)
        for step in range(4):
            if moved:
                conv.to(memory_format=torch.channels_last if step % 2 else torch.contiguous_format)  # type: ignore[call-overload]
            conv.weight.grad = torch.randn(shape, generator=draws)
            optimizer.step()
        results.append(conv.weight.detach().contiguous())
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_types_are_computed_in(dtype: torch.dtype) -> None:
    params = parameters(dtype=dtype)
    gradients(params, 0)
    RuleOptimizer(params, "exp(linear_decay * sign(m)) * g + drop(1, 0.5)", 0.1, total_steps=4).step()
    assert all(p.dtype == dtype and torch.isfinite(p).all() for p in params)


@pytest.mark.compiler
def test_a_compiled_rule_is_the_same() -> None:
    same(steps(lambda p: PowerSign(p[:1], compile=True), 2), steps(lambda p: PowerSign(p[:1]), 2))


# --- what makes no sense ----------------------------------------------------------------------------------------------


def test_sparse_and_complex_are_refused() -> None:
    with pytest.raises(UsageError, match="real numbers"):
        PowerSign([nn.Parameter(torch.zeros(2, dtype=torch.complex64))])
    table = nn.Embedding(5, 3, sparse=True)
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(UsageError, match="sparse"):
        PowerSign(table.parameters()).step()


def test_a_group_that_is_refused_is_not_kept() -> None:
    optimizer = PowerSign([nn.Parameter(torch.zeros(2))])
    with pytest.raises(UsageError, match="lr"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(2))], "lr": -1.0})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize("rule", ["1", "w", "g - g", "noise"])
def test_a_rule_without_the_gradient_is_refused(rule: str) -> None:
    with pytest.raises(UsageError, match="follow the gradient"):
        RuleOptimizer(parameters(), rule)


def test_a_rule_that_is_none_is_refused() -> None:
    with pytest.raises(IllegalExpression, match="character"):
        RuleOptimizer(parameters(), "g +* m")


def test_a_decay_needs_to_know_how_long() -> None:
    params = parameters()
    optimizer = PowerSign(params, decay="linear")
    gradients(params, 0)
    with pytest.raises(UsageError, match="total_steps"):
        optimizer.step()
    optimizer.set_progress(0.5)
    optimizer.step()


@pytest.mark.parametrize(
    ("kind", "options", "named"),
    [
        (PowerSign, {"lr": -0.1}, "lr"),
        (PowerSign, {"lr": math.nan}, "lr"),
        (PowerSign, {"lr": "0.1"}, "lr"),
        (PowerSign, {"beta": 1.0}, "betas"),
        (PowerSign, {"beta": "x"}, "betas"),
        (PowerSign, {"base": 0.0}, "base"),
        (PowerSign, {"base": 1.0}, "base"),
        (PowerSign, {"periods": 3}, "periods"),
        (PowerSign, {"decay": "cosine", "periods": -1}, "periods"),
        (PowerSign, {"total_steps": 0}, "total_steps"),
        (PowerSign, {"total_steps": True}, "total_steps"),
        (PowerSign, {"weight_decay": -1}, "weight_decay"),
        (AddSign, {"alpha": math.inf}, "alpha"),
    ],
)
def test_settings_out_of_range_are_refused(kind: Any, options: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        kind(parameters(), **options)


def test_a_decay_that_is_none_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match="cosine"):
        PowerSign(parameters(), decay="cosin")


# --- as a file that needs no archsmith --------------------------------------------------------------------------------


def written(path: Any) -> dict[str, Any]:
    scope: dict[str, Any] = {"__name__": "found"}
    text = path.read_text(encoding="utf-8")
    assert "import archsmith" not in text
    assert "from archsmith" not in text
    exec(compile(text, str(path), "exec"), scope)
    return scope


@pytest.mark.parametrize(("name", "kind"), [("power_sign", PowerSign), ("add_sign", AddSign)])
def test_a_named_rule_is_written_as_a_class(name: str, kind: Any, tmp_path: Any) -> None:
    scope = written(smith.export(name, format="source", path=tmp_path / "found.py"))
    same(steps(scope[kind.__name__]), steps(kind))


def test_every_sampled_rule_is_written_as_it_steps(tmp_path: Any) -> None:
    from archsmith._export.optimizer import optimizer_file
    from archsmith.nn.update_language import follows_gradient

    checked = 0
    for seed in range(60):
        space = UpdateRule(groups=1 + seed % 3, decays=True)
        rule = space.expression(decode(space, sample(space, random.Random(seed))))
        if not follows_gradient(rule):
            continue
        checked += 1
        simple = rule_of(rule)
        scope: dict[str, Any] = {}
        exec(optimizer_file(simple, "Found", "A rule.", "Of a test."), scope)
        more: dict[str, Any] = {"total_steps": 7} if "_decay" in repr(simple) else {}
        made = []
        for kind in (scope["Found"], lambda p, rule=rule, **k: RuleOptimizer(p, rule, foreach=False, **k)):
            torch.manual_seed(seed)
            made.append(steps(lambda p, kind=kind, more=more: kind(p, lr=0.01, weight_decay=0.2, **more), 4))
        for a, b in zip(*made, strict=True):
            torch.testing.assert_close(a, b, equal_nan=True, rtol=1e-9, atol=1e-12)
    assert checked > 30


def test_a_written_optimizer_takes_the_state_of_ours(tmp_path: Any) -> None:
    rule = UpdateRule().from_expression("m / sqrt(v) + cosine_decay * g")
    scope = written(smith.export(rule, format="source", path=tmp_path))
    straight = steps(lambda p: RuleOptimizer(p, "m / sqrt(v) + cosine_decay * g", 0.1, total_steps=9), 6)
    params = parameters()
    first = RuleOptimizer(params, "m / sqrt(v) + cosine_decay * g", 0.1, total_steps=9)
    second = scope["FoundOptimizer"](params, total_steps=9)
    for step in range(6):
        if step == 3:
            second.load_state_dict(copy.deepcopy(first.state_dict()))
        gradients(params, step)
        (first if step < 3 else second).step()
    same(params, straight)


def test_a_run_is_written_with_the_rate_that_it_found(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from archsmith.training import ImageClassification

    monkeypatch.chdir(tmp_path)
    run = smith.search(
        UpdateRule(model="convnet2_small", operands=("g", "m"), unary=("x", "sign"), binary=("x+y", "keep left")),
        ImageClassification("digits", epochs=1, max_train=200, upsample=1.0, learning_rates=(0.01, 0.5)),
        trials=2,
        store=f"sqlite:///{tmp_path}/runs.db",
        name="rules",
    )
    assert run.best is not None
    assert run.best.result is not None
    path = smith.export(run, format="source")
    assert path.name == "optimizer.py"
    optimizer = written(path)["FoundOptimizer"](parameters())
    assert optimizer.param_groups[0]["lr"] == run.best.result.metrics["learning_rate"] in (0.01, 0.5)


@pytest.mark.parametrize("format", ["pytorch", "onnx"])
def test_a_rule_has_no_weights_to_write(format: str, tmp_path: Any) -> None:
    with pytest.raises(UsageError, match="update rule"):
        smith.export("power_sign", format=format, path=tmp_path / "found")
