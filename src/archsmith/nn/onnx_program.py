"""A module as an ONNX program, for export and for timing."""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from archsmith.core.errors import UsageError


def to_onnx(
    module: torch.nn.Module,
    example: tuple[torch.Tensor, ...],
    dynamic: Any,
    inputs: Sequence[str],
    outputs: Sequence[str],
) -> Any:
    """A module as ONNX, its inputs and outputs named; `dynamic` says which of their sizes are free (None: none is).

    Raises UsageError when the extra is not installed, or the module cannot be exported.
    """
    needed("onnx")
    needed("onnxruntime")
    needed("onnxscript")
    try:
        with warnings.catch_warnings(), quiet("torch.onnx"):
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


def needed(package: str) -> Any:
    """A package of the extra onnx. Raises UsageError, with what to install, when it is not there."""
    try:
        return importlib.import_module(package)
    except ImportError:
        raise UsageError(f"format onnx needs {package}: pip install 'archsmith[onnx]'") from None


@contextmanager
def quiet(name: str) -> Iterator[None]:
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
