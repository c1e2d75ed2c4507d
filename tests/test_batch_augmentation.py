"""Crops, colours and mixtures of whole batches: against grid_sample, Pillow and the papers' formulas; properties; bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance
from torch import Tensor
from torch.nn import functional as F

from archsmith.core.errors import UsageError
from archsmith.nn.augmentation.operations import operate
from archsmith.nn.augmentation.policy import LEVELS, magnitude
from archsmith.nn.batch_augmentation import (
    TRIVIAL,
    affine_views,
    colour_jitter,
    cutmix,
    mixup,
    resized_crops,
    trivial_augment,
)

LUMA = torch.tensor([0.299, 0.587, 0.114])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(count: int, channels: int = 3, height: int = 24, width: int = 24, seed: int = 0) -> Tensor:
    """Smooth noise."""
    coarse = torch.rand(count, channels, 5, 5, generator=seeded(seed)).mul_(255)
    return F.interpolate(coarse, (height, width), mode="bilinear").to(torch.uint8)


def ramps(count: int, height: int, width: int) -> Tensor:
    """Images whose channels are the row, the column and zero, so that a crop shows what it was cut from."""
    rows, columns = torch.arange(height)[:, None].expand(-1, width), torch.arange(width).expand(height, -1)
    return torch.stack([rows, columns, torch.zeros(height, width)]).to(torch.uint8).expand(count, -1, -1, -1)


def boxes(crops: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Top, left, down and across (in pixels; across negative where mirrored) of crops of `ramps`, from their inner pixels."""
    size = crops.shape[2]
    rows, columns = crops[:, 0, :, size // 2] * 255, crops[:, 1, size // 2] * 255
    steps = [(own[:, size * 3 // 4] - own[:, size // 4]) / (size * 3 // 4 - size // 4) for own in (rows, columns)]
    starts = [
        own[:, size // 2] - step * (size // 2 + 0.5) + 0.5 for own, step in zip((rows, columns), steps, strict=True)
    ]
    return starts[0], starts[1], steps[0] * size, steps[1] * size


# --- affine views ------------------------------------------------------------------------------------------------------


def test_a_view_that_is_not_moved_is_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TURN", "SCALE", "MOVE"):
        monkeypatch.setattr(f"archsmith.nn.batch_augmentation.{name}", 0.0)
    images = torch.randint(0, 256, (6, 3, 12, 12), dtype=torch.uint8)
    torch.testing.assert_close(affine_views(images, 12, flip=False, generator=seeded()), images / 255)
    views = affine_views(images, 12, flip=True, generator=seeded())
    both = [
        any(torch.allclose(view, each / 255, atol=1e-5) for each in (image, image.flip(2)))
        for view, image in zip(views, images, strict=True)
    ]
    assert all(both)


@pytest.mark.parametrize(("name", "most"), [("TURN", math.pi / 18), ("SCALE", 0.15), ("MOVE", 0.1)])
def test_views_are_turned_scaled_and_moved_within_their_bounds(
    name: str, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By where three dots of a picture come to lie."""
    for other in {"TURN", "SCALE", "MOVE"} - {name}:
        monkeypatch.setattr(f"archsmith.nn.batch_augmentation.{other}", 0.0)
    side = 101
    places = torch.tensor([[50.0, 50.0], [50.0, 80.0]])  # row and column of the middle, and of a dot to its right
    images = torch.zeros(300, 3, side, side)
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    for k, (row, column) in enumerate(places):
        images[:, k] = 255 * torch.exp(-((y - row) ** 2 + (x - column) ** 2) / 18)
    views = affine_views(images.round().to(torch.uint8), side, flip=False, generator=seeded())
    views = views[:, :2]
    weight = views.sum((2, 3))
    rows, columns = (views * y).sum((2, 3)) / weight, (views * x).sum((2, 3)) / weight
    across, down = columns[:, 1] - columns[:, 0], rows[:, 1] - rows[:, 0]
    if name == "TURN":
        found = torch.atan2(down, across)
    elif name == "SCALE":
        found = 30 / torch.hypot(across, down) - 1
    else:
        found = (columns[:, 0] - 50) / side
        assert ((rows[:, 0] - 50) / side).abs().max() < most * 1.05
    assert found.abs().max() < most * 1.05
    assert found.min() < -0.8 * most
    assert found.max() > 0.8 * most


def test_views_follow_from_the_seed_and_are_refused_for_other_images() -> None:
    images = torch.randint(0, 256, (5, 1, 9, 9), dtype=torch.uint8)
    one, two = (affine_views(images, 7, flip=True, generator=seeded(3)) for _ in range(2))
    assert torch.equal(one, two)
    assert one.shape == (5, 1, 7, 7)
    assert 0 <= one.min() <= one.max() <= 1
    with pytest.raises(UsageError, match="at least 1 pixel"):
        affine_views(images, 0, flip=True, generator=seeded())
    with pytest.raises(UsageError):
        affine_views(images.float(), 7, flip=True, generator=seeded())


# --- crops ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width", "size"), [(24, 24, 16), (40, 24, 24), (20, 33, 16), (9, 9, 32)])
def test_crops_have_the_values_of_grid_sample(height: int, width: int, size: int) -> None:
    generators = seeded(3), seeded(3)
    top, left, down, across = boxes(
        resized_crops(ramps(40, height, width), size, area=0.3, flip=True, generator=generators[0])
    )
    images = pictures(40, 3, height, width)
    theta = torch.zeros(40, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = across / width, down / height
    theta[:, 0, 2], theta[:, 1, 2] = (2 * left + across) / width - 1, (2 * top + down) / height - 1
    grid = F.affine_grid(theta, [40, 3, size, size], align_corners=False)
    expected = F.grid_sample(images / 255, grid, padding_mode="reflection", align_corners=False)
    crops = resized_crops(images, size, area=0.3, flip=True, generator=generators[1])
    torch.testing.assert_close(crops, expected, atol=2e-3, rtol=0)


def test_boxes_of_crops_have_the_area_and_the_aspect_that_are_asked_for() -> None:
    count, side = 1000, 120
    top, left, down, across = boxes(
        resized_crops(ramps(count, side, side), 90, area=0.35, flip=True, generator=seeded())
    )
    wide = across.abs()
    area, aspect = down * wide / side**2, (wide / down).log()
    assert 0.35 - 1e-3 < area.min() < 0.36
    assert 0.99 < area.max() < 1 + 1e-3
    assert area.mean() == pytest.approx(0.675, abs=0.02)
    assert aspect.abs().max() < math.log(4 / 3) + 1e-3
    assert aspect.abs().max() > 0.28
    assert aspect.mean() == pytest.approx(0, abs=0.02)
    assert (across < 0).float().mean() == pytest.approx(0.5, abs=0.05)
    begins = torch.where(across < 0, left + across, left)
    assert min(top.min(), begins.min()) > -0.1
    assert max((top + down).max(), (begins + wide).max()) < side + 0.1


def test_crops_of_long_images_fit_into_them() -> None:
    _, _, down, across = boxes(resized_crops(ramps(500, 40, 120), 40, area=0.8, flip=False, generator=seeded()))
    assert (down * across / 4800).min() > 0.8 - 1e-3
    assert across.max() < 120.1
    assert down.max() < 40.1


@pytest.mark.parametrize("channels", [1, 3])
def test_a_crop_of_everything_at_its_own_size_is_the_image(channels: int) -> None:
    images = pictures(5, channels)
    crops = resized_crops(images, 24, area=1.0, flip=False, generator=seeded())
    assert torch.equal(crops, images.float() * torch.tensor(1 / 255))
    mirrored = resized_crops(images, 24, area=1.0, flip=True, generator=seeded())
    by_image = [
        torch.equal(own, image) or torch.equal(own, image.flip(2)) for own, image in zip(mirrored, crops, strict=True)
    ]
    assert all(by_image)


def test_much_larger_images_are_reduced_as_pillow_reduces_them() -> None:
    noise = torch.randint(0, 256, (2, 3, 90, 90), dtype=torch.uint8, generator=seeded())
    crops = resized_crops(noise, 15, area=1.0, flip=False, generator=seeded())
    for image, crop in zip(noise, crops, strict=True):
        small = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((30, 30), Image.Resampling.BILINEAR)
        expected = torch.from_numpy(np.array(small)).permute(2, 0, 1).float().view(3, 15, 2, 15, 2).mean((2, 4)) / 255
        assert (crop - expected).abs().max() < 1.5 / 255


@settings(max_examples=30, deadline=None)
@given(
    count=st.integers(0, 9),
    channels=st.sampled_from([1, 3]),
    height=st.integers(1, 60),
    width=st.integers(1, 60),
    size=st.integers(1, 20),
    area=st.floats(0.01, 1),
    flip=st.booleans(),
)
def test_crops_of_any_images(
    count: int, channels: int, height: int, width: int, size: int, area: float, flip: bool
) -> None:
    images = torch.randint(0, 256, (count, channels, height, width), dtype=torch.uint8, generator=seeded(1))
    before = images.clone()
    crops = resized_crops(images, size, area=area, flip=flip, generator=seeded(2))
    assert crops.shape == (count, channels, size, size)
    assert crops.dtype == torch.float32
    assert count == 0 or (crops.min() >= images.min() / 255 - 1e-6 and crops.max() <= images.max() / 255 + 1e-6)
    assert torch.equal(images, before)
    last = images.contiguous(memory_format=torch.channels_last)
    assert torch.equal(crops, resized_crops(last, size, area=area, flip=flip, generator=seeded(2)))


def test_a_long_batch_is_resized_in_parts_alike() -> None:
    images = pictures(300)
    crops = resized_crops(images, 24, area=0.5, flip=True, generator=seeded(4))
    assert torch.equal(crops, resized_crops(images, 24, area=0.5, flip=True, generator=seeded(4)))
    assert not torch.equal(crops, resized_crops(images, 24, area=0.5, flip=True, generator=seeded(5)))


# --- colours ----------------------------------------------------------------------------------------------------------


def one_after_the_other(image: Tensor, brightness: float, contrast: float, saturation: float) -> Tensor:
    """Brightness, contrast and saturation as ImageEnhance defines them, without cutting between them."""
    image = image.double() * brightness
    weights = LUMA.double() if len(image) == 3 else torch.ones(1, dtype=torch.float64)
    mean = torch.einsum("chw,c->hw", image, weights).mean()
    image = mean + (image - mean) * contrast
    grey = torch.einsum("chw,c->hw", image, weights)
    return (grey + (image - grey) * saturation).clamp(0, 1)


@pytest.mark.parametrize("channels", [1, 3])
def test_colours_are_changed_as_if_one_after_the_other(channels: int) -> None:
    images = pictures(30, channels) / 255
    changed = colour_jitter(images, 0.6, generator=seeded(1))
    factors = 0.4 + 1.2 * torch.rand(3, 30, generator=seeded(1)).double()
    for image, own, (brightness, contrast, saturation) in zip(images, changed, factors.T.tolist(), strict=True):
        expected = one_after_the_other(image, brightness, contrast, saturation)
        torch.testing.assert_close(own.double(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("enhancer", [ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color])
def test_each_change_of_colours_is_pillows(enhancer: type[ImageEnhance.Brightness]) -> None:
    image = pictures(1)[0] // 2 + 64  # nothing has to be cut
    at = [ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color].index(enhancer)
    factors = [1.3 if k == at else 1.0 for k in range(3)]
    pillows = np.array(enhancer(Image.fromarray(image.permute(1, 2, 0).numpy())).enhance(1.3)) / 255
    expected = one_after_the_other(image / 255, *factors).permute(1, 2, 0).numpy()
    assert np.abs(pillows - expected).max() < 2 / 255


def test_no_strength_changes_no_colour_and_most_stays_in_bounds() -> None:
    images = pictures(6) / 255
    torch.testing.assert_close(colour_jitter(images, 0.0, generator=seeded()), images, atol=1e-6, rtol=0)
    strong = colour_jitter(images, 1.0, generator=seeded())
    assert strong.min() >= 0
    assert strong.max() <= 1
    assert strong.is_contiguous()
    last = images.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(colour_jitter(last, 1.0, generator=seeded()), strong, atol=1e-6, rtol=0)
    assert colour_jitter(images[:0], 0.3, generator=seeded()).shape == (0, 3, 24, 24)


# --- mixtures ---------------------------------------------------------------------------------------------------------


def marked(count: int, side: int = 16) -> tuple[Tensor, Tensor]:
    """Images that are all over their own number (as a part of the count), and that number as their label."""
    labels = torch.arange(count)
    return (labels / count)[:, None, None, None].expand(count, 3, side, side).contiguous(), labels


@pytest.mark.parametrize("alpha", [0.2, 1.0, 5.0])
def test_mixup_blends_images_and_labels_by_one_weight(alpha: float) -> None:
    images, labels = marked(12)
    mixed, first, second, weight = mixup(images, labels, alpha=alpha, generator=seeded(7))
    assert 0 <= weight <= 1
    assert torch.equal(first, labels)
    assert torch.equal(second.sort().values, labels)
    expected = (weight * first + (1 - weight) * second) / 12
    torch.testing.assert_close(mixed, expected[:, None, None, None].expand_as(mixed), atol=1e-6, rtol=0)
    again = mixup(images, labels, alpha=alpha, generator=seeded(7))
    assert torch.equal(again[0], mixed)
    assert again[3] == weight
    assert torch.equal(images, marked(12)[0])


def test_cutmix_pastes_a_rectangle_and_weighs_by_its_area() -> None:
    images, labels = marked(12)
    weights = []
    for seed in range(60):
        mixed, first, second, weight = cutmix(images, labels, alpha=1.0, generator=seeded(seed))
        assert torch.equal(first, labels)
        assert torch.equal(second.sort().values, labels)
        stays = torch.isclose(mixed, images).all(1)  # [n, h, w]
        comes = torch.isclose(mixed, images[second]).all(1)
        assert (stays | comes).all()
        moved = first != second
        assert torch.allclose(stays[moved].float().mean((1, 2)), torch.tensor(weight, dtype=torch.float32))
        if weight < 1:
            pasted = ~stays[moved][0]
            rows, columns = pasted.any(1).nonzero().flatten(), pasted.any(0).nonzero().flatten()
            assert pasted[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        weights.append(weight)
    # The weight is uniform for alpha 1, before what lies outside is cut off: on average 0.5, then more.
    assert 0.5 < sum(weights) / 60 < 0.8
    assert min(weights) < 0.45


def test_weights_are_those_of_the_beta_distribution() -> None:
    images, labels = torch.zeros(2, 1, 1, 1), torch.zeros(2)
    generator = seeded()
    for alpha in (0.2, 1.0, 4.0):
        weights = torch.tensor([mixup(images, labels, alpha=alpha, generator=generator)[3] for _ in range(1500)])
        assert weights.mean() == pytest.approx(0.5, abs=0.04)
        assert weights.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.12)


# --- TrivialAugment ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
def test_trivial_augment_applies_one_operation_of_the_paper_to_each_image(channels: int) -> None:
    images = pictures(56, channels, seed=2)
    changed = trivial_augment(images, generator=seeded(3))
    assert changed.dtype == torch.uint8
    assert changed.shape == images.shape
    which = torch.randint(len(TRIVIAL) + 1, (56,), generator=(generator := seeded(3))).tolist()
    strengths = torch.randint(31, (56,), generator=generator).tolist()
    signs = ((torch.rand(56, generator=generator) < 0.5).float() * -2 + 1).tolist()
    for image, own, operation, strength, sign in zip(images, changed, which, strengths, signs, strict=True):
        if not operation:
            assert torch.equal(own, image)
            continue
        name = TRIVIAL[operation - 1]
        amount = magnitude(name, (LEVELS - 1) * strength / 30, 24, 24)
        signed = name.startswith(("Shear", "Translate", "Rotate"))
        assert torch.equal(own, operate(image[None], name, amount * (sign if signed else 1))[0]), name


def test_trivial_augment_draws_every_operation_about_equally_often() -> None:
    images = pictures(1, seed=1).expand(4000, -1, -1, -1)
    changed = trivial_augment(images, generator=seeded())
    same = (changed == images).flatten(1).all(1).float().mean()
    assert 1 / 14 < same < 0.2  # none, and operations at strength 0
    assert torch.equal(changed, trivial_augment(images, generator=seeded()))
    assert trivial_augment(images[:0], generator=seeded()).shape == (0, 3, 24, 24)


# --- bad input --------------------------------------------------------------------------------------------------------


def test_bad_input_is_refused_with_the_rule_and_the_value() -> None:
    images, floats, labels = pictures(2), pictures(2) / 255, torch.zeros(2)
    for area in (0.0, -1.0, 1.01, math.nan):
        with pytest.raises(UsageError, match=r"area of random crops must be more than 0 and at most 1, got"):
            resized_crops(images, 8, area=area, flip=False, generator=seeded())
    with pytest.raises(UsageError, match="at least 1 pixel, got 0"):
        resized_crops(images, 0, area=0.5, flip=False, generator=seeded())
    with pytest.raises(UsageError, match="bytes"):
        resized_crops(floats, 8, area=0.5, flip=False, generator=seeded())
    for strength in (-0.1, 1.5, math.nan):
        with pytest.raises(UsageError, match="strength of a colour jitter must be 0 to 1, got"):
            colour_jitter(floats, strength, generator=seeded())
    with pytest.raises(UsageError, match="are floats"):
        colour_jitter(images, 0.3, generator=seeded())
    for alpha in (0.0, -1.0, math.inf, math.nan):
        for mix in (mixup, cutmix):
            with pytest.raises(UsageError, match="alpha of mixup and cutmix must be a positive number, got"):
                mix(floats, labels, alpha=alpha, generator=seeded())
    with pytest.raises(UsageError, match="bytes"):
        trivial_augment(floats, generator=seeded())
