"""Carrying cells over: what is carried, equal sizes, going on after a kill, one look, the command line."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

import archsmith as smith
from archsmith._search.trainings import TrainingProgress
from archsmith._transfer import Transferred, cells, estimate, transfer
from archsmith._transfer import training as transfer_training
from archsmith._transfer.cell import OneCell, cell_of, multiply_adds_of, parameters_of, sized
from archsmith._transfer.estimate import Estimate, NetworkEstimate
from archsmith._transfer.record import FolderRecord, folder_record
from archsmith._transfer.scale import evaluator_for, steps_of
from archsmith.cli.main import main
from archsmith.core.child import TextTask, TranslationTask
from archsmith.core.comparison import compare
from archsmith.core.errors import ChildFailed, CorruptStore, RunLocked, UnknownName, UsageError
from archsmith.core.finish import BLEU
from archsmith.nn.cell_graph import lstm
from archsmith.nn.count import count_parameters
from archsmith.nn.language import language_network
from archsmith.nn.translation import translator
from archsmith.training import LanguageModel, Translation
from test_translation_training import reversals, settings, written

GENOTYPE = json.dumps(
    smith.spaces.RecurrentCell(base=2)
    .from_tokens("Add,Tanh | ElemMult,ReLU | ElemMult,Sigmoid | Add,ReLU | 1, 0")
    .to_json()
)


@pytest.fixture
def translation(tmp_path: Path) -> Translation:
    folder = written(tmp_path / "pairs", {"train": reversals(150)})
    return settings(folder, hidden=8, embedding=6)


@pytest.fixture
def characters(tmp_path: Path) -> LanguageModel:
    text = tmp_path / "text.txt"
    text.write_text("".join(" ".join(side) + "\n" for side in zip(*reversals(300), strict=True)), encoding="utf-8")
    return dataclasses.replace(
        LanguageModel.desk(str(text), epochs=1, level="char"), parameters=4_000, embedding=8, batch_size=8
    )


class Counted:
    """A `watch` that remembers, and may end the transfer."""

    def __init__(self, stop_after: int = 99) -> None:
        self.events: list[TrainingProgress] = []
        self.stop_after = stop_after

    def __call__(self, event: TrainingProgress) -> None:
        self.events.append(event)
        if event.stage == "training" and event.epoch == 0 and event.label and event.done >= self.stop_after:
            raise KeyboardInterrupt

    @property
    def trained(self) -> int:
        return sum(e.stage == "training" and e.epoch == 0 and bool(e.label) for e in self.events)


# --- what is carried over ---------------------------------------------------------------------------------------------


def test_cells_by_name_genotype_and_run(tmp_path: Path, translation: Translation) -> None:
    named = cell_of("nas_cell")
    assert named.name == "nas_cell"
    assert named.graph == smith.spaces.RecurrentCell().graph(smith.discovered.nas_cell().genotype)
    given = cell_of(GENOTYPE)
    assert given.name.startswith("cell-")
    assert len(given.graph.leaves) == 2
    run = smith.search(
        smith.spaces.RecurrentCell(base=2), translation, trials=2, store=f"sqlite:///{tmp_path}/runs.db", name="cells"
    )
    assert run.best is not None
    found = cell_of(run)
    assert found.origin == f"run 'cells', trial {run.best.number}, the best by validation"
    assert found.graph == smith.spaces.RecurrentCell(base=2).graph(run.best.genotype)


def test_what_is_no_recurrent_cell(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="transfer carries recurrent cells over, and nas_conv_v1 is none"):
        cell_of("nas_conv_v1")
    digits = smith.training.ImageClassification.desk(epochs=1, max_train=40)
    with pytest.raises(UsageError, match="and ImageClassification has a Task"):
        sized(cell_of("nas_cell"), digits)


def test_targets_and_scales(translation: Translation) -> None:
    with pytest.raises(UnknownName, match=r"no target of a transfer is named 'char'; did you mean 'chars'\?"):
        evaluator_for("char", "desk", None, None)
    with pytest.raises(UnknownName, match="no scale is named 'large'"):
        evaluator_for("chars", "large", None, None)
    with pytest.raises(UsageError, match="translation has one paper scale"):
        evaluator_for("translation", "paper-large", None, None)
    assert evaluator_for("chars", "desk", None, 3).epochs == 3
    assert isinstance(evaluator_for("translation", "paper", None, None), Translation)
    for wrong in ({"seeds": 0}, {"workers": 0}, {"seconds": -1.0}, {"seconds": 5.0, "epochs": 2}):
        with pytest.raises(UsageError, match=f"{next(iter(wrong))} of a transfer"):
            transfer("nas_cell", evaluator=translation, **wrong)


# --- sizes ------------------------------------------------------------------------------------------------------------


def test_language_models_have_equal_parameters(characters: LanguageModel) -> None:
    networks = sized(cell_of("nas_cell"), characters)
    count = {name: parameters_of(network, characters) for name, network in networks.items()}
    assert count["LSTM"] <= count["nas_cell"] <= 4_000
    assert count["LSTM"] > 0.9 * count["nas_cell"]
    larger = OneCell(lstm(), True, networks["LSTM"].hidden + 1)
    assert parameters_of(larger, characters) > count["nas_cell"]


def test_translators_have_equal_multiply_adds(translation: Translation) -> None:
    config = dataclasses.replace(translation, hidden=40)
    networks = sized(cell_of("nas_cell"), config)
    computation = {name: multiply_adds_of(network, config) for name, network in networks.items()}
    assert networks["nas_cell"].hidden == 40
    assert networks["LSTM"].hidden > 40
    assert computation["LSTM"] == pytest.approx(computation["nas_cell"], rel=0.03)


def test_the_papers_sizes() -> None:
    """The large character model by its sizes, 16,225,650 for 50 characters; GNMT with 8 + 8 layers of 1,024 units."""
    nas = smith.spaces.RecurrentCell().graph(smith.discovered.nas_cell().genotype)
    large = evaluator_for("chars", "paper-large", None, None)
    assert isinstance(large, LanguageModel)
    task = TextTask(50, large.layers, hidden=large.hidden, embedding=large.embedding)
    small = evaluator_for("chars", "paper", None, None)
    assert isinstance(small, LanguageModel)
    with torch.device("meta"):
        assert count_parameters(language_network(nas, task)) == 16_225_650
        for cell, bias in ((nas, False), (lstm(), True)):
            of_size = TextTask(50, small.layers, parameters=small.parameters, embedding=small.embedding)
            assert 6_530_000 < count_parameters(language_network(cell, of_size, bias=bias)) <= 6_570_000
        gnmt = Translation()
        n = 1024
        model = translator(lstm(), TranslationTask(32_000, 32_000, gnmt.layers, gnmt.hidden))
    encoder = 2 * 8 * n * n + 4 * n * 3 * n + 6 * 8 * n * n
    decoder = 8 * n * n + 7 * 12 * n * n
    attention = 2 * n * n + 2 * n
    assert count_parameters(model) == 64_000 * n + encoder + decoder + attention + 32_000 * n + 32_000


# --- a transfer -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("to", ["translation", "characters"])
def test_a_transfer_from_start_to_claim(to: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    config = request.getfixturevalue(to)
    watch = Counted()
    done = transfer(GENOTYPE, seeds=2, folder=tmp_path / "out", evaluator=config, watch=watch)
    found, other = done.networks
    assert [found.name[:5], other.name] == ["cell-", "LSTM"]
    assert done.measure == config.measure
    assert done.looks == 1
    assert watch.trained == 4
    assert done.test_count > 0
    assert all(s.failure is None and s.score is not None and s.artifact for n in done.networks for s in n.scores)
    assert [s.seed for s in found.scores] == [s.seed for s in other.scores]
    equal = "computation" if to == "translation" else "size"
    assert done.comparison == compare(
        found.by_seed,
        other.by_seed,
        "LSTM",
        done.test_count,
        measure=config.measure,
        subject=f"network of {found.name}",
        called=f"the LSTM of equal {equal}",
    )
    assert done.claim.startswith(done.comparison.sentence)
    assert ("sacrebleu, nrefs:1|" in done.claim) == (to == "translation")
    assert len(done.table()) == 3
    assert Transferred.from_json(json.loads(json.dumps(done.to_json()))) == done

    again = Counted()
    assert transfer(GENOTYPE, seeds=2, folder=tmp_path / "out", evaluator=config, watch=again) == done
    assert not again.events  # nothing is trained, and nothing is looked at


def test_the_test_scores_are_those_of_the_kept_weights(tmp_path: Path, translation: Translation) -> None:
    from archsmith.core.artifacts import ArtifactFolder

    done = transfer(GENOTYPE, seeds=1, folder=tmp_path / "out", evaluator=translation)
    network = sized(cell_of(GENOTYPE), translation)["LSTM"]
    model = network.build({}, translation.task())
    score = done.networks[1].scores[0]
    assert score.artifact is not None
    model.load_state_dict(ArtifactFolder(tmp_path / "out" / "weights").get(score.artifact))
    assert translation.test(model)["bleu"] == score.score


def test_a_killed_transfer_goes_on(tmp_path: Path, translation: Translation) -> None:
    whole = transfer(GENOTYPE, seeds=2, folder=tmp_path / "whole", evaluator=translation)
    for stop in (1, 3):
        with pytest.raises(KeyboardInterrupt):
            transfer(GENOTYPE, seeds=2, folder=tmp_path / "out", evaluator=translation, watch=Counted(stop))
    watch = Counted()
    done = transfer(GENOTYPE, seeds=2, folder=tmp_path / "out", evaluator=translation, watch=watch)
    assert watch.trained == 1
    assert [n.by_seed for n in done.networks] == [n.by_seed for n in whole.networks]
    assert done.looks == 1


def test_more_seeds_train_only_those_and_a_second_look_is_told(tmp_path: Path, translation: Translation) -> None:
    first = transfer(GENOTYPE, seeds=1, folder=tmp_path, evaluator=translation)
    watch = Counted()
    second = transfer(GENOTYPE, seeds=2, folder=tmp_path, evaluator=translation, watch=watch)
    assert watch.trained == 2
    assert second.looks == 2
    assert "looked at 2 times" in second.claim
    assert "looked at" not in first.claim
    assert second.networks[0].scores[0] == first.networks[0].scores[0]


def test_lost_weights_are_trained_again(tmp_path: Path, translation: Translation) -> None:
    with pytest.raises(KeyboardInterrupt):
        transfer(GENOTYPE, seeds=1, folder=tmp_path, evaluator=translation, watch=Counted(1))
    for file in (tmp_path / "weights").glob("*.safetensors"):
        file.unlink()
    watch = Counted()
    transfer(GENOTYPE, seeds=1, folder=tmp_path, evaluator=translation, watch=watch)
    assert watch.trained == 2


def test_side_by_side_is_the_same(tmp_path: Path, translation: Translation) -> None:
    one = transfer(GENOTYPE, seeds=1, folder=tmp_path / "one", evaluator=translation)
    two = transfer(GENOTYPE, seeds=1, workers=2, folder=tmp_path / "two", evaluator=translation)
    assert [n.by_seed for n in one.networks] == [n.by_seed for n in two.networks]


def test_nothing_is_tested_when_the_cell_cannot_be_trained(tmp_path: Path, translation: Translation) -> None:
    wild = dataclasses.replace(translation, learning_rate=1e30, initialisation=None)
    with pytest.raises(
        ChildFailed, match=r"no training of cell-\w+ came to its end: .* The test set was not looked at"
    ):
        transfer(GENOTYPE, seeds=1, folder=tmp_path, evaluator=wild)
    assert not any(key.startswith(("looks", "result")) for key in FolderRecord(tmp_path)._documents)


def test_a_runs_transfer_is_in_its_store(tmp_path: Path, translation: Translation) -> None:
    store = f"sqlite:///{tmp_path}/runs.db"
    run = smith.search(smith.spaces.RecurrentCell(base=2), translation, trials=2, store=store, name="cells")
    status = run.summary.status
    done = smith.transfer(run, seeds=1, evaluator=translation)
    assert run.summary.status == status
    kept = [key for key in run.reader.documents() if key.startswith("transfer/")]
    assert sorted(key.split("/")[1] for key in kept) == ["looks", "result", "training", "training"]
    from archsmith._search.collecting import needed

    assert {s.artifact for n in done.networks for s in n.scores} <= needed(run.store)  # its weights are not collected
    again = Counted()
    assert smith.transfer(smith.open_run(store, "cells"), seeds=1, evaluator=translation, watch=again) == done
    assert not again.events
    with pytest.raises(UsageError, match="a run's transfer is recorded in its store"):
        smith.transfer(run, folder=tmp_path, evaluator=translation)


def test_seconds_choose_epochs_once(tmp_path: Path, translation: Translation, monkeypatch: pytest.MonkeyPatch) -> None:
    done = transfer(GENOTYPE, seeds=1, seconds=2.0, folder=tmp_path, evaluator=translation)
    assert done.evaluator["epochs"] >= 1

    def fails(*_: Any, **__: Any) -> Any:
        raise AssertionError("timed again")

    monkeypatch.setattr(cells, "estimate_of", fails)
    assert transfer(GENOTYPE, seeds=1, seconds=2.0, folder=tmp_path, evaluator=translation) == done


def test_seconds_less_than_an_epoch_train_a_translator_for_a_part_of_one(
    tmp_path: Path, translation: Translation, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = NetworkEstimate("n", 1, 1, 1, 10.0)
    config = dataclasses.replace(translation, batch_size=8)
    each, _ = steps_of(config)

    def estimated(*_: Any, **__: Any) -> Estimate:
        return Estimate((slow, slow), each, each, 1, "cpu", 1)

    monkeypatch.setattr(cells, "estimate_of", estimated)
    done = transfer(GENOTYPE, seeds=1, seconds=80.0, folder=tmp_path, evaluator=config)
    assert each > 3
    assert (done.evaluator["epochs"], done.evaluator["steps"]) == (1, 3)  # three quarters of the time, two networks


def test_estimates(translation: Translation, characters: LanguageModel) -> None:
    for config in (dataclasses.replace(translation, batch_size=8, epochs=3), characters):
        found = estimate("nas_cell", seeds=2, evaluator=config)
        assert [n.name for n in found.networks] == ["nas_cell", "LSTM"]
        assert all(n.step_seconds > 0 for n in found.networks)
        assert found.seconds == pytest.approx(2 * found.steps * sum(n.step_seconds for n in found.networks))
        assert (found.steps_per_epoch, found.steps) == steps_of(config)
        assert "about" in str(found)
        assert found.threads == 1, "a pool of processes trains with one thread each"
        result = config.evaluate(
            smith.spaces.RecurrentCell(base=2),
            smith.Genotype.from_json(json.loads(GENOTYPE)),
            transfer_context(),
        )
        if isinstance(config, Translation):
            assert result.metrics["steps"] == found.steps


def transfer_context() -> Any:
    from test_translation_training import Context

    return Context()


# --- the record -------------------------------------------------------------------------------------------------------


def test_a_damaged_record_is_refused(tmp_path: Path, translation: Translation) -> None:
    for text in ("{", "[]", '{"format": 1}', "null"):
        (tmp_path / "transfer.json").write_text(text)
        with pytest.raises(
            CorruptStore, match=r"transfer\.json is not the record of a transfer .* name another folder"
        ):
            transfer(GENOTYPE, seeds=1, folder=tmp_path, evaluator=translation)


def test_a_record_has_one_writer(tmp_path: Path) -> None:
    with (
        folder_record(tmp_path),
        pytest.raises(RunLocked, match="another process is writing to"),
        folder_record(tmp_path),
    ):
        pass
    with folder_record(tmp_path) as record:  # it is free again
        record.put("a", {"b": (1, 2)})
    assert FolderRecord(tmp_path).get("a") == {"b": [1, 2]}


def test_keys_hold_all_that_decides_and_nothing_else(tmp_path: Path, translation: Translation) -> None:
    networks = sized(cell_of(GENOTYPE), translation)
    network = networks["LSTM"]

    def key(config: Translation = translation, **changes: Any) -> str:
        fields: dict[str, Any] = {"name": "LSTM", "network": network, "index": 0, "seed": 5}
        wanted = transfer_training.Wanted(**{**fields, **changes})
        executor: Any = None
        return transfer_training.Trainings(FolderRecord(tmp_path), config, executor).key(wanted)

    assert key() == key(name="other", index=7)
    different = {
        key(),
        key(seed=6),
        key(network=dataclasses.replace(network, hidden=network.hidden + 1)),
        key(network=next(iter(networks.values()))),
        key(dataclasses.replace(translation, epochs=2)),
    }
    assert len(different) == 5
    moved = tmp_path / "moved"
    Path(str(translation.data)).rename(moved)
    assert key(dataclasses.replace(translation, data=str(moved))) in different


# --- the command line -------------------------------------------------------------------------------------------------


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    text = tmp_path / "text.txt"
    text.write_text("".join(" ".join(side) + "\n" for side in zip(*reversals(400), strict=True)), encoding="utf-8")
    asked = [
        "transfer",
        "nas_cell",
        "--to",
        "chars",
        "--data",
        "text.txt",
        "--seeds",
        "1",
        "--epochs",
        "1",
        "--workers",
        "1",
    ]
    assert main(asked) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[0].split()[:3] == ["cell", "units", "parameters"]
    assert "No difference from the LSTM of equal size is shown" in out
    assert "training 2 of 2: LSTM, seed 1" in err
    assert (tmp_path / "transfer-nas_cell-chars" / "transfer.json").exists()
    assert main([*asked, "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["measure"]["name"] == "bits_per_character"
    assert "training" not in err
    assert main([*asked, "--estimate"]) == 0
    out, err = capsys.readouterr()
    assert "hours a training" in out
    assert "for 1 training of each network" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["nas_cel", "--to", "chars"],
            "no run, network, cell, file or model's folder is named 'nas_cel'; did you mean 'nas_cell' or",
        ),
        (["nas_conv_v1", "--to", "chars"], "transfer carries recurrent cells over"),
        (["nas_cell", "--to", "images"], "no target of a transfer is named 'images'"),
        (["nas_cell", "--to", "chars", "--data", "no.txt"], "no.txt"),
        (["nas_cell", "--to", "translation", "--data", "a.en,b.de"], "a.en cannot be read: No such file"),
        (["{}", "--to", "chars"], "genotype"),
        (["nas_cell", "--to", "chars", "--seeds", "0"], "seeds of a transfer must be a whole number of at least 1"),
    ],
)
def test_wrong_use_is_one_sentence(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["transfer", *arguments]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err
    assert not list(tmp_path.glob("transfer-*/transfer.json"))


def test_a_run_by_name(
    tmp_path: Path, translation: Translation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    smith.search(smith.spaces.RecurrentCell(base=2), translation, trials=1, store="sqlite:///runs.db", name="cells")
    text = tmp_path / "text.txt"
    text.write_text("".join(" ".join(side) + "\n" for side in zip(*reversals(400), strict=True)), encoding="utf-8")
    asked = [
        "transfer",
        "cells",
        "--to",
        "chars",
        "--data",
        "text.txt",
        "--seeds",
        "1",
        "--epochs",
        "1",
        "--workers",
        "1",
    ]
    assert main(asked) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("cell-")
    assert not list(tmp_path.glob("transfer-*"))
    assert BLEU.name == translation.measure.name


@pytest.mark.data
def test_published_steps() -> None:
    """80,000 and 600,000 steps on the Penn Treebank, to half an epoch."""
    for scale, steps in (("paper", 80_000), ("paper-large", 600_000)):
        each, found = steps_of(evaluator_for("chars", scale, None, None))
        assert abs(found - steps) <= each / 2 + 0.003 * steps
