"""Format onnx for language models: one step of any batch, whose state goes in and comes out.

A loop over time would be unrolled, one length and no other; a step serves scoring and writing, at any length.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from archsmith._export.export_folder import fresh_folder
from archsmith._export.model import write_documents
from archsmith._export.onnx_file import FILE, VOCABULARY, open_onnx, save_onnx
from archsmith._export.text_model import TextModel
from archsmith._export.text_source import plain_model
from archsmith.core.errors import UsageError
from archsmith.nn.onnx_program import needed, to_onnx

INPUTS, OUTPUTS = ("tokens", "h", "c"), ("scores", "new_h", "new_c")
TOLERANCE = 1e-4  # of the largest score: what two ways of summing floats may differ by


class _Step(nn.Module):
    """One step: tokens [1, batch], h and c [layers, batch, n] -> scores [1, batch, vocabulary], new h, new c."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        scores, (new_h, new_c) = self.model(tokens, (h, c))
        return scores, new_h, new_c


class OnnxText(nn.Module):
    """A session of such a file, called as a language network is: a step at a time."""

    def __init__(self, session: Any, card: Mapping[str, Any]) -> None:
        super().__init__()
        self._session = session
        self._state = (card["task"]["layers"], card["task"]["hidden"])

    def forward(
        self, tokens: Tensor, state: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Scores [steps, batch, vocabulary], and the state to go on from."""
        layers, hidden = self._state
        zeros = np.zeros((layers, tokens.shape[1], hidden), np.float32)
        h, c = (zeros, zeros) if state is None else (state[0].numpy(), state[1].numpy())
        scores = []
        for step in tokens.numpy():
            given = dict(zip(INPUTS, (step[None], h, c), strict=True))
            score, h, c = self._session.run(list(OUTPUTS), given)
            scores.append(torch.from_numpy(score))
        return torch.cat(scores), (torch.from_numpy(h), torch.from_numpy(c))


def write_text_onnx(model: TextModel, path: Path) -> Path:
    """Write the folder, with the card and the vocabulary inside the file, so that it may travel alone.

    Raises UsageError when the extra is not installed, or ONNX Runtime's scores differ.
    """
    runtime = needed("onnxruntime")
    with fresh_folder(path) as folder:
        batch, task = torch.export.Dim("batch", min=1), model.task
        state = torch.zeros(task.layers, 2, model.network.hidden)
        proto = to_onnx(
            _Step(plain_model(model)).eval(),
            (torch.zeros(1, 2, dtype=torch.int64), state, state.clone()),
            ({1: batch}, {1: batch}, {1: batch}),
            INPUTS,
            OUTPUTS,
        )
        card = model.to_json("onnx") | {"weights": {"file": FILE}}
        save_onnx(proto, folder / FILE, card, **{VOCABULARY: model.vocabulary.text()})
        card["checked"] = {"against": f"ONNX Runtime {runtime.__version__}", **check(model, folder / FILE)}
        write_documents(model, folder, card)
    return path


def check(model: TextModel, file: Path) -> dict[str, Any]:
    """Compare ONNX Runtime with the module, step by step. Raises UsageError when they differ by more than rounding."""
    session, card = open_onnx(file)
    worst = model.differs(OnnxText(session, card))
    if not worst <= TOLERANCE:
        raise UsageError(
            f"the exported file is not good: ONNX Runtime's scores differ from the module's by {worst:.1e} of the largest "
            f"one, and rounding explains {TOLERANCE:.0e}"
        )
    sizes = [list(tokens.shape) for tokens in model.inputs()]
    return {"largest_relative_difference": worst, "steps_and_batches": sizes, "real_text": model.examples is not None}
