"""Makes `Arrays` from NumPy arrays, PyTorch tensors or lists of pictures, which are copied against later changes."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence, Sized
from typing import Any

import numpy as np

from archsmith.core.errors import DataError, UsageError
from archsmith.core.shown import shown
from archsmith.data.array_names import by_key
from archsmith.data.image_arrays import of_arrays
from archsmith.training.arrays import NAME, Arrays

FORMS = (
    "data is the name of a data set, a path, or arrays: (images, labels), ((x_train, y_train), (x_test, y_test)), or a "
    "mapping with x_train, y_train and, optionally, x_val, y_val, x_test and y_test"
)


def arrays_of(data: object) -> Arrays:
    """Data given as arrays, in one of the `FORMS`.

    Images are uint8, or floating point from 0 to 1, with the shape [count, height, width] or with channels last or first.
    Labels are whole numbers from 0, or strings. Raises UsageError for another form, and DataError for arrays that cannot be
    used.
    """
    given = _by_name(data)
    names, others = by_key("data", list(given))
    if others:
        raise DataError(f"data has an array {others[0]!r}, whose name says nothing: {FORMS}")
    arrays = {
        key: _images(key, given[name]) if key.startswith("x") else _numpy(given[name]) for key, name in names.items()
    }
    for key, array in arrays.items():
        if array.dtype == object and all(isinstance(value, str) for value in array.flat):
            arrays[key] = array.astype(str)
    content = of_arrays(NAME, {key: array.copy() for key, array in arrays.items()})
    count = len(content.images) + (0 if content.test_images is None else len(content.test_images))
    return Arrays(content.digest, count, content)


def _by_name(data: object) -> Mapping[str, Any]:
    if isinstance(data, Mapping):
        return {str(name): value for name, value in data.items()}
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise UsageError(f"{FORMS}; got {_kind(data)}")
    first, second = data
    if isinstance(first, tuple) and isinstance(second, tuple) and len(first) == len(second) == 2:
        return dict(zip(("x_train", "y_train", "x_test", "y_test"), (*first, *second), strict=True))
    for value in (first, second):
        if isinstance(value, str):
            raise UsageError(f"{FORMS}; got a pair with the text {shown(value)}")
    return {"x_train": first, "y_train": second}


def _kind(data: object) -> str:
    size = f" of {len(data):,}" if isinstance(data, tuple | list) else ""
    hint = ""
    if isinstance(data, Sized) and not size:
        hint = ": of a data set of pairs, give ([image for image, _ in data], [label for _, label in data])"
    return f"{type(data).__name__}{size}{hint}"


def _is_tensor(value: object) -> bool:
    """Whether a value is a PyTorch tensor; this does not import torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _is_picture(value: object) -> bool:
    """Whether a value is a Pillow image; this does not import Pillow."""
    pillow = sys.modules.get("PIL.Image")
    return pillow is not None and isinstance(value, pillow.Image)


def _numpy(value: Any) -> np.ndarray:
    if _is_tensor(value):
        value = value.detach().cpu()
        return np.asarray(value.float() if value.dtype.is_floating_point else value)
    if isinstance(value, list | tuple) and value and any(map(_is_tensor, value)):
        value = [_numpy(part) for part in value]
    try:
        return np.asarray(value)
    except ValueError as error:
        raise DataError(f"data cannot be made an array: {error}") from None


def _images(key: str, value: Any) -> np.ndarray:
    """Images with channels last. Tensors are taken as channels first and arrays as channels last, unless the shape forbids it."""
    if isinstance(value, list | tuple) and len(value):
        return _stacked(key, value)
    return _channels_last(_numpy(value), _is_tensor(value))


def _channels_last(images: np.ndarray, is_tensor: bool) -> np.ndarray:
    if images.ndim != 4:
        return images
    first, last = images.shape[1] in (1, 3, 4), images.shape[3] in (1, 3, 4)
    return images.transpose(0, 2, 3, 1) if first and (is_tensor or not last) else images


def _stacked(key: str, images: Sequence[Any]) -> np.ndarray:
    if any(map(_is_picture, images)):
        images = [_decoded(key, image) if _is_picture(image) else image for image in images]
        if {image.ndim for image in images} == {2, 3}:  # grey ones among coloured ones
            images = [image if image.ndim == 3 else np.repeat(image[..., None], 3, 2) for image in images]
    arrays = [_numpy(image) for image in images]
    if len(shapes := {array.shape for array in arrays}) > 1:
        a, b = sorted(shapes)[:2]
        raise DataError(
            f"{key} has images of different shapes, such as {a} and {b}; give them one, for example with "
            "[image.resize((32, 32)) for image in pictures]"
        )
    return _channels_last(np.stack(arrays), _is_tensor(images[0]))


def _decoded(key: str, picture: Any) -> np.ndarray:
    """The pixels of a Pillow image, decoded as a file is."""
    from archsmith.data.picture_decoding import PictureError, to_eight_bits

    try:
        return np.asarray(to_eight_bits(picture, 8, False))
    except PictureError as error:
        raise DataError(f"{key}: a picture {error}") from None
