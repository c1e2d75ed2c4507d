"""Pictures to look at: the worst mistakes, labels that may be wrong, the same picture in two splits."""

from __future__ import annotations

from collections.abc import Sequence

from archsmith._page.html import Html, Piece, count, details, join, number, percent, tag
from archsmith._page.pictures import card, shown
from archsmith.metrics.outcome import AutoOutcome, DuplicatePair, Mistake, SuspectedLabel

MOST_SHOWN = 12  # pictures that are not folded away
MOST = 60  # pictures in all; a record may come from anywhere


def mistakes(outcome: AutoOutcome) -> Html | None:
    """The mistakes that the network is surest of; None if nothing was tested."""
    if outcome.assessment is None:
        return None
    worst, wrong = outcome.assessment.mistakes, sum(n for _, _, n in outcome.assessment.confusions)
    if not worst:
        return None
    text = (
        f"Of the {count(wrong, 'test picture')} that the network got wrong, these are the ones it was surest of."
        if wrong > 1
        else "The one test picture that the network got wrong."
    )
    text += " Look at them: some may be hard, some may have a wrong label, and some may show what the training pictures lack."
    return join([tag("p", text), _gallery([_mistake(m) for m in worst[:MOST]])])


def suspected_labels(outcome: AutoOutcome) -> Html | None:
    """Pictures whose labels may be wrong; None if there are none."""
    suspects = outcome.suspects
    if not suspects:
        return None
    n = max(outcome.suspects_found, len(suspects))
    shown = "" if n <= len(suspects) else f", of which the {number(len(suspects))} most suspicious are shown"
    text = (
        f"{count(n, 'picture has a label', 'pictures have labels')} that networks which did not learn from "
        f"{'it' if n == 1 else 'them'} contradict firmly{shown}. Some are right and only unusual; correct "
        "the ones that are wrong, and train again."
    )
    return join([tag("p", text), _gallery([_suspect(s) for s in suspects[:MOST]])])


def duplicates(outcome: AutoOutcome) -> Html | None:
    """The same pictures in two splits; None if there are none."""
    pairs = outcome.duplicates
    n = max(outcome.duplicates_found, len(pairs))
    if n == 0:
        return None
    text = (
        f"{count(n, 'pair')} of pictures that are the same, or look so, {'is' if n == 1 else 'are'} in two splits. A test picture that "
        "was also learned from is too easy, and makes the test accuracy a little too high. Of a pair that is the same, keep one, or "
        "put both into one split."
    )
    differ = sum(not pair.same_label for pair in pairs)
    if differ:
        text += f" {count(differ, 'pair has', 'pairs have')} two different labels: look whether one is wrong."
    rest = "" if n <= len(pairs) else f"The first {number(len(pairs))} are shown."
    return join(
        [
            tag("p", text),
            _gallery([_pair(p) for p in pairs[: MOST // 2]]),
            tag("p", rest, cls="quiet") if rest else None,
        ]
    )


def _gallery(cards: Sequence[Html]) -> Html:
    first, more = cards[:MOST_SHOWN], cards[MOST_SHOWN:]
    rest = details(f"{number(len(more))} more", tag("div", *more, cls="gallery")) if more else None
    return join([tag("div", *first, cls="gallery"), rest])


def _mistake(m: Mistake) -> Html:
    return card(
        m.picture,
        _described(m.file, m.label),
        "taken for ",
        tag("b", m.predicted),
        f", {percent(m.confidence)} sure",
        tag("span", "is ", tag("b", m.label)),
        _file(m.file),
    )


def _suspect(s: SuspectedLabel) -> Html:
    return card(
        s.picture,
        _described(s.file, s.label),
        "labelled ",
        tag("b", s.label),
        tag("span", "looks like ", tag("b", s.likely), f", {percent(s.probability)}"),
        _file(s.file, f"({s.split})" if s.split else ""),
    )


def _pair(pair: DuplicatePair) -> Html:
    pictures = tag(
        "div",
        *(shown(a, _described(f, "")) for a, f in zip(pair.pictures, (pair.first, pair.second), strict=True)),
        cls="two",
    )
    how = "equal pixels" if pair.exact else "nearly the same"
    caption: list[Piece] = [f"{pair.splits[0]} and {pair.splits[1]}: {how}"]
    if not pair.same_label:
        caption.append(tag("b", ", different labels"))
    caption += [_file(pair.first), _file(pair.second)]
    return tag("figure", pictures, tag("figcaption", *caption), cls="card pair")


def _file(name: str, where: str = "") -> Html | None:
    """The last two parts of a path, the folder's and the file's, and the whole path under the pointer."""
    said = " ".join(filter(None, ("/".join(name.split("/")[-2:]), where)))
    return tag("span", said, cls="file", title=name) if said else None


def _described(file: str, label: str) -> str:
    return file or (f"a picture of {label}" if label else "a picture")
