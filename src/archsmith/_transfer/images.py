"""A found network of images on another data set (Zoph et al. 2018, "Learning Transferable Architectures for Scalable Image
Recognition"; Kornblith, Shlens and Le 2019, "Do Better ImageNet Models Transfer Better?").

Three ways, and in each the found network, one designed by hand, and random search's best where there is one:

    scratch     trained on the new data alone, scaled if asked
    fine-tune   all of it trained on from the weights that `finish` made and the classifier of its features, at a tenth
                of the rate
    features    the classifier alone, by logistic regression on what the finished network makes of the images

Seed by seed one network is held against the other. Everything is chosen by validation, and when nothing is left to
choose the test set is looked at once. docs/decisions/0016-image-transfer.md has what the papers leave open.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

from archsmith._search.record import Record
from archsmith._search.trainings import Carrier, Outcome, Training, TrainingProgress, Watch, Work, digest_of
from archsmith._transfer.contest import (
    FEATURES,
    FINE_TUNE,
    FINE_TUNE_RATE,
    SCRATCH,
    Contest,
    Entry,
    at_rate,
)
from archsmith._transfer.features import START, Features, FineTuning
from archsmith._transfer.found import Candidate, Source
from archsmith._transfer.result import Transferred, TransferredNetwork
from archsmith._transfer.testing import final_of, look, test_set_of, tested
from archsmith.core.artifacts import open_artifacts
from archsmith.core.comparison import Comparison, compare
from archsmith.core.config import to_config
from archsmith.core.errors import ChildFailed, UsageError
from archsmith.core.evaluator import DescribesData
from archsmith.core.executor import Executor, Job, derive_seed
from archsmith.core.finish import ACCURACY
from archsmith.core.space import identity
from archsmith.rewards import accuracy

RATES = (1.0, 1 / 3, 3.0)  # tried where asked, around each way's own; the first wins a tie
_SAID = {SCRATCH: "From scratch", FINE_TUNE: "Fine-tuned", FEATURES: "As fixed features"}


def kept_source(source: Source, record: Record) -> Source:
    """The source with an exported model's weights in the record's folder, where jobs find them."""
    if not source.tensors:
        return source
    folder = open_artifacts(record.artifacts)
    digests = {name: folder.put(tensors) for name, tensors in source.tensors.items()}
    candidates = [replace(c, weights=tuple(digests.get(w, w) for w in c.weights)) for c in source.candidates]
    return replace(source, candidates=candidates, tensors={})


def result_key(source: Source, contest: Contest, seed: int, seeds: int, tune: bool) -> str:
    """A digest of all that decides what a transfer gives."""
    networks = [
        [e.how, e.candidate.name, identity(e.network), list(e.candidate.weights), _config(e)] for e in contest.entries
    ]
    return digest_of({"networks": networks, "seeds": [seed, seeds], "tune": tune, "fine-tune": "from features"})


def carry_over(
    source: Source,
    contest: Contest,
    record: Record,
    executor: Executor,
    *,
    seed: int,
    seeds: int,
    tune: bool,
    watch: Watch | None,
) -> Transferred:
    """Train everything that is not on record, and test once. The executor is closed.

    Raises UsageError when finished weights are gone or do not fit, ChildFailed when no training of the found network
    came to its end.
    """
    for entry in contest.entries:
        if entry.how != SCRATCH:
            _check_weights(entry, record)
    with closing(executor) as used:
        carrier = Carrier(record, used, ACCURACY, watch)
        factors = _tuned(contest, carrier, seed) if tune else {}
        work = [
            [
                work_of(entry, factors.get(k, 1.0), i, derive_seed(seed, "transfer", i), f"seed {i + 1}")
                for i in range(_seeds(entry, seeds))
            ]
            for k, entry in enumerate(contest.entries)
        ]
        flat = carrier.carry_out("training", [w for mine in work for w in mine])
    outcomes, rest = [], iter(flat)
    for mine in work:
        outcomes.append([(w, next(rest)) for w in mine])
    name = source.candidates[0].name
    ours = [o for e, mine in zip(contest.entries, outcomes, strict=True) if e.candidate.name == name for _, o in mine]
    if all(o.reward is None for o in ours):
        failure = ours[0].result.failure
        raise ChildFailed(
            f"no training of {name} came to its end: {failure.message if failure else 'stopped'}. "
            "The test set was not looked at"
        )
    if watch is not None:
        watch(TrainingProgress("testing", f"{len(flat)} models", 0, len(flat)))
    return _test(source, contest, outcomes, factors, record)


def _seeds(entry: Entry, seeds: int) -> int:
    """Features are the same for the same weights, so there are as many as there are finished weights."""
    return min(seeds, len(entry.candidate.weights)) if entry.how == FEATURES else seeds


def work_of(entry: Entry, factor: float, index: int, seed: int, what: str, *, keep: bool = True) -> Work:
    """One training of a network by one way, from one seed; `what` tells a person which."""
    weights = entry.candidate.weights
    start = weights[index % len(weights)] if entry.how != SCRATCH else None
    whole = factor * (FINE_TUNE_RATE if entry.how == FINE_TUNE else 1.0)
    evaluator = at_rate(entry.evaluator, whole)
    job = Job(
        trial=0,
        space=entry.network,
        genotype=entry.network.only,
        evaluator=Features(evaluator)
        if entry.how == FEATURES
        else FineTuning(evaluator, whole)
        if entry.how == FINE_TUNE
        else Training(evaluator, whole, keep=keep),
        reward=accuracy,
        seed=seed,
        earlier={START: start} if start is not None else {},
    )
    key = digest_of(
        {
            "how": "fine-tune from features" if entry.how == FINE_TUNE else entry.how,
            "network": identity(entry.network),
            "evaluator": _config(entry),
            "factor": whole,
            "weights": start,
            "seed": 0 if entry.how == FEATURES else seed,  # nothing in it is drawn
        }
    )
    epochs = 0 if entry.how == FEATURES else entry.evaluator.epochs
    about = {"how": entry.how, "network": entry.candidate.name, "factor": whole, "begins": {"artifact": start}}
    return Work(f"{entry.label}, {what}", f"training/{key}", job, epochs, keep, about)


def _config(entry: Entry) -> dict[str, Any]:
    """The evaluator as it decides an outcome: its data by their content, wherever they are kept."""
    return {**to_config(entry.evaluator), "data": entry.evaluator.fingerprint()}  # type: ignore[attr-defined]


def _tuned(contest: Contest, carrier: Carrier, seed: int) -> dict[int, float]:
    """For each entry the factor of its learning rate that validates best, on one seed that no final training has."""
    seed = derive_seed(seed, "transfer", "tune")
    which = [(k, factor) for k, entry in enumerate(contest.entries) if entry.how != FEATURES for factor in RATES]
    work = [work_of(contest.entries[k], f, 0, seed, f"learning rate x {f:.3g}", keep=False) for k, f in which]
    found: dict[int, tuple[float, float]] = {}
    for (k, factor), outcome in zip(which, carrier.carry_out("tuning", work), strict=True):
        if outcome.reward is not None and (k not in found or outcome.reward > found[k][0]):
            found[k] = (outcome.reward, factor)
    return {k: factor for k, (_, factor) in found.items()}


def _check_weights(entry: Entry, record: Record) -> None:
    """Raise UsageError unless the finished weights are there and fit, before anything is trained."""
    import torch

    from archsmith.nn.classifier import check_body, classifier_of

    folder, task = open_artifacts(record.artifacts), entry.evaluator.task()
    lost = [digest for digest in entry.candidate.weights if digest not in folder]
    if lost:
        raise UsageError(
            f"the finished weights of {entry.candidate.name} are gone from {record.artifacts}; finish the run again, or "
            "carry it over from scratch (--how scratch)"
        )
    with torch.device("meta"):
        model = entry.network.build(None, task).model
        name, _ = classifier_of(model, task.input_shape)  # type: ignore[union-attr]
    check_body(model, folder.get(entry.candidate.weights[0]), name)


# --- the test ---------------------------------------------------------------------------------------------------------


def _test(
    source: Source,
    contest: Contest,
    outcomes: Sequence[Sequence[tuple[Work, Outcome]]],
    factors: Mapping[int, float],
    record: Record,
) -> Transferred:
    """Look at the test set: the look is on record before anything is seen."""
    evaluator: Any = contest.evaluator
    models = [o.result.artifact for mine in outcomes for _, o in mine if o.reward is not None]
    looks = look(record, test_set_of(evaluator), models)
    networks, count, notes = list[TransferredNetwork](), 0, list(contest.notes)
    for k, (entry, mine) in enumerate(zip(contest.entries, outcomes, strict=True)):
        scores = []
        for i, (work, outcome) in enumerate(mine):
            metrics = tested(entry.network, entry.network.only, outcome, entry.evaluator, record)
            count = int(metrics.get("count", count))
            scores.append(final_of(i, work.job.seed, outcome, metrics, ACCURACY))
        if failed := sum(o.reward is None for _, o in mine):
            notes.append(f"{failed} of {len(mine)} trainings of {entry.label} failed.")
        networks.append(
            TransferredNetwork(
                name=entry.candidate.name,
                hidden=None,
                parameters=entry.parameters,
                multiply_adds=entry.multiply_adds,
                scores=scores,
                how=entry.how,
                origin=entry.candidate.origin,
                settings=_settings(entry, factors.get(k)),
            )
        )
    pairs = list(zip(contest.entries, networks, strict=True))
    few = {len(mine) for e, mine in zip(contest.entries, outcomes, strict=True) if e.how == FEATURES}
    if few == {1}:
        notes.append("There are finished weights of one seed, so fixed features have no interval.")
    return Transferred(
        subject=f"{source.name} ({source.origin})" if source.origin != source.name else source.name,
        architecture=source.architecture,
        at=looks[-1]["at"],
        evaluator=to_config(evaluator),
        data=evaluator.describe_data() if isinstance(evaluator, DescribesData) else {},
        networks=networks,
        comparisons=_comparisons(source, contest, pairs, count, notes),
        measure=ACCURACY,
        test_count=count,
        looks=len(looks),
        notes=notes,
    )


def _settings(entry: Entry, factor: float | None) -> dict[str, Any]:
    """What is not as in the settings of all: a rate that was chosen, what the weights or a short training ask for."""
    found: dict[str, Any] = {}
    own = getattr(entry.evaluator, "learning_rate", None)
    rate = (factor or 1.0) * (FINE_TUNE_RATE if entry.how == FINE_TUNE else 1.0)
    if own is not None and entry.how != FEATURES and rate != 1:
        found["learning_rate"] = own * rate
    if entry.how != SCRATCH and entry.candidate.epsilon is not None:
        found["batch_norm_epsilon"] = entry.candidate.epsilon
    if entry.network.batch_norm_decay is not None:
        found["batch_norm_decay"] = entry.network.batch_norm_decay
    return found


def _comparisons(
    source: Source,
    contest: Contest,
    pairs: Sequence[tuple[Entry, TransferredNetwork]],
    count: int,
    notes: list[str],
) -> list[Comparison]:
    """In each way the found network with the others; then each way that begins with weights with from scratch."""
    first = source.candidates[0].name
    at = {(entry.how, entry.candidate.name): network for entry, network in pairs}
    others = list(dict.fromkeys(entry.candidate.name for entry, _ in pairs if entry.candidate.name != first))
    candidates: dict[str, Candidate] = {entry.candidate.name: entry.candidate for entry, _ in pairs}

    def between(way: str, other: TransferredNetwork, called: str) -> Comparison:
        mine = at[way, first]
        made = compare(
            mine.by_seed, other.by_seed, f"{other.name}, {other.how}", count, called=called, subject=source.subject
        )
        return replace(made, sentence=f"{_SAID[way]}: {made.sentence[0].lower()}{made.sentence[1:]}")

    found = []
    for way in contest.ways:
        for name in others:
            called = f"the {candidates[name].called}" + " of its size" * candidates[name].is_hand_designed
            if (way, name) in at:
                found.append(between(way, at[way, name], called))
            elif (SCRATCH, name) in at:
                found.append(between(way, at[SCRATCH, name], f"{called} from scratch"))
                notes.append(f"There are no finished weights of {called}, so it stands from scratch beside {way}.")
        if way != SCRATCH and (SCRATCH, first) in at:
            found.append(between(way, at[SCRATCH, first], "the same network from scratch"))
    if not found:
        nothing = "Nothing stands beside the found network, so nothing is claimed."
        found.append(Comparison("", 0, None, None, None, "no difference shown", nothing))
    return found
