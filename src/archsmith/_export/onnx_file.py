"""Files for ONNX Runtime: a module written as one, with its card inside, and opened again."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from archsmith._export.documents import checked_card
from archsmith.core.errors import UsageError

FILE = "model.onnx"
METADATA = "archsmith"
VOCABULARY = "archsmith vocabulary"  # of a language model: its text


def to_onnx(
    module: torch.nn.Module,
    example: tuple[torch.Tensor, ...],
    dynamic: Any,
    inputs: Sequence[str],
    outputs: Sequence[str],
) -> Any:
    """A module as ONNX, its inputs and outputs named; `dynamic` says which of their sizes are free.

    Raises UsageError when the extra is not installed, or the module cannot be exported.
    """
    needed("onnx")
    needed("onnxruntime")
    needed("onnxscript")
    try:
        with warnings.catch_warnings(), _quiet("torch.onnx"):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module,
                example,
                dynamo=True,
                dynamic_shapes=dynamic,
                input_names=list(inputs),
                output_names=list(outputs),
                verbose=False,
            )
        assert program is not None
        return program.model_proto
    except Exception as error:
        raise UsageError(f"{type(module).__name__} cannot be exported to ONNX: {error}") from error


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


def needed(package: str) -> Any:
    import importlib

    try:
        return importlib.import_module(package)
    except ImportError:
        raise UsageError(f"format onnx needs {package}: pip install 'archsmith[onnx]'") from None
