"""The evaluator contract passes a good evaluator, and fails one that breaks any single promise."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field

import pytest

from archsmith.core.errors import ChildFailed, Diverged, IllegalGenotype, LimitExceeded
from archsmith.core.space import FunctionSpace, decode
from archsmith.core.trial import Cost, Result
from archsmith.testing.evaluator import EvaluatorContract


def widths(choose):
    return [choose(f"{i}.width", (2, 4, 8)) for i in range(3)]


@dataclass(frozen=True)
class Toy:
    """Pretends to train: its losses are random numbers. `broken` names the promise it does not keep."""

    broken: str = ""
    diverges: bool = False
    log: list = field(default_factory=list)

    nonrepeating = ("latency",)

    @staticmethod
    def default_reward(result):
        return result.metrics["accuracy"]

    @property
    def reported_metrics(self):
        return ("accuracy", "f1") if self.broken == "declares" else ("accuracy", "latency")

    def fingerprint(self):
        return str(random.random()) if self.broken == "fingerprint" else "abc"

    def evaluate(self, space, genotype, context):
        if self.broken == "genotype":
            architecture = [2]
        else:
            try:
                architecture = decode(space, genotype)
            except IllegalGenotype:
                if self.broken == "refusal":
                    raise ChildFailed("?") from None
                raise
        if context.limits.parameters is not None and sum(architecture) > context.limits.parameters:
            if self.broken == "reason":
                raise LimitExceeded("too large", reason="seconds")
            if self.broken != "parameters":
                raise LimitExceeded("too large", reason="parameters")
        if self.broken == "changes":
            self.log.append(1)
        rng = random.Random(0 if self.broken == "seedless" else context.seed)
        done = context.resume["done"] if context.resume is not None else 0
        if self.broken in ("unseeded", "leaks"):
            rng = random
            if self.broken == "leaks":
                random.seed(context.seed)
        if self.broken == "copy":
            rng = random.Random(id(self.log))
        rows = []
        for _ in range(0 if self.broken == "resumes" else done):
            rng.random()
        for epoch in range(done + 1, 4):
            try:
                context.check()
            except LimitExceeded:
                if self.broken != "limits":
                    raise
            if self.diverges:
                if self.broken == "diverges":
                    raise ValueError("nan")
                raise Diverged("nan")
            row = {"epoch": 4 - epoch if self.broken == "order" else epoch, "accuracy": rng.random()}
            rows.append(row)
            told = {"accuracy": 0.0} if self.broken == "report" else {"accuracy": row["accuracy"]}
            try:
                go_on = context.report(row["epoch"], told)
            except LimitExceeded:
                if self.broken != "limits":
                    raise
                go_on = True
            if context.paused:
                context.pause({"done": epoch})
            if not go_on and self.broken != "stops":
                break
        metrics = {"accuracy": rows[-1]["accuracy"], "width": float("nan") if self.broken == "nan" else 1.0}
        metrics["measured" if self.broken == "measures" else "latency"] = time.perf_counter()
        metrics["latency"] = time.perf_counter()
        if self.broken == "json":
            metrics = {"accuracy": complex(1, 1)}
        if self.broken == "reward":
            metrics["accuracy"] = float("inf")
        cost = Cost() if self.broken == "cost" else Cost(0.01, len(rows))
        return Result(metrics, rows, cost)


class TestToy(EvaluatorContract):
    resumes = True

    def evaluator(self):
        return Toy()

    def space(self):
        return FunctionSpace(widths)

    def diverging(self):
        return Toy(diverges=True), FunctionSpace(widths)


PROMISES = {
    "unseeded": "test_the_same_seed_gives_the_same_result",
    "measures": "test_it_can_be_sent_to_another_process",
    "seedless": "test_another_seed_gives_another_result",
    "leaks": "test_the_global_random_state_is_left_alone",
    "json": "test_a_result_survives_json",
    "nan": "test_metrics_are_finite_numbers",
    "declares": "test_what_it_declares_of_its_metrics_is_so",
    "order": "test_the_curve_has_each_epoch_once_in_order",
    "report": "test_every_epoch_of_the_curve_was_reported",
    "cost": "test_the_cost_is_counted",
    "stops": "test_it_stops_when_told",
    "resumes": "test_a_child_that_was_put_aside_goes_on_as_if_it_had_not_been",
    "limits": "test_it_looks_at_its_limits",
    "parameters": "test_a_child_over_its_parameters_is_not_trained",
    "reason": "test_a_child_over_its_parameters_is_not_trained",
    "diverges": "test_a_diverging_child_is_reported_as_that",
    "genotype": "test_an_illegal_genotype_is_refused",
    "refusal": "test_an_illegal_genotype_is_refused",
    "changes": "test_nothing_it_is_given_is_changed",
    "copy": "test_it_can_be_sent_to_another_process",
    "reward": "test_its_own_reward_is_a_finite_number",
    "fingerprint": "test_its_fingerprint_stays",
}


@pytest.mark.parametrize(("broken", "promise"), PROMISES.items())
def test_the_contract_fails_an_evaluator_that_breaks_a_promise(broken, promise):
    shared = Toy(broken, broken == "diverges")  # one value, so that "changes" is seen

    class Broken(TestToy):
        def evaluator(self):
            return shared

        def diverging(self):
            return shared, FunctionSpace(widths)

    with pytest.raises((AssertionError, pytest.fail.Exception, TypeError, ValueError, ChildFailed)) as caught:
        getattr(Broken(), promise)()
    assert not isinstance(caught.value, Diverged)


def test_the_state_before_matters_to_one_that_draws_from_it():
    class Unseeded(TestToy):
        def evaluator(self):
            return Toy("unseeded")

    with pytest.raises(AssertionError, match="global random state"):
        Unseeded().test_what_was_drawn_before_does_not_matter()


def test_every_promise_has_a_breaker():
    promises = {name for name in dir(EvaluatorContract) if name.startswith("test_")}
    assert promises == {*PROMISES.values(), "test_what_was_drawn_before_does_not_matter"}
