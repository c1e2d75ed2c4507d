"""What every export in format source has: one Python file that is run, and text that is safe in it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from archsmith.core.errors import UsageError

FILE = "model.py"


def run_source(folder: Path) -> ModuleType:
    """The exported file as a module. It is a program: this runs it."""
    spec = importlib.util.spec_from_file_location("archsmith_exported_model", folder / FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # leave the folder as it is
    try:
        spec.loader.exec_module(module)
    except (OSError, SyntaxError, ImportError) as error:
        raise UsageError(f"{folder / FILE} cannot be run: {error}") from error
    except Exception as error:  # it may have been changed into anything
        raise UsageError(f"{folder / FILE} cannot be run: {type(error).__name__}: {error}") from error
    finally:
        sys.dont_write_bytecode = before
    return module


def load_source(folder: Path) -> nn.Module:
    """The network that the exported file gives. Raises UsageError where it, or its weights, were changed or are gone."""
    module = run_source(folder)
    try:
        network = module.load()
    except Exception as error:
        raise UsageError(f"{folder / FILE} gives no network: {type(error).__name__}: {error}") from error
    if not isinstance(network, nn.Module):
        raise UsageError(f"{folder / FILE} gives no network: its load() gives a {type(network).__name__}")
    return network


def one_line(text: Any) -> str:
    """Text that cannot end a docstring or break its line."""
    return " ".join(str(text).replace("\\", "/").replace('"""', "'''").split())
