"""Early stopping: rules that end hopeless children, or put them aside, since most of a search's time goes there.

A rule is part of the run and not of the searcher: a child that it stops is told to the searcher as stopped, with no
reward, so that no policy learns from a training that was never finished. What a rule knows is rebuilt from the record.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Protocol, runtime_checkable

from archsmith.core.finish import Measure
from archsmith.core.trial import Trial


class Verdict(Enum):
    """What is to become of a child that reported an epoch."""

    GO_ON = "go on"
    STOP = "stop"


@runtime_checkable
class LiveRule(Protocol):
    """A rule at work on one run. The same sequence of calls gives the same answers.

    All that it knows follows from the trials that it was told of, so that one which was told them anew by their numbers goes
    on as the other would have: a run that was killed begins so. What was promoted and has not been told since is then as
    if it had not been promoted.
    """

    def until(self, number: int) -> int | None:
        """The epoch after which the trial is to be put aside when it is started now; None: it is trained to its end."""
        ...

    def reported(self, number: int, epoch: int, metrics: Mapping[str, float]) -> Verdict:
        """A running child ended an epoch. One that is trained anew reports its first ones again.

        Raises UsageError when what is to be compared is not among the metrics.
        """
        ...

    def told(self, trial: Trial) -> None:
        """A trial was paused or has finished; at the beginning of a session, each of those that there are, by number."""
        ...

    def promoted(self) -> int | None:
        """A paused trial that is to go on now, or None. Each call names one; it counts as promoted from then on."""
        ...

    def favourite(self) -> int | None:
        """The paused trial that promises most, which is trained to its end from then on; None where none is paused.

        A run whose budget ends without a child that was trained to its end asks for it, so that it has one.
        """
        ...


@runtime_checkable
class Rule(Protocol):
    """A rule's configuration: a frozen dataclass."""

    def start(self, measure: Measure | None, epochs: int | None) -> LiveRule:
        """A live rule.

        Args:
            measure: what is compared, and whether more of it is better; None where the evaluator does not say.
            epochs: of a whole training, 0 where none are reported; None where the evaluator does not say.

        Raises UsageError when the rule does not fit.
        """
        ...
