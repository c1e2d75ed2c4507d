"""The document of an exported model, `model.json`: found, and refused unless it has the shape of one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from archsmith._export.export_folder import CARD, FORMAT
from archsmith._export.image_model import ImageModel
from archsmith._export.model import VERSION
from archsmith._export.tensor_model import TensorModel
from archsmith._export.text_model import TextModel
from archsmith.core.errors import UsageError
from archsmith.core.shown import shown

Kind: TypeAlias = type[ImageModel] | type[TextModel]

KINDS: dict[str, Kind] = {kind.takes: kind for kind in (ImageModel, TensorModel, TextModel)}


def kind_of(card: Mapping[str, Any]) -> Kind:
    """The kind of model that a checked document describes; of images where it was written before there were others."""
    return KINDS[card.get("takes", ImageModel.takes)]


def read_card(folder: Path) -> dict[str, Any]:
    """The content of a folder's `model.json`. Raises UsageError when it is none of ours, or of a later version."""
    path = folder / CARD
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{folder} has no {CARD}: it is not what `archsmith export` writes") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from None
    return checked_card(value, path)


def checked_card(value: Any, path: Path) -> dict[str, Any]:
    """The content of a `model.json`, once it has the shape of one."""
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise UsageError(f'{path} is not the card of an archsmith model: it has no "format": "{FORMAT}"')
    if value.get("version") != VERSION:
        raise UsageError(f"{path} is of version {shown(value.get('version'))}; this archsmith reads {VERSION}")
    takes = value.get("takes", ImageModel.takes)
    if takes not in list(KINDS):
        raise UsageError(f"{path} is of a model that takes {shown(takes)}; this archsmith knows {', '.join(KINDS)}")
    try:
        kind_of(value).check(value)
        if not isinstance(value["name"], str):
            raise ValueError(f"name must be text, got {shown(value['name'])}")
        if not isinstance(value["card"], dict):
            raise ValueError(f"card must be an object, got {type(value['card']).__name__}")
        if missing := {"kind", "space", "genotype", "architecture"} - set(value):
            raise ValueError(f"it has no {min(missing)}")
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} is damaged: {error}") from None
    return value
