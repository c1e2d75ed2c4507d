"""The plan of a time budget: how many seconds each stage gets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from archsmith.core.errors import UsageError

MAX_EPOCHS = 100_000  # of a training: the clock ends it
LEAST_SECONDS = 15.0  # less is not enough to start, train and export anything
DELIVERED_SHARE = 0.42  # of the whole time: what the delivered weights get at least
TRAINING_SHARE = 0.6  # of the time after reading: what the delivered weights get, about
FINAL_SHARE = 0.72  # of the time that reading, the baseline and closing leave
CHOOSING_SHARE = 0.35  # of the search: what its best children get to go on with
STARTING_SECONDS = 4.0  # of a pool of workers
TRIAL_SHARE = 1 / 40  # of the whole time: one child's training
TRIAL_SECONDS = (8.0, 90.0)  # and no less, no more
# Passes of a child over the training pictures. What is better before the first number is what learns fast, not what learns well;
# after the second, a child has shown enough. Few pictures are passed soon, but not in less than SHORTEST_TRIAL seconds.
LEAST_PASSES, ENOUGH_PASSES, SHORTEST_TRIAL = 0.75, 5.0, 3.0
LEAST_TRIALS = 6  # fewer decide little, and their time is better spent on the final training
MOST_TRIALS = 200  # on many cores, children are trained for longer
PROBING_SHARE = 0.12  # of the time that is left: what probes get
FASTER_SHARE = 0.12  # of the time that is left: what faster networks get
ALONE_SHARE = 0.15  # of the time that is left, where one child is trained and there is no search


@dataclass(frozen=True)
class TimePlan:
    """Seconds by stage. `total` bounds everything, from the start of the command to its end.

    Args:
        total: the time budget.
        reading: what starting and reading the data took.
        search: for children, side by side.
        choosing: for the best of them, which go on.
        baseline: for the baseline's training.
        final: for the training whose weights are delivered.
        faster: for networks made from the delivered one that take less time.
        closing: for testing, export and the page.
        trial: of one child's training.
        trials: how many children the search trains.
        speed: pictures a second that the baseline learns from in the final training, as measured; None: not measured.
    """

    total: float
    reading: float
    search: float
    choosing: float
    baseline: float
    final: float
    closing: float
    trial: float
    trials: int
    speed: float | None = None
    faster: float = 0.0

    @property
    def rows(self) -> list[tuple[str, float]]:
        """The stages in order, with their seconds."""
        names = ("reading", "search", "choosing", "baseline", "final", "faster", "closing")
        return [(name, getattr(self, name)) for name in names if name != "faster" or self.faster]


def check_total(total: float) -> None:
    """Raise UsageError for a time budget that is too short for any pictures."""
    if total < LEAST_SECONDS:
        raise UsageError(f"the time must be at least {LEAST_SECONDS:g} seconds, got {total:g}; 10m is a good choice")


def speed_needed(seconds: float, pictures: int, passes: float) -> float:
    """How many pictures a second a network must learn from, to see all of them so often when so many seconds are left."""
    return passes * pictures / max(1.0, TRAINING_SHARE * seconds)


def closing_seconds(total: float, testing: float) -> float:
    """How long testing, the exports and the page take together, in a time budget; `testing` is how long the test takes."""
    return min(20.0, max(8.0, 0.03 * total)) + testing


def time_plan(
    total: float,
    *,
    spent: float,
    workers: int,
    testing: float = 0.0,
    baseline: float | None = None,
    chooses: bool = True,
    control: bool = False,
    one_pass: float = 0.0,
    probes: Sequence[float] = (),
    faster: bool = True,
) -> TimePlan:
    """Divide a time budget.

    Args:
        total: the budget in seconds.
        spent: what starting and reading took.
        workers: children that are trained side by side.
        testing: seconds that testing is expected to take.
        baseline: the baseline's seconds (default: one sixth of the budget).
        chooses: whether the best children go on before one is chosen.
        control: whether random search gets as much time as the search.
        one_pass: how long a child takes to see each training picture once; 0: that is not known.
        probes: the seconds of each probe of a pretrained network, the shortest first; empty: the search trains its children.
        faster: whether faster networks can be made from the delivered one.

    Raises UsageError if the budget is too short, or the baseline leaves too little of it.
    """
    closing, least, left, baseline = _shares(total, spent, testing, baseline)
    if probes:
        plan = TimePlan(total, spent, 0.0, 0.0, baseline, left, closing, 0.0, 0)
        plan = _with_probes(plan, probes, left - least, workers, 2 if control else 1)
        return plan if faster else replace(plan, final=plan.final + plan.faster, faster=0.0)
    final = min(left, max(least, FINAL_SHARE * left))
    searching = left - final
    choosing = CHOOSING_SHARE * searching if chooses else 0.0
    for_children = (searching - choosing - STARTING_SECONDS) / (2 if control else 1)
    trial = min(TRIAL_SECONDS[1], max(TRIAL_SECONDS[0], TRIAL_SHARE * total))
    if one_pass:
        trial = max(LEAST_PASSES * one_pass, min(trial, max(SHORTEST_TRIAL, ENOUGH_PASSES * one_pass)))
    trial = max(trial, for_children * workers / MOST_TRIALS)
    trials = workers * math.floor(for_children / trial) if for_children > 0 else 0
    if trials < LEAST_TRIALS:
        trial = min(trial, ALONE_SHARE * left)
        return TimePlan(total, spent, trial, 0.0, baseline, left - trial, closing, trial, 0)
    return TimePlan(total, spent, searching - choosing, choosing, baseline, final, closing, trial, trials)


def _with_probes(plan: TimePlan, probes: Sequence[float], spare: float, workers: int, searches: int) -> TimePlan:
    """The plan with probes, and with faster networks: its final training gives some of its seconds.

    Nothing is trained to choose by: after a short training, small networks on small pictures are ahead, and not after a long one.

    Args:
        plan: without them.
        probes: the seconds of each, the shortest first.
        spare: what the final training can give.
        workers: children side by side.
        searches: 2 if there is a control.
    """
    left = plan.final
    room = min(spare, PROBING_SHARE * left) / searches - STARTING_SECONDS
    ends = [done / workers + seconds for done, seconds in zip(accumulate(probes), probes, strict=True)]
    trials = sum(end <= room for end in ends)
    if trials < 2:
        alone = min(probes[0], ALONE_SHARE * left)
        faster = max(0.0, min(spare - alone, FASTER_SHARE * left))
        return replace(plan, search=alone, final=left - alone - faster, faster=faster, trial=alone)
    search = searches * (STARTING_SECONDS + ends[trials - 1])
    faster = min(spare - search, FASTER_SHARE * left)
    trial = probes[trials - 1]
    return replace(plan, search=search, final=left - search - faster, faster=faster, trial=trial, trials=trials)


def _shares(total: float, spent: float, testing: float, baseline: float | None) -> tuple[float, float, float, float]:
    """The seconds for closing, at least for the delivered network, left for search and training, and for the baseline."""
    check_total(total)
    closing = closing_seconds(total, testing)
    least = DELIVERED_SHARE * total
    room = total - spent - closing
    if room < least:
        needed = math.ceil((spent + closing) / (1 - DELIVERED_SHARE) / 60) + 1
        raise UsageError(
            f"{total:g} seconds are too short for these pictures: reading took {spent:.0f}, and testing and exporting will take "
            f"about {closing:.0f}; give {needed}m or more"
        )
    if baseline is not None and baseline > room - least:
        raise UsageError(
            f"a baseline of {baseline:.0f} seconds leaves less than {100 * DELIVERED_SHARE:.0f} % of {total:.0f} seconds for the "
            "network that is delivered; give a shorter baseline time or more time"
        )
    baseline = min(total / 6, room - least) if baseline is None else baseline
    return closing, least, room - baseline, baseline
