"""What came of a paper's claim: each thing that it leads one to expect, held against the runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from archsmith._compare.difference import Difference, difference
from archsmith._compare.outcomes import outcome
from archsmith.core.finish import Measure

if TYPE_CHECKING:
    from archsmith.recipes.claim import Claim

AGREES, CONTRADICTS, NOT_SHOWN = "agrees", "contradicts", "not shown"


@dataclass(frozen=True)
class Verdict:
    """One thing that a claim leads one to expect.

    Args:
        expected: what ought to come out, for a person.
        verdict: `AGREES`, `CONTRADICTS` or `NOT_SHOWN`.
        difference: what came out.
    """

    expected: str
    verdict: str
    difference: Difference


def verdicts(
    claim: Claim, results: Mapping[str, Sequence[Mapping[str, float]]], measure: Measure
) -> tuple[Verdict, ...]:
    """Every expectation of a claim, by what each run of its arms came to."""
    found = []
    for one in claim.expected:
        of = outcome(one.outcome, measure)
        ahead, behind = (
            [r[one.outcome] for r in results.get(arm, ()) if r[one.outcome] == r[one.outcome]]
            for arm in (one.ahead, one.behind)
        )
        seen = difference(ahead, behind, of.measure, group=one.ahead, baseline=one.behind, outcome=of.said)
        verdict = {"better": AGREES, "worse": CONTRADICTS}.get(seen.verdict, NOT_SHOWN)
        found.append(Verdict(f"{one.ahead} ahead of {one.behind} by {of.said}", verdict, seen))
    return tuple(found)


def told(found: Sequence[Verdict]) -> str:
    """ "Of 9 things that the claim leads one to expect, 5 come out, 3 are not shown, and 1 comes out the other way." """
    n = {kind: sum(v.verdict == kind for v in found) for kind in (AGREES, NOT_SHOWN, CONTRADICTS)}
    ends = {AGREES: "comes out", NOT_SHOWN: "is not shown", CONTRADICTS: "comes out the other way"}
    many = {AGREES: "come out", NOT_SHOWN: "are not shown", CONTRADICTS: "come out the other way"}
    if len(found) == 1:
        return f"The one thing that the claim leads one to expect {ends[found[0].verdict]}."
    agrees, not_shown, contradicts = (f"{n[kind]} {(ends if n[kind] == 1 else many)[kind]}" for kind in n)
    return f"Of {len(found)} things that the claim leads one to expect, {agrees}, {not_shown}, and {contradicts}."
