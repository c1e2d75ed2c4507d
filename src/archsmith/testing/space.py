"""What every space promises, as tests: inherit `SpaceContract`, return your space, and run pytest.

class TestMine(SpaceContract):
    def space(self):
        return MySpace(layers=3)
"""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Iterator, Sequence
from random import Random
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import pytest

from archsmith.core.child import Child, Task, TextTask, TranslationTask
from archsmith.core.errors import IllegalGenotype, UsageError
from archsmith.core.genotype import Answer, Architecture, Genotype
from archsmith.core.space import Space, build, decode, identity, mutate, sample, trace
from archsmith.core.walk import RecordingWalk

if TYPE_CHECKING:
    import torch


class SpaceContract:
    """The promises of `archsmith.core.space`. Override `space`, and what else differs for yours."""

    samples = 6
    """How many random genotypes each promise is tried on."""

    builds = True
    """Whether the space builds children; False for a plain function of `choose` without `build`."""

    uses_every_parameter = True
    """Whether every part of a child is used; False where an operation such as "none" may cut parts off."""

    def space(self) -> Space:
        """The space under test. A small one makes the tests fast."""
        raise NotImplementedError("override space() in your test class")

    def tasks(self) -> Sequence[Any]:
        """What its children must be buildable for. Small tasks make the tests fast."""
        return (Task((3, 32, 32), 10), Task((1, 8, 8), 2), Task((2, 7, 5), 3))

    def scores(self, model: torch.nn.Module, task: Any, batch: int) -> torch.Tensor:
        """What a child's model gives for a batch of random inputs: [batch, classes] of images, [steps, batch, vocabulary]
        of text. Override it for a task of your own."""
        import torch

        if isinstance(task, TextTask):
            scores: torch.Tensor = model(torch.randint(task.vocabulary, (5, batch)))[0]
            assert scores.shape == (5, batch, task.vocabulary)
        elif isinstance(task, TranslationTask):
            sizes = ((5, batch, task.source_vocabulary), (6, batch, task.target_vocabulary))
            source, target = (torch.randint(4, vocabulary, (steps, rows)) for steps, rows, vocabulary in sizes)
            scores = model(source, torch.randint(1, 6, (batch,)), target)
            assert scores.shape == sizes[1]
        else:
            scores = model(torch.rand(batch, *task.input_shape))
            assert scores.shape == (batch, task.num_classes)
        return scores

    def wrong_architectures(self) -> Sequence[Any]:
        """Architectures that `build` must refuse with UsageError."""
        return ()

    def genotypes(self, space: Space) -> Iterator[Genotype]:
        """The genotypes that the promises are tried on."""
        for seed in range(self.samples):
            yield sample(space, Random(seed))

    # --- the questions ------------------------------------------------------------------------------------------------

    def test_questions_are_well_formed(self) -> None:
        """Names differ, options are JSON scalars that differ from each other, whatever is answered."""
        space = self.space()
        for seed in range(self.samples):
            rng = Random(seed)
            walk = RecordingWalk(
                lambda q, rng=rng: (  # type: ignore[misc]
                    [i for i in range(len(q.options)) if rng.random() < 0.5]
                    if q.subset
                    else rng.randrange(len(q.options))
                )
            )
            space.architecture(walk)
            assert walk.questions, "a space asks at least one question"

    def test_the_same_answers_give_the_same_questions_and_architecture(self) -> None:
        """A space holds no values and no randomness: answers decide everything."""
        space = self.space()
        for genotype in self.genotypes(space):
            questions, architecture = trace(space, genotype.answers), decode(space, genotype)
            for other in self.genotypes(space):
                decode(space, other)  # what happens in between is forgotten
            assert trace(space, genotype.answers) == questions, "the questions changed"
            assert decode(space, genotype) == architecture, "the architecture changed"

    def test_an_architecture_is_plain_json(self) -> None:
        """Dicts with text keys, lists and scalars: what JSON gives back."""
        space = self.space()
        for genotype in self.genotypes(space):
            architecture = decode(space, genotype)
            assert json.loads(json.dumps(architecture, allow_nan=False)) == architecture

    def test_a_genotype_survives_json(self) -> None:
        """Written and read again it is equal, has the same key, and means the same."""
        space = self.space()
        for genotype in self.genotypes(space):
            again = Genotype.from_json(json.loads(json.dumps(genotype.to_json())))
            assert again == genotype
            assert again.key == genotype.key
            assert decode(space, again) == decode(space, genotype)

    def test_the_space_can_be_sent_to_another_process(self) -> None:
        """A copy through pickle has the same identity and reads the same genotypes."""
        space = self.space()
        there = pickle.loads(pickle.dumps(space))
        assert identity(there) == identity(space)
        for genotype in self.genotypes(space):
            assert decode(there, genotype) == decode(space, genotype)

    def test_equal_spaces_have_equal_identities(self) -> None:
        """Made again it is the same space: an object's address is no part of what it is."""
        one, other = self.space(), self.space()  # both alive, or the second may lie where the first did
        assert identity(one) == identity(other)
        assert json.loads(json.dumps(identity(self.space()))) == identity(self.space())

    def test_wrong_answers_are_refused(self) -> None:
        """A missing, illegal or unknown answer raises IllegalGenotype; the space does not guess."""
        space = self.space()
        genotype = sample(space, Random(0))
        for question in trace(space, genotype.answers):
            rest = {name: value for name, value in genotype.answers.items() if name != question.name}
            illegal: Answer = ["no such option"] if question.subset else "no such option"
            for answers in (rest, {**genotype.answers, question.name: illegal}):
                with pytest.raises(IllegalGenotype, match=question.name.replace(".", r"\.")):
                    decode(space, Genotype(genotype.space, answers))
        with pytest.raises(IllegalGenotype, match="no such choice"):
            decode(space, Genotype(genotype.space, {**genotype.answers, "no such choice": 1}))

    def test_mutants_are_legal_and_differ(self) -> None:
        """A mutation gives another genotype of the same space, leaves its parent alone, and repeats with the seed."""
        space = self.space()
        for seed, genotype in enumerate(self.genotypes(space)):
            before = genotype.canonical
            mutant = mutate(space, genotype, Random(seed))
            decode(space, mutant)
            assert mutant != genotype, "the mutant is its parent"
            assert Genotype(genotype.space, genotype.answers).canonical == before, "the parent was changed"
            assert mutate(space, genotype, Random(seed)) == mutant, "the same seed gave another mutant"

    # --- the child ----------------------------------------------------------------------------------------------------

    def test_children_give_finite_logits(self) -> None:
        """Scores of every class, in training and in evaluation, for every task."""
        import torch

        for child, task in self._children():
            for training in (True, False):
                logits = self.scores(child.model.train(training), task, 3)
                assert torch.isfinite(logits).all(), "not every logit is finite"

    def test_every_parameter_learns(self) -> None:
        """A child has no parts that its output does not depend on."""
        if not self.uses_every_parameter:
            pytest.skip("the space has operations that cut parts of a network off")
        import torch

        for child, task in self._children():
            loss: Any = self.scores(child.model.train(), task, 3).logsumexp(-1).sum()
            loss.backward()
            for name, parameter in child.model.named_parameters():
                assert parameter.grad is not None, f"{name} is not used"
                assert torch.isfinite(parameter.grad).all(), f"{name} has a gradient that is not finite"

    def test_a_rebuilt_child_takes_the_weights(self) -> None:
        """Built again from the genotype as JSON, with the weights loaded, it computes the same."""
        import torch

        space = self._builder()
        for genotype in self.genotypes(space):
            for task in self.tasks():
                model = build(space, genotype, task).model.eval()
                torch.manual_seed(1)
                again = build(space, Genotype.from_json(genotype.canonical), task).model.eval()
                again.load_state_dict(model.state_dict())
                with torch.no_grad():
                    scores = []
                    for one in (model, again):
                        torch.manual_seed(2)  # the same inputs
                        scores.append(self.scores(one, task, 2))
                assert torch.equal(*scores)

    def test_weights_are_drawn_from_the_current_seed(self) -> None:
        """The same seed gives the same weights, another seed others; building changes nothing but torch's seed."""
        import torch

        space = self._builder()
        genotype, task = sample(space, Random(0)), self.tasks()[0]
        architecture = decode(space, genotype)
        before = copy.deepcopy(architecture)

        def weights(seed: int) -> dict[str, torch.Tensor]:
            torch.manual_seed(seed)
            return dict(build(space, architecture, task).model.named_parameters())

        first, second, other = weights(0), weights(0), weights(1)
        assert architecture == before, "building changed the architecture"
        assert all(torch.equal(first[name], second[name]) for name in first), "the same seed gave other weights"
        assert any(not torch.equal(first[name], other[name]) for name in first), "another seed gave the same weights"

    def test_wrong_architectures_are_refused(self) -> None:
        """With UsageError, not from deep inside."""
        space = self._builder()
        for architecture in self.wrong_architectures():
            with pytest.raises(UsageError):
                space.build(architecture, self.tasks()[0])

    def test_the_drawing_is_well_formed(self) -> None:
        """Where the space has a `diagram`, it draws every architecture, the same each time."""
        space = self.space()
        diagram = getattr(space, "diagram", None)
        if diagram is None:
            pytest.skip("this space has no diagram")
        from archsmith.report.draw import draw

        for genotype in self.genotypes(space):
            architecture: Architecture = decode(space, genotype)
            drawing = draw(diagram(architecture))
            ElementTree.fromstring(drawing)
            assert draw(diagram(copy.deepcopy(architecture))) == drawing
            reached = {edge.target for edge in diagram(architecture).edges}
            ends = [node.id for node in diagram(architecture).nodes if node.role == "output"]
            assert ends, "a diagram has a box of the role output"
            assert set(ends) <= reached, "nothing leads to the output"

    def _builder(self) -> Space:
        if not self.builds:
            pytest.skip("this space builds no children")
        return self.space()

    def _children(self) -> Iterator[tuple[Child, Any]]:
        import torch

        space = self._builder()
        for genotype in self.genotypes(space):
            for task in self.tasks():
                torch.manual_seed(0)
                yield build(space, genotype, task), task
