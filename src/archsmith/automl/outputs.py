"""Where the results of `auto` are kept, and what an earlier call of the same name has kept there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from archsmith._export import check_folder
from archsmith._page.document import check_place
from archsmith._search import Run, open_run
from archsmith._search.known_points import recorded_first
from archsmith.automl.latency_target import LatencyTarget
from archsmith.automl.plan import TimePlan
from archsmith.core.errors import UsageError
from archsmith.core.genotype import Genotype
from archsmith.core.output_files import folder_for_now
from archsmith.core.shown import base_name
from archsmith.core.store import Store
from archsmith.spaces import Backbone, Product
from archsmith.store.payload import check_name
from archsmith.training import ImageClassification
from archsmith.training.arrays import Arrays

# In the record of a run that `auto` began: the plan, the known network, and what the delivered network may take for a picture.
NOTE, BASELINE_NOTE, TARGET_NOTE = "auto", "auto baseline", "auto latency"


@dataclass(frozen=True)
class Outputs:
    """Where the run, the model and the page are kept. Raises UsageError if that cannot be written.

    Args:
        store, name: of the run.
        folder: for the page, the model and its source; None: they are not written.
        force: whether the page replaces a file that archsmith did not write.
        backbone: the module of the run's networks, where it is the user's.
    """

    store: Store
    name: str
    folder: Path | None
    force: bool
    backbone: Backbone | None = None

    def __post_init__(self) -> None:
        check_name(self.name)
        if self.store.artifacts is None:
            raise UsageError(
                "auto keeps weights, and this store has no artifact location; use a file, such as sqlite:///runs.db, or "
                "open the store with artifacts=..."
            )
        if self.folder is not None:
            with folder_for_now(self.folder):
                check_place(self.page, "report", force=self.force)
                for model in (self.model, self.source):
                    check_folder(model)

    @property
    def page(self) -> Path:
        return (self.folder or Path()) / f"{self.name}.html"

    @property
    def model(self) -> Path:
        return (self.folder or Path()) / self.name

    @property
    def source(self) -> Path:
        return (self.folder or Path()) / f"{self.name}-source"

    def run(self, name: str | None = None) -> Run | None:
        """The run (default: of this name), if the store has it. Raises UsageError if it was begun with another backbone."""
        name = self.name if name is None else name
        if name not in {run.name for run in self.store.runs()}:
            return None
        return Run(self.store, name) if self.backbone is None else open_run(self.store, name, space=self.backbone)

    def recorded_plan(self) -> TimePlan | None:
        """The plan of the run, if the store has it. Raises UsageError if `auto` did not begin it with a time."""
        run = self.run()
        if run is None:
            return None
        plan = run.config["note"].get(NOTE)
        if not isinstance(plan, Mapping):
            raise UsageError(
                f"run {self.name!r} was not begun by `auto` with a time; give the options that it was begun with, or another name"
            )
        return TimePlan(**plan)

    def recorded_space(self) -> Product | None:
        """The space of the run, if the store has it."""
        run = self.run()
        space = None if run is None else run.space
        return space if isinstance(space, Product) else None

    def recorded_baseline(self) -> Genotype:
        """The known network of the run, which the store has."""
        run = self.run()
        assert run is not None
        recorded = run.config["note"].get(BASELINE_NOTE)  # runs of earlier versions try it first
        return self.recorded_points()[0] if recorded is None else Genotype.from_json(recorded)

    def check_target(self, target: LatencyTarget | None) -> None:
        """Raise UsageError if the run was begun with another latency."""
        run = self.run()
        assert run is not None
        recorded = run.config["note"].get(TARGET_NOTE)
        if recorded != (None if target is None else asdict(target)):
            begun = (
                "without a latency"
                if recorded is None
                else f"for {recorded['milliseconds']:g} ms with {recorded['engine']}"
            )
            raise UsageError(
                f"run {self.name!r} was begun {begun}; give the options that it was begun with, or another name"
            )

    def recorded_points(self) -> Sequence[Genotype]:
        """The known networks of the run, which the store has."""
        run = self.run()
        assert run is not None
        return recorded_first(run.config)


def stem_of(trainer: ImageClassification) -> str:
    """What a run on these data is called."""
    stem = "" if isinstance(trainer.data, Arrays) else base_name(str(Path(str(trainer.data)).absolute()))
    return "".join(c for c in stem if c.isprintable() and c not in "/\\")[:60].strip(" .") or "pictures"
