"""A data set of the 26 letters in the typefaces of Debian's packages: the fonts of the test set are unseen in training.

    python benchmarks/letters.py FOLDER      writes FOLDER/train/a/*.png ... FOLDER/test/z/*.png, and FOLDER.json

The packages are downloaded by `apt-get download` and unpacked, not installed. Capital and small letters belong to one
class. Each picture has its own size, angle, place, and shades of ink and paper, drawn from a seed made of the typeface
and the letter, so that the pictures are the same on every machine with the same packages and the same Pillow. Whole
packages go into the test set, because the weights and widths of one design usually come in one package.
"""

from __future__ import annotations

import argparse
import json
import string
import subprocess
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

PACKAGES = (
    *(
        f"fonts-adf-{name}"
        for name in (
            *("accanthis", "baskervald", "berenis", "gillius", "ikarius", "irianis", "libris", "mekanus"),
            *("oldania", "romande", "solothurn", "switzera", "tribun", "universalis", "verana"),
        )
    ),
    *("fonts-agave", "fonts-allerta", "fonts-anonymous-pro", "fonts-arapey", "fonts-averia-gwf"),
    *("fonts-averia-sans-gwf", "fonts-averia-serif-gwf", "fonts-b612", "fonts-beteckna", "fonts-breip"),
    *("fonts-cabin", "fonts-cantarell", "fonts-cardo", "fonts-clear-sans", "fonts-comfortaa", "fonts-comic-neue"),
    *("fonts-courier-prime", "fonts-crosextra-caladea", "fonts-crosextra-carlito", "fonts-dejavu-core"),
    *("fonts-dkg-handwriting", "fonts-dosis", "fonts-dustin", "fonts-ebgaramond", "fonts-ecolier-court"),
    *("fonts-engadget", "fonts-essays1743", "fonts-f500", "fonts-fanwood", "fonts-femkeklaver", "fonts-gfs-didot"),
    *("fonts-goudybookletter", "fonts-hack", "fonts-hosny-amiri", "fonts-humor-sans", "fonts-inconsolata"),
    *("fonts-isabella", "fonts-jetbrains-mono", "fonts-jura", "fonts-klaudia-berenika", "fonts-kristi", "fonts-lato"),
    *("fonts-levien-museum", "fonts-liberation", "fonts-lindenhill", "fonts-linuxlibertine", "fonts-lobster"),
    *("fonts-mononoki", "fonts-ocr-a", "fonts-okolaks", "fonts-oldstandard", "fonts-open-sans", "fonts-oxygen"),
    *("fonts-paratype", "fonts-play", "fonts-prociono", "fonts-quattrocento", "fonts-radisnoir"),
    *("fonts-roboto-unhinted", "fonts-rufscript", "fonts-sil-gentium-basic", "fonts-staypuft", "fonts-texgyre"),
    *("fonts-tomsontalks", "fonts-tuffy", "fonts-vollkorn", "fonts-yanone-kaffeesatz"),
)
SIDE = 64
TEST_SHARE = 0.2  # of the typefaces


@dataclass(frozen=True)
class Typeface:
    """One file of a font.

    Args:
        package: the collection that it comes from.
        name: family and style, as the file says.
        path: the file.
    """

    package: str
    name: str
    path: Path


def download(folder: Path, packages: Sequence[str] = PACKAGES) -> dict[str, Path]:
    """Downloads and unpacks Debian packages: the folder of each, by name and version (`fonts-lato_2.0-2.1`)."""
    folder.mkdir(parents=True, exist_ok=True)
    archives = {path.name.partition("_")[0]: path for path in folder.glob("*.deb")}
    if missing := [name for name in packages if name not in archives]:
        subprocess.run(["apt-get", "-q", "download", *missing], cwd=folder, check=True, capture_output=True)
        archives = {path.name.partition("_")[0]: path for path in folder.glob("*.deb")}
    unpacked = {}
    for name in packages:
        target = folder / archives[name].stem.rpartition("_")[0].replace("%3a", ":")
        subprocess.run(["dpkg-deb", "-x", archives[name], target], check=True, capture_output=True)
        unpacked[target.name] = target
    return unpacked


def typefaces(packages: dict[str, Path]) -> list[Typeface]:
    """The typefaces of some folders that have the letters from a to z, each once, in the order of their names."""
    chosen: dict[tuple[str, str], Typeface] = {}
    for package, folder in sorted(packages.items()):
        files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".ttf", ".otf") and path.is_file())
        for path in files:
            try:
                font = ImageFont.truetype(path, SIDE)
            except OSError:
                continue
            name = " ".join(part for part in font.getname() if part)
            if (package, name) not in chosen and has_letters(font):
                chosen[package, name] = Typeface(package, name, path)
    return [chosen[key] for key in sorted(chosen)]


def has_letters(font: ImageFont.FreeTypeFont) -> bool:
    """Whether all capital letters look different from each other, all small ones too, and none is blank or missing."""

    def drawn(letter: str) -> bytes:
        mask = font.getmask(letter)
        return bytes(mask) if mask.getbbox() else b""

    missing = {b"", drawn("\ue83a")}  # for private use: almost no font has it
    for letters in (string.ascii_lowercase, string.ascii_uppercase):
        shapes = {drawn(letter) for letter in letters}
        if len(shapes) < len(letters) or shapes & missing:
            return False
    return True


def packages_for_testing(faces: Iterable[Typeface], share: float = TEST_SHARE) -> set[str]:
    """Whole packages, drawn with a fixed seed, until they have this share of the typefaces."""
    counts: dict[str, int] = {}
    for face in faces:
        counts[face.package] = counts.get(face.package, 0) + 1
    drawn = sorted(counts, key=lambda package: zlib.crc32(package.partition("_")[0].encode()))
    chosen: set[str] = set()
    for package in drawn:
        if sum(counts[each] for each in chosen) >= share * sum(counts.values()):
            break
        chosen.add(package)
    return chosen


def render(face: Typeface, letter: str, side: int = SIDE) -> Image.Image:
    """One letter in grey: its size, angle, place, ink, paper and noise come from the typeface's name and the letter."""
    rng = np.random.default_rng(zlib.crc32(f"{face.name}/{letter}".encode()))
    large = 4 * side  # drawn large and reduced, for smooth edges
    font = ImageFont.truetype(face.path, large // 2)
    left, top, right, bottom = font.getbbox(letter)
    mask = Image.new("L", (large, large), 0)
    centre = ((large - left - right) / 2, (large - top - bottom) / 2)
    ImageDraw.Draw(mask).text(centre, letter, fill=255, font=font)
    longest = max(right - left, bottom - top, 1)
    scale = longest / large / rng.uniform(0.45, 0.75)  # the longer side of the letter as a part of the picture
    angle = np.deg2rad(rng.uniform(-12, 12))
    room = large * 0.1
    dx, dy = rng.uniform(-room, room, 2)
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    middle = large / 2
    coefficients = (
        *(cos, sin, middle - cos * (middle + dx) - sin * (middle + dy)),
        *(-sin, cos, middle + sin * (middle + dx) - cos * (middle + dy)),
    )
    placed = mask.transform((large, large), Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR)
    alpha = np.asarray(placed.resize((side, side), Image.Resampling.BOX), np.float64) / 255
    ink, paper = rng.uniform(0, 90), rng.uniform(150, 255)
    if rng.random() < 0.25:
        ink, paper = paper, ink
    grey = paper + (ink - paper) * alpha + rng.normal(0, 8, alpha.shape)
    return Image.fromarray(np.clip(np.rint(grey), 0, 255).astype(np.uint8))


def write(folder: Path, faces: Sequence[Typeface], side: int = SIDE) -> dict[str, dict[str, list[str]]]:
    """Writes `train/a/...png` to `test/z/...png`. Gives the names of the typefaces of both splits, by their packages."""
    tests = packages_for_testing(faces)
    names: dict[str, dict[str, list[str]]] = {"train": {}, "test": {}}
    for number, face in enumerate(faces):
        split = "test" if face.package in tests else "train"
        names[split].setdefault(face.package, []).append(face.name)
        for letter in string.ascii_letters:
            target = folder / split / letter.lower()
            target.mkdir(parents=True, exist_ok=True)
            case = "capital" if letter.isupper() else "small"
            render(face, letter, side).save(target / f"{number:03d}-{case}.png")
    return names


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--packages", type=Path, help="where packages are kept (default: FOLDER-packages)")
    options = parser.parse_args()
    packages = options.packages or options.folder.with_name(f"{options.folder.name}-packages")
    names = write(options.folder, typefaces(download(packages)))
    options.folder.with_suffix(".json").write_text(json.dumps(names, indent=1) + "\n")
    print({split: sum(map(len, packages.values())) for split, packages in names.items()}, "typefaces")


if __name__ == "__main__":
    main()
