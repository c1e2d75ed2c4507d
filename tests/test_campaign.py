"""The long ones: the fault campaign in full, and genotypes that were tampered with."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import archsmith as smith
from archsmith.core.errors import ArchsmithError
from archsmith.core.space import decode, sample
from fault_campaign import CAMPAIGN, Scenario, Stage

pytestmark = pytest.mark.campaign


@pytest.mark.parametrize("scenario", CAMPAIGN, ids=lambda scenario: f"{scenario.name}, {scenario.store}")
def test_faults(scenario: Scenario, tmp_path: Path) -> None:
    with Stage(tmp_path) as stage:
        assert scenario.run(stage).faults > 0


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
