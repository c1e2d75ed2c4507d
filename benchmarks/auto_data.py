"""The data sets of benchmarks/auto.py as folders, train/CLASS/FILE and test/CLASS/FILE, so that every method reads the same files."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import sys
import tarfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import letters
import numpy as np
from PIL import Image

FOLDS = 5
TYPEFACES = Path(__file__).parent / "results" / "letters.json"
FASHION_CLASSES = (
    *("t-shirt", "trouser", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "ankle-boot"),
)


@dataclass(frozen=True)
class Dataset:
    """A data set.

    Args:
        name: as `--only` says it.
        write: writes the split that leaves a fold out into a folder; gives details worth keeping.
        by_hand: the options of by_hand.py that tell what a person knows of the pictures.
    """

    name: str
    write: Callable[[Path, int, Path], dict[str, object]]
    by_hand: tuple[str, ...] = ()


def in_test(position: int, fold: int) -> bool:
    """Whether the file at this position of a class (sorted by name) is in the test set of a fold."""
    return position % FOLDS == fold


def data_folder() -> Path:
    """Where the files of the data sets are."""
    folder = os.environ.get("ARCHSMITH_DATA")
    if not folder:
        raise SystemExit("set ARCHSMITH_DATA to the folder that holds cifar10_jpeg.npz, fashion-mnist, ...")
    return Path(folder)


def write_archive(archive: Path, folder: Path, fold: int) -> dict[str, object]:
    """A tar of CLASS/FILE: every fifth file of each class, from `fold` on, is for testing."""
    with tarfile.open(archive) as tar:
        members = {m.name: m for m in tar.getmembers() if m.isfile()}
        classes: dict[str, list[str]] = {}
        for name in sorted(members):
            classes.setdefault(name.split("/")[-2], []).append(name)
        for label, names in classes.items():
            for position, name in enumerate(names):
                target = folder / ("test" if in_test(position, fold) else "train") / label / name.rpartition("/")[2]
                target.parent.mkdir(parents=True, exist_ok=True)
                content = tar.extractfile(members[name])
                assert content is not None
                target.write_bytes(content.read())
    return {}


def write_encoded(folder: Path, split: str, encoded: Iterable[tuple[str, bytes]], suffix: str) -> None:
    """Files named by their position."""
    for position, (label, content) in enumerate(encoded):
        target = folder / split / label / f"{position:05d}.{suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


def write_cifar10(folder: Path, fold: int, scratch: Path) -> dict[str, object]:
    with np.load(data_folder() / "cifar10_jpeg.npz") as arrays:
        content, offsets, labels = arrays["jpeg"].tobytes(), arrays["offsets"].tolist(), arrays["labels"]
        names = [str(arrays["classes"][label]) for label in labels]
    files = [content[start:end] for start, end in pairwise(offsets)]
    pairs = list(zip(names, files, strict=True))
    write_encoded(folder, "train", pairs[:50_000], "jpg")
    write_encoded(folder, "test", pairs[50_000:], "jpg")
    return {}


def write_fashion_mnist(folder: Path, fold: int, scratch: Path) -> dict[str, object]:
    source = data_folder() / "fashion-mnist"
    for split, prefix in (("train", "train"), ("test", "t10k")):
        images = np.frombuffer(
            gzip.decompress((source / f"{prefix}-images-idx3-ubyte.gz").read_bytes()), np.uint8, offset=16
        )
        labels = np.frombuffer(
            gzip.decompress((source / f"{prefix}-labels-idx1-ubyte.gz").read_bytes()), np.uint8, offset=8
        )
        classes = (FASHION_CLASSES[label] for label in labels)
        write_encoded(folder, split, zip(classes, map(png, images.reshape(-1, 28, 28)), strict=True), "png")
    return {}


def png(pixels: np.ndarray) -> bytes:
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "PNG")
    return encoded.getvalue()


def write_letters(folder: Path, fold: int, scratch: Path) -> dict[str, object]:
    typefaces = letters.write(folder, letters.typefaces(letters.download(scratch / "font-packages")))
    if typefaces != json.loads(TYPEFACES.read_text()):
        print(f"the typefaces are not those of {TYPEFACES}: Debian has other packages now", file=sys.stderr)
    return {"typefaces": typefaces}


DATASETS = {
    each.name: each
    for each in (
        Dataset("trash6", lambda folder, fold, _: write_archive(data_folder() / "trash6_256px.tar", folder, fold)),
        Dataset(
            "flowers5", lambda folder, fold, _: write_archive(data_folder() / "flowers5_128px.tar.gz", folder, fold)
        ),
        Dataset("cifar10", write_cifar10),
        Dataset("fashion-mnist", write_fashion_mnist),
        Dataset("letters", write_letters, ("--view", "affine", "--no-mirror")),
    )
}


def materialise(dataset: Dataset, fold: int, scratch: Path) -> tuple[Path, dict[str, Any]]:
    """The folder of a data set without a fold, written at its first use, and what is known of it."""
    folder = scratch / "data" / (f"{dataset.name}-fold{fold}" if dataset.name == "trash6" else dataset.name)
    facts = folder.with_name(f"{folder.name}.json")  # written last: it says that the folder is complete
    if not facts.exists():
        shutil.rmtree(folder, ignore_errors=True)
        details = dataset.write(folder, fold, scratch)
        counts = {split: sum(p.is_file() for p in (folder / split).rglob("*")) for split in ("train", "test")}
        partial = facts.with_suffix(".partial")
        partial.write_text(json.dumps({"pictures": counts, **details}, indent=1) + "\n")
        partial.rename(facts)
    return folder, json.loads(facts.read_text())
