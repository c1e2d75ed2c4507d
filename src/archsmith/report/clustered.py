"""The page's section on a cluster: how its workers were used over time, how stale the gradients were, how good by when."""

from __future__ import annotations

import numpy as np

from archsmith._page.figures import RUN, axes_of, clock_unit, styled, svg
from archsmith._page.html import Html, count, duration, figure, join, number, table, tag
from archsmith.report.cluster import MOMENTS, Cluster
from archsmith.report.facts import Facts


def clustered(facts: Facts) -> Html | None:
    """What the workers did; None where there were few."""
    c = facts.cluster
    if c is None:
        return None
    simulated = facts.summary.config.get("clock") is not None
    where = "simulated workers" if simulated else "workers"
    first = f"{number(c.workers)} {where} for {duration(c.seconds)}, {duration(c.workers * c.seconds)} in all. "
    parts = [
        ("at work", c.busy, "trainings that came to something"),
        ("lost with machines", c.lost, "attempts whose worker died, and the wait for another one"),
        ("waiting for the searcher", c.waiting, "without a child: it waited for results, or work between children"),
        ("idle at the end", c.ending, "after the last child was proposed, while the last ones were trained"),
    ]
    rows = [(name, what, f"{100 * c.share(seconds):.1f} %", duration(seconds)) for name, seconds, what in parts]
    again = (
        f"{count(c.again, 'attempt')} of {number(c.attempts)} began a child again, since its worker died or the run was "
        f"interrupted; {count(c.failed, 'child', 'children')} had failed when workers had died too often. "
    )
    return join(
        [
            tag("p", first, again if c.again or c.failed else "No worker was lost. "),
            table(("workers were", "which is", "share", "time"), rows, left=2),
            _stale(c),
            tag("div", _use(c), _quality(c), cls="plots"),
        ]
    )


def _use(c: Cluster) -> Html:
    unit, unit_name = clock_unit(c.seconds)
    with styled():
        drawn, axes = axes_of(f"{unit_name} of the run's clock", "share of the workers", height=2.4)
        axes.stairs(100 * np.array(c.in_use), np.linspace(0, c.seconds / unit, MOMENTS + 1), color=RUN, linewidth=1.6)
        axes.set_ylim(0, 104)
        axes.set_xlim(left=0)
        axes.yaxis.set_major_formatter("{x:g} %")
        picture = svg(drawn, "cluster", "share of the workers that had a child, over time")
    return figure(picture, "How many of the workers had a child to train.", title="Workers in use")


def _stale(c: Cluster) -> Html | None:
    s = c.staleness
    if s is None:
        return None
    text = (
        f"A gradient was applied {number(s.mean)} updates after the parameters that it was computed with, in the mean of "
        f"{count(s.updates, 'update')}; {number(s.last)} in the last tenth of them, {number(s.largest)} at most."
    )
    return tag("p", text)


def _quality(c: Cluster) -> Html:
    rows = [(duration(q.at), number(q.trials), number(q.best), number(q.mean)) for q in c.quality]
    head = ("by", "children", "best so far", "mean")
    return figure(
        table(head, rows),
        "Rewards at each tenth of the time; the mean is of the children since the row before.",
        title="How good by when",
    )
