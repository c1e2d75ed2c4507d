"""Checks arrays of images and labels, and makes a data set of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from archsmith.core.errors import DataError
from archsmith.data.array_names import CLASS_NAMES
from archsmith.data.class_order import in_order
from archsmith.data.images import FASHION, Bytes, ImageData, Labels, content_digest


def of_arrays(name: str, arrays: Mapping[str, np.ndarray]) -> ImageData:
    """Arrays under the names that `array_names.by_key` gives them. Raises DataError as `checked` does."""
    class_names = arrays.get(CLASS_NAMES)
    if class_names is not None and (class_names.ndim != 1 or class_names.dtype.kind not in "US"):
        raise DataError(
            f"{name}: class_names must be a list of names, got {class_names.dtype} of shape {class_names.shape}"
        )
    return checked(
        name,
        arrays["x_train"],
        arrays["y_train"],
        arrays.get("x_test"),
        arrays.get("y_test"),
        None if class_names is None else [_text(value) for value in class_names],
        x_val=arrays.get("x_val"),
        y_val=arrays.get("y_val"),
    )


def checked(
    name: str,
    x: np.ndarray,
    y: np.ndarray,
    x_test: np.ndarray | None,
    y_test: np.ndarray | None,
    class_names: Sequence[str] | None,
    *,
    x_val: np.ndarray | None = None,
    y_val: np.ndarray | None = None,
) -> ImageData:
    """A data set from arrays that pass every check.

    Without `class_names` the classes are "0", "1", ..., or the labels themselves if those are strings.
    Raises DataError that names the array, the rule and the value.
    """
    images = {"train": _images(name, "x_train", x)}
    labels = {"train": _labels(name, "y_train", y, len(x))}
    for part, more_x, more_y in (("val", x_val, y_val), ("test", x_test, y_test)):
        if more_x is not None and more_y is not None:
            images[part] = _images(name, f"x_{part}", more_x)
            labels[part] = _labels(name, f"y_{part}", more_y, len(more_x))
            if images["train"].shape[1:] != images[part].shape[1:]:
                raise DataError(
                    f"{name}: x_train has images of {images['train'].shape[1:]} and x_{part} of {images[part].shape[1:]}; "
                    "they must agree"
                )
    classes, numbers = _numbered(name, labels, class_names)
    contents: dict[str, np.ndarray] = {}
    for part in images:
        contents |= {f"x_{part}": images[part], f"y_{part}": numbers[part]}
    has_validation = "val" in images
    count = len(images["train"])
    return ImageData(
        name=name,
        images=np.concatenate([images["train"], images["val"]]) if has_validation else images["train"],
        labels=np.concatenate([numbers["train"], numbers["val"]]) if has_validation else numbers["train"],
        test_images=images.get("test"),
        test_labels=numbers.get("test"),
        validation=np.arange(count, count + len(images["val"])) if has_validation else None,
        class_names=classes,
        digest=content_digest(list(contents.values()), classes),
        contents={key: content_digest([array], ())[:16] for key, array in contents.items()},
        # Grey pictures may be of characters, which mean something else in the mirror; Fashion-MNIST's are of clothes.
        mirrored_is_same=images["train"].shape[3] == 3 or classes == FASHION,
    )


def _images(name: str, key: str, x: np.ndarray) -> Bytes:
    if x.ndim not in (3, 4) or 0 in x.shape:
        raise DataError(
            f"{name}: {key} must be [count, height, width] or [count, height, width, channels], got {x.shape}"
        )
    if x.dtype.kind == "f":
        x = _from_unit(name, key, x)
    if x.dtype == np.bool_:
        x = x.astype(np.uint8) * np.uint8(255)
    if x.dtype != np.uint8:
        raise DataError(f"{name}: {key} must be uint8 (0 to 255), or floating point from 0 to 1, got {x.dtype}")
    if x.ndim == 3:
        x = x[..., None]
    if x.shape[3] > 4:
        hint = "; with channels first, use x.transpose(0, 2, 3, 1)" if x.shape[1] <= 4 else ""
        raise DataError(f"{name}: {key} must have 1 to 4 channels in its last dimension, got {x.shape}{hint}")
    return np.require(x, requirements=["C", "W"])  # torch warns of arrays that cannot be written to


def _from_unit(name: str, key: str, x: np.ndarray) -> Bytes:
    """Floating-point images, which must be from 0 to 1, as bytes."""
    rule = f"{name}: {key} must be uint8 (0 to 255), or floating point from 0 to 1, got {x.dtype}"
    low, high = x.min(), x.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise DataError(f"{rule} with {'NaN' if np.isnan(x).any() else 'infinity'} in it")
    if low < 0 or high > 1:
        hint = "" if low < 0 else "; use x.astype(np.uint8)" if 127 < high <= 255 else f"; use x / {high:g}"
        raise DataError(f"{rule} from {low:g} to {high:g}{hint}")
    levels: Bytes = np.rint(x * 255).astype(np.uint8)
    return levels


def _labels(name: str, key: str, y: np.ndarray, count: int) -> np.ndarray:
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1:
        raise DataError(f"{name}: {key} must be one label for each image, [count], got {y.shape}")
    if y.dtype == np.bool_:
        y = y.astype(np.int64)
    if y.dtype.kind not in "iuUS":
        nan = " with NaN in it" if y.dtype.kind == "f" and np.isnan(y).any() else ""
        raise DataError(f"{name}: {key} must be whole numbers (an integer dtype) or texts, got {y.dtype}{nan}")
    if len(y) != count:
        raise DataError(f"{name}: {key} has {len(y):,} labels for {count:,} images; there must be one for each")
    if y.dtype.kind in "iu" and (y.min() < 0 or y.max() >= count + 2**16):
        raise DataError(f"{name}: {key} must be 0 to the number of classes minus one, got {y.min()} to {y.max()}")
    return y


def _numbered(
    name: str, labels: Mapping[str, np.ndarray], class_names: Sequence[str] | None
) -> tuple[tuple[str, ...], dict[str, Labels]]:
    """The classes, and the labels of each part as their numbers."""
    train = labels["train"]
    if train.dtype.kind in "US":
        return _by_name(name, labels, class_names)
    for part, values in labels.items():
        if values.dtype.kind in "US":
            raise DataError(f"{name}: y_{part} has texts as labels and y_train numbers; they must be alike")
    if class_names is None:
        present = np.unique(train)
        missing = np.flatnonzero(present != np.arange(len(present)))
        if len(missing):
            raise DataError(
                f"{name}: y_train must use the labels 0 to {len(present) - 1} for its {len(present)} classes, "
                f"and it has none that is {missing[0]} but some that are {present[-1]}"
            )
        class_names = [str(k) for k in range(len(present))]
    for part, values in labels.items():
        if values.max() >= len(class_names):
            raise DataError(
                f"{name}: y_{part} has the label {values.max()}; "
                f"{'class_names names' if part == 'train' else 'y_train knows'} 0 to {len(class_names) - 1}"
            )
    return tuple(class_names), {part: values.astype(np.int64) for part, values in labels.items()}


def _by_name(
    name: str, labels: Mapping[str, np.ndarray], class_names: Sequence[str] | None
) -> tuple[tuple[str, ...], dict[str, Labels]]:
    texts = {part: [_text(value) for value in values.tolist()] for part, values in labels.items()}
    classes = tuple(class_names) if class_names is not None else in_order(texts["train"])
    number = {label: k for k, label in enumerate(classes)}
    for part, values in texts.items():
        if unknown := sorted(set(values) - number.keys()):
            known = "class_names" if class_names is not None else "y_train"
            raise DataError(f"{name}: y_{part} has the label {unknown[0]!r}, which is not in {known}")
    return classes, {part: np.array([number[value] for value in values], np.int64) for part, values in texts.items()}


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
