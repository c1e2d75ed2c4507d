"""The 16 operations on whole batches against Pillow's, to the bit; magnitudes; bad input."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from archsmith.core.errors import UnknownName, UsageError
from archsmith.nn.augmentation import native
from archsmith.nn.augmentation.geometry import cut_out, flip_and_move
from archsmith.nn.augmentation.operations import CODES, move_, operate
from archsmith.nn.augmentation.policy import FILL, LEVELS, OPERATIONS, READINGS, magnitude

LUMA_OF_FILL = 122
pytestmark = pytest.mark.usefixtures("way")


@pytest.fixture(scope="module", params=["plain", pytest.param("native", marks=pytest.mark.compiler)])
def way(request: pytest.FixtureRequest) -> Iterator[str]:
    """Torch's operations, and those of the native library."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ARCHSMITH_KERNELS", request.param)
        yield request.param


# --- the reference: Pillow, image by image ----------------------------------------------------------------------------


def by_pillow(image: Image.Image, operation: str, m: float, other: Image.Image | None = None) -> Image.Image:
    """One operation as the authors' code, FAA-CODE and torchvision write it, with Pillow."""
    fill = FILL if image.mode == "RGB" else LUMA_OF_FILL

    def moved(*matrix: float) -> Image.Image:
        return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST, fillcolor=fill)

    match operation:
        case "ShearX":
            return moved(1, m, 0, 0, 1, 0)
        case "ShearY":
            return moved(1, 0, 0, m, 1, 0)
        case "TranslateX":
            return moved(1, 0, m, 0, 1, 0)
        case "TranslateY":
            return moved(1, 0, 0, 0, 1, m)
        case "Rotate":
            return image.rotate(m, fillcolor=fill)
        case "AutoContrast":
            return ImageOps.autocontrast(image)
        case "Invert":
            return ImageOps.invert(image)
        case "Equalize":
            return ImageOps.equalize(image)
        case "Solarize":
            return ImageOps.solarize(image, m)
        case "Posterize":
            return ImageOps.posterize(image, int(m))
        case "SamplePairing":
            assert other is not None
            return Image.blend(image, other, m)
        case _:
            return getattr(ImageEnhance, operation)(image).enhance(m)


WITH_PILLOW = [name for name in OPERATIONS if name != "Cutout"]
RANGES = {
    **dict.fromkeys(("ShearX", "ShearY"), (-1.0, 1.0)),
    "Rotate": (-45.0, 45.0),
    "Solarize": (0.0, 256.0),
    **dict.fromkeys(("Contrast", "Color", "Brightness", "Sharpness", "SamplePairing"), (-0.5, 3.0)),
}


def pictures(batch: Tensor) -> list[Image.Image]:
    arrays = batch.permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(a[:, :, 0] if a.shape[2] == 1 else np.ascontiguousarray(a)) for a in arrays]


def bytes_of(images: list[Image.Image]) -> Tensor:
    arrays = [np.array(image) for image in images]
    return torch.stack([torch.from_numpy(a[None] if a.ndim == 2 else a.transpose(2, 0, 1).copy()) for a in arrays])


def random_batch(seed: int, count: int, channels: int, height: int, width: int, look: str = "noise") -> Tensor:
    """Images of several kinds: noise; few values; a narrow range; one value; a smooth ramp."""
    draws = torch.Generator().manual_seed(seed)
    shape = (count, channels, height, width)
    noise = torch.randint(0, 256, shape, generator=draws, dtype=torch.uint8)
    if look == "few":
        return (noise // 85) * 85
    if look == "narrow":
        return noise % 7 + 120
    if look == "flat":
        return noise[:, :, :1, :1].expand(shape).clone()
    if look == "ramp":
        ramp = torch.arange(height * width).view(height, width) * 255 // max(1, height * width - 1)
        return (ramp // torch.randint(1, 4, (count, channels, 1, 1), generator=draws)).to(torch.uint8)
    return noise


LOOKS = ("noise", "few", "narrow", "flat", "ramp")


@st.composite
def cases(draw: st.DrawFn) -> tuple[Tensor, str, list[float]]:
    operation = draw(st.sampled_from(WITH_PILLOW))
    sides = st.one_of(st.integers(1, 9), st.sampled_from([16, 28, 31, 32, 64]))
    batch = random_batch(
        draw(st.integers(0, 10**6)),
        draw(st.integers(1, 5)),
        draw(st.sampled_from([1, 3])),
        draw(sides),
        draw(sides),
        draw(st.sampled_from(LOOKS)),
    )
    height, width = batch.shape[2:]
    if operation.startswith("Translate"):
        values = st.integers(-max(height, width) - 1, max(height, width) + 1).map(float)
    elif operation == "Posterize":
        values = st.integers(1, 8).map(float)
    else:
        values = st.floats(*RANGES.get(operation, (0.0, 0.0)))
    levels = st.builds(
        lambda level, sign, reading: (
            magnitude(operation, level, height, width, reading) * (sign if OPERATIONS[operation].signed else 1)
        ),
        st.integers(0, 9),
        st.sampled_from([-1, 1]),
        st.sampled_from(READINGS),
    )
    return batch, operation, [draw(st.one_of(values, levels)) for _ in range(len(batch))]


@settings(deadline=None, max_examples=600)
@given(cases())
def test_every_operation_equals_pillows_to_the_bit(case: tuple[Tensor, str, list[float]]) -> None:
    batch, operation, values = case
    before = batch.clone()
    ours = operate(batch, operation, torch.tensor(values, dtype=torch.float64))
    own = pictures(batch)
    others = own[1:] + own[:1]
    theirs = bytes_of([by_pillow(p, operation, m, o) for p, m, o in zip(own, values, others, strict=True)])
    assert torch.equal(ours, theirs)
    assert torch.equal(batch, before), "the operation changed its input"


@pytest.mark.parametrize("operation", WITH_PILLOW)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(32, 32), (28, 28), (96, 128), (331, 331), (1, 1), (2, 5), (5, 2)])
def test_every_level_equals_pillows_at_usual_sizes(operation: str, channels: int, size: tuple[int, int]) -> None:
    for reading in READINGS:
        values = [magnitude(operation, level, *size, reading) for level in range(LEVELS)]
        if OPERATIONS[operation].signed:
            values += [-m for m in values]
        batch = random_batch(len(operation), len(values), channels, *size)
        ours = operate(batch, operation, torch.tensor(values, dtype=torch.float64))
        own = pictures(batch)
        others = own[1:] + own[:1]
        assert torch.equal(
            ours, bytes_of([by_pillow(p, operation, m, o) for p, m, o in zip(own, values, others, strict=True)])
        )


def test_the_check_sees_one_wrong_bit() -> None:
    batch = random_batch(0, 4, 3, 32, 32)
    theirs = bytes_of([by_pillow(p, "Brightness", 0.7) for p in pictures(batch)])
    theirs[2, 1, 3, 4] ^= 1
    assert not torch.equal(operate(batch, "Brightness", 0.7), theirs)


def test_all_values_of_a_blend_equal_pillows() -> None:
    """Each pair of bytes, with the weights of all levels: rounding and clipping."""
    first, second = torch.meshgrid(torch.arange(256), torch.arange(256), indexing="ij")
    batch = torch.stack([first, second]).to(torch.uint8)[:, None]
    for m in [magnitude("Contrast", level, 32, 32) for level in range(LEVELS)] + [0.0, 0.4 / 9, 0.4, 1.0, 1 / 3]:
        a, b = pictures(batch)
        assert torch.equal(operate(batch, "SamplePairing", m)[:1], bytes_of([Image.blend(a, b, m)]))


def test_every_range_is_stretched_as_pillow_does() -> None:
    """Every distance from the lowest to the highest value, lying low and high: each rounds in its own way."""
    ranges = [(low, low + span) for span in range(256) for low in {0, (255 - span) // 3, 255 - span}]
    batch = torch.stack([torch.arange(256).clamp(low, high) for low, high in ranges]).to(torch.uint8)[:, None, None]
    assert torch.equal(operate(batch, "AutoContrast"), bytes_of([ImageOps.autocontrast(p) for p in pictures(batch)]))


def test_every_colour_has_pillows_grey() -> None:
    """Color at 0 shows the grey picture; 2^18 colours cover every rounding of its sum of three products."""
    values = torch.arange(0, 256, 4)
    red, green, blue = torch.meshgrid(values, values + 1, values + 2, indexing="ij")
    batch = torch.stack([red, green, blue]).view(1, 3, 512, 512).to(torch.uint8)
    assert torch.equal(operate(batch, "Color", 0.0), bytes_of([by_pillow(pictures(batch)[0], "Color", 0.0)]))


# --- which images are changed -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", OPERATIONS)
def test_only_the_images_that_are_meant_change(operation: str) -> None:
    batch = random_batch(3, 6, 3, 16, 16)
    m = magnitude(operation, 9, 16, 16)
    where = torch.tensor([True, False, True, False, False, True])
    some, all_of_them = operate(batch, operation, m, where), operate(batch, operation, m)
    assert torch.equal(some[~where], batch[~where])
    assert torch.equal(some[where], all_of_them[where])
    assert not torch.equal(some[where], batch[where])


@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_layout_in_memory_does_not_matter(operation: str) -> None:
    batch = random_batch(5, 4, 3, 12, 20)
    m = magnitude(operation, 7, 12, 20)
    assert torch.equal(
        operate(batch.contiguous(memory_format=torch.channels_last), operation, m), operate(batch, operation, m)
    )


def test_identities() -> None:
    """Fact 11c: Invert twice and Solarize(256), Posterize(8), Brightness(1.0) change nothing."""
    batch = random_batch(1, 5, 3, 17, 13)
    assert torch.equal(operate(operate(batch, "Invert"), "Invert"), batch)
    for operation, m in (("Solarize", 256), ("Posterize", 8), ("Brightness", 1), ("Contrast", 1), ("Color", 1),
                         ("Sharpness", 1), ("SamplePairing", 0), ("ShearX", 0), ("Rotate", 0), ("Cutout", 0)):  # fmt: skip
        assert torch.equal(operate(batch, operation, m), batch), operation
    assert torch.equal(operate(batch, "Solarize", 0), operate(batch, "Invert"))


# --- cutouts, flips and crops, by hand --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("centre", "size", "rows", "columns"),
    [
        ((4, 5), 4, (2, 6), (3, 7)),
        ((0, 0), 4, (0, 2), (0, 2)),
        ((7, 8), 3, (6, 8), (7, 9)),
        ((3, 3), 1, (3, 4), (3, 4)),
    ],
)
def test_a_cutout_covers_its_square(
    centre: tuple[int, int], size: int, rows: tuple[int, int], columns: tuple[int, int]
) -> None:
    batch = random_batch(2, 1, 3, 8, 9)
    expected = batch.clone()
    expected[0, :, slice(*rows), slice(*columns)] = torch.tensor(FILL, dtype=torch.uint8)[:, None, None]
    assert torch.equal(operate(batch, "Cutout", size, centre=torch.tensor([centre])), expected)


def test_flips_and_crops_are_those_of_the_padded_image() -> None:
    batch = random_batch(4, 50, 3, 10, 8)
    draws = torch.Generator().manual_seed(0)
    mirrored = torch.rand(50, generator=draws) < 0.5
    down, right = (torch.randint(-3, 4, (50,), generator=draws) for _ in range(2))
    ours = flip_and_move(batch, mirrored, down, right, torch.tensor(FILL, dtype=torch.uint8))
    in_place = batch.clone()
    move_(in_place, mirrored, down, right, torch.tensor(FILL, dtype=torch.uint8))
    assert torch.equal(in_place, ours)
    for k in range(50):
        image = batch[k].flip(2) if mirrored[k] else batch[k]
        padded = torch.tensor(FILL, dtype=torch.uint8)[:, None, None].expand(3, 16, 14).clone()
        padded[:, 3:13, 3:11] = image
        y, x = 3 + int(down[k]), 3 + int(right[k])
        assert torch.equal(ours[k], padded[:, y : y + 10, x : x + 8])


def test_a_grey_image_is_filled_with_the_luma_of_the_colour() -> None:
    batch = random_batch(4, 1, 1, 4, 4)
    assert (operate(batch, "TranslateX", 4) == LUMA_OF_FILL).all()
    fill = torch.tensor([9], dtype=torch.uint8)
    assert (cut_out(batch, torch.tensor([9]), torch.tensor([[2, 2]]), fill) == 9).all()


# --- which way -------------------------------------------------------------------------------------------------------


def test_the_way_that_is_asked_for_is_taken(way: str) -> None:
    batch, fill = random_batch(0, 2, 3, 8, 8), torch.tensor(FILL, dtype=torch.uint8)
    none = torch.zeros(2, dtype=torch.int64)
    others = none.double(), torch.zeros(2, 2, dtype=torch.int64), none, batch, fill
    assert native.augment_(batch.clone(), none, *others) == (way == "native")
    assert not native.augment_(batch.transpose(2, 3), none, *others)
    assert not native.augment_(batch.clone(), none[:1], *others)
    assert max(CODES.values()) + 1 == native.MOVED


def test_a_partner_that_is_none_is_refused() -> None:
    with pytest.raises(IndexError, match="out of range"):
        operate(random_batch(0, 2, 3, 8, 8), "SamplePairing", 0.3, partner=torch.tensor([1, 2]))


# --- magnitudes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("reading", READINGS)
def test_magnitudes_are_monotone_and_span_the_papers_range(operation: str, reading: str) -> None:
    """Fact 11d, at the size that the paper's ranges are of."""
    values = [magnitude(operation, level, 331, 331, reading) for level in range(LEVELS)]
    if OPERATIONS[operation].first is None:
        assert values == [0.0] * LEVELS
        return
    falls = values[0] > values[-1]
    assert values == sorted(values, reverse=falls)
    assert len(set(values)) == (5 if operation == "Posterize" else 10)
    ends = {
        "ShearX": (0, 0.3), "ShearY": (0, 0.3), "TranslateX": (0, 150), "TranslateY": (0, 150), "Rotate": (0, 30),
        "Solarize": (0, 256), "Posterize": (4, 8), "Cutout": (0, 60), "SamplePairing": (0, 0.4),
    }.get(operation, (0.1, 1.9))  # fmt: skip
    assert (min(values), max(values)) == pytest.approx(ends)
    assert falls == (operation in ("Solarize", "Posterize") and reading == "stronger")


def test_posterize_keeps_torchvisions_bits() -> None:
    """Contradiction 17: 8 to 4 bits, stronger with the level; the other reading turns it round."""
    assert [magnitude("Posterize", k, 32, 32) for k in range(10)] == [8, 8, 7, 7, 6, 6, 5, 5, 4, 4]
    assert [magnitude("Posterize", k, 32, 32, "weaker") for k in range(10)] == [4, 4, 5, 5, 6, 6, 7, 7, 8, 8]


def test_pixels_scale_with_their_side() -> None:
    assert magnitude("TranslateX", 9, 32, 64) == math.floor(150 / 331 * 64) == 29
    assert magnitude("TranslateY", 9, 32, 64) == 14
    assert magnitude("Cutout", 9, 32, 64) == 5


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (torch.rand(2, 3, 8, 8), "defined on bytes.*mul\\(255\\)"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.int16), "defined on bytes"),
        (torch.zeros(2, 2, 8, 8, dtype=torch.uint8), "1 channel .grey. or 3"),
        (torch.zeros(2, 4, 8, 8, dtype=torch.uint8), "1 channel .grey. or 3"),
        (torch.zeros(8, 8, dtype=torch.uint8), "1 channel .grey. or 3"),
        (torch.zeros(2, 3, 0, 8, dtype=torch.uint8), "1 to 16,384 pixels"),
        (torch.zeros(1, 1, 1, 16385, dtype=torch.uint8), "1 to 16,384 pixels"),
        (np.zeros((2, 3, 8, 8), dtype=np.uint8), "tensor of bytes, got ndarray"),
    ],
)
def test_other_images_are_refused(images: object, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        operate(images, "Invert")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("operation", "m"),
    [
        ("Posterize", 4.5),
        ("Posterize", 9),
        ("TranslateX", 0.5),
        ("Solarize", -1),
        ("Rotate", 46),
        ("Color", math.nan),
        ("Cutout", -1),
    ],
)
def test_magnitudes_that_an_operation_does_not_have_are_refused(operation: str, m: float) -> None:
    with pytest.raises(UsageError, match=f"magnitudes of {operation}"):
        operate(random_batch(0, 2, 3, 8, 8), operation, m)


def test_an_unknown_operation_names_the_nearest() -> None:
    with pytest.raises(UnknownName, match="Equalize"):
        operate(random_batch(0, 2, 3, 8, 8), "Equalise")


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_empty_batch_stays_empty_and_one_image_is_a_batch(operation: str) -> None:
    m = magnitude(operation, 9, 8, 8)
    assert operate(torch.zeros(0, 3, 8, 8, dtype=torch.uint8), operation, m).shape == (0, 3, 8, 8)
    one = random_batch(0, 1, 3, 8, 8)
    assert operate(one, operation, m).shape == one.shape
    if operation == "SamplePairing":
        assert torch.equal(operate(one, operation, m), one)
