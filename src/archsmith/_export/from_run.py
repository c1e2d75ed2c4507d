"""The trained network of a run, with its card: what finishing chose, or what the search itself kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from random import Random
from typing import Any

import numpy as np
import torch
from torch import nn

from archsmith._export.baseline import ResidualBaseline
from archsmith._export.image_model import ImageModel, KnownPictures
from archsmith._export.model import Model
from archsmith._export.tensor_model import TensorModel
from archsmith._export.text_model import TextModel
from archsmith._export.vocabulary import Vocabulary
from archsmith._search import Run
from archsmith._search.data_check import check_same_data, recorded_data
from archsmith._search.hand_designed import HandDesigned, Standard
from archsmith._search.recipe_file import RecipeFile
from archsmith._search.session import versions
from archsmith.core import loaded, temperatures
from archsmith.core.artifacts import open_artifacts
from archsmith.core.child import Task, TextTask
from archsmith.core.config import to_config
from archsmith.core.errors import UnknownName, UsageError
from archsmith.core.evaluator import DescribesData
from archsmith.core.executor import derive_seed
from archsmith.core.finish import Measure, in_todays_words, measure_of, space_finished
from archsmith.core.genotype import Genotype
from archsmith.core.parts import PartSpace
from archsmith.core.shown import base_name, plain, spelled
from archsmith.core.space import Space, build_decided, decode, sample
from archsmith.core.temperatures import temperature_of
from archsmith.core.trial import Trial, TrialState
from archsmith.discovered import Published
from archsmith.nn.batch_norm import set_epsilon
from archsmith.nn.resnet import ResNet
from archsmith.training.image_batches import held_bytes

EXAMPLES = 7  # real images that an export is checked on
EXAMPLE_TOKENS = 50  # likewise of a text
CALIBRATED, JUDGED = 256, 2000  # images, at most, that an export in 8 bits is calibrated and judged by


@dataclass(frozen=True)
class Trained:
    """A trained network of a run, with the facts about it.

    Args:
        name: what the export is called.
        space, genotype: what it is built from.
        artifact: its weights.
        settings: fields of the evaluator that differed from the search's in its training.
        about: entries of its card.
    """

    name: str
    space: Space
    genotype: Genotype
    artifact: str
    settings: Mapping[str, Any]
    about: Mapping[str, Any]


def model_of(run: Run, network: str | None = None, trial: int | None = None) -> Model:
    """A trained network of a run: the one that `finish` chose, another that it trained, by name, or that of a trial of the search.

    Without a finish it is the network of the best trial, if its evaluator kept weights. The data are not needed: the run
    has recorded the necessary facts.

    Raises UsageError if there are no trained weights, and says how to get some; UnknownName for a network that `finish`
    did not train.
    """
    evaluator: Any = run.evaluator
    if not hasattr(evaluator, "task"):
        raise UsageError(
            f"the evaluator of run {run.name!r}, {type(evaluator).__name__}, has no task, so the inputs of its children are "
            "unknown; give it a method task(), as ImageClassification has"
        )
    document = run.reader.document("finish")
    if document is None and network is not None:
        raise UsageError(
            f"run {run.name!r} was not finished, so it has no network named {network!r}; finish it first: "
            f"{run.command('finish')}"
        )
    if trial is not None:
        trained = _of_trial(run, _trial(run, trial), f"{run.name}-trial-{trial}")
    elif document is None:
        trained = _of_trial(run, run.needed_best("there is nothing to export"), run.name)
    else:
        trained = _finished(run, in_todays_words(document), network)
    assert run.store.artifacts is not None
    evaluator = dataclasses.replace(evaluator, **trained.settings)
    there, stand_ins = _data_of(run, evaluator)
    with loaded.installed(stand_ins):
        return _model(run, trained, evaluator, described=there)


def _data_of(run: Run, evaluator: Any) -> tuple[bool, Mapping[Hashable, Any]]:
    """Whether the data are available unchanged, and empty stand-ins if they are not.

    Raises UsageError if they are not available and the run has recorded too little about them.
    """
    missing: UsageError | None = None
    try:
        check_same_data(run, run.evaluator, "Export it where the data are as they were")
        return True, {}
    except UsageError as error:
        missing = error
    if stand_ins := recorded_data(run, evaluator):
        return False, stand_ins
    raise missing


def _model(run: Run, trained: Trained, evaluator: Any, *, described: bool) -> Model:
    assert run.store.artifacts is not None
    task, space, genotype = evaluator.task(), trained.space, trained.genotype
    if type(task) not in _MADE:
        raise UsageError(
            f"the networks of run {run.name!r} are built for a {type(task).__name__}, and only networks for "
            f"{' and '.join(kind.__name__ for kind in _MADE)} can be exported"
        )
    with torch.random.fork_rng(devices=[]):
        evaluator, child = build_decided(space, genotype, evaluator)
    network = child.model
    try:
        network.load_state_dict(open_artifacts(run.store.artifacts).get(trained.artifact))
    except RuntimeError as error:
        raise UsageError(f"the weights of {trained.name!r} do not fit the network that is built now: {error}") from None
    config, about = run.config, dict(trained.about)
    architecture = decode(space, genotype)
    if isinstance(space, Published):  # its architecture lies in a space that everybody has
        recorded, kept = to_config(space.discovered().space), None
    elif isinstance(space, Standard) and (own := space.part.standards()[space.name]) is not None:
        recorded, kept, architecture = to_config(space.part), None, own
    elif isinstance(space, HandDesigned | Standard) and isinstance(network, ResNet):
        baseline = ResidualBaseline(*network.sizes)
        recorded, kept, architecture = baseline.record(), None, decode(baseline, sample(baseline, Random(0)))
    else:
        recorded, kept = to_config(space) if space is not run.space else config["space"], genotype.to_json()
    data = evaluator.describe_data() if described and isinstance(evaluator, DescribesData) else config.get("dataset")
    common = {
        "name": trained.name,
        "space": recorded,
        "genotype": kept,
        "architecture": architecture,
        "built_by": None if isinstance(space, HandDesigned | Standard) else space,  # those are in no file of a user's
        "card": {
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "data": _data(data or {}, config),
            "training": {"evaluator": _portable(to_config(evaluator)), **about.pop("training")},
            **about,
            "seed": config["seed"],
            "searcher": config["searcher"],
            "reward": config["reward"],
            "versions": versions(),
            "searched_with": config["versions"],
            "command": plain(config["command"]),
            **_origin(config),
        },
    }
    model = _MADE[type(task)](evaluator, network, common)
    fitted = temperature_of(run.reader.document(temperatures.DOCUMENT), trained.artifact)
    if fitted is None or not isinstance(model, ImageModel):
        return model
    return dataclasses.replace(model, temperature=fitted.temperature).with_card(calibration=fitted.to_json())


def _of_images(evaluator: Any, network: nn.Module, common: dict[str, Any]) -> ImageModel:
    """A classifier that an evaluator trained."""
    task = evaluator.task()
    epsilon = getattr(evaluator, "batch_norm_epsilon", None)
    if epsilon is not None:
        set_epsilon(network, epsilon)
    kind = ImageModel if len(task.input_shape) == 3 else TensorModel
    examples = _examples(evaluator)
    if examples is not None and kind is ImageModel:
        common["pictures"] = partial(_known_pictures, evaluator)
    return kind(
        network=network,
        task=task,
        class_names=list(getattr(evaluator, "class_names", [str(k) for k in range(task.num_classes)])),
        preprocessing=getattr(evaluator, "preprocessing", {}),
        batch_norm_epsilon=epsilon,
        examples=examples,
        **common,
    )


def _of_text(evaluator: Any, network: nn.Module, common: dict[str, Any]) -> TextModel:
    """A language model that an evaluator trained."""
    if not hasattr(evaluator, "corpus"):
        raise UsageError(
            f"the evaluator of run {common['name']!r}, {type(evaluator).__name__}, has no corpus, so the "
            "vocabulary is unknown; give it a method corpus(), as LanguageModel has"
        )
    corpus = evaluator.corpus()
    tokens = torch.from_numpy(corpus.validation[:EXAMPLE_TOKENS].astype("int64"))
    return TextModel(
        network=network,  # type: ignore[arg-type]  # TextModel says what it takes
        vocabulary=Vocabulary(corpus.level, tuple(corpus.vocabulary)),
        examples=tokens[:, None] if len(tokens) else None,
        **common,
    )


def can_export(evaluator: object) -> bool:
    """Whether networks that an evaluator trained can be exported."""
    task = getattr(evaluator, "task", None)
    return callable(task) and type(task()) in _MADE


def _origin(config: Mapping[str, Any]) -> dict[str, Any]:
    """The name and digests of the recipe file that the space came from, without its path, so that it can be found again."""
    file = RecipeFile.from_json(config["note"].get("file"))
    return {} if file is None else {"file": {"recipe": file.recipe, "files": dict(file.files)}}


_MADE: dict[type, Callable[[Any, nn.Module, dict[str, Any]], Model]] = {Task: _of_images, TextTask: _of_text}


def _finished(run: Run, document: Mapping[str, Any], name: str | None) -> Trained:
    """What `finish` chose, or another network that it trained."""
    networks, plan = document["networks"], document["plan"]
    chosen = networks[0] if name is None else next((n for n in networks if _plain(n["name"]) == _plain(name)), None)
    if chosen is None:
        names = [str(n["name"]) for n in networks]
        raise UnknownName("network", str(name), names, f"(the finish of run {run.name!r} trained: {', '.join(names)})")
    is_first = chosen is networks[0]
    index, why = (document["model"]["index"], document["model"]["why"]) if is_first else _best_seed(chosen, plan)
    mine = next((f for f in chosen["finals"] if f["index"] == index), None)
    if mine is None or mine["artifact"] is None:
        raise UsageError(f"no final training of {name!r} came to its end, so it has no weights")
    measure = document["measure"]["name"]
    tested = [f["score"] for f in chosen["finals"] if f["score"] is not None]
    test = {
        measure: mine["score"],
        "loss": mine["loss"],
        "count": document["test_count"],
        "n": len(tested),
        "mean": chosen["mean"],
        "deviation": chosen["deviation"],
        "by_seed": [{"seed": f["seed"], measure: f["score"]} for f in chosen["finals"]],
        "looks": document["looks"],
        "at": document["at"],
    }
    others = [{k: n[k] for k in ("name", "parameters", "mean", "deviation")} for n in networks if n is not chosen]
    about: dict[str, Any] = {
        "origin": chosen["origin"],
        "metrics": {
            "measure": document["measure"],
            "test": test,
            "chosen": why,
            "beside": others,
            **({"claim": document["claim"]} if is_first else {}),
        },
        "training": {"seed": mine["seed"], "all_data": plan["all_data"], "full_epochs": plan.get("full_epochs")},
        "cost": {"search": _search_cost(run), "finish": document["cost"]},
    }
    if not plan["all_data"]:
        about["metrics"]["validation_reward"] = mine["validation"]
    space, genotype = _space_of(run, document, chosen)
    return Trained(
        name=run.name if is_first else f"{run.name}-{chosen['name'].replace(' ', '-')}",
        space=space,
        genotype=genotype,
        artifact=mine["artifact"],
        settings=_tuples({**plan["final"], **chosen["settings"], "epochs": int(mine["cost"]["epochs"])}),
        about=about,
    )


def _plain(name: str) -> str:
    return name.casefold().replace("-", " ").replace("_", " ")


def _best_seed(network: Mapping[str, Any], plan: Mapping[str, Any]) -> tuple[int | None, str]:
    """The final training whose weights are exported, chosen as `finish` chooses: without the test set."""
    done = [f for f in network["finals"] if f["artifact"] is not None and f["failure"] is None]
    if not done:
        return None, ""
    if plan["all_data"]:
        return done[0]["index"], "the first seed: nothing was held out to choose by"
    best = max(done, key=lambda final: final["validation"] or 0.0)
    return best["index"], "the seed with the highest validation reward"


def _space_of(run: Run, document: Mapping[str, Any], network: Mapping[str, Any]) -> tuple[Space, Genotype]:
    """The space and genotype of a network of a finish; a hand-designed one has no genotype and is found by its name."""
    networks, as_trained = document["networks"], bool(document["plan"].get("trained"))
    if as_trained and network is networks[0]:  # in the size that it was searched in
        return run.space, Genotype.from_json(network["genotype"])
    space = space_finished(run.space, document)
    if network["genotype"] is not None:
        return space, Genotype.from_json(network["genotype"])
    if isinstance(space, PartSpace):
        part = Standard(space, network["name"])
        return part, part.genotype
    hand = HandDesigned(networks[int(as_trained)]["parameters"], run.evaluator)  # type: ignore[arg-type]  # it was finished
    return hand, hand.genotype


def _trial(run: Run, number: int) -> Trial:
    """A trial that is done. Raises UsageError if there is none of this number."""
    trial = next((trial for trial in run.trials() if trial.number == number), None)
    if trial is None or trial.state is not TrialState.DONE:
        said = "has no" if trial is None else "has not finished"
        raise UsageError(f"run {run.name!r} {said} trial {number}; `{run.command('top')}` shows those to choose from")
    return trial


def _of_trial(run: Run, trial: Trial, name: str) -> Trained:
    """The network of a trial, if its evaluator kept the weights."""
    if getattr(run.evaluator, "folds", None) is not None:
        raise UsageError(
            f"run {run.name!r} has no trained weights: a cross-validation keeps no weights, since those of one fold know only a "
            f"part of the images. Train its best network on all of them first: {run.command('finish')}"
        )
    kept = getattr(run.evaluator, "keep_weights", True)
    if trial.result is None or trial.result.artifact is None or not kept or run.store.artifacts is None:
        raise UsageError(
            f"run {run.name!r} has no trained weights of trial {trial.number}: a search keeps none unless its evaluator has "
            f"keep_weights=True. Train its best network for longer first: {run.command('finish')}"
        )
    measure, metrics = measure_of(run.evaluator), trial.result.metrics
    about = {
        "origin": f"trial {trial.number} of run {run.name!r}",
        "metrics": _validated(measure, metrics),
        "training": {"seed": derive_seed(run.config["seed"], "trial", trial.number), "all_data": False},
        "cost": {"search": _search_cost(run)},
    }
    return Trained(name, run.space, trial.genotype, trial.result.artifact, {}, about)


def _validated(measure: Measure, metrics: Mapping[str, float]) -> dict[str, Any]:
    """The validation score of a trial's weights, and the score that the search used if that is of another epoch."""
    if measure.name not in metrics:
        return {}
    judged = metrics[measure.name]
    last = measure.of_weights(metrics)
    scores = {"validation": judged} if last is None else {"validation": last, "searched": judged}
    return {"measure": measure.to_json(), **scores}


def _search_cost(run: Run) -> dict[str, float]:
    summary = run.summary
    return {"trials": sum(summary.counts.values()), "epochs": summary.epochs, "seconds": summary.seconds}


def _data(data: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    described = dict(data)
    for local in ("unreadable_files", "remarks", "layout"):  # may name files of the machine it was trained on
        described.pop(local, None)
    if "name" in described:
        described["name"] = base_name(str(described["name"]))
    return {**described, "fingerprint": config["data"]}


def _portable(config: dict[str, Any]) -> dict[str, Any]:
    """Without the folders of the machine it was trained on."""
    return {k: spelled(base_name(v)) if k == "data" and isinstance(v, str) else v for k, v in config.items()}


def _tuples(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}


def _examples(evaluator: Any) -> torch.Tensor | None:
    """Some validation images, as pixels [count, channels, height, width] from 0 to 1."""
    if not hasattr(evaluator, "splits"):
        return None
    positions = evaluator.splits().validation[:EXAMPLES]
    return _pixels(evaluator, positions) if len(positions) else None


def _known_pictures(evaluator: Any) -> KnownPictures:
    """Training pictures, evenly from all of them, and validation pictures."""
    splits = evaluator.splits()
    training = splits.train[:: max(1, len(splits.train) // CALIBRATED)][:CALIBRATED]
    validation = splits.validation[:JUDGED]
    labels = torch.from_numpy(splits.data.labels[validation])
    return KnownPictures(_pixels(evaluator, training), _pixels(evaluator, validation), labels)


def _pixels(evaluator: Any, positions: np.ndarray) -> torch.Tensor:
    """Pictures that are held for training and validation, in the size of the network's input, from 0 to 1."""
    shape = evaluator.task().input_shape
    images = held_bytes(evaluator.splits(), positions, (shape[1], shape[2]))
    return images.permute(0, 3, 1, 2).float().contiguous() / 255.0
