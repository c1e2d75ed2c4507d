"""Looking results up: the real table of NAS-Bench-201, tables of every form, and tables that cannot be used."""

from __future__ import annotations

import csv as csv_module
import importlib.util
import json
import os
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch

from archsmith import search
from archsmith.core.child import Task
from archsmith.core.errors import ChildFailed, DataError, IllegalGenotype, UnknownName, UsageError
from archsmith.core.genotype import Genotype
from archsmith.core.space import FunctionSpace, build, decode, enumerate_genotypes, identity, sample, space_size
from archsmith.nn.count import count, count_parameters
from archsmith.searchers import RegularizedEvolution
from archsmith.spaces import NASBench201
from archsmith.testing import EvaluatorContract, SpaceContract
from archsmith.testing.evaluator import RecordingContext
from archsmith.training import Tabular

SPACE = FunctionSpace(lambda choose: [choose("op", ("conv", "pool")), choose("width", (1, 2, 3))])


def csv(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.fixture
def small(tmp_path):
    rows = [f"{op},{width},{10 * width + (op == 'conv')},{width / 2}" for op in ("conv", "pool") for width in (1, 2, 3)]
    return csv(tmp_path / "table.csv", "op,width,accuracy,took\n" + "\n".join(rows) + "\n")


def genotype(space, **answers):
    return Genotype(identity(space), answers)


class TestContract(EvaluatorContract):
    trains = False
    counts_parameters = False
    reports_epochs = False

    @pytest.fixture(autouse=True)
    def _table(self, small):
        self.path = small

    def evaluator(self):
        return Tabular(self.path, "accuracy", seconds="took")

    def space(self):
        return SPACE


class TestContractByEpoch(EvaluatorContract):
    """A table that has a column for each epoch."""

    trains = False
    counts_parameters = False
    resumes = True

    @pytest.fixture(autouse=True)
    def _table(self, tmp_path):
        rows = [f"{op},{width},{width},{2 * width},{3 * width},7" for op in ("conv", "pool") for width in (1, 2, 3)]
        self.path = csv(tmp_path / "curves.csv", "op,width,first,second,third,took\n" + "\n".join(rows) + "\n")

    def evaluator(self):
        return Tabular(self.path, "third", seconds="took", curve=("first", "second", "third"))

    def space(self):
        return SPACE

    def test_what_was_not_trained_took_no_time(self):
        whole, part = (self._evaluate(RecordingContext(stop_after=stop)) for stop in (None, 1))
        assert (whole.cost.seconds, whole.cost.epochs) == (7, 3)
        assert (part.cost.seconds, part.cost.epochs) == (pytest.approx(7 / 3), 1)
        assert part.metrics["value"] == whole.metrics["value"] / 3 == part.curve[0]["value"]

    @pytest.mark.parametrize("settings", [{"curve": "third"}, {"curve": ("first",), "epochs": 2}])
    def test_a_curve_has_a_column_for_each_epoch(self, settings):
        with pytest.raises(UsageError, match="curve of Tabular"):
            Tabular(self.path, "third", **settings)


class TestSpaceContract(SpaceContract):
    uses_every_parameter = False

    def space(self):
        return NASBench201(channels=4, repeats=1)


# --- tables of every form ---------------------------------------------------------------------------------------------


def test_a_row_is_found_by_its_choices(small):
    result = Tabular(small, "accuracy", scale=0.01, metrics=("took",), seconds="took", epochs=12).evaluate(
        SPACE, genotype(SPACE, op="conv", width=3), RecordingContext()
    )
    assert result.metrics == {"value": pytest.approx(0.31), "took": 1.5}
    assert (result.cost.seconds, result.cost.epochs) == (1.5, 12)


def test_every_form_of_a_table_gives_the_same(small, tmp_path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_csv(small)
    np.savez(
        tmp_path / "t.npz", **{name: frame[name].to_numpy().astype("U" if name == "op" else "f8") for name in frame}
    )
    tables = [small, str(tmp_path / "t.npz")]
    for each in enumerate_genotypes(SPACE):
        values = [Tabular(t, "accuracy").evaluate(SPACE, each, RecordingContext()).metrics["value"] for t in tables]
        assert len(set(values)) == 1


def test_the_best_row_is_known(small):
    assert Tabular(small, "accuracy").best(SPACE) == ({"op": "conv", "width": 3}, 31.0)
    assert Tabular(small, "accuracy", scale=-1).best(SPACE) == ({"op": "pool", "width": 1}, -10.0)


def test_choices_that_are_not_always_asked(tmp_path):
    space = FunctionSpace(
        lambda choose: [kind := choose("kind", ("a", "b")), choose("size", (1, 2)) if kind == "b" else None]
    )
    table = csv(tmp_path / "t.csv", "kind,size,v\na,,5\nb,1,6\nb,2,7\n")
    with pytest.raises(UsageError, match="name the table's columns that are choices"):
        Tabular(table, "v").evaluate(space, genotype(space, kind="a"), RecordingContext())
    tabular = Tabular(table, "v", choices=("kind", "size"))
    found = [tabular.evaluate(space, g, RecordingContext()).metrics["value"] for g in enumerate_genotypes(space)]
    assert found == [5, 6, 7]


WRITTEN = FunctionSpace(
    lambda choose: [
        choose("rate", (1.0, 0.1, 3e-4)),
        choose("norm", (True, False)),
        choose("act", (None, "relu")),
        choose.subset("skips", ("a", "b")),
    ]
)


def written_rows():
    return [(g, number) for number, g in enumerate(enumerate_genotypes(WRITTEN))]


@pytest.mark.parametrize(
    "write",
    [
        lambda a: (a["rate"], a["norm"], a["act"], json.dumps(a["skips"])),
        lambda a: (
            f"{a['rate']:.3e}",
            str(a["norm"]).lower(),
            a["act"] or "",
            json.dumps(a["skips"]).replace(",", " ,"),
        ),
        lambda a: (f"{a['rate']:g}", str(a["norm"]).upper(), a["act"] or "None", json.dumps(a["skips"])),
    ],
)
def test_an_answer_is_found_however_a_file_writes_it(tmp_path, write):
    table = tmp_path / "t.csv"
    with table.open("w", newline="") as file:
        rows = csv_module.writer(file)
        rows.writerow(["rate", "norm", "act", "skips", "v"])
        rows.writerows([*write(g.answers), number] for g, number in written_rows())
    tabular = Tabular(str(table), "v")
    tabular.check_space(WRITTEN)
    for g, number in written_rows():
        assert tabular.evaluate(WRITTEN, g, RecordingContext()).metrics["value"] == number


def test_an_answer_is_found_in_single_precision_and_in_a_parquet_file(tmp_path):
    answers = [g.answers for g, _ in written_rows()]
    columns = {name: [a[name] for a in answers] for name in ("rate", "norm", "act", "skips")}
    numbers = list(range(len(answers)))
    np.savez(
        tmp_path / "t.npz",
        rate=np.array(columns["rate"], "float32"),
        norm=columns["norm"],
        act=[str(a) for a in columns["act"]],
        skips=[json.dumps(a) for a in columns["skips"]],
        v=numbers,
    )
    tables = [tmp_path / "t.npz"]
    if importlib.util.find_spec("pyarrow"):
        import pyarrow
        from pyarrow import parquet

        tables.append(tmp_path / "t.parquet")
        parquet.write_table(pyarrow.table({**columns, "v": numbers}), tables[-1])
    for table in tables:
        for g, number in written_rows():
            assert Tabular(str(table), "v").evaluate(WRITTEN, g, RecordingContext()).metrics["value"] == number


def test_names_that_look_like_numbers_stay_apart(tmp_path):
    space = FunctionSpace(lambda choose: choose("code", ("1", "01", "1.0")))
    tabular = Tabular(csv(tmp_path / "t.csv", "code,v\n01,1\n1,2\n1.0,3\n"), "v")
    found = [tabular.evaluate(space, g, RecordingContext()).metrics["value"] for g in enumerate_genotypes(space)]
    assert found == [2, 1, 3]


# --- tables and genotypes that cannot be used -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no rows"),
        ("op,width,accuracy\n", "has no rows"),
        ("op,width,accuracy\nconv,1\n", "line 2 .* has 2 entries, and the head has 3"),
        ("op,width,accuracy\nconv,1,3\nconv,2,good\n", "must have numbers, and has 'good' in row 2"),
        ("op,width,accuracy\nconv,1,1\nconv,1,2\n", "rows 1 and 2 .* have the same choices"),
        ("op,op,accuracy\nconv,1,1\n", "must have names that differ"),
    ],
)
def test_a_bad_table_is_named_with_what_is_wrong(tmp_path, text, said):
    table = csv(tmp_path / "bad.csv", text)
    with pytest.raises(DataError, match=said):
        Tabular(table, "accuracy").evaluate(SPACE, genotype(SPACE, op="conv", width=1), RecordingContext())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("op,width,accuracy\nconv,1,1\nconv,1,2\n", "rows 1 and 2 .* have the same choices"),
        ("op;width;accuracy\nconv;1;1\n", "is named 'op'"),
        ("op,width,accuracy\nConv,1,1\n", "column 'op' .* has 'Conv', and none of the options .*: 'conv', 'pool'"),
    ],
)
def test_what_would_fail_every_trial_is_refused_before_the_first(tmp_path, text, said):
    with pytest.raises(UsageError, match=said):
        search(SPACE, Tabular(csv(tmp_path / "bad.csv", text), "accuracy"), trials=3, store="memory://")


def test_names_that_are_not_there(small, tmp_path):
    at = genotype(SPACE, op="conv", width=1)
    with pytest.raises(UnknownName, match=r"no column of table.csv is named 'acuracy'; did you mean 'accuracy'"):
        Tabular(small, "acuracy").evaluate(SPACE, at, RecordingContext())
    with pytest.raises(DataError, match="cannot read the table"):
        Tabular(str(tmp_path / "none.csv"), "accuracy").evaluate(SPACE, at, RecordingContext())
    with pytest.raises(DataError, match=r"\.npz, \.csv or \.parquet"):
        Tabular(csv(tmp_path / "t.txt", "x"), "accuracy").evaluate(SPACE, at, RecordingContext())
    (tmp_path / "t.npz").write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(DataError, match=r"cannot be read as \.npz"):
        Tabular(str(tmp_path / "t.npz"), "accuracy").evaluate(SPACE, at, RecordingContext())


def test_a_row_that_is_missing_or_has_no_number_is_a_failed_child(tmp_path):
    table = csv(tmp_path / "t.csv", "op,width,accuracy\nconv,1,nan\n")
    with pytest.raises(ChildFailed, match="has no number in 'accuracy'"):
        Tabular(table, "accuracy").evaluate(SPACE, genotype(SPACE, op="conv", width=1), RecordingContext())
    with pytest.raises(ChildFailed, match="has no row"):
        Tabular(table, "accuracy").evaluate(SPACE, genotype(SPACE, op="conv", width=2), RecordingContext())
    with pytest.raises(IllegalGenotype):
        Tabular(table, "accuracy").evaluate(SPACE, genotype(SPACE, op="conv", width=9), RecordingContext())


def test_an_empty_cell_fails_its_child_alone(tmp_path):
    table = csv(tmp_path / "t.csv", "op,width,accuracy,took\nconv,1,,2\nconv,2,0.5,\nconv,3,0.75,4\n")
    timed = Tabular(table, "accuracy", seconds="took")
    for width, said in ((1, "no number in 'accuracy'"), (2, "no time in 'took'")):
        with pytest.raises(ChildFailed, match=said):
            timed.evaluate(SPACE, genotype(SPACE, op="conv", width=width), RecordingContext())
    assert timed.evaluate(SPACE, genotype(SPACE, op="conv", width=3), RecordingContext()).metrics["value"] == 0.75
    assert timed.best(SPACE) == ({"op": "conv", "width": 3}, 0.75)


# --- NAS-Bench-201 ----------------------------------------------------------------------------------------------------


def test_the_space_has_every_cell_once():
    assert space_size(NASBench201()) == 15_625


@pytest.fixture
def nb201():
    return os.path.join(os.environ["ARCHSMITH_DATA"], "nb201.npz")


@pytest.mark.data
def test_the_networks_have_the_published_parameters(nb201):
    space, tabular = NASBench201(), Tabular.nasbench201(nb201)
    published = tabular.column_of("params_M_cifar10")
    for seed in range(40):
        cell = sample(space, Random(seed))
        with torch.device("meta"):
            model = space.build(decode(space, cell), Task()).model
        assert round(count_parameters(model) / 1e6, 6) == pytest.approx(
            published[tabular.row_of(space, cell)], abs=2e-6
        )


@pytest.mark.data
def test_the_real_table_is_read_as_published(nb201):
    space, tabular = NASBench201(), Tabular.nasbench201(nb201)
    test = tabular.column_of("acc200_test/cifar10")
    assert test.max() == pytest.approx(94.37, abs=0.005)
    answers, value = tabular.best(space)
    row = tabular.row_of(space, genotype(space, **answers))
    assert row == 1459
    assert test[row] == pytest.approx(94.30, abs=0.005)
    assert value == pytest.approx(tabular.column_of("acc200_val/cifar10").max() / 100)
    assert (
        "hw/cifar10/edgegpu_latency" in tabular.describe_data()["name"]
        or tabular.column_of("hw/cifar10/edgegpu_latency")[row] > 0
    )


@pytest.mark.data
def test_evolution_finds_a_cell_near_the_best_of_the_real_table(nb201):
    run = search(
        NASBench201(),
        Tabular.nasbench201(nb201),
        searcher=RegularizedEvolution(population=30, sample=10),
        trials=300,
        store="memory://",
    )
    best = Tabular.nasbench201(nb201).best(NASBench201())[1]
    assert run.best is not None
    assert run.best.reward is not None
    assert best - run.best.reward < 0.01


# --- how a search is judged, and what it cost -------------------------------------------------------------------------


def test_regret_is_the_distance_from_the_best_by_the_column_that_judges(small):
    by_itself = Tabular(small, "accuracy", scale=0.01)
    judged = Tabular(small, "accuracy", scale=0.01, judge="took")
    for width in (1, 2, 3):
        pool = genotype(SPACE, op="pool", width=width)
        assert by_itself.regret(SPACE, pool) == pytest.approx(0.31 - width / 10)
        assert judged.regret(SPACE, pool) == pytest.approx((1.5 - width / 2) / 100)
        assert "took" not in judged.evaluate(SPACE, pool, RecordingContext()).metrics
    answers, _ = by_itself.best(SPACE)
    assert by_itself.regret(SPACE, Genotype(identity(SPACE), answers)) == 0
    with pytest.raises(UnknownName, match="test_accuracy"):
        Tabular(small, "accuracy", judge="test_accuracy").regret(SPACE, genotype(SPACE, op="pool", width=1))
    with pytest.raises(ChildFailed, match="no row"):
        by_itself.regret(SPACE, genotype(SPACE, op="pool", width=9))


def test_a_row_without_a_number_has_no_regret(tmp_path):
    table = csv(tmp_path / "t.csv", "x,accuracy,test\n1,0.5,nan\n2,0.25,0.75\n")
    space = FunctionSpace(lambda choose: choose("x", (1, 2)))
    judged = Tabular(table, "accuracy", judge="test")
    assert judged.regret(space, genotype(space, x=2)) == 0
    with pytest.raises(ChildFailed, match="no number to judge"):
        judged.regret(space, genotype(space, x=1))


def test_seconds_may_be_in_another_unit(small):
    pool = genotype(SPACE, op="pool", width=3)
    for seconds, expected in (("took", 5400.0), (2.0, 7200.0)):
        table = Tabular(small, "accuracy", seconds=seconds, seconds_scale=3600)
        assert table.evaluate(SPACE, pool, RecordingContext()).cost.seconds == expected
    for bad in (-1.0, float("nan"), True):
        with pytest.raises(UsageError, match="seconds_scale of Tabular"):
            Tabular(small, "accuracy", seconds_scale=bad)


def test_a_table_is_found_in_the_data_folder(small, monkeypatch):
    name = "the-table-of-this-test.csv"
    Path(small).rename(Path(small).with_name(name))
    with pytest.raises(DataError, match="ARCHSMITH_DATA"):
        Tabular(name, "accuracy").fingerprint()
    monkeypatch.setenv("ARCHSMITH_DATA", str(Path(small).parent))
    assert Tabular(name, "accuracy").table == str(Path(small).with_name(name))


@pytest.mark.data
def test_the_multiply_adds_of_the_benchmark_are_those_of_the_networks():
    """The benchmark counts normalisation and pooling as well, which are less than 12 in a hundred."""
    table = Tabular.nasbench201(Path(os.environ["ARCHSMITH_DATA"]) / "nb201.npz")
    space = NASBench201()
    for seed in range(5):
        cell = sample(space, Random(seed))
        network = build(space, cell, Task((3, 32, 32), 10)).model
        told = table.column_of("multiply_adds_cifar10")[table.row_of(space, cell)]
        assert 0.88 * told < count(network, (3, 32, 32)).multiply_adds < told
