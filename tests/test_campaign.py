"""The long ones: a driver killed again and again on real files, and genotypes that were tampered with."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import archsmith as smith
from archsmith.core.errors import ArchsmithError
from archsmith.core.space import decode, sample

pytestmark = pytest.mark.campaign

SEARCH = """
import archsmith as smith
from archsmith._search.run import Run
from archsmith.store import open_store
store, parts = open_store("sqlite:///runs.db"), dict(trials=1500)
names = [run.name for run in store.runs()]
if "r" in names:
    Run(store, "r").resume(**parts)
else:
    smith.search(smith.spaces.ConvChain(layers=6), smith.training.Landscape(noise=0.01),
                 searcher=smith.searchers.Reinforce(learning_rate=1e-2), store=store, name="r", seed=11, **parts)
"""


def test_a_driver_killed_thirty_times_loses_nothing_and_ends_as_one_that_was_not(tmp_path: Path) -> None:
    whole = smith.search(
        smith.spaces.ConvChain(layers=6),
        smith.training.Landscape(noise=0.01),
        searcher=smith.searchers.Reinforce(learning_rate=1e-2),
        trials=1500,
        store="memory://",
        seed=11,
    )
    rng, seen, kills = random.Random(0), dict[int, float](), 0
    while kills < 30:
        process = subprocess.Popen([sys.executable, "-c", SEARCH], cwd=tmp_path)
        time.sleep(rng.uniform(1.5, 4.0))
        ended = process.poll() is not None
        process.kill()
        process.wait()
        kills += 1
        if not (tmp_path / "runs.db").exists():
            continue
        run = smith.open_run(str(tmp_path / "runs.db"), "r")
        finished = {t.number: t.reward for t in run.trials() if t.state.is_finished}
        assert seen.items() <= finished.items(), "a finished trial was lost or changed"
        seen = finished
        if ended:
            break
    subprocess.run([sys.executable, "-c", SEARCH], cwd=tmp_path, check=True)
    run = smith.open_run(str(tmp_path / "runs.db"), "r")
    assert [(t.genotype, t.reward) for t in run.trials()] == [(t.genotype, t.reward) for t in whole.trials()]


SPACES = [
    smith.spaces.ConvChain(layers=3),
    smith.spaces.ConvChain(layers=3, layer_types=("conv", "max_pool", "lcn", "fc"), learning_rates=(0.1, 0.01)),
    smith.spaces.ConvChain(depths=(2, 4), strides=(1, 2, 3)),
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=20_000, deadline=None, suppress_health_check=list(HealthCheck))
@given(space=st.sampled_from(SPACES), seed=st.integers(0, 999), data=st.data())
def test_a_tampered_genotype_is_refused_in_words_or_is_legal(space: Any, seed: int, data: st.DataObject) -> None:
    value = sample(space, random.Random(seed)).to_json()
    value = json.loads(json.dumps(value))
    for _ in range(data.draw(st.integers(0, 3))):
        part = data.draw(st.sampled_from(["answers", "space", "whole"]))
        target = value if part == "whole" else value.get(part)
        if not isinstance(target, dict):
            break
        keys = sorted(target, key=str)
        key = data.draw(st.sampled_from(keys) | st.text(max_size=8)) if keys else data.draw(st.text(max_size=8))
        if data.draw(st.booleans()):
            target[key] = data.draw(JSON)
        else:
            target.pop(key, None)
    try:
        genotype = smith.Genotype.from_json(value)
        architecture = decode(space, genotype)
    except ArchsmithError as error:
        assert str(error)  # noqa: PT017 - most of them are refused, and some are legal
    else:
        assert smith.build(space, architecture, input_shape=(1, 8, 8), num_classes=2) is not None
