"""Files for ONNX Runtime: a program written as one, with its card inside, and opened again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
    runtime = needed("onnxruntime")
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
