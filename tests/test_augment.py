"""Batches are whitened, enlarged, cropped and flipped as one image at a time would be."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from archsmith.nn.augment import as_floats, centre_crop, enlarge, gather_crops, preprocess, whiten


def images(count=6, height=7, width=9, channels=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, height, width, channels), dtype=torch.uint8, generator=generator)


def test_whitened_images_have_mean_0_and_deviation_1_each():
    white = whiten(images().float() / 255)
    assert torch.allclose(white.mean((1, 2, 3)), torch.zeros(6), atol=1e-5)
    assert torch.allclose(white.std((1, 2, 3), correction=0), torch.ones(6), atol=1e-5)


def test_a_blank_image_becomes_zeros_and_not_nan():
    assert torch.equal(whiten(torch.full((2, 4, 4, 1), 0.5)), torch.zeros(2, 4, 4, 1))


def test_whitening_ignores_brightness_and_contrast():
    one = images().float() / 255
    assert torch.allclose(whiten(one), whiten(0.3 * one + 0.1), atol=1e-4)


def test_enlarging_takes_32_to_40_and_keeps_a_constant():
    larger = enlarge(torch.full((1, 32, 32, 3), 0.25), 1.25)
    assert larger.shape == (1, 40, 40, 3)
    assert torch.allclose(larger, torch.full_like(larger, 0.25))


def test_enlarging_agrees_with_pillow():
    from PIL import Image

    plane = np.arange(64, dtype=np.float32).reshape(8, 8) % 13
    ours = enlarge(torch.from_numpy(plane)[None, ..., None], 1.25)[0, ..., 0].numpy()
    theirs = np.asarray(Image.fromarray(plane).resize((10, 10), Image.Resampling.BILINEAR))
    assert np.abs(ours - theirs).max() < 1e-4


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 7), st.integers(1, 9), st.sampled_from([1, 3]), st.integers(0, 2**31))
def test_one_gather_chooses_crops_and_flips_like_slices_do(height, width, channels, seed):
    pool = images(channels=channels, seed=seed).float()
    draw = torch.Generator().manual_seed(seed)
    chosen = torch.randint(0, 6, (5,), generator=draw)
    top = torch.randint(0, 7 - height + 1, (5,), generator=draw)
    left = torch.randint(0, 9 - width + 1, (5,), generator=draw)
    mirrored = torch.rand(5, generator=draw) < 0.5
    crops = gather_crops(pool, chosen, top, left, mirrored, (height, width))
    for k in range(5):
        window = pool[chosen[k], top[k] : top[k] + height, left[k] : left[k] + width]
        assert torch.equal(crops[k], window.flip(1) if mirrored[k] else window)


def test_gathered_batches_are_channels_last_for_nothing():
    pool = images().float()
    zero = torch.zeros(4, dtype=torch.int64)
    batch = gather_crops(pool, zero, zero, zero, zero > 0, (5, 5)).permute(0, 3, 1, 2)
    assert batch.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("height", "width"), [(7, 9), (5, 5), (4, 6)])
def test_the_middle_is_in_the_middle(height, width):
    middle = centre_crop(torch.arange(63.0).view(1, 7, 9, 1), height, width)[0, ..., 0]
    top, left = (7 - height) // 2, (9 - width) // 2
    assert middle.shape == (height, width)
    assert middle[0, 0] == top * 9 + left


def test_preprocessing_is_what_validation_sees():
    pool = images(height=8, width=8)
    settings = {"height": 8, "width": 8, "whiten": True, "upsample": 1.25}
    batch = preprocess(pool, settings)
    assert batch.shape == (6, 3, 8, 8)
    assert torch.equal(batch, centre_crop(as_floats(pool, whitened=True, upsample=1.25), 8, 8).permute(0, 3, 1, 2))
    plain = preprocess(pool, {**settings, "whiten": False, "upsample": 1.0})
    assert torch.equal(plain, pool.permute(0, 3, 1, 2).float() / 255)
