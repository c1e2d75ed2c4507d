"""Policies: the published ones, what is drawn, the space, which policies are the same, pipelines, and what is refused."""

from __future__ import annotations

import base64
import io
import json
import math
import pickle
import random
import re
import runpy
from collections import Counter
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import archsmith as smith
from archsmith import describe, discovered
from archsmith._describe import diagram_of
from archsmith.core.child import Task, TextTask
from archsmith.core.errors import ChildFailed, IllegalGenotype, UnknownName, UsageError
from archsmith.core.genotype import Genotype, canonical_json
from archsmith.core.parts import PartSpace
from archsmith.core.space import build, decode, sample, script, space_size
from archsmith.nn.augmentation.module import AugmentationPolicy
from archsmith.nn.augmentation.operations import CODES, operate
from archsmith.nn.augmentation.policy import (
    FILL,
    OPERATIONS,
    architecture_of,
    canonical,
    check_architecture,
    joined,
    magnitude,
    said,
)
from archsmith.report.augmented import augmented, photographs
from archsmith.spaces import Augmentation, ConvChain, Product
from archsmith.testing import SpaceContract
from archsmith.testing.evaluator import RecordingContext
from archsmith.training import ImageClassification
from test_augmentation import by_pillow, bytes_of, pictures, random_batch, way  # noqa: F401 - a fixture

CIFAR = Task((3, 32, 32), 10)
NAMES = ("cifar10", "svhn", "imagenet")
SMALL = Augmentation(model="wrn_16_1", sub_policies=2)


class TestContract(SpaceContract):
    samples = 3

    def space(self) -> Augmentation:
        return SMALL

    def wrong_architectures(self) -> list[object]:
        good = architecture_of([[("Rotate", 0.5, 3)]])
        entry = good["sub_policies"][0][0]
        wrong_entries = [
            {**entry, "operation": "Blur"}, {**entry, "operation": ["Rotate"]}, {**entry, "probability": 1.1}, {**entry, "probability": True},
            {**entry, "probability": math.nan}, {**entry, "magnitude": 10}, {**entry, "magnitude": 2.0}, {**entry, "more": 1},
            {"operation": "Rotate", "probability": 0.5}, {"operation": "Invert", "probability": 0.5, "magnitude": 3}, None, "Rotate",
        ]  # fmt: skip
        return [
            None, {}, [], {"kind": "augmentation"}, {**good, "kind": "qnet"}, {**good, "more": 1}, {**good, "sub_policies": None},
            {**good, "sub_policies": [{}]}, {**good, "sub_policies": [[entry] * 17]}, {**good, "flip": 1}, {**good, "pad": 0.6},
            {**good, "pad": "a"}, {**good, "cutout": -0.1}, {**good, "reading": "other"}, {**good, "fill": [1, 2]}, {**good, "fill": [1, 2, 256]},
            *({**good, "sub_policies": [[wrong]]} for wrong in wrong_entries),
        ]  # fmt: skip


# --- facts of the paper -----------------------------------------------------------------------------------------------


def test_the_space_has_the_published_size() -> None:
    """Fact 11a."""
    space = Augmentation()
    questions = script(space)
    assert questions is not None
    assert len(questions) == 30
    assert Counter(q.kind for q in questions) == {"operation": 10, "probability": 10, "magnitude": 10}
    assert space_size(space) == (16 * 10 * 11) ** 10 == 285_184_999_433_627_773_173_760_000_000_000
    assert space_size(Augmentation(sub_policies=1)) == 3_097_600


@pytest.mark.parametrize("name", NAMES)
def test_a_published_policy_has_25_sub_policies_of_two_operations(name: str) -> None:
    """Fact 11b."""
    sub_policies = discovered.autoaugment(name).architecture["sub_policies"]
    assert len(sub_policies) == 25
    assert {len(sub_policy) for sub_policy in sub_policies} == {2}


def test_published_policies_begin_and_end_as_in_the_paper() -> None:
    words = {name: [said(s) for s in discovered.autoaugment(name).architecture["sub_policies"]] for name in NAMES}
    assert words["cifar10"][0] == "Invert (0.1), then Contrast at 6 (0.2)"
    assert words["cifar10"][-1] == "TranslateY at 9 (0.7), then AutoContrast (0.9)"
    assert words["svhn"][0] == "ShearX at 4 (0.9), then Invert (0.2)"
    assert words["svhn"][-1] == "ShearX at 2 (0.7), then Invert (0.1)"
    assert words["imagenet"][0] == "Posterize at 8 (0.4), then Rotate at 9 (0.6)"
    assert words["imagenet"][-1] == "Equalize (0.8), then Equalize (0.6)"
    # How often each operation stands in them, counted from the paper's tables.
    counts = Counter(
        entry["operation"] for s in discovered.autoaugment("cifar10").architecture["sub_policies"] for entry in s
    )
    assert counts == {
        "Equalize": 9, "AutoContrast": 7, "TranslateY": 5, "Sharpness": 5, "Brightness": 4, "Color": 5, "Solarize": 4, "Invert": 3,
        "Contrast": 2, "ShearY": 2, "TranslateX": 2, "Rotate": 1, "Posterize": 1,
    }  # fmt: skip


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("channels", [1, 3])
def test_without_chances_nothing_changes(channels: int) -> None:
    """Fact 11c."""
    nothing = AugmentationPolicy(architecture_of([[(name, 0.0, 9), ("Invert", 0.0, 0)] for name in OPERATIONS]))
    batch = random_batch(0, 64, channels, 32, 32)
    assert torch.equal(nothing(batch), batch)


def test_each_sign_is_drawn_half_of_the_time() -> None:
    """Fact 11d: within four standard deviations of the half."""
    policy = AugmentationPolicy(architecture_of([[("TranslateX", 1.0, 9)]], fill=(1, 1, 1)))
    batch = torch.full((20_000, 1, 1, 8), 9, dtype=torch.uint8)
    left = (policy(batch, torch.Generator().manual_seed(3))[:, 0, 0, 0] == 1).sum().item()
    assert abs(left - 10_000) < 4 * math.sqrt(20_000) / 2


def test_published_networks_have_the_published_sizes() -> None:
    """Fact 11e."""
    assert describe("autoaugment_cifar10").parameters == 2_243_546
    assert describe("autoaugment_cifar10").layers == 40
    wide = Augmentation(model="wrn_28_10")
    genotype = sample(wide, Random(0))
    with torch.device("meta"):
        child = build(wide, genotype, Task((3, 32, 32), 100))
    assert sum(p.numel() for p in child.model.parameters()) == 36_536_884


def test_sub_policies_are_drawn_uniformly() -> None:
    """Fact 11f: chi squared over 50,000 draws; with 24 degrees of freedom it is above 51.2 once in a thousand."""
    names = list(CODES)[:5]
    policy = AugmentationPolicy(architecture_of([[(a, 1.0, 9), (b, 1.0, 9)] for a in names for b in names]))
    first, second = policy._draw(50_000, 8, 8, torch.Generator().manual_seed(0))
    seen = torch.bincount((first.code - 1) * 5 + second.code - 1, minlength=25)
    assert len(seen) == 25
    assert ((seen - 2000) ** 2 / 2000).sum() < 51.2


def test_operations_fire_with_their_chances() -> None:
    policy = AugmentationPolicy(architecture_of([[("Invert", 0.3, 0), ("Invert", 0.0, 0)]]))
    batch = torch.zeros(20_000, 1, 1, 1, dtype=torch.uint8)
    fired = (policy(batch, torch.Generator().manual_seed(1)) == 255).float().mean().item()
    assert abs(fired - 0.3) < 4 * math.sqrt(0.3 * 0.7 / 20_000)


# --- a policy does what its operations do -----------------------------------------------------------------------------


@pytest.mark.usefixtures("way")
@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.sampled_from([1, 3]), st.integers(1, 40), st.integers(1, 40), st.integers(1, 20))
def test_a_policy_is_its_operations_one_after_another(
    seed: int, channels: int, height: int, width: int, count: int
) -> None:
    """What was drawn, done image by image with Pillow, gives the same bytes."""
    architecture = decode(SMALL, sample(SMALL, Random(seed)))
    architecture = {**architecture, "flip": False, "pad": 0.0, "cutout": 0.0}
    policy = AugmentationPolicy(architecture)
    batch = random_batch(seed, count, channels, height, width)
    ours = policy(batch, torch.Generator().manual_seed(seed))
    names = {code: name for name, code in CODES.items()}
    images = before = pictures(batch)
    for drawn in policy._draw(count, height, width, torch.Generator().manual_seed(seed)):
        done = []
        for k, image in enumerate(images):
            name, m = names.get(int(drawn.code[k]), ""), float(drawn.magnitude[k])
            if name == "Cutout":
                centre = drawn.centre[k : k + 1]
                image = pictures(operate(bytes_of([image]), "Cutout", m, centre=centre))[0]
            elif name:
                image = by_pillow(image, name, m, before[int(drawn.partner[k])])
            done.append(image)
        images = done
    assert torch.equal(ours, bytes_of(images))


@pytest.mark.usefixtures("way")
def test_pairs_are_of_different_images_and_as_they_came() -> None:
    policy = AugmentationPolicy(architecture_of([[("Invert", 1.0, 0), ("SamplePairing", 1.0, 9)]]))
    batch = torch.tensor([10, 250], dtype=torch.uint8).view(2, 1, 1, 1)
    mixed = policy(batch).flatten().tolist()
    assert mixed == [int(245 + 0.4 * (250 - 245)), int(5 + 0.4 * (10 - 5))]


@pytest.mark.usefixtures("way")
def test_flips_crops_and_the_cutout_stand_around_the_policy() -> None:
    """The policy turns everything white; what is cut out after it keeps its colour, so it came last."""
    white = [("Solarize", 1.0, 0), ("Brightness", 1.0, 9)]
    policy = AugmentationPolicy(architecture_of([white], flip=True, pad=0.25, cutout=0.5, fill=(200, 200, 200)))
    batch = torch.full((200, 3, 8, 8), 250, dtype=torch.uint8)
    out = policy(batch, torch.Generator().manual_seed(0))
    assert set(out.unique().tolist()) == {200, 255}
    dark = (out[:, 0] == 200).sum((1, 2))
    assert dark.max() == 16
    assert dark.min() == 4  # centred on a corner: a quarter of the square


@pytest.mark.usefixtures("way")
def test_flips_and_crops_of_many_images_are_even() -> None:
    policy = AugmentationPolicy(architecture_of([], flip=True, pad=0.25, fill=(0, 0, 0)))
    batch = torch.arange(1, 5, dtype=torch.uint8).view(1, 1, 1, 4).expand(4000, 1, 4, 4)
    seen = Counter(map(tuple, policy(batch, torch.Generator().manual_seed(2))[:, 0, 1].tolist()))
    assert set(seen) == {(1, 2, 3, 4), (4, 3, 2, 1), (0, 1, 2, 3), (2, 3, 4, 0), (0, 4, 3, 2), (3, 2, 1, 0)}
    assert all(abs(times - 4000 / 6) < 4 * math.sqrt(4000 * 5 / 36) for times in seen.values())


# --- in anybody's pipeline --------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_every_kind_keep_their_kind(name: str, channels: int) -> None:
    policy = discovered.autoaugment(name)
    batch = random_batch(1, 9, channels, 20, 30)
    seeds = [torch.Generator().manual_seed(7) for _ in range(3)]
    whole, single = policy(batch[:1], seeds[0]), policy(batch[0], seeds[1])
    picture = policy(pictures(batch)[0], seeds[2])
    assert whole.shape == (1, channels, 20, 30)
    assert whole.dtype == torch.uint8
    assert torch.equal(single, whole[0])
    assert picture.mode == ("L" if channels == 1 else "RGB")
    assert picture.size == (30, 20)
    assert torch.equal(bytes_of([picture]), whole)


@pytest.mark.usefixtures("way")
def test_the_same_seed_gives_the_same_images_and_the_input_stays() -> None:
    policy, batch = discovered.autoaugment("cifar10"), random_batch(2, 64, 3, 32, 32)
    before = batch.clone()
    torch.manual_seed(5)
    first = policy(batch)
    torch.manual_seed(5)
    again = policy(batch)
    other = policy(batch)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(batch, before)
    assert torch.equal(policy(batch, torch.Generator().manual_seed(5)), first)


@pytest.mark.usefixtures("way")
def test_what_it_gives_is_a_tensor_like_any_other() -> None:
    out = discovered.autoaugment("cifar10")(random_batch(2, 4, 3, 8, 8))
    assert not out.is_inference()
    weight = torch.ones(1, requires_grad=True)
    (out.float() * weight).sum().backward()
    out += 1


def test_a_page_shows_images_before_and_after() -> None:
    """Each sub-policy with a picture inside the page: the photograph as it came first, and drawn again after it."""
    page = augmented(architecture_of([[("Invert", 1.0, 0)], [("Rotate", 0.5, 9), ("SamplePairing", 0.9, 9)]]))
    strips = re.findall(r'<img src="data:image/png;base64,([^"]+)"', page)
    assert len(strips) == 2
    assert "Invert (1)" in page
    strip = Image.open(io.BytesIO(base64.b64decode(strips[0]))).convert("RGB")
    before, after = strip.crop((0, 0, 64, 64)), strip.crop((72, 0, 136, 64))
    assert before.tobytes() == pictures(photographs())[0].tobytes()
    assert after.tobytes() == by_pillow(before, "Invert", 0).tobytes()
    assert augmented(architecture_of([])).count("<img") == 1


class Pictures(torch.utils.data.Dataset[torch.Tensor]):
    """Images, each augmented in the worker that reads it."""

    def __init__(self, transform: AugmentationPolicy) -> None:
        self.images, self.transform = random_batch(4, 16, 3, 32, 32), transform

    def __len__(self) -> int:
        return 16

    def __getitem__(self, k: int) -> torch.Tensor:
        return self.transform(self.images[k])


@pytest.mark.usefixtures("way")
def test_it_goes_to_the_workers_of_a_loader() -> None:
    policy = discovered.autoaugment("cifar10")
    policy(random_batch(0, 2, 3, 8, 8))
    assert pickle.loads(pickle.dumps(policy)).architecture == policy.architecture
    batches = []
    for _ in range(2):
        torch.manual_seed(0)
        loader = torch.utils.data.DataLoader(Pictures(policy), batch_size=8, num_workers=1)
        batches.append(torch.cat(list(loader)))
    assert batches[0].shape == (16, 3, 32, 32)
    assert torch.equal(*batches)
    assert not torch.equal(batches[0], Pictures(policy).images)


def test_it_leaves_the_other_random_states_alone() -> None:
    random.seed(0)
    np.random.seed(0)
    before = random.getstate(), np.random.get_state()[1].tolist()
    discovered.autoaugment("svhn")(random_batch(0, 8, 3, 8, 8))
    assert before == (random.getstate(), np.random.get_state()[1].tolist())


@pytest.mark.parametrize("mode", ["1", "P", "RGBA", "LA", "CMYK", "I;16", "I", "F", "HSV"])
def test_pictures_of_other_modes_are_refused_with_what_to_do(mode: str) -> None:
    with pytest.raises(UsageError, match=rf"mode L or RGB, got {mode}; convert it first"):
        discovered.autoaugment("cifar10")(Image.new(mode, (4, 4)))


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (torch.rand(3, 8, 8), "defined on bytes.*mul"),
        (torch.rand(2, 3, 8, 8), "defined on bytes.*mul"),
        (np.zeros((8, 8, 3), np.uint8), "from_numpy"),
        (None, "got NoneType"),
        (torch.zeros(8, 8, dtype=torch.uint8), "count, channels"),
        (torch.zeros(8, 8, 3, dtype=torch.uint8), "1 channel"),
    ],
)
def test_what_is_no_image_is_refused(images: object, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        discovered.autoaugment("cifar10")(images)  # type: ignore[type-var]


@pytest.mark.parametrize("shape", [(0, 3, 8, 8), (1, 3, 1, 1), (1, 1, 1, 1), (5, 3, 2, 1)])
def test_small_and_empty_batches(shape: tuple[int, ...]) -> None:
    whole = AugmentationPolicy(discovered.autoaugment_cifar10().architecture)
    for policy in (discovered.autoaugment("imagenet"), whole):
        assert policy(torch.zeros(shape, dtype=torch.uint8)).shape == shape


def test_an_unknown_policy_names_the_nearest() -> None:
    with pytest.raises(UnknownName, match="cifar10"):
        discovered.autoaugment("cifar-10")


# --- which policies are the same --------------------------------------------------------------------------------------


def same(first: object, second: object) -> bool:
    return canonical_json(canonical(first)) == canonical_json(canonical(second))  # type: ignore[arg-type]


def test_equal_policies_have_one_form() -> None:
    rotate, invert, mixed = ("Rotate", 0.5, 3), ("Invert", 0.2, 0), ("Color", 1.0, 2)
    base = architecture_of([[rotate, invert], [mixed, rotate]])
    assert same(base, architecture_of([[mixed, rotate], [rotate, invert]])), "the order of sub-policies"
    assert same(base, architecture_of([[mixed, rotate], [rotate, invert]] * 2)), "each twice"
    assert same(base, architecture_of([[rotate, ("Cutout", 0.0, 9), invert], [mixed, rotate]])), "a chance of 0"
    assert same(base, architecture_of([[rotate, ("ShearX", 1.0, 0), invert], [mixed, rotate]])), "a shear by nothing"
    assert same(base, architecture_of([[rotate, ("Posterize", 1.0, 1), invert], [mixed, rotate]])), "all 8 bits"
    assert same(architecture_of([[("Posterize", 1.0, 2)]]), architecture_of([[("Posterize", 1.0, 3)]])), "7 bits"
    assert same(architecture_of([[("Rotate", 0.0, 3)]] * 3), architecture_of([])), "nothing at all"
    assert same(architecture_of([[invert]], fill=(1, 2, 3)), architecture_of([[invert]])), "a fill that is not seen"


def test_different_policies_have_different_forms() -> None:
    rotate, invert = ("Rotate", 0.5, 3), ("Invert", 0.2, 0)
    base = architecture_of([[rotate, invert], [invert]])
    others = [
        architecture_of([[invert, rotate], [invert]]),
        architecture_of([[rotate, invert], [invert], [invert]]),
        architecture_of([[rotate, invert], [invert], []]),
        architecture_of([[("Rotate", 0.5, 4), invert], [invert]]),
        architecture_of([[("Rotate", 0.6, 3), invert], [invert]]),
        architecture_of([[rotate, invert], [invert]], flip=True),
        architecture_of([[rotate, invert], [invert]], pad=0.1),
        architecture_of([[rotate, invert], [invert]], cutout=0.1),
        architecture_of([[rotate, invert], [invert]], fill=(1, 2, 3)),
    ]
    forms = {canonical_json(canonical(one)) for one in [base, *others]}
    assert len(forms) == 10
    solarize = [[("Solarize", 1.0, 9)]]
    assert not same(architecture_of(solarize), architecture_of(solarize, reading="weaker"))


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6))
def test_a_form_does_not_depend_on_order_and_idle_operations(seed: int) -> None:
    space = Augmentation()
    architecture = decode(space, sample(space, Random(seed)))
    shuffled = list(architecture["sub_policies"])
    Random(seed).shuffle(shuffled)
    idle = {"operation": "Color", "probability": 0.0, "magnitude": seed % 10}
    other = {**architecture, "sub_policies": [[idle, *sub_policy] for sub_policy in shuffled]}
    assert same(architecture, other)
    assert json.loads(json.dumps(canonical(architecture))) == canonical(architecture)


def test_the_best_policies_are_joined() -> None:
    space = Augmentation()
    own = [decode(space, sample(space, Random(k))) for k in range(5)]
    whole = space.join(own)
    assert len(whole["sub_policies"]) == 25
    assert whole["sub_policies"][:5] == own[0]["sub_policies"]
    assert whole["sub_policies"][20:] == own[4]["sub_policies"]
    check_architecture(whole)
    with torch.device("meta"):
        assert build(space, whole, CIFAR).augmentation is not None
    with pytest.raises(UsageError, match="at least one policy"):
        joined([])
    with pytest.raises(UsageError, match="the same flip"):
        joined([own[0], {**own[1], "flip": False}])


# --- the space and its children ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_published_policies_lie_in_the_space(name: str) -> None:
    found = discovered.NETWORKS[f"autoaugment_{name}"]()
    assert found.genotype is not None
    assert decode(found.space, found.genotype) == found.architecture
    assert found.architecture["sub_policies"] == discovered.autoaugment(name).architecture["sub_policies"]
    assert Genotype.from_json(json.loads(json.dumps(found.genotype.to_json()))) == found.genotype
    assert len(diagram_of(found).nodes) >= 27


def test_a_policy_that_the_space_does_not_have_is_refused() -> None:
    with pytest.raises(IllegalGenotype, match=r"0\.0\.probability"):
        SMALL.from_sub_policies([[("Rotate", 0.55, 1), ("Invert", 0.1, 0)]] * 2)
    with pytest.raises(IllegalGenotype, match=r"1\.0\.operation"):
        SMALL.from_sub_policies([[("Rotate", 0.5, 1), ("Invert", 0.1, 0)]])


@pytest.mark.parametrize(
    "options",
    [
        {"model": ""}, {"sub_policies": 0}, {"sub_policies": True}, {"operations": "Rotate"}, {"operations": ("Blur",)},
        {"operations": ("Rotate", "Rotate")}, {"flip": 1}, {"pad": 0.7}, {"cutout": "half"}, {"reading": "x"}, {"fill": 3}, {"fill": (1,)},
    ],
)  # fmt: skip
def test_wrong_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=next(iter(options)).rstrip("s") if "reading" not in options else "reading"):
        Augmentation(**options)  # type: ignore[arg-type]


def test_it_is_a_part_that_edits_children() -> None:
    assert isinstance(SMALL, PartSpace)
    with pytest.raises(UsageError, match="for images"):
        SMALL.build(architecture_of([]), TextTask(10, hidden=4))
    with pytest.raises(UnknownName, match="wrn_40_2"):
        Augmentation(model="wrn_40").build(architecture_of([]), CIFAR)
    both = Product(ConvChain(layers=2, filters=(4,)), SMALL)
    child = build(both, sample(both, Random(0)), Task((3, 8, 8), 3))
    assert child.augments_bytes
    assert child.augmentation is not None


def test_what_a_person_would_take_is_there() -> None:
    standards = SMALL.standards()
    assert list(standards) == ["no augmentation", "flips, crops and a cutout"]
    batch = random_batch(0, 4, 3, 32, 32)
    nothing, usual = (AugmentationPolicy(architecture) for architecture in standards.values())
    assert torch.equal(nothing(batch), batch)
    assert not torch.equal(usual(batch), batch)
    assert list(Augmentation(cutout=0.0).standards()) == ["no augmentation", "flips and crops"]
    assert list(Augmentation(flip=False, pad=0.0, cutout=0.0).standards()) == ["no augmentation"]


def test_a_child_is_trained_on_bytes_of_its_augmentation() -> None:
    """Whiten everything out, and nothing is learned; without augmentation, digits are."""
    evaluator = ImageClassification.desk("digits", epochs=2, max_train=400)
    space = Augmentation(model="wrn_16_1", flip=False, pad=0.0, cutout=0.0)
    seen: list[torch.Tensor] = []
    child = space.build(architecture_of([]), evaluator.task())
    policy = child.augmentation
    assert policy is not None

    def watched(images: torch.Tensor) -> torch.Tensor:
        seen.append(images)
        return policy(images)

    object.__setattr__(child, "augmentation", watched)
    evaluator.train(child, RecordingContext(seed=0))
    assert {images.dtype for images in seen} == {torch.uint8}
    assert {images.shape[1:] for images in seen} == {(1, 8, 8)}
    shown = torch.cat(seen)
    assert len(shown) == 2 * len(evaluator.splits().train)
    splits = evaluator.splits()
    pool = torch.from_numpy(splits.data.images[splits.train]).permute(0, 3, 1, 2)
    assert torch.equal(shown.to(torch.int64).sum(0), 2 * pool.to(torch.int64).sum(0)), "each image once an epoch"


def test_the_same_seed_trains_the_same_child() -> None:
    evaluator = ImageClassification.desk("digits", epochs=1, max_train=200)
    space = Augmentation(model="wrn_16_1", flip=False)
    genotype = sample(space, Random(1))
    losses = [evaluator.evaluate(space, genotype, RecordingContext(seed=s)).metrics["loss"] for s in (3, 3, 4)]
    assert losses[0] == losses[1] != losses[2]


def test_an_augmentation_that_changes_the_type_is_a_failed_child() -> None:
    evaluator = ImageClassification.desk("digits", epochs=1, max_train=100)
    child = SMALL.build(architecture_of([]), evaluator.task())
    object.__setattr__(child, "augmentation", lambda images: images.float())
    with pytest.raises(ChildFailed, match="the shape must stay, and the type"):
        evaluator.train(child, RecordingContext(seed=0))


def test_the_fill_is_what_the_authors_paint_cutouts_with() -> None:
    assert FILL == (125, 122, 113)
    assert magnitude("Cutout", 9, 331, 331) == 60


# --- as a file --------------------------------------------------------------------------------------------------------


def everything() -> dict[str, object]:
    """Every operation at every level, with all that stands around a policy."""
    sub_policies = [[(name, 1.0, level)] for name in OPERATIONS for level in range(10)]
    return architecture_of(sub_policies, flip=True, pad=0.2, cutout=0.4, reading="weaker", fill=(9, 200, 30))


@pytest.mark.usefixtures("way")
def test_an_exported_file_repeats_every_operation(tmp_path: Path) -> None:
    path = smith.export(everything(), format="source", path=tmp_path / "policy.py")
    scope = runpy.run_path(str(path))
    assert "archsmith" not in {
        line.split()[1] for line in path.read_text().splitlines() if line.startswith(("import", "from"))
    }
    image, other = pictures(random_batch(8, 2, 3, 40, 24))
    for (name, chance, level), *rest in scope["POLICY"]:
        m = scope["magnitude"](name, level, 24, 40)
        assert chance == 1
        assert not rest
        assert (m or 0.0) == magnitude(name, level, 40, 24, "weaker")
        written = scope["apply"](image, name, m, (3, 30), other)
        ours = operate(bytes_of([image, other]), name, m or 0.0, fill=(9, 200, 30), centre=torch.tensor([[30, 3]] * 2))
        assert torch.equal(bytes_of([written]), ours[:1]), name
    for mode in ("L", "RGB"):
        out = scope["Augment"]()(image.convert(mode), other.convert(mode))
        assert (out.size, out.mode) == (image.size, mode)
    with pytest.raises(ValueError, match="mode L or RGB"):
        scope["Augment"]()(image.convert("P"))


def test_an_exported_file_draws_as_often_as_ours(tmp_path: Path) -> None:
    architecture = architecture_of([[("Invert", 0.3, 0)], [("TranslateX", 1.0, 9)]], fill=(7, 7, 7))
    scope = runpy.run_path(str(smith.export(architecture, format="source", path=tmp_path)))
    image, augment = Image.new("L", (8, 1), 100), scope["Augment"]()
    random.seed(0)
    seen = Counter(tuple(np.array(augment(image))[0].tolist()) for _ in range(4000))
    chances = {(155,) * 8: 0.15, (100,) * 8: 0.35, (7,) * 3 + (100,) * 5: 0.25, (100,) * 5 + (7,) * 3: 0.25}
    assert set(seen) == set(chances)
    assert all(abs(seen[k] - 4000 * p) < 4 * math.sqrt(4000 * p * (1 - p)) for k, p in chances.items())


def test_a_run_exports_its_best_policies_joined(tmp_path: Path) -> None:
    ranks = {"Invert": 1.0, "Solarize": 0.9, "Rotate": 0.8}

    def score(architecture: dict[str, object]) -> float:
        return ranks.get(architecture["sub_policies"][0][0]["operation"], 0.0)  # type: ignore[index]

    space = Augmentation(model="wrn_16_1", sub_policies=1)
    run = smith.search(
        space, score, searcher=smith.searchers.Random(), trials=60, store=f"sqlite:///{tmp_path}/runs.db"
    )
    path = smith.export(run, format="source", path=tmp_path / "found")
    assert path == tmp_path / "found" / "augmentation.py"
    policy = runpy.run_path(str(path))["POLICY"]
    assert len(policy) == 5
    best = [trial.reward for trial in run.top(5)]
    assert [ranks.get(sub_policy[0][0], 0.0) for sub_policy in policy] == best
    with pytest.raises(UsageError, match="no earlier export"):
        (tmp_path / "mine.py").write_text("mine")
        smith.export(run, format="source", path=tmp_path / "mine.py")


def test_a_policy_has_no_weights() -> None:
    with pytest.raises(UsageError, match="an augmentation alone is written with --format source"):
        smith.export("autoaugment_cifar10", format="onnx")
