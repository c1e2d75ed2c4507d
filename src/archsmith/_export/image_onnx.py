"""Format onnx: one file from pixels to logits, checked with ONNX Runtime before it is declared good."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from archsmith._export.card import readme
from archsmith._export.documents import checked_card
from archsmith._export.image_model import ImageModel
from archsmith._export.model import README, fresh_folder, write_json
from archsmith.core.errors import UsageError

FILE = "model.onnx"
INPUT, OUTPUT = "images", "logits"
METADATA = "archsmith"
TOLERANCE = 1e-4  # of the largest logit: what two ways of summing floats may differ by


def write_image_onnx(model: ImageModel, path: Path) -> Path:
    """Write the folder, with a batch of any size and the card inside the file, so that it may travel alone.

    Raises UsageError when the extra is not installed, the network cannot be exported, or ONNX Runtime's answers differ.
    """
    onnx, runtime = _needed("onnx"), _needed("onnxruntime")
    _needed("onnxscript")
    deployed = model.deployed()
    with fresh_folder(path) as folder:
        file = folder / FILE
        try:
            with warnings.catch_warnings(), _quiet("torch.onnx"):
                warnings.simplefilter("ignore")
                example = (torch.rand(2, *model.task.input_shape),)
                dynamic = ({0: torch.export.Dim("batch", min=1)},)
                program = torch.onnx.export(
                    deployed,
                    example,
                    dynamo=True,
                    dynamic_shapes=dynamic,
                    input_names=[INPUT],
                    output_names=[OUTPUT],
                    verbose=False,
                )
            assert program is not None
            proto = program.model_proto
        except Exception as error:
            raise UsageError(f"{type(model.network).__name__} cannot be exported to ONNX: {error}") from error
        card = model.to_json("onnx") | {"weights": {"file": FILE}}
        onnx.helper.set_model_props(proto, {METADATA: json.dumps(card, allow_nan=False)})
        onnx.checker.check_model(proto)
        onnx.save(proto, file)
        card["checked"] = {"against": f"ONNX Runtime {runtime.__version__}", **_check(model, deployed, file)}
        write_json(folder / "model.json", card)
        (folder / README).write_text(readme(card), encoding="utf-8")
    return path


def open_onnx(file: Path) -> tuple[Any, dict[str, Any]]:
    """A session of ONNX Runtime on a file that `archsmith export` wrote, and its card. Raises UsageError otherwise."""
    runtime = _needed("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = runtime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has its own, unrelated exceptions
        raise UsageError(f"{file} cannot be opened by ONNX Runtime: {error}") from None
    text = session.get_modelmeta().custom_metadata_map.get(METADATA)
    if text is None:
        raise UsageError(f"{file} is not a model that archsmith exported: it carries no card")
    try:
        return session, checked_card(json.loads(text), file)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the card in {file} is damaged: {error}") from None


def run_onnx(session: Any, images: np.ndarray) -> np.ndarray:
    """Logits for pixels [n, channels, height, width] from 0 to 1."""
    (logits,) = session.run([OUTPUT], {INPUT: np.ascontiguousarray(images, np.float32)})
    return np.asarray(logits)


def _check(model: ImageModel, deployed: torch.nn.Module, file: Path) -> dict[str, Any]:
    """Compare ONNX Runtime with the module. Raises UsageError when they differ by more than rounding."""
    session, _ = open_onnx(file)
    worst, batches = 0.0, []
    for images in model.inputs():
        with torch.inference_mode():
            expected = deployed(images).numpy()
        found = run_onnx(session, images.numpy())
        if found.shape != expected.shape:
            raise UsageError(f"ONNX Runtime gives {found.shape} where the module gives {expected.shape}")
        worst = max(worst, float(np.abs(found - expected).max() / max(1.0, float(np.abs(expected).max()))))
        batches.append(len(images))
    if not worst <= TOLERANCE:
        raise UsageError(
            f"the exported file is not good: ONNX Runtime's logits differ from the module's by {worst:.1e} of the largest "
            f"one, and rounding explains {TOLERANCE:.0e}"
        )
    return {"largest_relative_difference": worst, "batches": batches, "real_images": model.examples is not None}


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Keeps a package's loggers to errors: it tells of optional packages that nobody asked for."""
    names = [name, *(n for n in logging.root.manager.loggerDict if n.startswith(f"{name}."))]
    before = [(logger, logger.level) for logger in map(logging.getLogger, names)]
    for logger, _ in before:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in before:
            logger.setLevel(level)


def _needed(package: str) -> Any:
    import importlib

    try:
        return importlib.import_module(package)
    except ImportError:
        raise UsageError(f"format onnx needs {package}: pip install 'archsmith[onnx]'") from None
