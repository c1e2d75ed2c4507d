"""The public surface: what it holds, that it loads lightly, and that configurations survive JSON."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys

import pytest

import archsmith as smith
from archsmith._search.run import resolve
from archsmith.core.config import from_config, to_config
from archsmith.core.errors import UnknownName, UsageError
from archsmith.recipes import RECIPES, get_recipe


def test_every_public_name_is_there_and_sorted() -> None:
    assert smith.__all__ == sorted(smith.__all__)
    for name in smith.__all__:
        assert getattr(smith, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'serach'"):
        smith.serach  # noqa: B018


@pytest.mark.parametrize(
    "namespace", ["spaces", "searchers", "stopping", "training", "executors", "rewards", "discovered", "recipes"]
)
def test_every_name_of_a_namespace_is_there(namespace: str) -> None:
    module = importlib.import_module(f"archsmith.{namespace}")
    assert len(module.__all__) == len(set(module.__all__))
    for name in module.__all__:
        assert getattr(module, name).__doc__, f"{namespace}.{name} has no docstring"


LIGHT = [
    "archsmith",
    "archsmith.core.space",
    "archsmith.spaces",
    "archsmith.store",
    "archsmith.recipes",
    "archsmith.cli",
]


def heavy_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(' '.join(m for m in ('torch', 'ray', 'matplotlib', 'sklearn') if m in sys.modules))"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.parametrize("module", LIGHT)
def test_looking_needs_no_torch(module: str) -> None:
    assert not heavy_after(f"import {module}")


def test_the_check_above_can_fail() -> None:
    assert heavy_after("import torch") == {"torch"}


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_recipe_is_data_that_survives_json(name: str) -> None:
    recipe = get_recipe(name)
    assert recipe.name == name
    for part in (recipe.space, recipe.evaluator, recipe.searcher):
        config = json.loads(json.dumps(to_config(part)))
        assert from_config(config, resolve) == part


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(UnknownName, match="digits-hour"):
        get_recipe("digit-hour")


@pytest.mark.parametrize(
    "name", ["os.system", "builtins:eval", "spaces.os", "subprocess:run", "core.genotype.Genotype"]
)
def test_a_record_makes_nothing_but_what_archsmith_ships(name: str) -> None:
    with pytest.raises(UsageError, match="not part of archsmith"):
        from_config({"type": name, "command": "true"}, resolve)


def test_a_record_with_a_field_too_many_is_refused() -> None:
    with pytest.raises(UsageError, match="no field 'height'"):
        from_config({"type": "training.Landscape", "height": 3}, resolve)


@pytest.mark.parametrize(
    ("former", "name", "module"),
    [("data", "load", "images"), ("data", "ImageData", "images"), ("image_folder", "read_picture", "image_folder")],
)
def test_a_module_that_moved_works_under_its_former_name_and_says_so(former: str, name: str, module: str) -> None:
    with pytest.warns(DeprecationWarning, match=f"archsmith.data.{module}"):
        moved = getattr(importlib.import_module(f"archsmith.training.{former}"), name)
    assert moved is getattr(importlib.import_module(f"archsmith.data.{module}"), name)


def test_images_in_memory_keep_the_name_that_runs_have_recorded() -> None:
    assert to_config(smith.training.Arrays("0" * 64, 3)) == {"type": "training.Arrays", "sha256": "0" * 64, "images": 3}
