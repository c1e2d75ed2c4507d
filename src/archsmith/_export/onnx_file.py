"""Files for ONNX Runtime: a program written as one, with its card inside, and opened again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from archsmith._export.documents import checked_card
from archsmith.core.errors import UsageError
from archsmith.nn.onnx_program import needed

FILE = "model.onnx"
METADATA = "archsmith"
VOCABULARY = "archsmith vocabulary"  # of a language model: its text


def save_onnx(proto: Any, file: Path, card: Mapping[str, Any], **texts: str) -> None:
    """Check the file and write it, with its card and other texts inside, so that it may travel alone."""
    onnx = needed("onnx")
    onnx.helper.set_model_props(proto, {METADATA: json.dumps(card, allow_nan=False), **texts})
    onnx.checker.check_model(proto)
    onnx.save(proto, file)


def open_onnx(file: Path) -> tuple[Any, dict[str, Any]]:
    """A session of ONNX Runtime on a file that `archsmith export` wrote, and its card. Raises UsageError otherwise."""
    session = session_of(file)
    text = session.get_modelmeta().custom_metadata_map.get(METADATA)
    if text is None:
        raise UsageError(f"{file} is not a model that archsmith exported: it carries no card")
    try:
        return session, checked_card(json.loads(text), file)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the card in {file} is damaged: {error}") from None


def session_of(file: Path, threads: int | None = None) -> Any:
    """A session of ONNX Runtime on a file. Raises UsageError if it cannot be opened.

    Args:
        file: the program.
        threads: that it uses; None: ONNX Runtime decides.
    """
    runtime = needed("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = options.inter_op_num_threads = threads
    try:
        return runtime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has its own, unrelated exceptions
        raise UsageError(f"{file} cannot be opened by ONNX Runtime: {error}") from None


def run_session(session: Any, images: np.ndarray) -> np.ndarray:
    """What a program with one input and one output gives for a batch of float32."""
    (given,) = session.get_inputs()
    (found,) = session.run(None, {given.name: np.ascontiguousarray(images, np.float32)})
    return np.asarray(found)
