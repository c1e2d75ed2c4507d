"""Networks in 8 bits (Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference"): the weights and outputs of convolutions and linear layers as whole numbers, by ONNX Runtime's static quantisation.

The range of each output comes from training pictures. Weights have a scale for each filter, without which depthwise convolutions
lose most of their precision. What stands before the network, such as whitening, stays in float32.
"""

from __future__ import annotations

import statistics
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from archsmith._export.image_model import KnownPictures
from archsmith._export.onnx_file import run_session, session_of
from archsmith.core.errors import UsageError
from archsmith.nn.onnx_program import needed, quiet
from archsmith.training.latency import run_times

OPERATIONS = ("Conv", "Gemm", "MatMul", "Add", "Relu", "Clip", "GlobalAveragePool", "AveragePool", "MaxPool", "Concat")
_BATCH = 32
_WARMUP, _REPEATS = 5, 30


def quantize(proto: Any, name: str, pictures: KnownPictures) -> tuple[Any, dict[str, Any]]:
    """The program in 8 bits, and what that changed.

    Args:
        proto: from pixels to logits, in float32.
        name: of its input.
        pictures: of the run.

    Returns the program and entries of its card: `bits`, `calibrated_on`, and `validation` (accuracy), `milliseconds` (for one
    picture, one thread) and `bytes`, each before and after.

    Raises UsageError if ONNX Runtime cannot do it.
    """
    onnx = needed("onnx")
    with tempfile.TemporaryDirectory() as place:
        whole, prepared, small = (Path(place) / f"{stem}.onnx" for stem in ("float32", "prepared", "int8"))
        onnx.save(proto, whole)
        try:
            with warnings.catch_warnings(), quiet("root"):
                warnings.simplefilter("ignore")
                from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
                from onnxruntime.quantization.shape_inference import quant_pre_process

                quant_pre_process(str(whole), str(prepared), skip_symbolic_shape=True)
                quantize_static(
                    str(prepared),
                    str(small),
                    _reader(name, pictures.training.numpy()),
                    quant_format=QuantFormat.QDQ,
                    op_types_to_quantize=list(OPERATIONS),
                    per_channel=True,
                    activation_type=QuantType.QUInt8,
                    weight_type=QuantType.QInt8,
                )
        except Exception as error:  # ONNX Runtime raises all kinds
            raise UsageError(f"ONNX Runtime cannot write this network in 8 bits: {error}") from error
        facts = {
            "bits": 8,
            "calibrated_on": len(pictures.training),
            "validation": {"count": len(pictures.labels), **_both(whole, small, pictures, _accuracy)},
            "milliseconds": _both(whole, small, pictures, _milliseconds),
            "bytes": {"before": whole.stat().st_size, "after": small.stat().st_size},
        }
        return onnx.load(small), facts


def _reader(name: str, images: np.ndarray) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Batches(CalibrationDataReader):  # type: ignore[misc]
        """Gives pictures in batches, then None."""

        def __init__(self) -> None:
            self._batches: Iterator[np.ndarray] = iter(np.array_split(images, -(-len(images) // _BATCH)))

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self._batches, None)
            return None if batch is None else {name: batch}

    return Batches()


def _both(whole: Path, small: Path, pictures: KnownPictures, judge: Any) -> dict[str, float]:
    return {
        "before": judge(session_of(whole, threads=1), pictures),
        "after": judge(session_of(small, threads=1), pictures),
    }


def _accuracy(session: Any, pictures: KnownPictures) -> float:
    parts = pictures.validation.split(_BATCH)  # type: ignore[no-untyped-call]
    answers = np.concatenate([run_session(session, part.numpy()).argmax(1) for part in parts])
    return float((answers == pictures.labels.numpy()).mean())


def _milliseconds(session: Any, pictures: KnownPictures) -> float:
    one = pictures.validation[:1].numpy()
    return statistics.median(run_times(lambda: run_session(session, one), _REPEATS, _WARMUP))
