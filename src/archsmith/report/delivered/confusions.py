"""Which classes are confused, and how well each one is recognised."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from archsmith._page.html import Html, Piece, count, details, join, number, percent, table, tag
from archsmith.metrics.outcome import Assessment

MOST_CLASSES = 20  # of the matrix, and of the table that is not folded away
UNEVEN = 1.5  # the largest class has so many times the pictures of the smallest
DARK = 0.78  # of a field's colour, on which light figures are read better
LONG = 4  # characters of a name that fit above a column
FEW = 20  # test pictures of a class, which say little


def confusions(assessment: Assessment) -> Html:
    """The confusion matrix as a table; of many classes, those that are confused most."""
    k = len(assessment.classes)
    chosen = _most_confused(assessment) if k > MOST_CLASSES else list(range(k))
    wrong = sum(n for _, _, n in assessment.confusions)
    if not wrong:
        tested = assessment.score.count
        return tag("p", f"No test picture was taken for another class ({count(tested, 'test picture')}).")
    text = (
        "A row holds the test pictures of one class, a column what the network took them for: what is on the diagonal is right. "
        "The darker a field, the larger its share of the row."
    )
    if k > MOST_CLASSES:
        inside = sum(n for i, j, n in assessment.confusions if i in chosen and j in chosen)
        text += (
            f" Of the {number(k)} classes, the {MOST_CLASSES} that are confused most are shown, with {number(inside)} of the "
            f"{count(wrong, 'mistake')}."
        )
    return join([tag("p", text), _matrix(assessment, chosen), _worst_pairs(assessment)])


def by_class(assessment: Assessment) -> Html:
    """How well each class is recognised, the worst first."""
    there = [i for i, s in enumerate(assessment.scores) if s.count]
    order = sorted(there, key=lambda i: (assessment.scores[i].recall or 0.0, -assessment.scores[i].count))
    lows = [assessment.scores[i].recall_interval[0] for i in there]
    least = int(10 * min(lows, default=0.0)) / 10
    rows = [_class_row(assessment, i, least) for i in order]
    head = ("class", "test pictures", "recognised", "95 % interval", "right when named", "most often taken for")
    shown, folded = rows[:MOST_CLASSES], rows[MOST_CLASSES:]
    more = len(folded)
    untested = len(assessment.scores) - len(there)
    text = (
        "“Recognised” is the share of a class’s test pictures that the network gets right (recall), and “right when named” how often "
        f"it is right when it names this class (precision). The lines show 95 % intervals on a scale from {round(100 * least)} to 100 %."
    )
    return join(
        [
            tag("p", text),
            _uneven(assessment),
            table(head, shown, left=1, cls="classes"),
            details(f"The other {count(more, 'class', 'classes')}", table(head, folded, left=1, cls="classes"))
            if more
            else None,
            tag("p", f"{count(untested, 'class has', 'classes have')} no test pictures.", cls="quiet")
            if untested
            else None,
        ]
    )


def _uneven(assessment: Assessment) -> Html | None:
    """Balanced accuracy where it says something else than the accuracy, and a warning of classes with few pictures."""
    counts = [s.count for s in assessment.scores if s.count]
    said = []
    balanced, total = assessment.balanced_accuracy, assessment.score
    if counts and max(counts) >= UNEVEN * min(counts) and balanced is not None:
        said.append(
            f"The classes are uneven: the largest has {number(max(counts))} test pictures, the smallest {number(min(counts))}. "
            f"If each class counts the same, {percent(balanced)} are recognised (balanced accuracy), against "
            f"{percent(total.accuracy)} of all pictures."
        )
    if few := sum(n < FEW for n in counts):
        said.append(
            f"{count(few, 'class has', 'classes have')} fewer than {FEW} test pictures, which say little: mind the intervals."
        )
    return tag("p", " ".join(said)) if said else None


def _most_confused(assessment: Assessment) -> list[int]:
    involved: Counter[int] = Counter()
    for i, j, n in assessment.confusions:
        involved[i] += n
        involved[j] += n
    first = sorted(range(len(assessment.classes)), key=lambda i: (-involved[i], i))
    return sorted(first[:MOST_CLASSES])


def _matrix(assessment: Assessment, chosen: Sequence[int]) -> Html:
    names = assessment.classes
    numbers = {(i, j): n for i, j, n in assessment.confusions}
    numbers |= {(i, i): s.correct for i, s in enumerate(assessment.scores)}
    head = tag("tr", tag("th", cls="corner"), *(tag("th", tag("span", names[j]), title=names[j]) for j in chosen))
    rows = []
    for i in chosen:
        cells: list[Piece] = [tag("th", tag("span", names[i]), title=names[i])]
        for j in chosen:
            n = numbers.get((i, j), 0)
            said = f"{names[i]} taken for {names[j]}: {n:,}" if i != j else f"{names[i]}, recognised: {n:,}"
            share = n / assessment.scores[i].count if n else 0.0
            cells.append(_field(n, share, right=i == j, title=said))
        rows.append(tag("tr", *cells))
    cls = "confusions" + (" many" if len(chosen) > 12 else "")
    cls += " long" if max(len(names[j]) for j in chosen) > LONG else ""
    return tag("div", tag("table", tag("thead", head), tag("tbody", *rows), cls=cls), cls="scroll")


def _field(n: int, share: float, *, right: bool, title: str) -> Html:
    if not n:
        return tag("td", "·", cls="none")
    depth = 0.12 + 0.8 * share
    colour = "--heat" if right else "--wrong"
    return tag(
        "td",
        number(n),
        cls="strong" if depth > DARK else "",
        style=f"background: rgb(var({colour}) / {depth:.2f})",
        title=title,
    )


def _worst_pairs(assessment: Assessment) -> Html | None:
    """The confusions that make the most mistakes, in a sentence."""
    pairs = sorted(assessment.confusions, key=lambda c: (-c[2], c[0], c[1]))[:3]
    if len(assessment.classes) <= 2:
        return None
    said = [f"{assessment.classes[i]} taken for {assessment.classes[j]} ({number(n)})" for i, j, n in pairs]
    return tag("p", f"Most often: {'; '.join(said)}.")


def _class_row(assessment: Assessment, i: int, least: float) -> tuple[Piece, ...]:
    scores = assessment.scores[i]
    others = sorted(((n, -j) for row, j, n in assessment.confusions if row == i), reverse=True)[:2]
    taken = ", ".join(f"{assessment.classes[-j]} ({number(n)})" for n, j in others)
    return (
        tag("strong", assessment.classes[i]),
        number(scores.count),
        percent(scores.recall),
        _range(scores.recall_interval, scores.recall or 0.0, least),
        percent(scores.precision),
        taken or "–",
    )


def _range(interval: tuple[float, float], value: float, least: float) -> Html:
    """An interval as a line with a dot at the value, on a scale from `least` to 1."""
    width, span = 150.0, max(1.0 - least, 1e-9)
    low, high, at = (6 + (width - 12) * (v - least) / span for v in (*interval, value))
    label = f"{100 * interval[0]:.0f} to {100 * interval[1]:.0f} percent"
    return Html(
        f'<svg class="strip" viewBox="0 0 {width:.0f} 20" role="img" aria-label="{label}">'
        f'<path d="M6 10H{width - 6:.0f}" stroke="var(--rule)"/>'
        f'<path d="M{low:.1f} 10H{high:.1f}" stroke="var(--run)" stroke-width="5" stroke-opacity=".4" stroke-linecap="round"/>'
        f'<circle cx="{at:.1f}" cy="10" r="4" fill="var(--run)"/></svg>'
    )
