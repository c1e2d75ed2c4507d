"""What every evaluator promises, as tests: inherit `EvaluatorContract`, return yours, and run pytest.

class TestMine(EvaluatorContract):
    def evaluator(self):
        return MyEvaluator(epochs=3)

    def space(self):
        return MySpace()
"""

from __future__ import annotations

import copy
import json
import math
import random
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import cloudpickle
import pytest

from archsmith.core.errors import Diverged, IllegalGenotype, LimitExceeded
from archsmith.core.evaluator import DeclaresMetrics, DeclaresNonrepeating, Evaluator, Limits, epoch_cost, repeatable
from archsmith.core.genotype import Genotype
from archsmith.core.number import numbers_by_name
from archsmith.core.space import Space, sample
from archsmith.core.trial import Result, joined
from archsmith.executors.plain_results import plain_result


@dataclass
class RecordingContext:
    """A `Context` that records what it is told, stops after `stop_after` epochs or puts the child aside after `until`, and
    fails the `fail_at`-th look at the limits, from `check` and `report` alike."""

    seed: int = 0
    device: str = "cpu"
    threads: int = 1
    limits: Limits = Limits()
    stop_after: int | None = None
    fail_at: int | None = None
    parent: int | None = None
    parent_genotype: Genotype | None = None
    earlier: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    reported: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    kept: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    looks: int = 0
    until: int | None = None
    resume: Mapping[str, Any] | None = None
    epochs_done: int = 0
    paused: bool = False
    put_aside: Mapping[str, Any] | None = None

    def report(self, epoch: int, metrics: Mapping[str, float]) -> bool:
        self.reported.append((int(epoch), numbers_by_name(metrics, "what a child reports")))
        self.check()
        self.paused = self.until is not None and epoch >= self.until
        return not self.paused and (self.stop_after is None or len(self.reported) < self.stop_after)

    def pause(self, tensors: Mapping[str, Any]) -> None:
        self.put_aside = copy.deepcopy({name: _own(tensor) for name, tensor in tensors.items()})

    def check(self) -> None:
        self.looks += 1
        if self.fail_at is not None and self.looks >= self.fail_at:
            raise LimitExceeded("the child took longer than its limit", reason="seconds")

    def checkpoint(self, tensors: Mapping[str, Any]) -> str:
        digest = f"{len(self.kept):064x}"
        self.kept[digest] = dict(tensors)
        return digest

    def artifact(self, trial: int) -> Mapping[str, Any] | None:
        return self.earlier.get(trial)


class EvaluatorContract:
    """The promises of `archsmith.core.evaluator.Evaluator`. Metrics whose names end in "seconds" or "per_second", and those
    that the evaluator declares as `nonrepeating`, are measured anew each time and may differ.

    `trains`, `counts_parameters` and `reports_epochs` turn off what an evaluator that looks results up, has no model, or
    has no epochs, cannot do. `resumes` says that its children go on where they were put aside; those of one that does
    not begin anew.
    """

    resumes = False
    trains = True
    counts_parameters = True
    reports_epochs = True

    def evaluator(self) -> Evaluator:
        """The evaluator, set to at least two epochs, and to as little work as it can."""
        raise NotImplementedError("return the evaluator under test")

    def space(self) -> Space:
        """A small space whose children the evaluator can train."""
        raise NotImplementedError("return a space for the evaluator under test")

    def diverging(self) -> tuple[Evaluator, Space] | None:
        """An evaluator and a space whose children all diverge, or None when that cannot happen."""
        return None

    def _genotype(self) -> Genotype:
        return sample(self.space(), random.Random(0))

    def _evaluate(self, context: RecordingContext) -> Result:
        return self._taken(self.evaluator().evaluate(self.space(), self._genotype(), context))

    def _taken(self, result: Result) -> Result:
        """A result as a search takes it: scalars of any library are numbers."""
        assert isinstance(result, Result), f"evaluate must return a Result, got {type(result).__name__}"
        return plain_result(result)

    def _repeatable(self, result: Result) -> Result:
        return repeatable(self.evaluator(), replace(result, artifact=None))

    def test_the_same_seed_gives_the_same_result(self) -> None:
        first, second = self._evaluate(RecordingContext(seed=3)), self._evaluate(RecordingContext(seed=3))
        assert self._repeatable(first) == self._repeatable(second), "one seed gave two results"

    def test_another_seed_gives_another_result(self) -> None:
        if not self.trains:
            pytest.skip("the evaluator looks results up")
        results = [self._repeatable(self._evaluate(RecordingContext(seed=seed))) for seed in (3, 4)]
        assert results[0] != results[1], "context.seed has no influence on the result"

    def test_what_was_drawn_before_does_not_matter(self) -> None:
        first = self._evaluate(RecordingContext(seed=3))
        random.random()
        if (numpy := sys.modules.get("numpy")) is not None:
            numpy.random.rand()
        if (torch := sys.modules.get("torch")) is not None:
            torch.rand(1)
        second = self._evaluate(RecordingContext(seed=3))
        assert self._repeatable(first) == self._repeatable(second), "the result depends on the global random state"

    def test_the_global_random_state_is_left_alone(self) -> None:
        self._evaluate(RecordingContext())  # whatever it imports is imported
        before = _random_states()
        self._evaluate(RecordingContext(seed=1))  # another seed: to seed with the same one twice would go unseen
        changed = [name for name, state in _random_states().items() if state != before[name]]
        assert not changed, f"evaluating changed the global random state of {', '.join(changed)}"

    def test_a_result_survives_json(self) -> None:
        result = self._evaluate(RecordingContext())
        text = json.dumps(result.to_json(), allow_nan=False)
        assert Result.from_json(json.loads(text)).to_json() == result.to_json(), "JSON changed the result"

    def test_metrics_are_finite_numbers(self) -> None:
        result = self._evaluate(RecordingContext())
        assert result.failure is None, f"the child failed: {result.failure}"
        assert result.metrics, "a result needs at least one metric"
        for name, value in result.metrics.items():
            assert isinstance(value, int | float), f"metric {name!r} is a {type(value).__name__}"
            assert math.isfinite(value), f"metric {name!r} is {value}"

    def test_what_it_declares_of_its_metrics_is_so(self) -> None:
        evaluator, metrics = self.evaluator(), set(self._evaluate(RecordingContext()).metrics)
        if isinstance(evaluator, DeclaresMetrics):
            missing = sorted(set(evaluator.reported_metrics) - metrics)
            assert not missing, f"it declares metrics that its results do not have: {', '.join(missing)}"
        if isinstance(evaluator, DeclaresNonrepeating):
            assert not isinstance(evaluator.nonrepeating, str), "nonrepeating must be a tuple of names"

    def test_the_curve_has_each_epoch_once_in_order(self) -> None:
        curve = self._evaluate(RecordingContext()).curve
        epochs = [row["epoch"] for row in curve]
        assert epochs == list(range(1, len(epochs) + 1)), f"the curve must count epochs from 1, got {epochs}"
        assert epochs or not self.reports_epochs, "the curve is empty"

    def test_every_epoch_of_the_curve_was_reported(self) -> None:
        if not self.reports_epochs:
            pytest.skip("the evaluator reports no epochs")
        context = RecordingContext()
        curve = self._evaluate(context).curve
        told = [{"epoch": epoch, **metrics} for epoch, metrics in context.reported]
        assert told == [dict(row) for row in curve], "what was reported is not what the curve has"

    def test_the_cost_is_counted(self) -> None:
        result = self._evaluate(RecordingContext())
        assert result.cost.seconds > 0, f"the cost must have its seconds, got {result.cost}"
        assert math.isfinite(result.cost.seconds)
        if self.reports_epochs:
            expected = len(result.curve) * epoch_cost(self.evaluator())
            assert result.cost.epochs == expected, f"{expected} epochs were trained, got {result.cost}"

    def test_it_stops_when_told(self) -> None:
        if not self.reports_epochs:
            pytest.skip("the evaluator reports no epochs")
        assert len(self._evaluate(RecordingContext()).curve) > 1, (
            "the contract needs an evaluator of two epochs or more"
        )
        context = RecordingContext(stop_after=1)
        result = self._evaluate(context)
        assert len(context.reported) == len(result.curve) == 1, "it went on after report() said to stop"

    def test_a_child_that_was_put_aside_goes_on_as_if_it_had_not_been(self) -> None:
        whole = self._evaluate(RecordingContext(seed=3))
        so_far, kept = None, None
        for epoch in range(1, len(whole.curve)):
            context = RecordingContext(seed=3, until=epoch, resume=kept, epochs_done=epoch - 1)
            so_far = joined(so_far, self._evaluate(context))
            assert len(so_far.curve) == epoch, f"it was not put aside after epoch {epoch}"
            if (kept := context.put_aside) is None:
                assert not self.resumes, "it kept nothing by context.pause()"
                pytest.skip("the evaluator's children begin anew")
        if so_far is None:
            pytest.skip("the evaluator reports no epochs")
        rest = self._evaluate(RecordingContext(seed=3, resume=kept, epochs_done=len(so_far.curve)))
        assert len(rest.curve) == 1, "the curve and the cost of a child that goes on are those of the rest alone"
        assert self._repeatable(joined(so_far, rest)) == self._repeatable(whole), "it went on as another child"
        assert set(rest.metrics) == set(whole.metrics), "a child that went on has other metrics"

    def test_it_looks_at_its_limits(self) -> None:
        if not self.trains:
            pytest.skip("the evaluator looks results up")
        context = RecordingContext(fail_at=2)
        with pytest.raises(LimitExceeded):
            self._evaluate(context)
        assert context.looks == 2, "it went on after a limit was exceeded"

    def test_a_child_over_its_parameters_is_not_trained(self) -> None:
        if not self.counts_parameters:
            pytest.skip("the evaluator has no model whose parameters could be counted")
        context = RecordingContext(limits=Limits(parameters=1))
        with pytest.raises(LimitExceeded) as caught:
            self._evaluate(context)
        assert caught.value.reason == "parameters", f"the reason must be 'parameters', got {caught.value.reason!r}"
        assert not context.reported, "the child was trained all the same"

    def test_a_diverging_child_is_reported_as_that(self) -> None:
        pair = self.diverging()
        if pair is None:
            pytest.skip("the evaluator's children cannot diverge")
        evaluator, space = pair
        with pytest.raises(Diverged):
            evaluator.evaluate(space, sample(space, random.Random(0)), RecordingContext())

    def test_an_illegal_genotype_is_refused(self) -> None:
        genotype = self._genotype()
        space = {**genotype.space, "name": f"{genotype.space['name']}-of-another-kind"}
        wrong = [Genotype(space, genotype.answers), Genotype(genotype.space, {**genotype.answers, "no such choice": 1})]
        for illegal in wrong:
            with pytest.raises(IllegalGenotype):
                self.evaluator().evaluate(self.space(), illegal, RecordingContext())

    def test_nothing_it_is_given_is_changed(self) -> None:
        evaluator, space, genotype = self.evaluator(), self.space(), self._genotype()
        before = cloudpickle.dumps((evaluator, genotype.to_json()))
        evaluator.evaluate(space, genotype, RecordingContext())
        assert cloudpickle.dumps((evaluator, genotype.to_json())) == before, "evaluating changed what it was given"

    def test_it_can_be_sent_to_another_process(self) -> None:
        copy: Evaluator = cloudpickle.loads(cloudpickle.dumps(self.evaluator()))
        sent = self._taken(copy.evaluate(self.space(), self._genotype(), RecordingContext(seed=3)))
        assert self._repeatable(sent) == self._repeatable(self._evaluate(RecordingContext(seed=3))), (
            "a copy gives otherwise"
        )

    def test_its_own_reward_is_a_finite_number(self) -> None:
        reward: Callable[[Result], float] | None = getattr(self.evaluator(), "default_reward", None)
        if reward is None:
            pytest.skip("the evaluator has no reward of its own")
        value = reward(self._evaluate(RecordingContext()))
        assert math.isfinite(value), f"the default reward gave {value}"

    def test_its_fingerprint_stays(self) -> None:
        fingerprint: Callable[[], str] | None = getattr(self.evaluator(), "fingerprint", None)
        if fingerprint is None:
            pytest.skip("the evaluator has no fingerprint")
        assert fingerprint(), "an empty fingerprint identifies nothing"
        assert fingerprint() == self.evaluator().fingerprint(), "equal evaluators must have equal fingerprints"  # type: ignore[attr-defined]


def _own(tensor: Any) -> Any:
    return tensor.detach().clone() if hasattr(tensor, "detach") else tensor


def _random_states() -> dict[str, Any]:
    states: dict[str, Any] = {"random": random.getstate()}
    if (numpy := sys.modules.get("numpy")) is not None:
        name, keys, *rest = numpy.random.get_state()
        states["numpy"] = (name, keys.tobytes(), *rest)
    if (torch := sys.modules.get("torch")) is not None:
        states["torch"] = (torch.get_rng_state().numpy().tobytes(), torch.get_num_threads())
    return states
