"""An exported model opened for use, whatever its format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from archsmith._export.documents import kind_of, read_card
from archsmith._export.image_model import ImageModel
from archsmith._export.image_onnx import OnnxImages
from archsmith._export.onnx_file import FILE as ONNX_FILE
from archsmith._export.onnx_file import VOCABULARY, open_onnx
from archsmith._export.pytorch import load
from archsmith._export.source import load_source
from archsmith._export.tensor_model import TensorModel
from archsmith._export.text_model import TextModel
from archsmith._export.text_onnx import OnnxText
from archsmith._export.vocabulary import Vocabulary, read_vocabulary, vocabulary_of
from archsmith.core.errors import UsageError
from archsmith.core.shown import shown
from archsmith.core.space import Space

_SESSIONS: dict[str, type[OnnxImages] | type[OnnxText]] = {
    ImageModel.takes: OnnxImages,
    TensorModel.takes: OnnxImages,
    TextModel.takes: OnnxText,
}


@dataclass(frozen=True)
class Opened:
    """A model that can be asked.

    Args:
        takes: what it reads: "images" or "text".
        card: the content of its `model.json`.
        network: from pixels to logits, or from tokens and a state to scores and a state.
        vocabulary: what its tokens are numbers of, where it reads text.
    """

    takes: str
    card: dict[str, Any]
    network: nn.Module
    vocabulary: Vocabulary | None


def open_model(path: Path, *, run_source: bool = False, space: Space | None = None) -> Opened:
    """What `archsmith export` wrote: a folder in any format, or an `.onnx` file alone.

    Formats pytorch and onnx are data. Format source is a program, which is run only with `run_source`. A model in format
    pytorch with the user's own space needs `space`. Raises UsageError for anything else.
    """
    if not path.exists():
        raise UsageError(f"there is no model at {path}; `archsmith export RUN` writes one")
    if path.is_file():
        if path.suffix != ".onnx":
            raise UsageError(
                f"a model is a folder that `archsmith export` wrote, or an .onnx file; got the file {path}"
            )
        session, card = open_onnx(path)
        takes = kind_of(card).takes
        text = session.get_modelmeta().custom_metadata_map.get(VOCABULARY, "")
        vocabulary = vocabulary_of(text, card["vocabulary"], str(path)) if takes == TextModel.takes else None
        return Opened(takes, card, _SESSIONS[takes](session, card), vocabulary)
    card = read_card(path)
    takes = kind_of(card).takes
    network: nn.Module
    if card["kind"] == "onnx":
        session, _ = open_onnx(path / ONNX_FILE)
        network = _SESSIONS[takes](session, card)
    elif card["kind"] == "source":
        if not run_source:
            raise UsageError(
                f"{path} is of format source: its model.py is a program, which would be run with all your rights. If you made it, "
                "or have read it, say so with --run-source (in Python, run_source=True); formats pytorch and onnx are data"
            )
        network = load_source(path)
    elif card["kind"] == "pytorch":
        network = load(path, space=space).deployed()
    else:
        raise UsageError(f"{path} holds a model in format {shown(card['kind'])}, which this archsmith does not know")
    vocabulary = read_vocabulary(path, card["vocabulary"]) if takes == TextModel.takes else None
    return Opened(takes, card, network, vocabulary)
