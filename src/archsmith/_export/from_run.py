"""The trained network of a run, with its card: what finishing chose, or what the search itself kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

import torch
from torch import nn

from archsmith._export.image_model import ImageModel
from archsmith._export.model import Model
from archsmith._export.text_model import TextModel
from archsmith._export.vocabulary import Vocabulary
from archsmith._search import Run
from archsmith._search.session import versions
from archsmith.core.artifacts import open_artifacts
from archsmith.core.child import Task, TextTask
from archsmith.core.config import to_config
from archsmith.core.errors import UsageError
from archsmith.core.executor import derive_seed
from archsmith.core.finish import in_todays_words, measure_of, space_finished
from archsmith.core.genotype import Genotype
from archsmith.core.shown import plain, spelled
from archsmith.core.space import build, decode
from archsmith.discovered import Published
from archsmith.nn.batch_norm import set_epsilon

EXAMPLES = 7  # real images that an export is checked on
EXAMPLE_TOKENS = 50  # likewise of a text


def model_of(run: Run) -> Model:
    """The network that finishing the run chose; the best trial's where its evaluator kept weights.

    Raises UsageError when there are no trained weights, and says how to get some.
    """
    evaluator: Any = run.evaluator
    if not hasattr(evaluator, "task"):
        raise UsageError(
            f"the evaluator of run {run.name!r}, {type(evaluator).__name__}, tells no task, so nothing is known of what "
            "its children take; ImageClassification does"
        )
    genotype, digest, settings, about = _finished(run) or _kept(run)
    space = space_finished(run.space, run.reader.document("finish"))
    assert run.store.artifacts is not None
    evaluator = dataclasses.replace(evaluator, **settings)
    task = evaluator.task()
    if type(task) not in _MADE:
        raise UsageError(
            f"the networks of run {run.name!r} are built for a {type(task).__name__}, and exports are made of "
            f"{' and '.join(kind.__name__ for kind in _MADE)} alone"
        )
    with torch.random.fork_rng(devices=[]):
        network = build(space, genotype, task).model
    network.load_state_dict(open_artifacts(run.store.artifacts).get(digest))
    config = run.config
    architecture = decode(space, genotype)
    if isinstance(space, Published):  # its architecture lies in a space that everybody has
        recorded, described = to_config(space.discovered().space), None
    else:
        recorded, described = to_config(space) if space is not run.space else config["space"], genotype.to_json()
    common = {
        "name": run.name,
        "space": recorded,
        "genotype": described,
        "architecture": architecture,
        "card": {
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "data": _data(evaluator, config),
            "training": {"evaluator": _portable(to_config(evaluator)), **about.pop("training")},
            **about,
            "seed": config["seed"],
            "searcher": config["searcher"],
            "reward": config["reward"],
            "versions": versions(),
            "searched_with": config["versions"],
            "command": plain(config["command"]),
        },
    }
    return _MADE[type(task)](evaluator, network, common)


def _of_images(evaluator: Any, network: nn.Module, common: dict[str, Any]) -> ImageModel:
    """An image classifier that an evaluator trained."""
    task = evaluator.task()
    epsilon = getattr(evaluator, "batch_norm_epsilon", None)
    if epsilon is not None:
        set_epsilon(network, epsilon)
    return ImageModel(
        network=network,
        task=task,
        class_names=list(getattr(evaluator, "class_names", [str(k) for k in range(task.num_classes)])),
        preprocessing=getattr(evaluator, "preprocessing", {}),
        batch_norm_epsilon=epsilon,
        examples=_examples(evaluator),
        **common,
    )


def _of_text(evaluator: Any, network: nn.Module, common: dict[str, Any]) -> TextModel:
    """A language model that an evaluator trained."""
    if not hasattr(evaluator, "corpus"):
        raise UsageError(
            f"the evaluator of run {common['name']!r}, {type(evaluator).__name__}, tells no corpus, so nothing is known of "
            "the vocabulary; LanguageModel does"
        )
    corpus = evaluator.corpus()
    tokens = torch.from_numpy(corpus.validation[:EXAMPLE_TOKENS].astype("int64"))
    return TextModel(
        network=network,  # type: ignore[arg-type]  # TextModel says what it takes
        vocabulary=Vocabulary(corpus.level, tuple(corpus.vocabulary)),
        examples=tokens[:, None] if len(tokens) else None,
        **common,
    )


_MADE: dict[type, Callable[[Any, nn.Module, dict[str, Any]], Model]] = {Task: _of_images, TextTask: _of_text}


def _finished(run: Run) -> tuple[Genotype, str, dict[str, Any], dict[str, Any]] | None:
    """Genotype, weights, settings and card of what `finish` chose."""
    document = run.reader.document("finish")
    if document is None:
        return None
    document = in_todays_words(document)
    found, model, plan = document["networks"][0], document["model"], document["plan"]
    measure = document["measure"]["name"]
    tested = [f["score"] for f in found["finals"] if f["score"] is not None]
    mine = next(f for f in found["finals"] if f["index"] == model["index"])
    test = {
        measure: mine["score"],
        "loss": mine["loss"],
        "count": document["test_count"],
        "n": len(tested),
        "mean": found["mean"],
        "deviation": found["deviation"],
        "by_seed": [{"seed": f["seed"], measure: f["score"]} for f in found["finals"]],
        "looks": document["looks"],
        "at": document["at"],
    }
    beside = [{k: n[k] for k in ("name", "parameters", "mean", "deviation")} for n in document["networks"][1:]]
    about = {
        "origin": found["origin"],
        "metrics": {
            "measure": document["measure"],
            "test": test,
            "chosen": model["why"],
            "beside": beside,
            "claim": document["claim"],
        },
        "training": {"seed": model["seed"], "all_data": plan["all_data"], "full_epochs": plan.get("full_epochs")},
        "cost": {"search": _search_cost(run), "finish": document["cost"]},
    }
    settings = _tuples({**plan["final"], **found["settings"], "epochs": int(mine["cost"]["epochs"])})
    if not plan["all_data"]:
        about["metrics"]["validation_reward"] = mine["validation"]
    return Genotype.from_json(found["genotype"]), model["artifact"], settings, about


def _kept(run: Run) -> tuple[Genotype, str, dict[str, Any], dict[str, Any]]:
    """The same of the best trial, where its evaluator kept the weights."""
    best = run.needed_best("there is nothing to export")
    if best.result is None or best.result.artifact is None or run.store.artifacts is None:
        raise UsageError(
            f"run {run.name!r} has no trained weights: a search keeps none unless its evaluator has keep_weights=True. "
            f"Train its best network for longer first: {run.command('finish')}"
        )
    measure, metrics = measure_of(run.evaluator), best.result.metrics
    about = {
        "origin": f"trial {best.number} of run {run.name!r}",
        "metrics": {"measure": measure.to_json(), "validation": metrics[measure.name]}
        if measure.name in metrics
        else {},
        "training": {"seed": derive_seed(run.config["seed"], "trial", best.number), "all_data": False},
        "cost": {"search": _search_cost(run)},
    }
    return best.genotype, best.result.artifact, {}, about


def _search_cost(run: Run) -> dict[str, float]:
    summary = run.summary
    return {"trials": sum(summary.counts.values()), "epochs": summary.epochs, "seconds": summary.seconds}


def _data(evaluator: Any, config: Mapping[str, Any]) -> dict[str, Any]:
    described = dict(evaluator.describe_data()) if hasattr(evaluator, "describe_data") else {}
    for local in ("unreadable_files", "remarks", "layout"):  # may name files of the machine it was trained on
        described.pop(local, None)
    if "name" in described:
        described["name"] = _last(str(described["name"]))
    return {**described, "fingerprint": config["data"]}


def _portable(config: dict[str, Any]) -> dict[str, Any]:
    """Without the folders of the machine it was trained on."""
    return {k: spelled(_last(v)) if k == "data" and isinstance(v, str) else v for k, v in config.items()}


def _last(path: str) -> str:
    """The name of a folder or file, given its path on this or another machine."""
    windows = path.startswith("\\\\") or path[1:3] == ":\\"
    return (PureWindowsPath if windows else PurePosixPath)(path).name


def _tuples(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}


def _examples(evaluator: Any) -> torch.Tensor | None:
    """Some validation images, as pixels [count, channels, height, width] from 0 to 1."""
    if not hasattr(evaluator, "splits"):
        return None
    splits = evaluator.splits()
    images = splits.data.images[splits.validation[:EXAMPLES]]
    if len(images) == 0:
        return None
    return torch.from_numpy(images).permute(0, 3, 1, 2).float().contiguous() / 255.0
