"""What every rule that stops children early promises, as tests: inherit `RuleContract`, return yours, and run pytest.

class TestMine(RuleContract):
    def rule(self):
        return MyRule()
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import cloudpickle
import pytest

from archsmith.core.config import to_config
from archsmith.core.errors import UsageError
from archsmith.core.finish import PERPLEXITY, Measure
from archsmith.core.genotype import Genotype
from archsmith.core.stopping import LiveRule, Rule, Verdict
from archsmith.core.trial import Failure, Result, Trial, TrialState

EPOCHS = 9
SCORE = Measure("score", "score", higher_is_better=True, items="things")


@dataclass
class Trainings:
    """Children with random curves under a rule, on `workers` machines that end an epoch in random order.

    Args:
        live: the rule at work.
        seed: of the curves, and of the order.
        measure: of the curves.
        children: how many there are in all.
        workers: how many are trained side by side.
    """

    live: LiveRule
    seed: int
    measure: Measure = SCORE
    children: int = 40
    workers: int = 3

    trials: dict[int, Trial] = field(default_factory=dict)
    calls: list[object] = field(default_factory=list)  # every answer of the rule
    running: dict[int, int | None] = field(default_factory=dict)  # until which epoch

    def go(self) -> Iterator[None]:
        """Trains them; stops for a look after each epoch."""
        rng = random.Random(self.seed)
        while True:
            while len(self.running) < self.workers:
                number = self.live.promoted()
                self.calls.append(("promoted", number))
                if number is not None:
                    paused = self.trials[number]
                    assert paused.state is TrialState.PAUSED, f"trial {number} was promoted, and is {paused.state}"
                elif len(self.trials) < self.children:
                    number = len(self.trials)
                    self.trials[number] = Trial(number, Genotype({"name": "none"}, {}), result=Result())
                else:
                    break
                self.trials[number] = replace(self.trials[number], state=TrialState.RUNNING)
                self.running[number] = until = self.live.until(number)
                self.calls.append(("until", number, until))
                done = len(self._curve(number))
                assert until is None or done < until < EPOCHS, f"until={until} after {done} of {EPOCHS} epochs"
            if not self.running:
                return
            self._epoch(rng.choice(sorted(self.running)))
            yield

    def _curve(self, number: int) -> list[dict[str, float]]:
        result = self.trials[number].result
        assert result is not None
        return [dict(row) for row in result.curve]

    def _epoch(self, number: int) -> None:
        rng = random.Random(f"{self.seed} {number}")
        good, fails = rng.random(), rng.random()
        curve = self._curve(number)
        epoch = len(curve) + 1
        value = good * (1 - 2.0**-epoch) + 0.05 * random.Random(f"{self.seed} {number} {epoch}").random()
        row = {self.measure.name: value if self.measure.higher_is_better else 1 / (0.01 + value)}
        if fails < 0.1 and epoch == 2:
            reason = "diverged" if fails < 0.05 else "worker"
            return self._ended(number, TrialState.FAILED, Result(curve=curve, failure=Failure(reason, "it failed")))
        verdict = self.live.reported(number, epoch, row)
        self.calls.append(("reported", number, epoch, verdict))
        so_far = Result(curve=[*curve, {"epoch": epoch, **row}])
        self.trials[number] = replace(self.trials[number], result=so_far)
        if verdict is Verdict.STOP:
            self._ended(number, TrialState.STOPPED, so_far)
        elif epoch == EPOCHS:
            self._ended(number, TrialState.DONE, so_far)
        elif epoch == self.running[number]:
            self._ended(number, TrialState.PAUSED, so_far)
        return None

    def _ended(self, number: int, state: TrialState, result: Result) -> None:
        del self.running[number]
        trial = self.trials[number] = replace(self.trials[number], state=state, result=result)
        self.live.told(trial)

    @property
    def as_recorded(self) -> list[Trial]:
        """What a run that is opened again has of them: running children are as they were before."""
        return [t for t in self.trials.values() if t.state.is_finished or t.state is TrialState.PAUSED]


class RuleContract:
    """The promises of `archsmith.core.stopping.Rule` and `LiveRule`, for children of nine epochs."""

    def rule(self) -> Rule:
        """The rule, by the evaluator's own measure, so that it does something in nine epochs."""
        raise NotImplementedError("return the rule under test")

    def _live(self, measure: Measure = SCORE) -> LiveRule:
        return self.rule().start(measure, EPOCHS)

    def test_it_stops_some_and_trains_some_to_their_end(self) -> None:
        for seed in range(5):
            trainings = Trainings(self._live(), seed)
            for _ in trainings.go():
                pass
            lengths = [len(t.result.curve) for t in trainings.trials.values() if t.result is not None]
            assert max(lengths) == EPOCHS, "no child was trained to its end"
            assert sum(lengths) < 0.9 * EPOCHS * len(lengths), "nothing to speak of was saved"

    def test_the_same_calls_get_the_same_answers(self) -> None:
        first, second = Trainings(self._live(), 1), Trainings(self._live(), 1)
        for _ in zip(first.go(), second.go(), strict=True):
            pass
        assert first.calls == second.calls, "two of the same rule answered the same calls otherwise"

    def test_one_that_is_told_anew_goes_on_as_the_other_would(self) -> None:
        trainings = Trainings(self._live(), 2, workers=1)
        for _ in trainings.go():
            if trainings.running:
                continue
            again = self._live()
            for trial in trainings.as_recorded:
                again.told(trial)
            here = cloudpickle.loads(cloudpickle.dumps(trainings.live))
            assert _all(again) == _all(here), "a run that was killed would go on otherwise"
            new = len(trainings.trials)
            assert again.until(new) == trainings.live.until(new), "it would put a new child aside elsewhere"

    def test_less_may_be_better(self) -> None:
        best: dict[bool, set[int]] = {}
        for measure in (SCORE, PERPLEXITY):
            trainings = Trainings(self._live(measure), 4, measure)
            for _ in trainings.go():
                pass
            best[measure.higher_is_better] = {n for n, t in trainings.trials.items() if t.state is TrialState.DONE}
        assert best[True] == best[False], "turned upside down, the same children must win"

    def test_a_favourite_is_one_that_is_aside_and_goes_on_to_its_end(self) -> None:
        trainings = Trainings(self._live(), 5)
        for _ in trainings.go():
            pass
        while (number := trainings.live.favourite()) is not None:
            assert trainings.trials[number].state is TrialState.PAUSED, f"trial {number} is not aside"
            assert trainings.live.until(number) is None, "a favourite is trained to its end"
            trainings.trials[number] = done = replace(trainings.trials[number], state=TrialState.DONE)
            trainings.live.told(done)
        left = [t.number for t in trainings.trials.values() if t.state is TrialState.PAUSED]
        assert not left, f"trials {left} are aside, and none of them is the favourite"

    def test_a_metric_that_is_not_reported_is_told(self) -> None:
        with pytest.raises(UsageError, match="score"):
            self._live().reported(0, 1, {"loss": 1.0})

    def test_an_evaluator_without_epochs_is_refused(self) -> None:
        with pytest.raises(UsageError, match="epoch"):
            self.rule().start(SCORE, 0)

    def test_it_can_be_recorded(self) -> None:
        config = to_config(self.rule())
        assert isinstance(config, dict), "a rule is a frozen dataclass"
        assert config == to_config(cloudpickle.loads(cloudpickle.dumps(self.rule()))), "a copy is another rule"
        assert isinstance(self.rule(), Rule)


def _all(live: LiveRule) -> list[tuple[int | None, int | None]]:
    """What it promotes, one after the other, and where to."""
    found: list[tuple[int | None, int | None]] = []
    while (number := live.promoted()) is not None:
        found.append((number, live.until(number)))
    return found
