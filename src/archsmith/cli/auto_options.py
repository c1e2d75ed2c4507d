"""What both ways of `archsmith auto` are asked: by time, and by trials."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from archsmith.cli.looking import DEFAULT_STORE
from archsmith.core.output_files import folder_for_now
from archsmith.core.shown import without_passwords

FROM_SCRATCH = "from scratch"  # in place of the name of weights


@dataclass(frozen=True)
class AutoOptions:
    """Options of the command. `weights` is what is said of pretrained ones; None: nothing."""

    data: str
    labels: str | None
    label_pattern: str | None
    size: int | None
    weights: str | None
    latency: float | None
    runtime: str | None
    workers: int | None
    store: str
    name: str | None
    seed: int
    output: Path
    force: bool
    as_json: bool

    @property
    def pretrained(self) -> str | None:
        """The argument of `automl.auto`."""
        from archsmith.automl.strategy import AVAILABLE

        return {None: AVAILABLE, FROM_SCRATCH: None}.get(self.weights, self.weights)

    def command(self, name: str, *more: str) -> str:
        """The same command for a run of that name."""
        again = ["archsmith", "auto", self.data, "--name", name, *more]
        for option, given, default in (("--store", self.store, DEFAULT_STORE), ("--output", str(self.output), "out")):
            again += [option, given] if given != default else []
        for option, said in (("--labels", self.labels), ("--label-pattern", self.label_pattern)):
            again += [option, said] if said is not None else []
        again += ["--size", str(self.size)] if self.size is not None else []
        if self.weights is not None:
            again += ["--from-scratch"] if self.weights == FROM_SCRATCH else ["--pretrained", self.weights]
        again += ["--latency", f"{self.latency:g}ms"] if self.latency is not None else []
        again += ["--runtime", self.runtime] if self.runtime is not None else []
        again += ["--workers", str(self.workers)] if self.workers is not None else []
        again += ["--seed", str(self.seed)] if self.seed else []
        again += ["--force"] if self.force else []
        return without_passwords(shlex.join(again))

    def outputs(self, name: str) -> tuple[Path, Path, Path]:
        """The page, the model's folder, and the folder of its source."""
        return self.output / f"{name}.html", self.output / name, self.output / f"{name}-source"

    def check_outputs(self, name: str) -> None:
        """Raise UsageError if a page or a model cannot be written, before hours of training."""
        from archsmith._export import check_folder
        from archsmith._page.document import check_place

        page, *folders = self.outputs(name)
        with folder_for_now(self.output):
            check_place(page, "report", force=self.force)
            for folder in folders:
                check_folder(folder)
