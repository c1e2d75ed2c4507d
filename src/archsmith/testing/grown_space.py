"""What every grown space promises, as tests: inherit `GrownSpaceContract`, return your space, and run pytest.

class TestMine(GrownSpaceContract):
    def space(self):
        return MyGrownSpace()
"""

from __future__ import annotations

import json
from random import Random

import pytest

from archsmith.core.errors import IllegalGenotype, UsageError
from archsmith.core.genotype import Genotype
from archsmith.core.grown import GrownSpace, edited
from archsmith.core.space import decode, identity, mutate, sample, script
from archsmith.testing.space import SpaceContract


class GrownSpaceContract(SpaceContract):
    """The promises of `archsmith.core.grown`, and of `SpaceContract` what does not speak of choices."""

    walk = 40
    """How many edits follow each other when edits are tried."""

    def space(self) -> GrownSpace:
        """The space under test."""
        raise NotImplementedError("override space() in your test class")

    def test_questions_are_well_formed(self) -> None:
        """There are none: whoever asks for choices is told which searchers fit. Edits have names, the same each time."""
        space = self.space()
        with pytest.raises(UsageError, match="LargeScaleEvolution"):
            script(space)
        assert space.edits, "a grown space has at least one edit"
        assert all(isinstance(name, str) for name in space.edits)
        assert list(space.edits) == list(self.space().edits), "the edits changed their order"

    def test_the_seed_is_always_the_same(self) -> None:
        """And legal, and of this space."""
        space = self.space()
        assert space.seed() == space.seed()
        assert space.seed().space == identity(space)
        decode(space, space.seed())

    def test_edits_give_legal_genotypes_or_none(self) -> None:
        """They leave their argument alone, and repeat with the seed."""
        space, seen = self.space(), set[str]()
        for seed in range(self.samples):
            rng, genotype = Random(seed), space.seed()
            for step in range(self.walk):
                before, following = genotype.canonical, genotype
                for name, edit in space.edits.items():
                    changed = edit(genotype, Random(step))
                    assert Genotype(genotype.space, genotype.answers).canonical == before, (
                        f"{name} changed its argument"
                    )
                    assert edit(genotype, Random(step)) == changed, f"{name} does not repeat with the seed"
                    if changed is not None:
                        seen.add(name)
                        decode(space, Genotype.from_json(json.loads(changed.canonical)))
                        following = changed if rng.random() < 2 / len(space.edits) else following
                genotype = following
        assert seen == set(space.edits), f"never made: {', '.join(sorted(set(space.edits) - seen))}"

    def test_wrong_answers_are_refused(self) -> None:
        """A missing, illegal or unknown answer raises IllegalGenotype; the space does not guess."""
        space = self.space()
        genotype = sample(space, Random(0))
        for asked in genotype.answers:
            rest = {name: value for name, value in genotype.answers.items() if name != asked}
            for answers in (rest, {**genotype.answers, asked: "no such thing"}, {**genotype.answers, asked: None}):
                with pytest.raises(IllegalGenotype):
                    decode(space, Genotype(genotype.space, answers))
        with pytest.raises(IllegalGenotype, match="no such choice"):
            decode(space, Genotype(genotype.space, {**genotype.answers, "no such choice": 1}))

    def test_mutants_are_legal_and_differ(self) -> None:
        """A mutation is one edit that succeeds; not every edit changes the genotype, but not all leave it as it is."""
        space, changed = self.space(), 0
        for seed, genotype in enumerate(self.genotypes(space)):
            mutant = mutate(space, genotype, Random(seed))
            decode(space, mutant)
            assert edited(space, genotype, Random(seed)) == mutant, "the same seed gave another mutant"
            changed += mutant != genotype
        assert changed, "no mutant differs from its parent"
