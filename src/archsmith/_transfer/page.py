"""The page of a correlation of search and transfer: what may be said, the plot, the models, what the words mean."""

from __future__ import annotations

import numpy as np

from archsmith._page.document import document
from archsmith._page.figures import MUTED, RUN, axes_of, dot_size, dots, styled, svg
from archsmith._page.html import Html, figure, join, section, table, tag
from archsmith._transfer.correlated import Correlated
from archsmith.core.correlation import Correlation


def page(found: Correlated) -> str:
    """The whole page as text."""
    parts = [
        ("plot", "In the search, and elsewhere", _plots(found)),
        ("coefficients", "Correlations", _table(found.coefficients())),
        ("models", "The models", _table(found.table())),
        ("words", "What the words mean", _words(found)),
    ]
    nav = tag("nav", *(tag("a", title, href=f"#{id}") for id, title, _ in parts))
    return document(f"{found.run}: search and transfer", _head(found), nav, *(section(*part) for part in parts))


def _head(found: Correlated) -> Html:
    data = ", ".join(f"{d.name} ({d.epochs} epochs, {d.test_count:,} test images)" for d in found.data)
    return tag(
        "header",
        tag("p", "Search and transfer with archsmith", cls="eyebrow"),
        tag("h1", f"Does {found.run} find what is good elsewhere?"),
        tag(
            "p", f"{found.chosen[:1].upper()}{found.chosen[1:]} different architectures, trained on {data}.", cls="lead"
        ),
        *(tag("p", sentence) for sentence in found.sentences),
    )


def _plots(found: Correlated) -> Html:
    shown = [("over all data sets" if len(found.data) > 1 else found.data[0].name, found.correlation)]
    if len(found.by_data) > 1:
        shown += list(found.by_data.items())
    figures = [
        figure(_plot(found, correlation, f"plot{k}"), _caption(correlation), title=name)
        for k, (name, correlation) in enumerate(shown)
        if correlation.n
    ]
    return tag("div", *figures, cls="plots", style="max-width: 40rem" if len(figures) == 1 else "")


def _plot(found: Correlated, correlation: Correlation, name: str) -> Html:
    x, y = np.array(correlation.x), np.array(correlation.y)
    unit = "log odds" if found.searched_by != "reward" else ""
    with styled():
        drawn, axes = axes_of(
            f"{found.searched_by} in the search{', ' + unit if unit else ''}", "accuracy less the mean, log odds"
        )
        dots(axes, x, y, RUN, dot_size(len(x)))
        if correlation.pearson.value is not None:
            slope, offset = np.polyfit(x, y, 1)
            ends = np.array([x.min(), x.max()])
            axes.plot(ends, slope * ends + offset, color=MUTED, linewidth=1.2, linestyle=(0, (5, 2)))
        axes.margins(0.08)
        return svg(drawn, name, "accuracy elsewhere against accuracy in the search, a dot for each model")


def _caption(correlation: Correlation) -> str:
    r = correlation.pearson
    if r.value is None:
        return f"{correlation.n} models; {r.why}."
    interval = f", 95 % interval {r.interval[0]:.2f} to {r.interval[1]:.2f}" if r.interval else ""
    return f"{correlation.n} models, r = {r.value:.2f}{interval}. The line is the least squares' one."


def _table(rows: list[tuple[str, ...]]) -> Html:
    head, *body = rows
    return table(head, body)


def _words(found: Correlated) -> Html:
    said = [
        ("In the search", f"{found.searched_by} of short trainings; the mean, where an architecture was drawn more than once."),
        ("Elsewhere", "test accuracy after a training from scratch on other images, the mean over seeds, looked at once."),
        ("Log odds", "log(p / (1 - p)) of an accuracy p; 0 and 1 count as half an image away from there."),
        ("Less the mean", "of a data set's log odds, so that easy and hard data sets count alike; then averaged over data sets."),
        ("r, rho", "Pearson's correlation, and Spearman's of the ranks; n is the number of models."),
        ("Interval", "by Fisher's z, which takes the points as normally distributed; by bootstrap, which draws models anew."),
    ]  # fmt: skip
    return join([tag("dl", *(piece for word, text in said for piece in (tag("dt", word), tag("dd", text))))])
