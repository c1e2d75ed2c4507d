"""Neural architecture search as practical software.

    import archsmith as smith

    run = smith.search(smith.spaces.ConvChain(layers=4), smith.training.ImageClassification("digits", epochs=5),
                       searcher=smith.searchers.Reinforce(), trials=20)
    print(run.best)

Names load when first used, so that `import archsmith` costs nothing and torch is imported only where a child is.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from archsmith import discovered, executors, recipes, rewards, searchers, spaces, stopping, testing, training
    from archsmith._compare import compare
    from archsmith._describe import describe
    from archsmith._export import export, generate, load, predict
    from archsmith._finish import finish
    from archsmith._search import Run, build, open_run, search
    from archsmith._transfer.correlate import correlate
    from archsmith._transfer.transfer import transfer
    from archsmith.automl import auto
    from archsmith.core.child import Child, Task, TextTask, TranslationTask
    from archsmith.core.errors import AllTrialsFailed, ArchsmithError, Diverged, LimitExceeded, NoReward
    from archsmith.core.finish import FinishPlan
    from archsmith.core.genotype import Genotype
    from archsmith.core.trial import Cost, Proposal, Result, Trial, TrialState

__version__ = "0.1.0"

__all__ = [
    "AllTrialsFailed",
    "ArchsmithError",
    "Child",
    "Cost",
    "Diverged",
    "FinishPlan",
    "Genotype",
    "LimitExceeded",
    "NoReward",
    "Proposal",
    "Result",
    "Run",
    "Task",
    "TextTask",
    "TranslationTask",
    "Trial",
    "TrialState",
    "__version__",
    "auto",
    "build",
    "compare",
    "correlate",
    "describe",
    "discovered",
    "executors",
    "export",
    "finish",
    "generate",
    "load",
    "open_run",
    "predict",
    "recipes",
    "rewards",
    "search",
    "searchers",
    "spaces",
    "stopping",
    "testing",
    "training",
    "transfer",
]

_HOME = {
    "AllTrialsFailed": "core.errors",
    "ArchsmithError": "core.errors",
    "Child": "core.child",
    "Cost": "core.trial",
    "Diverged": "core.errors",
    "FinishPlan": "core.finish",
    "Genotype": "core.genotype",
    "LimitExceeded": "core.errors",
    "NoReward": "core.errors",
    "Proposal": "core.trial",
    "Result": "core.trial",
    "Run": "_search",
    "Task": "core.child",
    "TextTask": "core.child",
    "TranslationTask": "core.child",
    "Trial": "core.trial",
    "TrialState": "core.trial",
    "auto": "automl",
    "build": "_search",
    "compare": "_compare",
    "correlate": "_transfer",
    "describe": "_describe",
    "export": "_export",
    "finish": "_finish",
    "generate": "_export",
    "load": "_export",
    "open_run": "_search",
    "predict": "_export",
    "search": "_search",
    "transfer": "_transfer",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"archsmith.{_HOME[name]}"), name)
    if name in __all__:
        return importlib.import_module(f"archsmith.{name}")
    raise AttributeError(f"module 'archsmith' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
