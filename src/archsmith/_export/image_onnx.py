"""Format onnx: one file from pixels to logits, checked with ONNX Runtime before it is declared good."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from archsmith._export.export_folder import fresh_folder
from archsmith._export.image_model import ImageModel
from archsmith._export.model import write_documents
from archsmith._export.onnx_file import FILE, open_onnx, run_session, save_onnx
from archsmith._export.picture_source import FILE as READ_IMAGE
from archsmith._export.picture_source import read_image_file, reads_pictures
from archsmith._export.quantized import quantize
from archsmith.core.errors import UsageError
from archsmith.nn.onnx_program import needed, to_onnx

OUTPUT = "logits"
TOLERANCE = 1e-4  # of the largest logit: what two ways of summing floats may differ by in any network
MARGIN = 10  # times what two of torch's ways of summing differ by in this network, where that is more


class OnnxImages(nn.Module):
    """A session of such a file, called as a module is."""

    def __init__(self, session: Any, card: Mapping[str, Any]) -> None:
        super().__init__()
        self._session = session

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits for pixels [n, channels, height, width] from 0 to 1."""
        return torch.from_numpy(run_onnx(self._session, pixels.numpy()))


def write_image_onnx(model: ImageModel, path: Path, *, bits: int = 32) -> Path:
    """Write the folder, with a batch of any size and the card inside the file, so that it may travel alone.

    Args:
        model: the network.
        path: the folder.
        bits: 32, or 8: see `quantized`.

    Raises UsageError when the extra is not installed, the network cannot be exported, or ONNX Runtime's answers differ.
    """
    runtime = needed("onnxruntime")
    deployed = model.deployed()
    if bits == 8 and model.pictures is None:
        raise UsageError("8 bits need pictures to be calibrated by: export the run where its data are")
    with fresh_folder(path) as folder:
        file = folder / FILE
        example = (torch.rand(2, *model.task.input_shape),)
        proto = to_onnx(deployed, example, ({0: torch.export.Dim("batch", min=1)},), [model.input_name], [OUTPUT])
        card = model.to_json("onnx") | {"weights": {"file": FILE}}
        save_onnx(proto, file, card)
        card["checked"] = {"against": f"ONNX Runtime {runtime.__version__}", **_check(model, deployed, file)}
        if bits == 8:
            assert model.pictures is not None
            proto, quantized = quantize(proto, model.input_name, model.pictures())
            card["card"] = {**card["card"], "quantized": quantized}
            save_onnx(proto, file, card)
        if reads_pictures(model):
            (folder / READ_IMAGE).write_text(read_image_file(model), encoding="utf-8")
        write_documents(model, folder, card)
    return path


def run_onnx(session: Any, images: np.ndarray) -> np.ndarray:
    """Logits for pixels [n, channels, height, width] from 0 to 1."""
    return run_session(session, images)


def _check(model: ImageModel, deployed: torch.nn.Module, file: Path) -> dict[str, Any]:
    """Compare ONNX Runtime with the module. Raises UsageError when they differ by more than rounding."""
    session, _ = open_onnx(file)
    worst, rounding, batches = 0.0, 0.0, []
    for images in model.inputs():
        with torch.inference_mode():
            expected = deployed(images).numpy()
            summed_otherwise = _without_onednn(deployed, images).numpy()
        try:
            found = run_onnx(session, images.numpy())
        except Exception as error:  # of a module of the user's that computes with len(images), for example
            raise UsageError(
                f"ONNX Runtime cannot run the exported file on a batch of {len(images)}: {' '.join(str(error).split())}; where the "
                "network computes with the size of the batch, write x.shape[0] for len(x)"
            ) from error
        if found.shape != expected.shape:
            raise UsageError(f"ONNX Runtime gives {found.shape} where the module gives {expected.shape}")
        worst = max(worst, _difference(found, expected))
        rounding = max(rounding, _difference(summed_otherwise, expected))
        batches.append(len(images))
    explained = max(TOLERANCE, MARGIN * rounding)
    if not worst <= explained:
        raise UsageError(
            f"the exported file is not good: ONNX Runtime's logits differ from the module's by {worst:.1e} of the largest "
            f"one, and rounding explains {explained:.0e}; this is a fault of archsmith's, please report it with the architecture"
        )
    return {"largest_relative_difference": worst, "batches": batches, "real_images": model.examples is not None}


def _difference(scores: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, as a part of the largest score where that is above 1."""
    return float(np.abs(scores - expected).max() / max(1.0, float(np.abs(expected).max())))


def _without_onednn(module: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    """What the module gives by torch's own kernels, which sum in another order."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch tells of a setting for GPUs that this changes nothing of
        with torch.backends.mkldnn.flags(enabled=False):
            scores: torch.Tensor = module(images)
    return scores
