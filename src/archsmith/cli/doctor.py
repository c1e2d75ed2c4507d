"""What `archsmith doctor` looks at."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import tempfile

from archsmith import __version__
from archsmith.core.cores import cores

EXTRAS = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "ray": ("ray",),
    "postgres": ("psycopg",),
    "optuna": ("optuna", "cmaes"),
    "remote": ("fsspec",),
    "s3": ("s3fs",),
    "gcs": ("gcsfs",),
}


def examine() -> dict[str, str]:
    """Findings by name, in the order a person would ask. Imports torch, since its build is what matters most."""
    import torch

    findings = {
        "archsmith": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "torch": f"{torch.__version__} ({torch.backends.cpu.get_cpu_capability()})",
        "cores": f"{cores()}; a search trains one child on each",
    }
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        findings["gpu"] = ", ".join(names)
    elif shutil.which("nvidia-smi"):
        findings["gpu"] = "there is one, and this torch cannot use it: make clean, then make install HAS_GPU=yes"
    else:
        findings["gpu"] = "none; children are trained on the CPU"
    for extra, modules in EXTRAS.items():
        absent = [m for m in modules if importlib.util.find_spec(m) is None]
        findings[extra] = f"not installed: pip install 'archsmith[{extra}]'" if absent else "installed"
    free = shutil.disk_usage(os.getcwd()).free / 2**30
    findings["folder"] = (
        f"{os.getcwd()}: {free:.0f} GiB free, {'writable' if _writable(os.getcwd()) else 'NOT writable'}"
    )
    return findings


def _writable(folder: str) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
