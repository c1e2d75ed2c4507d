"""The page of a run: whole, closed to the outside, honest about what there is not yet, and deaf to hostile names."""

from __future__ import annotations

import json
import math
import os
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archsmith._finish.result import ExportedModel, Finished, FinishedNetwork
from archsmith._page.figures import moving_mean
from archsmith._page.html import Html, duration, escape, number, tag
from archsmith._search.run import Run
from archsmith.core.comparison import compare
from archsmith.core.diagram import Diagram, Edge, Node
from archsmith.core.errors import UnknownName, UsageError
from archsmith.core.final import Final
from archsmith.core.finish import PERPLEXITY, Measure
from archsmith.core.genotype import Genotype
from archsmith.core.space import sample
from archsmith.core.trial import Cost, Failure, Proposal, Result, TrialState
from archsmith.report import write_report
from archsmith.report.curves import pareto_front
from archsmith.report.facts import gather, redacted
from archsmith.spaces import RecurrentCell
from archsmith.store import MemoryStore

VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
HOSTILE = (
    "</style></title></script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&`$\\frac{$ javascript:alert(3)"
)


class Page(HTMLParser):
    """A page as its elements and text; fails when a tag is left open or closed out of turn."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.source = text
        self.feed(text)
        self.close()
        assert self.open == [], f"left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> out of turn"

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"[ \n]+", " ", " ".join(self.words))

    @property
    def tags(self) -> set[str]:
        return {name for name, _ in self.elements}

    @property
    def ids(self) -> list[str]:
        return [str(a["id"]) for _, a in self.elements if "id" in a]

    def check(self) -> Page:
        """What every page must be: without scripts, handlers and references to the outside; ids unique."""
        assert self.tags.isdisjoint({"script", "iframe", "object", "embed", "base", "form", "foreignobject"})
        for name, attributes in self.elements:
            if name == "img":  # a picture inside the page
                assert attributes.keys() == {"class", "src", "alt"}
                assert re.fullmatch("data:image/jpeg;base64,[A-Za-z0-9+/]+=*", str(attributes["src"]))
                continue
            for key, value in attributes.items():
                assert not key.startswith("on"), (name, key)
                if key in ("href", "src", "xlink:href", "action", "data"):
                    assert value is not None
                    assert value.startswith("#") or value == "data:,", (name, key, value)
        links = {str(a["href"])[1:] for name, a in self.elements if name in ("a", "use")}
        links |= set(re.findall(r"url\(#([^)]*)\)", self.source))
        assert links <= set(self.ids)
        assert len(self.ids) == len(set(self.ids))
        assert "url(http" not in self.source
        assert "@import" not in self.source
        return self


@dataclass(frozen=True)
class Chain:
    """A space with a choice, a subset that refers to earlier steps, and one of names."""

    layers: int = 3

    def architecture(self, choose: Any) -> Any:
        return [
            {
                "filters": choose(f"{i}.filters", (24, 36, 48, 64)),
                "inputs": choose.subset(f"{i}.inputs", range(i)),
                "extras": choose.subset(f"{i}.extras", ("norm", "pool")),
            }
            for i in range(self.layers)
        ]

    def build(self, architecture: Any, task: Any) -> Any:
        raise NotImplementedError


CONFIG: dict[str, Any] = {
    "space": {"type": "test:Chain", "layers": 3},
    "evaluator": {"type": "training.ImageClassification", "data": "digits", "epochs": 3},
    "searcher": {"type": "searchers.Reinforce", "learning_rate": 6e-4},
    "reward": {"type": "rewards.cubed_accuracy"},
    "budget": {"trials": 40, "seconds": None, "epochs": None},
    "limits": {"seconds": None, "parameters": None, "memory_bytes": None},
    "workers": 1,
    "seed": 7,
    "data": "sha256:abc",
    "versions": {"python": "3.11", "torch": "2.13"},
    "command": "archsmith search digits --trials 40",
    "note": {},
}


def done(accuracy: float, *, epochs: int = 3, parameters: float = 5e4, **metrics: float) -> dict[str, Any]:
    curve = [{"epoch": e, "accuracy": accuracy * (1 - 2.0**-e)} for e in range(1, epochs + 1)]
    result = Result({"accuracy": accuracy, "parameters": parameters, **metrics}, curve, Cost(1.5, epochs))
    return {"state": TrialState.DONE, "reward": accuracy**3, "result": result}


def failed(reason: str = "diverged", message: str = "the loss became NaN", traceback: str = "") -> dict[str, Any]:
    result = Result(failure=Failure(reason, message, traceback), cost=Cost(0.5, 1))
    return {"state": TrialState.FAILED, "result": result}


def a_run(
    outcomes: list[dict[str, Any] | None],
    *,
    store: MemoryStore | None = None,
    name: str = "a run",
    config: Mapping[str, Any] | None = None,
    learned: Mapping[str, float] | None = None,
    close: bool = True,
    space: Any = Chain(),
    finish: Any = None,
    looks: int = 1,
) -> Run:
    """A run with these outcomes in a store; None is a trial that has not finished."""
    store = store if store is not None else MemoryStore()
    writer = store.create(name, {**CONFIG, **(config or {})})
    rng = random.Random(0)
    for k, outcome in enumerate(outcomes):
        (trial,) = writer.propose([Proposal(sample(space, rng))])
        if outcome is not None:
            trial = replace(writer.start(trial.number), **outcome)
            values = {key: value + k for key, value in (learned or {}).items()}
            writer.finish([trial], learned=values or None)
    if finish is not None:
        writer.put_document("finish", finish)
        writer.put_document("finish-looks", [{"done": True}] * looks)
    if close:
        writer.close("finished")
    return Run(store, name, space=space)


def page_of(run: Run, folder: Path, **options: Any) -> Page:
    path = write_report(run, folder / "page.html", **options)
    return Page(path.read_text(encoding="utf-8")).check()


def test_a_full_run_shows_everything_and_its_control_beside_it(tmp_path: Path) -> None:
    store = MemoryStore()
    accuracies = [0.5 + 0.01 * k for k in range(40)]
    outcomes: list[Any] = [done(a, parameters=1e4 * (k + 1)) for k, a in enumerate(accuracies)]
    outcomes[5] = failed("error", "RuntimeError: no", "Traceback: line 3")
    a_run([done(0.5)] * 40, store=store, name="a run-random", config={"searcher": {"type": "searchers.Random"}})
    learned = {"mean_reward": 0.1, "baseline": 0.2, "entropy": 3.0}
    page = page_of(a_run(outcomes, store=store, learned=learned), tmp_path)
    for said in (
        "A controller that learns by policy gradient (REINFORCE) searched the space Chain",
        "40 children proposed: 39 trained, 1 failed",
        "trained on digits for 3 epochs",
        "89.0\N{NARROW NO-BREAK SPACE}%",  # the best accuracy
        number(0.89**3),
        "a run-random",
        "one seed each: this shows the machinery at work, and claims no difference",
        "Pareto front",
        "40 updates",
        "mean reward and baseline",
        "entropy",
        "filters",
        "RuntimeError: no",
        "Traceback: line 3",
        "archsmith search digits --trials 40",
        "sha256:abc",
        "torch 2.13",
        "It was looked at 0 times",
    ):
        assert said in page.text, said
    assert {"progress", "learning", "architectures", "choices", "failures", "trials", "record", "words"} <= set(
        page.ids
    )
    assert sum(name == "svg" for name, _ in page.elements) == 4 + 2 + 4  # the search, the controller, the best four
    assert page.source.count("<h1>") == 1


def test_an_accuracy_that_is_not_that_of_the_weights_has_that_one_next_to_it(tmp_path: Path) -> None:
    outcomes = [done(0.8125, final_accuracy=0.75), done(0.5, final_accuracy=0.5)]
    run = a_run(outcomes, config={"reward": {"type": "rewards.accuracy"}})
    page = page_of(run, tmp_path)
    for said in (
        "validation accuracy 81.2\N{NARROW NO-BREAK SPACE}% (75.00 % with the weights that its training ended with)",
        "the highest of a child's last five epochs; the accuracy of the weights is that of its last one",
        "here the validation accuracy.",
        "accuracy of the weights",
    ):
        assert said in page.text, said
    plain = page_of(a_run([done(0.8125)], name="b"), tmp_path)
    assert "of the weights" not in plain.text
    assert (
        "that its training ended with" not in page_of(a_run([done(0.75, final_accuracy=0.75)], name="c"), tmp_path).text
    )


def test_the_page_of_a_run_is_the_same_every_time(tmp_path: Path) -> None:
    run = a_run([done(0.8), done(0.9)])
    one = write_report(run, tmp_path / "one.html").read_bytes()
    assert one == write_report(run, tmp_path / "two.html").read_bytes()


@pytest.mark.parametrize(
    ("outcomes", "close", "said"),
    [
        ([], True, "No trial has finished yet, so there is nothing to plot"),
        ([None, None], False, "still running: this is what there is so far"),
        ([failed(), failed("memory", "over 1 GB")], True, "None of the 2 finished trials has a reward"),
        ([done(0.7)], True, "1 child proposed: 1 trained"),
        ([done(0.7), None], False, "1 trained, 1 waiting"),
        ([{"state": TrialState.STOPPED}], True, "1 trial was stopped on purpose"),
        ([done(0.7, parameters=math.nan, loss=math.inf)] * 3, True, "nan"),
        ([done(0.7, parameters=0)] * 2, True, "Number"),
        ([done(1.0)] * 12, True, "The best"),
        ([done(0.7), failed()], True, "All that have a reward; 1 more is in the store"),
        ([done(0.7)] * 51, True, "The best 50 by reward; 1 more is in the store"),
    ],
    ids=[
        *("empty", "only proposed", "only failures", "one", "running", "stopped", "NaN", "no parameters", "all equal"),
        *("one more", "too many"),
    ],
)
def test_a_run_with_little_in_it_gives_a_sensible_page(
    tmp_path: Path, outcomes: list[Any], close: bool, said: str
) -> None:
    page = page_of(a_run(outcomes, close=close), tmp_path)
    if said == "Number":  # equal genotypes are drawn once; these differ
        assert "Number 2" in page.text
        assert "Pareto" not in page.text
    else:
        assert said in page.text


def test_the_report_of_a_function_that_returns_a_number(tmp_path: Path) -> None:
    values = {"state": TrialState.DONE, "reward": 0.4, "result": Result({"value": 0.4})}
    config = {
        "space": {"type": "core.space.FunctionSpace", "function": {"type": "mine:my_space"}, "builder": None},
        "evaluator": {"type": "core.evaluator.FunctionEvaluator", "function": {"type": "mine:judge"}},
        "searcher": {"type": "searchers.Random"},
        "reward": {"type": "rewards.value"},
        "data": None,
    }
    run = a_run([values] * 9, config=config)
    page = page_of(Run(run.store, run.name), tmp_path)  # the space is not at hand
    assert "Random search searched the space my_space" in page.text
    assert "Each was evaluated by judge" in page.text
    assert "no learning curves" in page.text
    assert "This run is random search itself" in page.text
    assert "was not at hand, so its answers stand here" in page.text
    assert "0.filters" in page.text
    assert "validation accuracy" not in page.text.lower()
    assert "What the searcher learned" not in page.text


def test_nothing_in_a_store_becomes_markup(tmp_path: Path) -> None:
    hostile: Any = {**done(0.9, **{HOSTILE: 1.0}), "state": TrialState.DONE}
    hostile["result"] = replace(hostile["result"], curve=[{"epoch": 1, HOSTILE: 0.5}, {"epoch": 2, HOSTILE: 0.6}])

    @dataclass(frozen=True)
    class HostileSpace:
        def architecture(self, choose: Any) -> Any:
            name = HOSTILE.replace(".", "")
            return {name: choose(name, (HOSTILE, "</td>")), "s": choose.subset("s" + name, (HOSTILE, "]]>"))}

        def build(self, architecture: Any, task: Any) -> Any:
            raise NotImplementedError

    finish = {
        "networks": [
            {"name": HOSTILE, "origin": HOSTILE, "settings": {HOSTILE: HOSTILE}, "finals": [{"failure": HOSTILE}]}
        ],
        "comparisons": [{"other": HOSTILE, "verdict": HOSTILE}],
        "claim": HOSTILE,
        "plan": {HOSTILE: HOSTILE},
    }
    config = {part: {"type": HOSTILE, HOSTILE: HOSTILE, "data": HOSTILE} for part in ("space", "evaluator", "searcher")}
    config |= {"reward": {"type": HOSTILE}, "data": HOSTILE, "command": HOSTILE, "seed": HOSTILE, "workers": HOSTILE}
    config |= {
        "versions": {HOSTILE: HOSTILE},
        "note": {HOSTILE: HOSTILE},
        "budget": {HOSTILE: 1},
        "limits": {HOSTILE: 2},
    }
    page = page_of(
        a_run(
            [hostile] * 10 + [failed(HOSTILE, HOSTILE, HOSTILE)],
            name="<script>alert(0)</script> \"'&".replace("/", ""),
            config=config,
            learned={HOSTILE: 1.0},
            space=HostileSpace(),
            finish=finish,
        ),
        tmp_path,
    )
    shown = re.sub(r"\s+", " ", HOSTILE)
    assert page.text.count(shown) >= 20
    assert page.tags <= {
        *("html", "head", "meta", "title", "link", "style", "body", "main", "header", "section", "nav", "footer"),
        *("h1", "h2", "h3", "p", "a", "span", "strong", "code", "pre", "ul", "li", "dl", "dt", "dd", "div", "article"),
        *("figure", "figcaption", "table", "thead", "tbody", "tr", "th", "td", "details", "summary", "blockquote"),
        *("svg", "g", "path", "defs", "use", "clippath", "rect", "text", "circle"),
    }
    assert page.source.count("<style>") == page.source.count("</style>") == 1


@given(st.text())
@settings(max_examples=200, deadline=None)
def test_any_text_is_shown_and_never_obeyed(text: str) -> None:
    page = Page(tag("p", text, cls=text, id=text))
    assert len(page.elements) == 1
    shown = escape(text)
    shown.encode("utf-8")
    assert "<" not in shown
    assert '"' not in shown
    assert escape(Html("<b>")) == "<b>"


def test_broken_text_can_be_written(tmp_path: Path) -> None:
    page = page_of(a_run([failed("error", "a name: \udcff \x00 \x1b[31m \u202e", "x" * 20000)]), tmp_path)
    assert r"a name: \udcff \x00 \x1b[31m \u202e" in page.text
    assert "its beginning is left out" in page.text
    assert not re.search("[\x00\x1b\u202e]", page.source)


def test_a_password_in_a_url_is_not_shown(tmp_path: Path) -> None:
    command = "archsmith search digits --store 'postgresql://me:s3cr:t@host:5432/db'"
    page = page_of(a_run([done(0.5)], config={"command": command}), tmp_path)
    assert "s3cr" not in page.source
    assert "postgresql://me:***@host:5432/db" in page.text
    assert redacted("sqlite:////a/b.db and 10:30 a@b.c") == "sqlite:////a/b.db and 10:30 a@b.c"


def test_the_control_is_found_named_or_refused(tmp_path: Path) -> None:
    store = MemoryStore()
    run = a_run([done(0.5)] * 3, store=store)
    assert gather(run, control=None).control is None
    assert "cannot be seen here" in page_of(run, tmp_path).text
    random_search = {"searcher": {"type": "searchers.Random"}}
    other_budget = {**random_search, "budget": {"trials": 3, "seconds": None, "epochs": None}}
    a_run([done(0.4)] * 3, store=store, name="of another budget", config=other_budget)
    a_run([done(0.4)] * 3, store=store, name="of other data", config={**random_search, "data": "sha256:other"})
    assert gather(run, control=None).control is None
    a_run([done(0.4)] * 3, store=store, name="the same", config=random_search)
    facts = gather(run, control=None)
    assert facts.control is not None
    assert facts.control.name == "the same"
    assert "differ in: data" in page_of(run, tmp_path, control="of other data").text
    a_run([], store=store, name="a run-random", config=random_search)
    facts = gather(run, control=None)
    assert facts.control is not None
    assert facts.control.name == "a run-random"
    page_of(run, tmp_path)  # the control has no trials yet
    with pytest.raises(UnknownName, match="the same"):
        write_report(run, tmp_path / "no.html", control="the sane")
    assert not (tmp_path / "no.html").exists()


def test_what_finish_found_is_shown_with_its_claim(tmp_path: Path) -> None:
    def network(name: str, accuracies: list[float]) -> FinishedNetwork:
        finals = [Final(i, 10 + i, a, 0.1, 0.9, None, None, Cost(10.0, 30.0)) for i, a in enumerate(accuracies)]
        return FinishedNetwork(
            name, f"trial 3 of <{name}>", None, 51_234, {"learning_rate": 0.1}, finals, 7, 1, Cost(45.0, 40.0)
        )

    networks = [network("found", [0.97, 0.98, 0.975]), network("residual network", [0.971, 0.972, 0.98])]
    comparison = compare(networks[0].scores, networks[1].scores, "residual network", 359)
    model = ExportedModel(1, 11, "abc", "the best on validation")
    found = Finished(
        run="a run",
        at="2026-01-01",
        plan={"seeds": 3},
        candidates={},
        networks=networks,
        comparisons=[comparison],
        model=model,
        test_count=359,
        looks=2,
        notes=["A note."],
    )
    finish = json.loads(json.dumps(found.to_json()))
    page = page_of(a_run([done(0.9)], finish=finish, looks=2), tmp_path)
    gap = "\N{NARROW NO-BREAK SPACE}"
    for said in (
        found.claim,
        "97.50 % ± 0.50",
        "3 of 3",
        "+0.07",
        "the test set of 359 images",
        "looked at 2 times",
        f"51{gap}234",
        "trial 3 of <residual network>; changed: learning_rate 0.1",
        f"Trained for 30 epochs, what was found (trial 3, 51{gap}234 parameters) has a test accuracy of 97.50 % ± 0.50",
        "writes the training of seed 1: the best on validation",
    ):
        assert said in page.text, said
    assert "has not been looked at" not in page.text


def test_a_published_network_is_not_told_as_a_search(tmp_path: Path) -> None:
    config = {"note": {"published": "nasnet_a"}, "searcher": {"type": "searchers.Random"}}
    page = page_of(a_run([done(0.5)], config=config), tmp_path)
    assert "The published network nasnet_a was trained on digits; nothing was searched." in page.text
    for other in ("An architecture search", "How the search went", "Random search searched"):
        assert other not in page.text, other


def test_a_reward_with_latency_in_it_is_told_and_narrow_axes_have_numbers(tmp_path: Path) -> None:
    outcomes: list[Any] = [done(0.5 + k / 100, epochs=1, latency=latency) for k, latency in enumerate((0.7, 1.1, 1.48))]
    page = page_of(a_run(outcomes, config={"reward": {"type": "rewards.LatencyWeighted"}}), tmp_path)
    assert "judged by its validation accuracy and its latency." in page.text
    for said in ("0.8", "1.2", "1.4"):  # the logarithmic axis of the latency
        assert f">{said}</text>" in page.source, said
    assert ">1.005</text>" not in page.source  # no part of an epoch


TEXT: dict[str, Any] = {
    "space": {"type": "spaces.RecurrentCell", "base": 2},
    "evaluator": {"type": "training.LanguageModel", "data": "ptb", "epochs": 3},
    "reward": {"type": "rewards.scaled_perplexity"},
    "dataset": {"name": "ptb", "level": "word", "vocabulary": 10_000, "train": 929_589, "validation": 73_760},
    "measure": PERPLEXITY.to_json(),
}


def told(perplexity: float, **metrics: float) -> dict[str, Any]:
    """A trial that ended with this perplexity, having begun with a thousand times as much."""
    curve = [{"epoch": e, "train_loss": 9.0, "perplexity": perplexity * 1000 ** (1 - e / 3)} for e in range(4)]
    result = Result({"perplexity": perplexity, "parameters": 2e7, **metrics}, curve, Cost(1.5, 3))
    return {"state": TrialState.DONE, "reward": 80 / perplexity**2, "result": result}


def test_a_search_by_perplexity_is_told_in_perplexity(tmp_path: Path) -> None:
    store = MemoryStore()
    space = RecurrentCell(base=2)
    random_search = {**TEXT, "searcher": {"type": "searchers.Random"}}
    a_run([told(150.0)] * 12, store=store, name="a run-random", config=random_search, space=space)
    outcomes: list[Any] = [told(200.0 - 5 * k) for k in range(20)]
    outcomes[3] = told(1e7)
    outcomes[4] = told(math.inf)
    page = page_of(a_run(outcomes, store=store, config=TEXT, space=space), tmp_path)
    gap = "\N{NARROW NO-BREAK SPACE}"
    for said in (
        "trained on ptb for 3 epochs and judged by its validation perplexity",
        f"validation perplexity 105.00, 20{gap}000{gap}000 parameters. That perplexity was used to choose it",
        "Validation perplexity 105.00",
        "Perplexity by trials",
        "Validation perplexity of each trial; lower is better. 1 trial lies outside the axis.",
        "The validation perplexity after each epoch",
        "best perplexity",
        "150.00",
        "80 divided by the square of the validation perplexity",
        "text that neither training nor search has seen",
        "A recurrent cell of base 2",
        f"vocabulary: 10{gap}000",
    ):
        assert said in page.text, said
    for other in ("accuracy", "image", "convolution", "Pareto"):
        assert other not in page.text.lower(), other
    facts = gather(Run(store, "a run", space=space), control=None)
    assert facts.control_series is not None
    assert np.nanmin(facts.series.score) == 105.0
    assert np.isnan(facts.series.score[4])


def test_what_finish_found_by_perplexity_is_shown_in_perplexity(tmp_path: Path) -> None:
    def network(name: str, scores: list[float]) -> FinishedNetwork:
        finals = [Final(i, 10 + i, s, None, 0.01, None, None, Cost(10.0, 30.0)) for i, s in enumerate(scores)]
        return FinishedNetwork(name, "from <there>", None, 51_234, {}, finals, 7, 0, Cost(45.0, 40.0))

    networks = [network("found", [64.0, 64.5, 64.1]), network("LSTM", [78.2, 78.9, 78.4])]
    comparison = compare(networks[0].scores, networks[1].scores, "LSTM", 82_430, measure=PERPLEXITY)
    model = ExportedModel(1, 11, "abc", "the best on validation")
    found = Finished("a run", "2026-01-01", {}, {}, networks, [comparison], model, 82_430, 1, [], PERPLEXITY)
    finish = json.loads(json.dumps(found.to_json()))
    page = page_of(a_run([told(70.0)], config=TEXT, space=RecurrentCell(base=2), finish=finish), tmp_path)
    gap = "\N{NARROW NO-BREAK SPACE}"
    for said in (
        "The found network is better than the LSTM: 14.30 lower test perplexity",
        "has a test perplexity of 64.20 ± 0.26 (mean of 3 seeds",
        f"on the test set of 82{gap}430 words",
        "all on one scale from 64.00 to 78.90; to the left is better",
        "difference, perplexity (less is better)",
        "−14.30",
    ):
        assert said in page.text, said
    assert "accuracy" not in page.text.lower()


def test_a_measure_of_a_strangers_making_breaks_nothing(tmp_path: Path) -> None:
    strange = Measure(HOSTILE, HOSTILE, False, HOSTILE, digits=3)
    outcomes = [told(50.0 + k, **{HOSTILE: 3.0 + k}) for k in range(12)]
    page = page_of(a_run(outcomes, config={**TEXT, "measure": strange.to_json()}, space=RecurrentCell(2)), tmp_path)
    assert "Lower is better." in page.text
    assert page.source.count("score") >= 2, "axes call it a score: no text from a store gets into a figure"
    page_of(a_run(outcomes, name="b", config={**TEXT, "measure": [HOSTILE]}, space=RecurrentCell(2)), tmp_path)


@pytest.mark.parametrize(
    "finish", [{}, [], "text", {"networks": [1, {}], "comparisons": {"a": 1}, "looks": "x"}, {"networks": None}]
)
def test_a_finish_of_another_version_does_not_break_the_page(tmp_path: Path, finish: Any) -> None:
    page_of(a_run([done(0.9)], finish=finish), tmp_path)


def test_the_best_architectures_are_drawn(tmp_path: Path) -> None:
    class Drawn(Chain):
        def diagram(self, architecture: Any) -> Diagram:
            nodes = [
                Node("in", HOSTILE, HOSTILE, "input"),
                Node("a", "3x3 conv", group=HOSTILE),
                Node("out", "classifier"),
            ]
            return Diagram(HOSTILE, tuple(nodes), (Edge("in", "a"), Edge("a", "out"), Edge("in", "out", True, HOSTILE)))

    page = page_of(a_run([done(0.9), done(0.8)], space=Drawn()), tmp_path)
    assert page.text.count("3x3 conv") >= 2
    assert page.text.count("classifier") >= 2
    assert "http:" not in page.source


def test_a_space_whose_drawing_errs_does_not_break_the_page(tmp_path: Path) -> None:
    class Crooked(Chain):
        def diagram(self, architecture: Any) -> Any:
            raise RuntimeError("a <bad> day")

    page = page_of(a_run([done(0.9)], space=Crooked()), tmp_path)
    assert "It could not be drawn: RuntimeError: a <bad> day" in page.text


def test_a_record_of_another_version_of_the_space_is_shown_by_its_answers(tmp_path: Path) -> None:
    run = a_run([done(0.9)] * 8)
    page = page_of(Run(run.store, run.name, space=Chain(layers=2)), tmp_path)
    assert "It cannot be drawn" in page.text
    assert "2.filters" in page.text


def test_what_was_chosen_is_counted_at_first_and_at_last(tmp_path: Path) -> None:
    class Led:
        """Takes 24 in the first half of the run and 64 after it."""

    store = MemoryStore()
    writer = store.create("led", CONFIG)
    identity = sample(Chain(1), random.Random(0)).space
    for k in range(16):
        first = k < 8
        answers: dict[str, Any] = {
            "0.filters": 24 if first else 64,
            "0.inputs": [],
            "0.extras": [] if first else ["pool"],
        }
        (trial,) = writer.propose([Proposal(Genotype(identity, answers))])
        writer.finish([replace(writer.start(trial.number), **done(0.9))])
    writer.close("finished")
    kinds = gather(Run(store, "led", space=Chain(1)), control=None).kinds
    assert (kinds["filters"].first, kinds["filters"].last) == ({"24": 4}, {"64": 4})
    assert kinds["inputs"].counted == "number"
    assert (kinds["extras"].counted, kinds["extras"].first, kinds["extras"].last) == ("member", {}, {"pool": 4})
    assert "+100" in page_of(Run(store, "led", space=Chain(1)), tmp_path).text


def test_a_long_run_gives_a_page_of_a_few_megabytes(tmp_path: Path) -> None:
    rng = random.Random(1)
    outcomes = [done(rng.random(), parameters=10 ** rng.uniform(3, 7)) for _ in range(6000)]
    run = a_run(outcomes, learned={"entropy": 1.0})
    page = page_of(run, tmp_path)
    assert len(page.source) < 1_500_000
    assert "an evenly spaced 2\N{NARROW NO-BREAK SPACE}000 are drawn as dots" in page.text
    assert "5\N{NARROW NO-BREAK SPACE}950 more are in the store" in page.text
    assert "Each point is the mean of 10 updates" in page.text
    assert re.search(r"20\d of 6.000, evenly spaced", page.text)


def test_few_very_bad_rewards_do_not_flatten_the_plot_and_are_told(tmp_path: Path) -> None:
    outcomes: list[Any] = [done(0.8 + 0.001 * k) for k in range(100)]
    outcomes[50] = {"state": TrialState.DONE, "reward": -1e9, "result": Result({"value": -1e9})}
    outcomes[51] = {"state": TrialState.DONE, "reward": 1e300, "result": Result({"value": 1e300})}
    assert "1 reward lies below the axis" in page_of(a_run(outcomes), tmp_path).text


def test_a_path_that_cannot_be_is_a_clear_error_and_leaves_nothing(tmp_path: Path, monkeypatch: Any) -> None:
    run = a_run([done(0.9)])
    with pytest.raises(UsageError, match="is a folder"):
        write_report(run, tmp_path)
    with pytest.raises(UsageError, match="there is no folder"):
        write_report(run, tmp_path / "none" / "page.html")
    with pytest.raises(UsageError, match="cannot be written"):
        write_report(run, tmp_path / ("x" * 300 + ".html"))
    page = write_report(run, tmp_path / "page.html")
    before = page.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UsageError, match="No space left on device"):
        write_report(run, page)
    assert page.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]


def test_a_page_can_be_read_by_others(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        assert write_report(a_run([]), tmp_path / "page.html").stat().st_mode & 0o777 == 0o644
    finally:
        os.umask(before)


@given(st.lists(st.one_of(st.none(), st.integers(-100, 100)), max_size=60), st.integers(1, 10))
@settings(deadline=None)
def test_the_moving_mean_is_the_mean_of_the_window(values: list[int | None], window: int) -> None:
    array = np.array([math.nan if v is None else v for v in values], dtype=np.float64)
    for i, mean in enumerate(moving_mean(array, window)):
        there = [v for v in values[max(0, i + 1 - window) : i + 1] if v is not None]
        assert (math.isnan(mean) and not there) or mean == pytest.approx(sum(there) / len(there))


@given(st.lists(st.tuples(st.integers(0, 8), st.one_of(st.none(), st.integers(0, 8))), max_size=40))
@settings(deadline=None)
def test_the_pareto_front_is_what_nothing_dominates(points: list[tuple[int, int | None]]) -> None:
    parameters = np.array([p for p, _ in points], dtype=np.float64)
    reward = np.array([math.nan if r is None else r for _, r in points], dtype=np.float64)
    usable = {(p, r) for p, r in points if p > 0 and r is not None}
    front = {(p, r) for p, r in usable if not any((q <= p and s > r) or (q < p and s >= r) for q, s in usable)}
    found = [(int(parameters[i]), int(reward[i])) for i in pareto_front(parameters, reward)]
    assert set(found) == front
    assert found == sorted(found)
    assert len(found) == len(front)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.25, "0.25 s"),
        (59.6, "1 min 00 s"),
        (192, "3 min 12 s"),
        (7500, "2 h 05 min"),
        (3e5, "3 d 11 h"),
        (None, "–"),
    ],
)
def test_durations_read_well(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (3.0, "3"), (0.853, "0.8530"), (123456.7, "123\N{NARROW NO-BREAK SPACE}457"), (math.nan, "nan"), (1e20, "1e+20")]
)  # fmt: skip
def test_numbers_read_well(value: float | None, text: str) -> None:
    assert number(value) == text
